"""The command `gptface caption`."""

import argparse
import json
from typing import Any

from .common import add_decoding_options, add_face_options, decoding_parameters, face_index, report_error


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("caption", help="describe the faces in photos")
    parser.add_argument("photos", nargs="+")
    parser.add_argument(
        "--tokens", type=int, action="append", help="length of the caption; several are tried and ranked by match"
    )
    parser.add_argument("--candidates", type=int, help="captions of each length to choose the best match from")
    add_decoding_options(parser)
    add_face_options(parser)
    parser.set_defaults(run=run_caption)


def run_caption(options: argparse.Namespace) -> int:
    from gptface.pipelines.pipeline_loading import load_pipeline

    describe = load_pipeline("face-captioning", options.model)
    results = describe(
        options.photos,
        num_tokens=options.tokens,
        num_captions=options.candidates,
        face=face_index(options.face),
        aligned=options.aligned,
        on_error="return",
        **decoding_parameters(options),
    )
    failed = False
    for photo, result in zip(options.photos, results, strict=True):
        if report_error(photo, result, options.json):
            failed = True
            continue
        for face in result if options.face == "all" else [result]:
            best = face[0]
            print(json.dumps({"photo": photo, **best}) if options.json else f"{photo}: {best['caption']}")
    return 2 if failed else 0
