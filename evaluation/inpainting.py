"""`gptface evaluate inpaint` and `gptface evaluate unmask`: what fills a hole, beside OpenCV's inpainting and the mean
face.

The hole is painted over before the model sees the face. All figures compare with the untouched face: PSNR inside the
hole; LPIPS of the whole crop, where everything outside the hole is the same for all, so that the hole alone makes the
difference.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.image_saving import check_output
from gptface.processing.masks import fill_from_edges

from .crops import PerceptualDistance, first_crops, psnr
from .hole_shapes import HOLES, cover, mean_face_fill
from .progress import progress
from .sheet import save_sheet


def run_holes(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of each kind of hole in `options.holes`, and the sheet."""
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
    if options.sheet is not None:
        save_sheet(sheet, options.sheet)
    return report


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
        way (`model`, `opencv`, `mean_face`) → `psnr`, `lpips`, with `changed_outside` and `seconds` of the model; and
        the pictures of each way and of the covered faces.
    """
    make_hole, colour = HOLES[name]
    holes = [make_hole(face.width, row, 0) for row, face in enumerate(faces)]
    covered = [cover(face, hole, colour) for face, hole in zip(faces, holes, strict=True)]
    start = time.perf_counter()
    model = [
        pipeline(picture, prompt=prompt, strict=False, mask_image=hole, hole=True, seed=0, aligned=True)[0]["image"]
        for picture, hole in progress(list(zip(covered, holes, strict=True)), name.replace("_", " "))
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
