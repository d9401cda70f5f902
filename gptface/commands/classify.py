"""The commands `gptface classify` and `gptface expression`."""

import argparse
import contextlib
from typing import Any

from .common import add_face_options, face_index
from .photos import Photo, add_log_option, add_photo_options, each_photo, find_photos, open_log


def add_parser(commands: Any) -> None:
    """Adds `classify` and `expression`."""
    classify = _add_classifier(commands, "classify", None, "face attributes, or the labels of another head,")
    classify.add_argument(
        "--head",
        help="a head of the checkpoint, such as expression; by default that which it was saved with, else attributes",
    )
    _add_classifier(commands, "expression", "expression", "facial expression")


def _add_classifier(commands: Any, name: str, head: str | None, what: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=f"{what} of the faces in photos")
    add_photo_options(parser)
    parser.add_argument("--top-k", type=int, help="labels a face, the best; 5 by default, with --threshold all")
    parser.add_argument("--threshold", type=_threshold, help='least score, or "auto": the thresholds of fine-tuning')
    add_face_options(parser)
    add_log_option(parser)
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

    photos = find_photos(options.photos, options.recursive)
    parameters = {
        "top_k": options.top_k or (5 if options.threshold is None else None),
        "threshold": options.threshold,
        "face": face_index(options.face),
        "aligned": options.aligned,
    }
    log = open_log(options, {"head": options.head, **parameters})

    def tell(photo: Photo, result: Any) -> tuple[dict[str, Any], list[str]]:
        faces = result if options.face == "all" else [result]
        lines = [
            f"{photo.source}: " + ", ".join(f"{entry['label']} {entry['score']:.2f}" for entry in face)
            for face in faces
        ]
        return {"scores": result}, lines

    classify = load_pipeline("face-classification", options.model, head=options.head)
    return each_photo(classify, photos, options, tell, log, **parameters)
