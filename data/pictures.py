"""Aligned faces for the image tokenizer's training: decoded once into a memory-mapped file, then cropped at random."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from gptface.processing.whole_files import whole_file

from .encode import check_layout, face_crops, pixels_from_images
from .epochs import EpochDataset
from .masking import sample_generator
from .sources import content_hashes, read_samples

logger = logging.getLogger(__name__)


@dataclass
class PictureSource:
    """
    One data set of the mixture.

    Args:
        path: parquet files, webdataset tars or a folder of pictures, see [`read_samples`].
        layout: how its faces lie in their pictures, see [`project_crop`].
        weight: how often its pictures are drawn, relative to the other sources.
        every: n takes each n-th picture, an even part of a data set that is sorted by label.
        held_out: n leaves each n-th picture out, for a test that must never be trained on.
        limit: most pictures that are taken, all by default.
    """

    path: str
    layout: str = "aligned"
    weight: float = 1.0
    every: int = 1
    held_out: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_layout(self.layout)
        counts = [value for value in (self.every, self.held_out, self.limit) if value is not None]
        if not self.weight > 0 or min(counts) < 1:
            raise ValueError(f"{self.path}: weight must be above 0, every, held_out and limit at least 1")


def decode_pictures(source: PictureSource, size: int, cache: Path) -> np.ndarray:
    """
    All pictures of a source as crops [N, size, size, 3] uint8, memory-mapped from a file in `cache`, which is made the
    first time: each picture is decoded once, several processes share the memory, and a set may be larger than it.
    Pictures that cannot be read are left out and counted in the log.

    Raises:
        FileNotFoundError: where the source is missing.
        ValueError: where no picture could be read.
    """
    content = content_hashes(source.path)
    key = json.dumps([source.layout, source.every, source.held_out, source.limit, size, content])
    file = cache / f"{Path(source.path).stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.rgb"
    if not file.exists():
        _write_crops(source, size, file)
    return np.memmap(file, np.uint8, "r").reshape(-1, size, size, 3)


def _write_crops(source: PictureSource, size: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    refused: Counter[str] = Counter()
    with whole_file(file) as unfinished:
        with unfinished.open("wb") as stream:
            samples = (
                sample
                for row, sample in enumerate(read_samples(source.path, refused, ()))
                if row % source.every == 0 and not (source.held_out and row % source.held_out == 0)
            )
            for _, crop, _ in islice(face_crops(samples, source.layout, size, refused), source.limit):
                stream.write(np.asarray(crop).tobytes())
                written += 1
        if not written:
            raise ValueError(f"{source.path}: no picture of layout {source.layout!r} could be read")
    if refused:
        logger.warning("%s: %d skipped: %s", source.path, refused.total(), dict(refused))
    logger.info("%s: %d pictures decoded", source.path, written)


class CropDataset(EpochDataset):
    """
    Random crops of a mixture of picture sets, uint8 [crop, crop, 3].

    Item `index` of an epoch is drawn from (seed, epoch, index) alone: source by weight, picture, place of the crop,
    mirror image. Workers, ranks and a resumed run draw the same. An epoch has as many items as there are pictures.

    Args:
        sets: arrays [N, size, size, 3] uint8.
        weights: of each set.
        crop_size: side of the crops in pixels.
        flips: whether half of them are mirrored.
    """

    def __init__(
        self, sets: Sequence[np.ndarray], weights: Sequence[float], crop_size: int, flips: bool = True, seed: int = 0
    ):
        super().__init__()
        self.sets = list(sets)
        self.shares = np.asarray(weights) / np.sum(weights)
        self.crop_size = crop_size
        self.flips = flips
        self.seed = seed

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def __getitem__(self, index: int) -> np.ndarray:
        generator = sample_generator(self.seed, self.epoch, index)
        pictures = self.sets[generator.choice(len(self.sets), p=self.shares)]
        picture = pictures[generator.integers(len(pictures))]
        top, left = generator.integers(picture.shape[0] - self.crop_size + 1, size=2)
        crop = picture[top : top + self.crop_size, left : left + self.crop_size]
        return crop[:, ::-1] if self.flips and generator.random() < 0.5 else crop

    def spread(self, count: int) -> Iterator[np.ndarray]:
        """About `count` whole pictures, evenly spread over the sets by their weights: what a quantizer starts from."""
        for pictures, share in zip(self.sets, self.shares, strict=True):
            rows = np.linspace(0, len(pictures) - 1, min(len(pictures), max(1, round(count * share)))).astype(int)
            yield from pictures[rows]


class PictureDataset(Dataset):
    """Whole pictures of several sets in order, uint8 [size, size, 3], for evaluation."""

    def __init__(self, sets: Sequence[np.ndarray]):
        self.pictures = [picture for pictures in sets for picture in pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pictures[index]


def collate_pictures(pictures: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
    """Pictures uint8 [H, W, 3] → `pixel_values` [B, 3, H, W] in [-1, 1], channels last in memory."""
    return {"pixel_values": pixels_from_images(list(pictures))}
