"""`gptface evaluate inpaint` and `gptface evaluate unmask`: what fills a hole, beside OpenCV's inpainting and the mean
face.

The hole is painted over before the model sees the face. All figures compare with the untouched face: PSNR inside the
hole; LPIPS of the whole crop, where everything outside the hole is the same for all, so that the hole alone makes the
difference. Masks that are worn are painted on faces whose parts are known; the model finds them itself.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface.data.face_masks import faces_before_and_after
from gptface.data.face_parsing_data import read_parsed_faces
from gptface.metrics.change_scores import colour_difference, inner_ring
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.image_saving import check_output
from gptface.processing.masks import fill_from_edges, widen

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
    if getattr(options, "face_masks", False):
        return run_worn_masks(pipeline, options, distance)
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


#: What takes a mask off; sides of the picture by which OpenCV's hole is wider than the mask, and pixels of a seam.
TAKE_OFF, WIDER, SEAM = "remove the mask", 3 / 128, 8


def run_worn_masks(pipeline: Any, options: argparse.Namespace, distance: PerceptualDistance) -> dict[str, Any]:
    """
    Masks painted on faces of `options.data`, whose parts are known, taken off at the size of the pictures.

    Returns:
        `worn`: way (`model`, `opencv`, which is told where the mask is) → `psnr`, `lpips` where the mask was,
        `delta_e`, `seam_lpips` of the outermost pixels there; of the model also `found`, the share of the masks of
        which at least half was drawn over, and `seconds`.
    """
    worn = list(faces_before_and_after(read_parsed_faces([options.data], limit=options.limit)))
    if not worn:
        raise ValueError(f"no face of {options.data} shows skin where a mask would be")
    bare, covered = ([Image.fromarray(each[side]) for each in worn] for side in (0, 1))
    areas = [classes == FACE_CLASSES.index("face_mask") for _, _, classes in worn]
    start = time.perf_counter()
    results = [
        pipeline(picture, prompt=TAKE_OFF, seed=0, aligned=True)[0] for picture in progress(covered, "worn masks")
    ]
    seconds = (time.perf_counter() - start) / len(covered)
    model = [result["image"] for result in results]
    opencv = [fill_from_edges(picture, widen(area, WIDER)) for picture, area in zip(covered, areas, strict=True)]
    drawn = [np.asarray(result["mask"])[area].mean() / 255 for result, area in zip(results, areas, strict=True)]
    figures = {
        way: _figures_within(pictures, bare, areas, distance)
        for way, pictures in (("model", model), ("opencv", opencv))
    }
    figures["model"] |= {"found": float(np.mean([share > 0.5 for share in drawn])), "seconds": seconds}
    if options.sheet is not None:
        save_sheet({"photo": bare, "worn": covered, "model": model, "opencv": opencv}, options.sheet)
    return {"images": len(covered), "prompt": TAKE_OFF, "worn": figures}


def _figures_within(
    pictures: Sequence[Image.Image],
    targets: Sequence[Image.Image],
    areas: Sequence[np.ndarray],
    distance: PerceptualDistance,
) -> dict[str, float | None]:
    """Means over pictures of how they differ from their targets in areas and the outermost pixels of these."""
    rows: dict[str, list[float | None]] = {"psnr": [], "lpips": [], "delta_e": [], "seam_lpips": []}
    for picture, target, area in zip(pictures, targets, areas, strict=True):
        given, wanted, ring = np.asarray(picture), np.asarray(target), inner_ring(area, SEAM)
        rows["psnr"].append(psnr(given, wanted, area))
        rows["lpips"].append(distance.within(picture, target, area))
        rows["delta_e"].append(float(colour_difference(wanted, given)[ring].mean()))
        rows["seam_lpips"].append(distance.within(picture, target, ring))
    return {name: None if None in values else float(np.mean(values)) for name, values in rows.items()}  # type: ignore[arg-type]


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
