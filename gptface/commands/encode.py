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
        "--layout", help='"celeba" (default of parquet files), "aligned" (of all others), "fer48" or "utkface128"'
    )
    parser.add_argument("--no-flips", action="store_true", help="do not encode mirror images too")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="encode each N-th picture only")
    parser.set_defaults(run=run_encode)


def run_encode(options: argparse.Namespace) -> int:
    from collections import Counter

    from gptface import DEFAULT_CHECKPOINT
    from gptface.training.encode import encode_dataset
    from gptface.training.image_tokenizer_init import load_image_tokenizer

    tokenizer = load_image_tokenizer(options.image_tokenizer or DEFAULT_CHECKPOINT)
    layout = options.layout or ("celeba" if Path(options.data).suffix == ".parquet" else "aligned")
    refused: Counter[str] = Counter()
    rows = encode_dataset(
        options.data, options.output, tokenizer, layout, not options.no_flips, options.every, refused
    )
    reasons = "".join(f"; {count} skipped: {reason}" for reason, count in sorted(refused.items()))
    print(f"{options.output}: {rows} rows{reasons}")
    return 0
