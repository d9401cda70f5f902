"""`gptface evaluate inpaint` and `gptface evaluate unmask`: what fills a hole, beside OpenCV's inpainting and the mean face.

The hole is painted over before the model sees the face. All figures compare with the untouched face: PSNR inside the hole; LPIPS
of the whole crop, where everything outside the hole is the same for all, so that the hole alone makes the difference.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gptface.processing.masks import fill_from_edges

from .common import print_report
from .crops import PerceptualDistance, add_crop_options, first_crops, psnr
from .hole_shapes import HOLES, cover, mean_face_fill
from .sheet import save_sheet

PROMPT = "a face"
KINDS = {"inpaint": ("rectangles", "scratches"), "unmask": ("lower_face",)}


def add_parser(kinds: Any) -> None:
    texts = {
        "inpaint": "fill rectangles and scratches, beside simple baselines",
        "unmask": "redraw the lower face under a painted mask, beside simple baselines",
    }
    for kind, text in texts.items():
        parser = kinds.add_parser(kind, help=text)
        add_crop_options(parser, judge=False)
        parser.add_argument("--prompt", default=PROMPT, help="what the face is")
        parser.add_argument("--sheet", type=Path, help="picture of all faces and what filled their holes")
        parser.set_defaults(run=run_holes, holes=KINDS[kind])


def run_holes(options: argparse.Namespace) -> int:
    from gptface.commands.common import check_output, load_pipeline

    if options.sheet is not None:
        check_output(options.sheet)
    distance = PerceptualDistance(options.lpips_weights)
    pipeline = load_pipeline("guided-face-editing", options.model)
    crops = first_crops(options.data, options.limit, pipeline.face_size, layout=options.layout)
    faces = [crop.image for crop in crops]
    report: dict[str, Any] = {"images": len(faces), "prompt": options.prompt}
    sheet: dict[str, Sequence[Image.Image]] = {"photo": faces}
    for name in options.holes:
        report[name], rows = fill_holes(pipeline, faces, name, options.prompt, distance)
        sheet |= {f"{name}: {row}": pictures for row, pictures in rows.items()}
    print_report(report, options.json)
    if options.sheet is not None:
        save_sheet(sheet, options.sheet)
    return 0


def fill_holes(
    pipeline: Any, faces: Sequence[Image.Image], name: str, prompt: str, distance: PerceptualDistance
) -> tuple[dict[str, Any], dict[str, list[Image.Image]]]:
    """
    Holes of one kind in all faces, filled in each way.

    Args:
        pipeline: of the task guided-face-editing.
        faces: crops of its size.
        name: key of `HOLES`.

    Returns:
        way (`model`, `opencv`, `mean_face`) → `psnr`, `lpips`, with `changed_outside` and `seconds` of the model; and the
        pictures of each way and of the covered faces.
    """
    make_hole, colour = HOLES[name]
    holes = [make_hole(face.width, row, 0) for row, face in enumerate(faces)]
    covered = [cover(face, hole, colour) for face, hole in zip(faces, holes, strict=True)]
    start = time.perf_counter()
    model = [
        pipeline(picture, prompt=prompt, strict=False, mask_image=hole, hole=True, seed=0, aligned=True)[0]["image"]
        for picture, hole in zip(covered, holes, strict=True)
    ]
    seconds = (time.perf_counter() - start) / len(faces)
    filled = {
        "model": model,
        # also what the pipeline lays below what it redraws
        "opencv": [fill_from_edges(picture, hole) for picture, hole in zip(covered, holes, strict=True)],
        "mean_face": [mean_face_fill(faces, index, hole) for index, hole in enumerate(holes)],
    }
    figures: dict[str, Any] = {
        way: {
            "psnr": float(
                np.mean(
                    [
                        psnr(np.asarray(picture), np.asarray(face), hole)
                        for picture, face, hole in zip(pictures, faces, holes, strict=True)
                    ]
                )
            ),
            "lpips": distance.mean(pictures, list(faces)),
        }
        for way, pictures in filled.items()
    }
    figures["model"] |= {
        "changed_outside": sum(
            int(((np.asarray(picture) != np.asarray(face)).any(-1) & ~hole).sum())
            for picture, face, hole in zip(model, faces, holes, strict=True)
        ),
        "seconds": seconds,
    }
    return figures, {"covered": covered, **filled}
