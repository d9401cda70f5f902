"""`gptface evaluate sharpness`, `seam` and `area`: what the eye sees of an edit and a judge of attributes does not.

Photos are edited whole, at their own resolution, with the pipeline's defaults and seed 0: the first in file order that
are not known to show already what the edit is to bring about.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gptface.data.sources import read_samples
from gptface.metrics.change_scores import (
    change_share,
    colour_difference,
    inner_ring,
    overlap,
    sharpness_ratio,
)
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.detection import FaceNotFoundError
from gptface.processing.edits import EDITS, Edit
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.image_loading import ImageInputError, load_image, to_rgb

from .crops import PerceptualDistance
from .progress import progress

logger = logging.getLogger(__name__)

#: Pixels of the ring in which an edit meets the photo.
RING = 8
#: Probability from which on a pixel shows a class. A parser's doubt is no share of a pixel: the middle of hair that is
#: background by a twentieth is hair.
SHOWN = 0.5
#: What no edit of a face is about: its name in the report → classes of the parser.
ELSEWHERE = {"ears": ("ears", "jewellery"), "background": ("background",), "clothes": ("cloth",)}


def run_changes(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of the kind `options.kind` for each edit."""
    edits = [find_edit(name) for name in options.edits.split(",")]
    distance = PerceptualDistance(options.lpips_weights) if options.kind == "seam" else None
    pipeline = load_pipeline("guided-face-editing", options.model)
    photos = first_photos(options.data, options.limit, pipeline, options.aligned, parse=options.kind == "area")
    report: dict[str, Any] = {"images": len(photos)}
    for edit in edits:
        changes = changes_by(pipeline, edit, photos, options.aligned)
        if options.kind == "sharpness":
            figures = sharpness_figures(changes)
        elif distance is not None:
            figures = seam_figures(changes, distance)
        else:
            figures = area_figures(changes, hair_colour=edit.kind == "colour")
        report[edit.name] = {"edited": len(changes), **figures}
    return report


def find_edit(name: str) -> Edit:
    """An edit of the table; raises `ValueError` with the known names for another."""
    if name not in EDITS:
        raise ValueError(f"--edits: no edit is called {name!r}; there are {', '.join(EDITS)}")
    return EDITS[name]


@dataclass(frozen=True, eq=False)
class Photo:
    """
    Args:
        image: RGB.
        labels: attribute → 0/1, as far as known.
        parsing: what its face and the surroundings show; None where nobody needs it.
    """

    image: Image.Image
    labels: Mapping[str, int]
    parsing: FaceParsing | None = None


@dataclass(frozen=True, eq=False)
class Change:
    """
    An edit of a photo.

    Args:
        photo: what it was.
        edited: what it became, uint8 [H, W, 3].
        mask: how much of each pixel is the edit's, uint8 [H, W].
    """

    photo: Photo
    edited: np.ndarray
    mask: np.ndarray

    @property
    def before(self) -> np.ndarray:
        """The photo's pixels, uint8 [H, W, 3]."""
        return np.asarray(self.photo.image)

    @property
    def area(self) -> np.ndarray:
        """What is mostly the edit's, bool [H, W]."""
        return self.mask > 127


def first_photos(
    path: str | Path, limit: int, pipeline: Any, aligned: bool = False, parse: bool = False
) -> list[Photo]:
    """
    The first `limit` photos of a collection in which a face is found; fewer where it holds fewer.

    Args:
        pipeline: of the task guided-face-editing.
        aligned: the photos are face crops already.
        parse: whether the model's parser is to look at them.

    Raises:
        FileNotFoundError: there is no such collection.
        ValueError: a limit below 1, no photo with a face, or a model without a parser.
    """
    if limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    photos: list[Photo] = []
    refused: Counter[str] = Counter()
    for sample in read_samples(path, refused):
        try:
            image = to_rgb(load_image(sample.image, name=sample.key))
            face = pipeline.find_faces(image, aligned=aligned)[0]
        except (ImageInputError, FaceNotFoundError) as error:
            logger.warning("%s is left out: %s", sample.key, error)
            continue
        labels = {name: value for name, value in sample.columns.items() if value in (0, 1)}
        photos.append(Photo(image, labels, pipeline.parse_face(image, face.matrix) if parse else None))
        if len(photos) == limit:
            break
    if refused:
        logger.warning("%s: left out: %s", path, dict(refused))
    if not photos:
        raise ValueError(
            f"{path} holds no photo in which a face is found" + ("" if aligned else "; --aligned for crops")
        )
    return photos


def changes_by(pipeline: Any, edit: Edit, photos: Iterable[Photo], aligned: bool = False) -> list[Change]:
    """
    An edit of all photos that are not known to show already what it is to bring about; without those where no pixel
    changed.
    """
    changes = []
    for photo in progress(photos, edit.phrase):
        if edit.target is not None and photo.labels.get(edit.target.label) == edit.target.value:
            continue
        result = pipeline(photo.image, prompt=edit.phrase, seed=0, force=True, aligned=aligned)[0]
        change = Change(photo, np.asarray(result["image"].convert("RGB")), np.asarray(result["mask"]))
        if (change.edited != change.before).any():
            changes.append(change)
    return changes


def sharpness_figures(changes: Sequence[Change]) -> dict[str, float | None]:
    """
    Sharpness of the edited area beside that of the same area of the photo, see [`sharpness_ratio`].

    Returns:
        `ratio`: median over the photos; `low`: lower quartile.
    """
    ratios = [sharpness_ratio(each.before, each.edited, each.area) for each in changes]
    known = [ratio for ratio in ratios if ratio is not None]
    low, ratio = np.percentile(known, [25, 50]).tolist() if known else (None, None)
    return {"ratio": ratio, "low": low}


def seam_figures(changes: Sequence[Change], distance: PerceptualDistance) -> dict[str, float | None]:
    """
    How the edit meets the photo: differences between them in the outermost `RING` pixels of the edited area. Small
    ones make no seam.

    Returns:
        `delta_e`: mean ΔE (CIE 1976) there; `lpips`: mean LPIPS there, None without its weights.
    """
    differences, distances = [], []
    for each in changes:
        ring = inner_ring(each.area, RING)
        if ring.any():
            differences.append(float(colour_difference(each.before, each.edited)[ring].mean()))
            distances.append(distance.within(Image.fromarray(each.edited), each.photo.image, ring))
    return {"delta_e": _mean(differences), "lpips": _mean(distances)}


def area_figures(changes: Sequence[Change], hair_colour: bool = False) -> dict[str, float | None]:
    """
    What an edit changed of what it is not about, by the model's parser.

    Args:
        changes: of photos that were parsed.
        hair_colour: whether hair, and all of it, is what the edit is about.

    Returns:
        the keys of `ELSEWHERE`: mean share of all change that lies where they are what is shown; `hair_iou`: of what
        is mostly the edit's with the hair, mean intersection over union, None unless `hair_colour`.
    """
    shares: dict[str, list[float | None]] = {name: [] for name in ELSEWHERE}
    overlaps = []
    for each in changes:
        parsing, size = each.photo.parsing, each.photo.image.size
        if parsing is None:
            raise ValueError("the photos must be parsed: first_photos(…, parse=True)")
        for name, classes in ELSEWHERE.items():
            shares[name].append(change_share(each.before, each.edited, parsing.photo_mask(classes, size) > SHOWN))
        if hair_colour:
            overlaps.append(overlap(each.area, parsing.photo_mask("hair", size) > SHOWN))
    return {**{name: _mean(values) for name, values in shares.items()}, "hair_iou": _mean(overlaps)}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
