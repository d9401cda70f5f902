"""Hair beyond the face crop: above, beside and below it a photo shows hair that the model does not see, and a new colour must not end there."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import align
from .composite import edge_fade, paste_back, sum_around
from .face_parsing import SURROUNDINGS, FaceParsing

#: Share of the crop that must be hair for its colour to be carried on.
LEAST_HAIR = 1 / 100
#: In sides of the crop: how far around hair its change of colour is looked up.
REACH = 1 / 8
#: Beyond the crop a parser sees less well and is too sure of itself: its certainty that is believed against colours; the least standard
#: deviation of these, of [0, 1]; and the posterior between whose values hair begins and is all.
CERTAINTY, SPREAD, SOME, ALL = 0.8, 0.05, 0.35, 0.65
#: Share of the surroundings that a class must fill for its colours to be known.
LEAST_KNOWN = 1 / 200


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


def find_crown(photo: Image.Image, parsing: FaceParsing, hair: np.ndarray) -> Crown | None:
    """
    The hair of a person beyond their face crop; None where there is little in the crop or none beyond it.

    Args:
        parsing: what the face and its surroundings show.
        hair: bool [S, S], in the crop.
    """
    seen = parsing.mask("hair")
    total = len(seen)
    side = total // SURROUNDINGS
    start = (total - side) // 2
    inside = np.s_[start : start + side, start : start + side]
    if hair.mean() < LEAST_HAIR:
        return None
    picture = np.asarray(align(photo, parsing.matrix, total), np.float32) / 255
    nearby = np.zeros(seen.shape, bool)
    nearby[inside] = True
    of_hair = _log_likelihood(picture, nearby & (seen > 0.5))
    if of_hair is None:
        return None
    rivals = (nearby & (parsing.mask("background") > 0.5), parsing.mask("cloth") > 0.5)
    others = [each for each in (_log_likelihood(picture, rival) for rival in rivals) if each is not None]
    if others:
        prior = (0.5 + (seen - 0.5) * (2 * CERTAINTY - 1)).clip(0.01, 0.99)
        evidence = np.log(prior / (1 - prior)) + of_hair - np.max(others, axis=0)
        seen = seen * ((1 / (1 + np.exp(-evidence.clip(-20, 20))) - SOME) / (ALL - SOME)).clip(0, 1)
    fade = np.zeros_like(seen)  # of the edit of the crop
    matrix = parsing.matrix.copy()
    matrix[:, 2] -= start
    fade[inside] = edge_fade(side, side, matrix, photo.size)
    weight = seen * (1 - fade)
    return Crown(weight, parsing.matrix, hair) if weight.any() else None


def _log_likelihood(picture: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """
    Log density of the colours of a picture [T, T, 3] under a normal distribution of those at some pixels bool [T, T], float32 [T, T]; None
    where these are too few.
    """
    if known.mean() < LEAST_KNOWN:
        return None
    colours = picture[known]
    covariance = np.cov(colours.T) + SPREAD**2 * np.eye(3)
    offset = picture - colours.mean(0)
    distance = np.einsum("ijc,cd,ijd->ij", offset, np.linalg.inv(covariance), offset, optimize=True)
    return (-(distance + np.linalg.slogdet(covariance)[1]) / 2).astype(np.float32)


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
