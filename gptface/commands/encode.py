"""The command `gptface encode`."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("encode", help="encode a parquet file of aligned faces into codes, once")
    parser.add_argument("data", type=Path, help="parquet file with an `image` column")
    parser.add_argument("output", type=Path, help="folder of the parts; a stopped run goes on there")
    parser.add_argument("--image-tokenizer", help="folder of an image tokenizer; the embedded one by default")
    parser.add_argument("--layout", default="celeba", help='"celeba", "aligned", "fer48" or "utkface128"')
    parser.add_argument("--no-flips", action="store_true", help="do not encode mirror images too")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="encode each N-th row only")
    parser.set_defaults(run=run_encode)


def run_encode(options: argparse.Namespace) -> int:
    from gptface import DEFAULT_CHECKPOINT, GPTFaceImageTokenizer, GPTFaceModel
    from gptface.training.encode import encode_parquet

    if options.image_tokenizer:
        tokenizer = GPTFaceImageTokenizer.from_pretrained(options.image_tokenizer)
    else:
        tokenizer = GPTFaceModel.from_pretrained(DEFAULT_CHECKPOINT).image_tokenizer
    rows = encode_parquet(options.data, options.output, tokenizer, options.layout, not options.no_flips, options.every)
    print(f"{options.output}: {rows} rows")
    return 0
