"""The command `gptface prepare`."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("prepare", help="turn raw pairs of pictures and texts into shards of aligned faces")
    parser.add_argument("input", help="parquet file, tar, folder or pattern of them, or folder of pictures with .txt")
    parser.add_argument("output", type=Path, help="folder of the shards; a stopped run goes on there")
    parser.add_argument("--min-face", type=int, default=64, metavar="PIXELS", help="smaller faces are left out")
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="side of the crops")
    parser.add_argument("--faces", default="largest", choices=("largest", "all"), help="which faces of a photo")
    parser.add_argument("--format", default="webp", choices=("webp", "png"), help="of the crops")
    parser.add_argument("--min-letters", type=int, default=2, metavar="N", help="shorter captions are none")
    parser.add_argument("--max-caption", type=int, default=256, metavar="N", help="characters; longer ones are cut")
    parser.add_argument("--keep-uncaptioned", action="store_true", help="keep faces without a usable caption too")
    parser.add_argument(
        "--max-distance", type=int, default=16, metavar="BITS", help="of 144 in which duplicates differ; -1 keeps all"
    )
    parser.add_argument("--shard-size", type=int, default=10_000, metavar="FACES", help="faces in a shard")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine")
    parser.add_argument("--ray", action="store_true", help="run on Ray Data instead: one machine or a cluster")
    parser.add_argument("--json", action="store_true", help="print the statistics as one JSON object")
    parser.set_defaults(run=run_prepare)


def run_prepare(options: argparse.Namespace) -> int:
    import json

    from gptface.data.caption_cleaning import CaptionRules
    from gptface.data.preparation import PreparationOptions
    from gptface.data.preparation_run import run_preparation

    statistics = run_preparation(
        options.input,
        options.output,
        PreparationOptions(
            min_face=options.min_face,
            size=options.size,
            faces=options.faces,
            image_format=options.format,
            captions=CaptionRules(options.min_letters, options.max_caption),
            keep_uncaptioned=options.keep_uncaptioned,
            max_distance=options.max_distance,
            shard_size=options.shard_size,
        ),
        workers=options.workers,
        use_ray=options.ray,
    )
    if options.json:
        print(json.dumps(statistics))
        return 0
    for unit, total in (("samples", "read"), ("faces", "found")):
        counts = statistics[unit]
        print(f"{unit}: {counts[total]} {total}, {counts['kept']} kept")
        for reason, count in counts["skipped"].items():
            print(f"  {reason}: {count}")
    for reason, count in statistics["refused_members"].items():
        print(f"refused: {reason}: {count}")
    print(f"{options.output}: {statistics['shards']} shards, {statistics['bytes']:,} bytes, {statistics['seconds']} s")
    return 0
