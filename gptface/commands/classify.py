"""The commands `gptface classify` and `gptface expression`."""

import argparse
import contextlib
import json
from typing import Any

from .common import add_face_options, face_index, report_error


def add_parser(commands: Any) -> None:
    """Adds `classify` and `expression`."""
    classify = _add_classifier(commands, "classify", None, "face attributes, or the labels of another head,")
    classify.add_argument(
        "--head",
        help="a head of the checkpoint, such as expression; the one that it was saved with, or its first, by default",
    )
    _add_classifier(commands, "expression", "expression", "facial expression")


def _add_classifier(commands: Any, name: str, head: str | None, what: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=f"{what} of the faces in photos")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--threshold", type=_threshold, help='least score, or "auto": the thresholds of fine-tuning')
    add_face_options(parser)
    parser.set_defaults(run=run_classify, head=head)
    return parser


def _threshold(value: str) -> float | str:
    if value == "auto":
        return value
    with contextlib.suppress(ValueError):
        if 0 <= float(value) <= 1:
            return float(value)
    raise argparse.ArgumentTypeError(f'must be a score in 0…1 or "auto", got {value!r}')


def run_classify(options: argparse.Namespace) -> int:
    from gptface.pipelines.pipeline_loading import load_pipeline

    classify = load_pipeline("face-classification", options.model, head=options.head)
    results = classify(
        options.photos,
        top_k=options.top_k,
        threshold=options.threshold,
        face=face_index(options.face),
        aligned=options.aligned,
        on_error="return",
    )
    failed = False
    for photo, result in zip(options.photos, results, strict=True):
        if report_error(photo, result, options.json):
            failed = True
        elif options.json:
            print(json.dumps({"photo": photo, "scores": result}))
        else:
            for face in [result] if options.face != "all" else result:
                print(f"{photo}: " + ", ".join(f"{entry['label']} {entry['score']:.2f}" for entry in face))
    return 2 if failed else 0
