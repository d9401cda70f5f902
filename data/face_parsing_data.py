"""Faces with masks of what their pixels show."""

import io
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.image_loading import MAX_IMAGE_PIXELS, load_image, to_rgb

from .refusals import refuse
from .sources import picture_bytes, read_samples

logger = logging.getLogger(__name__)

# The 19 classes of CelebAMask-HQ in its order (Lee et al. 2020). Left and right become one: half of the pictures may
# be mirrored.
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
#: Attributes of CelebA that say whether a class is to be seen.
_ATTRIBUTE_CLASSES = {
    "Eyeglasses": "eyeglasses",
    "Wearing_Hat": "hat",
    "Wearing_Earrings": "earring",
    "Wearing_Necklace": "necklace",
}
#: Added to the logits of a class of which an attribute says that it is there.
_EXPECTED = 1.0
# The widest square around the face crop in pictures that have CelebA's alignment.
_CELEBA_SIZE, _CELEBA_SQUARE = (178, 218), (0, 20, 178, 198)


@dataclass(frozen=True)
class ParsedFaces:
    """
    Args:
        images: uint8 [N, S, S, 3], RGB.
        masks: uint8 [N, S, S], indices into `FACE_CLASSES`.
        unlabelled: uint8 [M, S, S, 3], faces whose rows have no mask.
        priors: float32 [M, C], what is known of them: to be added to the logits of the classes, −inf where there is
            nothing of a class.
    """

    images: torch.Tensor
    masks: torch.Tensor
    unlabelled: torch.Tensor
    priors: torch.Tensor


def read_parsed_faces(paths: Iterable[str | Path], size: int = 256, limit: int | None = None) -> ParsedFaces:
    """
    Reads parquet files with a column `image` and maybe a column `mask`, bytes of picture files, alone or as a Hugging
    Face `Image`. A mask holds the classes of CelebAMask-HQ and may be null. Pictures are aligned crops, resized where
    their side is not `size`; of those of 178×218 pixels without a mask, which have CelebA's alignment, the widest
    square around the crop is taken. Attributes of CelebA (`Eyeglasses`, `Wearing_Hat`, …; 0 or 1) become priors.

    Args:
        limit: most faces with a mask, the first in file order.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a file without pictures, a mask that has other classes, or no face with a mask.
    """
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    unlabelled: list[np.ndarray] = []
    priors: list[np.ndarray] = []
    refused: Counter[str] = Counter()
    for path in paths:
        for sample in read_samples(path, refused, ("mask", *_ATTRIBUTE_CLASSES)):
            mask_data = picture_bytes(sample.columns.get("mask"))
            if mask_data is not None and len(masks) == limit:
                continue
            try:
                image = load_image(sample.image)
                mask = None if mask_data is None else _mask(mask_data, size)
            except (OSError, ValueError) as error:
                refuse(refused, "damaged picture", sample.key, error)
                continue
            if mask is None and image.size == _CELEBA_SIZE:
                image = image.crop(_CELEBA_SQUARE)
            pixels = np.asarray(_resized(to_rgb(image), size, Image.Resampling.BICUBIC))
            if mask is None:
                unlabelled.append(pixels)
                priors.append(_prior(sample.columns))
                continue
            if mask.ndim != 2 or mask.max() >= len(CELEBAMASK_CLASSES):
                raise ValueError(f"{path}: a mask is no picture of the {len(CELEBAMASK_CLASSES)} classes")
            images.append(pixels)
            masks.append(_FROM_CELEBAMASK[mask])
    if refused:
        logger.warning("left out: %s", dict(refused))
    if not masks:
        raise ValueError(f"{', '.join(map(str, paths))}: no face with a mask")
    return ParsedFaces(
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.stack(masks)),
        torch.from_numpy(np.stack(unlabelled)) if unlabelled else torch.zeros(0, size, size, 3, dtype=torch.uint8),
        torch.from_numpy(np.stack(priors)) if priors else torch.zeros(0, len(FACE_CLASSES)),
    )


def _prior(row: dict[str, Any]) -> np.ndarray:
    """What the attributes of a row say of the classes, float32 [C]."""
    prior = np.zeros(len(FACE_CLASSES), np.float32)
    for attribute, name in _ATTRIBUTE_CLASSES.items():
        if row.get(attribute) is not None:
            prior[FACE_CLASSES.index(name)] = _EXPECTED if row[attribute] else -np.inf
    return prior


def _mask(data: bytes, size: int) -> np.ndarray:
    """An encoded mask as it is, indices and not their colours, [S, S]."""
    with Image.open(io.BytesIO(data)) as mask:
        if mask.width * mask.height > MAX_IMAGE_PIXELS:
            raise ValueError("a mask that is too large")
        return np.asarray(_resized(mask, size, Image.Resampling.NEAREST))


def _resized(picture: Image.Image, size: int, filter: Image.Resampling) -> Image.Image:
    return picture if picture.size == (size, size) else picture.resize((size, size), filter)
