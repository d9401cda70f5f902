"""The command `gptface caption`."""

import argparse
from typing import Any

from .common import add_decoding_options, add_face_options, decoding_parameters, face_index
from .photos import Photo, add_log_option, add_photo_options, each_photo, find_photos, open_log


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("caption", help="describe the faces in photos")
    add_photo_options(parser)
    parser.add_argument(
        "--tokens", type=int, action="append", help="length of the caption; several are tried and ranked by match"
    )
    parser.add_argument("--candidates", type=int, help="captions of each length to choose the best match from")
    add_decoding_options(parser)
    add_face_options(parser)
    add_log_option(parser)
    parser.set_defaults(run=run_caption)


def run_caption(options: argparse.Namespace) -> int:
    from gptface.pipelines.pipeline_loading import load_pipeline

    photos = find_photos(options.photos, options.recursive)
    parameters = {
        "num_tokens": options.tokens,
        "num_captions": options.candidates,
        "face": face_index(options.face),
        "aligned": options.aligned,
        **decoding_parameters(options),
    }
    log = open_log(options, parameters)

    def tell(photo: Photo, result: Any) -> tuple[dict[str, Any], list[str]]:
        best = [face[0] for face in (result if options.face == "all" else [result])]
        report = {"faces": best} if options.face == "all" else best[0]
        return report, [f"{photo.source}: {each['caption']}" for each in best]

    return each_photo(load_pipeline("face-captioning", options.model), photos, options, tell, log, **parameters)
