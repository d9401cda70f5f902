"""Where exactly hair is."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from .face_parsing import SURROUNDINGS, FaceParsing
from .masks import cells_to_mask, covered_cells, widen

#: How far a parser that is sure is believed against colours, in the crop and beyond it, where it sees less well, and
#: what it must see; the least standard deviation of colours, of [0, 1], and that of those of anything; and the
#: probability between whose values hair begins and is all.
CERTAINTY, CERTAINTY_BEYOND, NOWHERE, SPREAD, ANY, SOME, ALL = 0.98, 0.8, 0.1, 0.03, 0.3, 0.35, 0.65
#: Of twice the probability that the parser gives: what is hardly hair is none, and what is nearly all hair is all.
HALO = 0.6
#: Share of the crop that a class must fill for its colours to be known.
LEAST_KNOWN = 1 / 50
#: What hair lies before, and whether only what is seen of it in the crop says how it looks.
RIVALS = {"background": True, "skin": True, "neck": False, "cloth": False}
#: Pixels of the parser along a side of what is too small to be hair.
SQUARE = 8


def refine_hair(photo: Image.Image, parsing: FaceParsing) -> FaceParsing:
    """
    Hair by its colour, too: at its edges and beyond the crop a parser is unsure, or wrong, and a new colour would
    light up the wall. By Bayes' rule, from what the parser thinks and from the colours in the crop of what it takes
    for hair there, and for what hair lies before.

    Returns:
        what the face and its surroundings show with other probabilities of hair; as it was where there is too little
        hair in the crop.
    """
    seen = parsing.mask("hair")
    inside = np.zeros_like(seen)
    inside[parsing.window] = 1
    picture = parsing.pixels(photo)
    of_hair = _log_likelihood(picture, (seen * inside) > 0.5)
    rivals = [
        _log_likelihood(picture, parsing.mask(name) * place > 0.5)
        for name, place in ((name, inside if RIVALS[name] else 1) for name in parsing.known(RIVALS))
    ]
    if of_hair is None:
        return parsing
    others = [log_normal(picture, np.full(3, 0.5), np.eye(3) * ANY**2)] + [each for each in rivals if each is not None]
    prior = 0.5 + (seen - 0.5) * (2 * np.where(inside > 0, CERTAINTY, CERTAINTY_BEYOND) - 1)
    evidence = np.log(prior / (1 - prior)) + of_hair - np.max(others, axis=0)
    hair = seen > NOWHERE
    hair = hair * ((1 / (1 + np.exp(-evidence.clip(-20, 20))) - SOME) / (ALL - SOME)).clip(0, 1).astype(np.float32)
    # its edge is as soft as the parser saw it: colours alone would leave a rim of mixed pixels
    hair = np.minimum(_with_edge(hair * np.maximum(inside, _joined(hair, inside))), (2 * seen - HALO).clip(0, 1))
    index = parsing.labels.index("hair")
    rest = parsing.probabilities * ((1 - hair) / np.maximum(1 - seen, 1e-6)).clip(0, 1)
    rest[index] = hair
    rest[parsing.labels.index("background")] += (1 - rest.sum(0)).clip(0)
    return replace(parsing, probabilities=rest)


def _log_likelihood(picture: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """
    Log density of the colours of a picture [T, T, 3] under a normal distribution of those at some pixels bool [T, T],
    [T, T]; None where these are too few.
    """
    if known.mean() < LEAST_KNOWN / SURROUNDINGS**2:
        return None
    colours = picture[known]
    return log_normal(picture, colours.mean(0), np.cov(colours.T) + SPREAD**2 * np.eye(3))


def log_normal(picture: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """
    Log density of the colours of a picture [H, W, 3] under a normal distribution but for a constant, float64 [H, W].
    """
    offset = picture - mean
    distance = np.einsum("ijc,cd,ijd->ij", offset, np.linalg.inv(covariance), offset, optimize=True)
    return -(distance + np.linalg.slogdet(covariance)[1]) / 2


def _joined(hair: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """
    Where hair [T, T] hangs together with hair inside of the crop, seen in squares of pixels: float32 [T, T] of zeros
    and ones.
    """
    side = len(hair) // SQUARE
    coarse = covered_cells(hair, side)
    found = coarse & covered_cells(inside, side)
    while (grown := widen(found, 1 / side) & coarse).sum() > found.sum():
        found = grown
    return cells_to_mask(widen(found, 1 / side), len(hair))


def _with_edge(hair: np.ndarray) -> np.ndarray:
    """Hair [T, T] and, softly, the pixels beside it, which are a mixture."""
    wide = Image.fromarray(np.rint(hair * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    return np.asarray(wide.filter(ImageFilter.BoxBlur(1)), np.float32) / 255
