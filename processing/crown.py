"""Hair beyond the face crop: above, beside and below it a photo shows hair that the model does not see, and a new colour must not end there."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import compose, translation
from .composite import edge_fade, paste_back, sum_around
from .face_parsing import SURROUNDINGS, FaceParsing

#: Share of the crop that must be hair for its colour to be carried on.
LEAST_HAIR = 1 / 100
#: In sides of the crop: how far around hair its change of colour is looked up.
REACH = 1 / 8


@dataclass(frozen=True)
class Crown:
    """
    Hair beyond a crop.

    Args:
        weight: float32 [T, T], of a change of colour in the crop's surroundings: where hair is, up to where the edit of the crop fades out.
        matrix: [2, 3] from the photo to the surroundings, `SURROUNDINGS` times the crop with the crop in their middle.
        hair: bool [S, S], in the crop, where the change is looked up.
    """

    weight: np.ndarray
    matrix: np.ndarray
    hair: np.ndarray


def find_crown(size: tuple[int, int], parsing: FaceParsing, hair: np.ndarray) -> Crown | None:
    """
    The hair of a person beyond their face crop; None where there is little in the crop or none beyond it.

    Args:
        size: (width, height) of the photo.
        parsing: what the face and its surroundings show.
        hair: bool [S, S], in the crop.
    """
    if hair.mean() < LEAST_HAIR:
        return None
    weight = parsing.mask("hair")
    side = len(weight) // SURROUNDINGS
    start = (len(weight) - side) // 2
    to_crop = compose(parsing.matrix, translation(-start, -start))
    weight[start : start + side, start : start + side] *= 1 - edge_fade(
        side, side, to_crop, size
    )  # the edit of the crop
    return Crown(weight, parsing.matrix, hair) if weight.any() else None


def recolour_crown(photo: Image.Image, crown: Crown, original: np.ndarray, edited: np.ndarray) -> Image.Image:
    """
    The photo with the change of colour of hair in the crop carried on beyond it: of each place that of the hair around it, and far away that
    of all.

    Args:
        original, edited: the crop before and after, float [S, S, 3] in [0, 1].
    """
    size = len(crown.hair)
    start = (SURROUNDINGS - 1) * size // 2
    change, known = (
        np.zeros((SURROUNDINGS * size,) * 2 + (3,), np.float32),
        np.zeros((SURROUNDINGS * size,) * 2 + (1,)),
    )
    inside = np.s_[start : start + size, start : start + size]
    known[inside] = crown.hair[:, :, None]
    change[inside] = (edited - original) * crown.hair[:, :, None]
    mean = change[inside][crown.hair].mean(0)
    reach = REACH / SURROUNDINGS
    near = sum_around(known.astype(np.float32), reach)
    calm = near.max() / 20
    field = (sum_around(change, reach) + calm * mean) / (near + calm)
    to_surroundings = [
        Image.fromarray(channel).resize(crown.weight.shape[::-1], Image.Resampling.BILINEAR)
        for channel in np.moveaxis(field, 2, 0)
    ]
    wide = np.stack([np.asarray(channel) for channel in to_surroundings], -1)
    return paste_back(photo, wide, crown.weight, crown.matrix, "residual", np.zeros_like(wide))
