"""Hair beyond the face crop: above it and beside it a photo shows hair that the model does not see, and a new colour must not end there."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import CROP_SIZE, apply, compose, inverse, translation, warp
from .composite import edge_fade, paste_back
from .hair import NOTHING, hair_matte
from .image_loading import to_rgb
from .opencv import grab_cut, import_opencv, joined_pixels
from .regions import ellipse

# Around the crop, in its sides: what is looked at, as a square of TOTAL sides whose origin lies LEFT and ABOVE of that of the crop; and
# where hair may be in it.
ABOVE, LEFT, TOTAL = 0.5, 0.25, 1.5
_HEAD = ellipse(CROP_SIZE / 2, 44, 80, 100)
#: Share of the crop that must be hair for its colour to be carried on; heights of the crop (of 1) down to which the change of colour is looked
#: up and carried on.
LEAST_HAIR, TOP, BOTTOM = 1 / 100, 0.25, 0.75


@dataclass(frozen=True)
class Crown:
    """
    Hair beyond a crop.

    Args:
        weight: of a change of colour in the crop's surroundings [T, T]: where hair is, up to where the edit of the crop fades out.
        matrix: [2, 3] from the photo to the surroundings.
        hair: bool [S, S], in the crop, where the change is looked up.
    """

    weight: np.ndarray
    matrix: np.ndarray
    hair: np.ndarray


def find_crown(photo: Image.Image, matrix: np.ndarray, hair: np.ndarray) -> Crown | None:
    """
    The hair of a person beyond their face crop; None where there is little in the crop or none beyond it. GrabCut (Rother et al.
    2004, by OpenCV) from what is hair in the crop and what is not.

    Args:
        matrix: [2, 3] from photo to crop.
        hair: bool [S, S], see [`hair_pixels`].

    Raises:
        ImportError: where OpenCV is missing.
    """
    cv2 = import_opencv("finding hair")
    size = len(hair)
    at_the_top = hair & (np.arange(size)[:, None] < TOP * size)
    if at_the_top.mean() < LEAST_HAIR:
        return None
    above, left, total = (round(share * size) for share in (ABOVE, LEFT, TOTAL))
    surroundings = compose(matrix, translation(left, above))
    picture = warp(to_rgb(photo), surroundings, (total, total))
    inside = np.s_[above : above + size, left : left + size]
    x, y = ((np.arange(total) + 0.5 - origin) / size for origin in (left, above))
    x, y = x[None, :], y[:, None]
    labels = np.where(_HEAD.contains(x, y) & (y < BOTTOM), cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[inside] = np.where(hair, cv2.GC_FGD, cv2.GC_BGD)
    seeds = np.zeros((total, total), bool)
    seeds[inside] = hair
    joined = joined_pixels(grab_cut(picture, labels), seeds)
    fade = np.zeros((total, total), np.float32)  # of the edit of the crop
    fade[inside] = edge_fade(size, size, matrix, photo.size)
    matte = hair_matte(picture, joined)
    weight = np.where(matte > NOTHING, matte, 0) * (1 - fade)
    weight *= np.clip((BOTTOM - y) * 8, 0, 1).astype(np.float32)
    # beyond the photo as at its edge: what lies there reaches over it by half a pixel
    centres = np.stack(np.meshgrid(np.arange(total) + 0.5, np.arange(total) + 0.5), axis=-1).reshape(-1, 2)
    places = np.clip(apply(inverse(surroundings), centres), 0.5, np.array(photo.size) - 0.5)
    columns, rows = np.clip(apply(surroundings, places).astype(int), 0, total - 1).T
    weight = weight[rows, columns].reshape(total, total)
    if not weight.any():
        return None
    return Crown(weight, surroundings, at_the_top)


def recolour_crown(photo: Image.Image, crown: Crown, original: np.ndarray, edited: np.ndarray) -> Image.Image:
    """
    The photo with the mean change of colour of hair at the top of the crop carried on beyond it.

    Args:
        original, edited: the crop before and after, float [S, S, 3] in [0, 1].
    """
    change = (edited - original)[crown.hair].mean(0)
    nothing = np.zeros((*crown.weight.shape, 3), np.float32)
    return paste_back(photo, nothing + change, crown.weight, crown.matrix, "residual", nothing)
