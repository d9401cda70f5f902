"""Faces with masks of what their pixels show, from parquet files."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.image_loading import to_rgb

# The 19 classes of CelebAMask-HQ in its order (Lee et al. 2020). Left and right become one: half of the pictures may be mirrored.
CELEBAMASK_CLASSES = (
    "background",
    "skin",
    "nose",
    "eyeglasses",
    "eye",
    "eye",
    "brow",
    "brow",
    "ear",
    "ear",
    "mouth",
    "upper_lip",
    "lower_lip",
    "hair",
    "hat",
    "earring",
    "necklace",
    "neck",
    "cloth",
)
_FROM_CELEBAMASK = np.array([FACE_CLASSES.index(name) for name in CELEBAMASK_CLASSES], np.uint8)


@dataclass(frozen=True)
class ParsedFaces:
    """
    Args:
        images: uint8 [N, S, S, 3], RGB.
        masks: uint8 [N, S, S], indices into `FACE_CLASSES`.
        unlabelled: uint8 [M, S, S, 3], faces whose rows have no mask.
    """

    images: torch.Tensor
    masks: torch.Tensor
    unlabelled: torch.Tensor


def read_parsed_faces(paths: Iterable[str | Path], size: int = 256, limit: int | None = None) -> ParsedFaces:
    """
    Reads parquet files with the columns `image` and `mask` (bytes of a picture file, alone or as a Hugging Face `Image`); a row's mask, of the classes of
    CelebAMask-HQ, may be null. All pictures must be aligned crops; those of another side than `size` are resized.

    Args:
        limit: most faces with a mask, the first in file order.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a file without these columns, a mask that has other classes, or no face with a mask.
    """
    import pyarrow.parquet as pq

    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    unlabelled: list[np.ndarray] = []
    for path in paths:
        file = pq.ParquetFile(path)
        missing = {"image", "mask"} - set(file.schema_arrow.names)
        if missing:
            raise ValueError(f"{path} lacks the columns {sorted(missing)}, it has {file.schema_arrow.names}")
        for batch in file.iter_batches(256, columns=["image", "mask"]):
            for row in batch.to_pylist():
                image, mask = (_bytes_of(row[name]) for name in ("image", "mask"))
                if image is None or (mask is not None and len(masks) == limit):
                    continue
                pixels = np.asarray(_resized(to_rgb(Image.open(io.BytesIO(image))), size, Image.Resampling.BICUBIC))
                if mask is None:
                    unlabelled.append(pixels)
                    continue
                classes = np.asarray(_resized(Image.open(io.BytesIO(mask)), size, Image.Resampling.NEAREST))
                if classes.ndim != 2 or classes.max() >= len(CELEBAMASK_CLASSES):
                    raise ValueError(f"{path}: a mask is no picture of the {len(CELEBAMASK_CLASSES)} classes")
                images.append(pixels)
                masks.append(_FROM_CELEBAMASK[classes])
    if not masks:
        raise ValueError(f"{', '.join(map(str, paths))}: no face with a mask")
    nothing = np.zeros((0, size, size, 3), np.uint8)
    return ParsedFaces(
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.stack(masks)),
        torch.from_numpy(np.stack(unlabelled) if unlabelled else nothing),
    )


def _bytes_of(value: Any) -> bytes | None:
    """The bytes of a cell: those of a Hugging Face `Image` (a dictionary), or themselves."""
    return value["bytes"] if isinstance(value, dict) else value


def _resized(picture: Image.Image, size: int, filter: Image.Resampling) -> Image.Image:
    return picture if picture.size == (size, size) else picture.resize((size, size), filter)
