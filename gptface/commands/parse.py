"""The command `gptface parse`."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from .common import add_face_options, face_index, plain, report_error


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("parse", help="what each part of a face shows: skin, hair, eyeglasses, …")
    parser.add_argument("photo", help="file or address")
    parser.add_argument("-o", "--output", type=Path, help="picture of the photo with the classes in colours over it")
    add_face_options(parser)
    parser.set_defaults(run=run_parse)


def run_parse(options: argparse.Namespace) -> int:
    from gptface.pipelines.pipeline_loading import load_pipeline
    from gptface.processing.face_parsing import overlay
    from gptface.processing.image_loading import load_image
    from gptface.processing.image_saving import check_output, save_picture

    if options.output is not None:
        check_output(options.output)
        if os.path.realpath(options.output) == os.path.realpath(options.photo):
            raise ValueError(f"{options.photo} would be overwritten: name another file")
    parse = load_pipeline("face-parsing", options.model)
    labels = list(parse.model.face_parser.config.class_names)
    photo = load_image(options.photo)
    result = parse(photo, face=face_index(options.face), aligned=options.aligned, on_error="return")
    if report_error(options.photo, result, options.json):
        return 2
    for segments in result if options.face == "all" else [result]:
        shares = {each["label"]: each["mask"].histogram()[255] / (photo.width * photo.height) for each in segments}
        scores = {each["label"]: round(each["score"], 3) for each in segments}
        if options.json:
            shown = [{"label": name, "share": shares[name], "score": scores[name]} for name in shares]
            print(json.dumps({"photo": options.photo, "classes": shown}))
        else:
            told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            print(plain(f"{options.photo}: {told}"))
        if options.output is not None:
            photo = overlay(photo, {labels.index(each["label"]): each["mask"] for each in segments})
    if options.output is not None:
        save_picture(photo, options.output)
    return 0
