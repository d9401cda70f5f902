"""Aligned faces with their labels, in file order, for the protocols that look at pixels."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gptface.data.captions import PHRASES
from gptface.data.encode import face_crops, pixels_from_images
from gptface.data.sources import Source, name_of, read_samples
from gptface.metrics.lpips_distance import load_lpips

logger = logging.getLogger(__name__)

#: Pixels: of LPIPS, the shortest side, and what it sees around a place that counts.
LEAST_SIDE, CONTEXT = 31, 32


@dataclass(frozen=True)
class LabelledCrop:
    """
    Args:
        image: aligned crop, RGB.
        labels: attribute → 0/1, of the attributes that have phrases.
    """

    image: Image.Image
    labels: dict[str, int]


def first_crops(
    path: str | Path,
    limit: int,
    size: int,
    wanted: Mapping[str, int] | None = None,
    layout: str = "celeba",
) -> list[LabelledCrop]:
    """
    The first `limit` faces of a collection, in its order; fewer where it holds fewer.

    Args:
        wanted: labels that a face must have; all faces where it is missing.
        size: side of the crops in pixels.
        layout: see [`gptface.data.encode.project_crop`].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a limit below 1, or no face with these labels.
    """
    if limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    crops = list(islice(labelled_crops(path, size, wanted, layout), limit))
    if not crops:
        labels_text = ", ".join(f"{name} = {value}" for name, value in (wanted or {}).items())
        raise ValueError(f"{path} holds no readable face" + (f" with {labels_text}" if wanted else ""))
    return crops


def labelled_crops(
    source: Source, size: int, wanted: Mapping[str, int] | None = None, layout: str = "celeba"
) -> Iterator[LabelledCrop]:
    """All faces of a collection as a stream; see [`first_crops`] and [`~gptface.data.sources.read_samples`]."""
    refused: Counter[str] = Counter()
    samples = (
        sample
        for sample in read_samples(source, refused, list(PHRASES))
        if all(sample.columns.get(name) == value for name, value in (wanted or {}).items())
    )
    for sample, crop, _ in face_crops(samples, layout, size, refused):
        labels = {name: int(value) for name, value in sample.columns.items() if name in PHRASES and value in (0, 1)}
        yield LabelledCrop(crop, labels)
    if refused:
        logger.warning("%s: left out: %s", name_of(source), dict(refused))


def psnr(picture: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures [H, W, 3] over the pixels where `mask` [H, W] is True."""
    error = (picture[mask].astype(np.float64) - target[mask]) ** 2
    return float(10 * np.log10(255**2 / max(float(error.mean()), 1e-10)))


class PerceptualDistance:
    """LPIPS between lists of pictures; None everywhere without weights."""

    def __init__(self, weights: Path | None):
        self.network = None if weights is None else load_lpips(weights)

    @torch.no_grad()
    def mean(self, pictures: list[Image.Image], targets: list[Image.Image], batch_size: int = 32) -> float | None:
        """Mean distance of pairs of pictures of one size."""
        if self.network is None:
            return None
        distances = [
            self.network(
                pixels_from_images(pictures[start : start + batch_size]),
                pixels_from_images(targets[start : start + batch_size]),
            )
            for start in range(0, len(pictures), batch_size)
        ]
        return float(torch.cat(distances).mean())

    @torch.no_grad()
    def within(self, picture: Image.Image, target: Image.Image, area: np.ndarray) -> float | None:
        """
        Distance of two pictures of one size in a part of them, bool [H, W]; None where they are too small for LPIPS.
        """
        if self.network is None or min(picture.size) < LEAST_SIDE:
            return None
        rows, columns = (np.flatnonzero(area.any(axis)) for axis in (1, 0))
        (top, bottom), (left, right) = (
            _widened(places[0], places[-1] + 1, length)
            for places, length in ((rows, area.shape[0]), (columns, area.shape[1]))
        )
        pixels = [pixels_from_images([each.crop((left, top, right, bottom))]) for each in (picture, target)]
        weights = torch.from_numpy(area[top:bottom, left:right]).float()[None, None]
        return float(self.network(*pixels, weights))


def _widened(low: int, high: int, length: int) -> tuple[int, int]:
    """A range of pixels out of `length` with what LPIPS sees around it, and long enough for it."""
    margin = max(CONTEXT, LEAST_SIDE - (high - low))
    return max(0, low - margin), min(length, high + margin)
