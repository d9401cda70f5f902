"""`gptface evaluate parsing`: how well the face parser tells skin, hair, eyeglasses and the rest apart."""

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gptface.data.face_masks import wear_face_masks
from gptface.data.face_parsing_data import ParsedFaces, read_parsed_faces
from gptface.metrics.segmentation_scores import intersection_over_union
from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
from gptface.training.face_parser_training import load_face_parser, parsing_confusion

from .progress import progress

TIMED_FACES = 10
FACES_AT_ONCE = 16
#: Classes that nearly every face shows; their mean is one figure that single faces with hats or earrings do not move.
COMMON_CLASSES = (
    "background",
    "skin",
    "nose",
    "eye",
    "brow",
    "mouth",
    "upper_lip",
    "lower_lip",
    "hair",
    "neck",
)


def run_parsing(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of the face parser of a checkpoint."""
    parser = load_face_parser(options.model or DEFAULT_CHECKPOINT)
    faces = read_parsed_faces([Path(options.data)], parser.config.image_size, options.limit)
    if options.face_masks:
        faces = wear_face_masks(faces)
    return evaluate_parsing(parser, faces)


def evaluate_parsing(parser: GPTFaceParser, faces: ParsedFaces) -> dict[str, Any]:
    """
    Figures of a parser on faces with masks.

    Returns:
        `iou` of each class over all pixels (None where there is nothing of it), `mean_iou` over the classes that are
        there, `common_mean_iou` over `COMMON_CLASSES`, `pixel_accuracy`, `milliseconds_per_face` (median) and
        `images`.
    """
    parser = parser.eval().to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    batches = list(zip(faces.images.split(FACES_AT_ONCE), faces.masks.split(FACES_AT_ONCE), strict=True))
    counts = torch.stack([parsing_confusion(parser, *batch) for batch in progress(batches, "batches of faces")]).sum(0)
    scores = intersection_over_union(counts)
    shown = counts.sum(1) > 0
    names = parser.config.class_names
    found = {name: float(scores[index]) for index, name in enumerate(names) if shown[index]}
    common = [found[name] for name in COMMON_CLASSES if name in found]
    return {
        "iou": {name: found.get(name) for name in names},
        "mean_iou": float(scores[shown].mean()),
        "common_mean_iou": sum(common) / len(common) if common else None,
        "pixel_accuracy": float(counts.diagonal().sum() / counts.sum()),
        "milliseconds_per_face": median(_milliseconds(parser, image) for image in faces.images[:TIMED_FACES]),
        "images": len(faces.images),
    }


@torch.no_grad()
def _milliseconds(parser: GPTFaceParser, image: torch.Tensor) -> float:
    pixels = image.permute(2, 0, 1)[None].float() / 127.5 - 1
    start = time.perf_counter()
    parser(pixels)
    return 1000 * (time.perf_counter() - start)
