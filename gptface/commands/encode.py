"""The command `gptface encode`."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("encode", help="encode a data set of aligned faces into codes, once")
    parser.add_argument(
        "data",
        help="parquet file with an `image` column, webdataset tars (also as a pattern), or a folder of pictures",
    )
    parser.add_argument("output", type=Path, help="folder of the parts; a stopped run goes on there")
    parser.add_argument(
        "--image-tokenizer", help="folder of an image tokenizer or a model; the embedded one by default"
    )
    parser.add_argument(
        "--layout",
        help='"celeba" (default of parquet files), "aligned" (of all others), "detected" (any photo of a face), '
        '"fer48", "rafdb100" or "utkface128"',
    )
    parser.add_argument(
        "--label-with",
        metavar="MODEL",
        help="folder of a model whose attribute head labels the faces where it is sure and the data say nothing",
    )
    parser.add_argument("--no-flips", action="store_true", help="do not encode mirror images too")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="encode each N-th picture only")
    parser.set_defaults(run=run_encode)


def run_encode(options: argparse.Namespace) -> int:
    from collections import Counter

    from gptface import DEFAULT_CHECKPOINT
    from gptface.data.encode import encode_dataset
    from gptface.training.image_tokenizer_init import load_image_tokenizer

    tokenizer = load_image_tokenizer(options.image_tokenizer or DEFAULT_CHECKPOINT)
    layout = options.layout or ("celeba" if Path(options.data).suffix == ".parquet" else "aligned")
    labeller = None
    if options.label_with:
        from gptface import GPTFaceForFaceAttributeClassification
        from gptface.data.confident_labels import ConfidentLabeller

        model = GPTFaceForFaceAttributeClassification.from_pretrained(options.label_with)
        if model.image_tokenizer.fingerprint() != tokenizer.fingerprint():
            raise ValueError(
                f"{options.label_with} reads codes of another image tokenizer: pass it as --image-tokenizer, too"
            )
        labeller = ConfidentLabeller(model)
    refused: Counter[str] = Counter()
    rows = encode_dataset(
        options.data, options.output, tokenizer, layout, not options.no_flips, options.every, refused, labeller
    )
    reasons = "".join(f"; {count} skipped: {reason}" for reason, count in sorted(refused.items()))
    print(f"{options.output}: {rows} rows{reasons}")
    return 0
