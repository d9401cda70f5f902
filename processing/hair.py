"""Where the hair is in a face crop, told from skin by its colour, whether a prompt is about its colour alone, and how it gets a new one."""

import re

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .composite import covered_cells, sum_around, widen
from .opencv import import_opencv, joined_pixels
from .regions import REGIONS, Region, Shape, area_pixels, box, ellipse, plain_words, region_cells

(_LEFT_EYE_X, _EYE_Y), (_RIGHT_EYE_X, _), (_MIDDLE, _NOSE_Y), *_ = CROP_LANDMARKS.tolist()
# Where colours are looked up, and where hair may hang into the face: over the forehead down to the brows, and down both sides.
_SKIN = Region(
    (
        ellipse(_LEFT_EYE_X - 2, _NOSE_Y, 10, 8),
        ellipse(_RIGHT_EYE_X + 2, _NOSE_Y, 10, 8),
        ellipse(_MIDDLE, _NOSE_Y - 6, 6, 10),
    )
)
_TOP = box(0, 0, CROP_SIZE, 58)
_FRINGE = Region((box(32, 0, 96, 40), box(32, 56, 40, 104), box(88, 56, 96, 104)))
# Bangs reach the brows, which have their colour: there hair is what hangs down without a gap from the top of this box.
_BANGS_FROM = 36
_BANGS = box(32, _BANGS_FROM, 96, 54)
#: What is nearer than this to the colour of the skin (CIELAB of 8 bits a channel) does not tell what colour the hair has.
LEAST_DIFFERENCE = 14.0
#: Share of the crop whose hair must be seen for its colour to be known.
LEAST_HAIR = 1 / 80
#: Share of the crop that must be background, and what its colour must differ by from that of hair, to tell what is hair from it.
LEAST_BACKGROUND, CLEAR_DIFFERENCE = 1 / 20, 25.0
#: In sides of the crop: what is thinner is a line; the edge that a line's width takes from hair; and the reach of a mean over strands.
LINE, EDGE, STRANDS = 6 / 128, 2 / 128, 6 / 128
#: Of the matte: half the side of a mean and the way on which an edit fades in, in sides of the crop; the variance of brightness that is no
#: edge; a weight that changes no pixel.
MATTE_REACH, FADE, MATTE_CALM, NOTHING = 4 / 128, 8 / 128, 1e-3, 1 / 600
#: Share of a cell that must be hair or its margin.
LEAST_SHARE = 0.08
#: Sides of the crop around hair that are redrawn with it: an edit fades in from its edge, and hair would show through there.
MARGIN = 5 / 128

_HAIR = r"hair(?:s|ed)?\b(?! (?:bands?|bows?|clips?|ties?|ribbons?|nets?))"
_BLOND = r"blonde?s?\b(?! (?:beards?|brows?|eyebrows?|mou?staches?|bangs))|brunettes?\b|redhead\w*"
_COLOURS = re.compile(
    rf"\b(?:{_BLOND}|(?:black|brown|gr[ae]y|white|silver|red|ginger|auburn|golden|yellow|dark|light|fair|dyed|blue|green|pink|purple|orange) {_HAIR})"
)
_OF_HAIR = re.compile(rf"\b(?:{_HAIR}|{_BLOND})")
_CUTS = re.compile(
    r"\b(?:long|longer|short|shorter|shoulders?|length|cut|style|pixie|buzz|wavy|waves|curl\w*|straight|spiky|voluminous|thick\w*|thin\w*|"
    r"ponytails?|pigtails?|buns?|bob|braid\w*|cornrows|dreadlocks|afro|mohawk|hairstyle|haircut|hairline|receding|bald\w*|shaved|fringe|"
    r"growing|more|less|no|not|never|without|isn|aren)\b"
)
_CLAUSES = re.compile(r"[,;.!?]|\b(?:and|with|but)\b|(?=\bwithout\b)")


def is_about_hair_colour(prompt: str) -> bool:
    """Whether a prompt names a colour of hair and says nothing of its cut ("blond hair, not smiling", but not "long blond hair")."""
    clauses = [plain_words(clause) for clause in _CLAUSES.split(prompt.lower())]
    of_hair = [clause for clause in clauses if _OF_HAIR.search(clause)]
    return any(map(_COLOURS.search, of_hair)) and not any(map(_CUTS.search, of_hair))


def hair_pixels(crop: Image.Image, person: np.ndarray) -> np.ndarray:
    """
    The pixels bool [S, S] of an aligned crop that show hair: what is nearer in colour to the hair at the top than to the skin of cheeks
    and nose and to the background, and hangs together with it by more than a line, as shadows along a jaw do. None of them where too
    little hair is seen, as of bald people. It errs where light falls on a forehead, and where clothes in the colour of long hair touch it.

    Args:
        person: bool [S, S], see [`person_outline`].

    Raises:
        ImportError: where OpenCV is missing.
    """
    cv2 = import_opencv("finding hair")
    colours = cv2.cvtColor(np.asarray(crop.convert("RGB")), cv2.COLOR_RGB2LAB).astype(np.float32)
    areas: tuple[Shape | Region, ...] = (_SKIN, _TOP, REGIONS["hair"], _FRINGE, _BANGS)
    skin, top, hair, fringe, bangs = (area_pixels(area, len(person)) for area in areas)
    offset = colours - np.median(colours[skin], 0)
    from_skin = np.linalg.norm(offset, axis=-1)
    # not where skin is only lighter: light falls on foreheads
    other = (offset[..., 0] < -LEAST_DIFFERENCE) | (np.linalg.norm(offset[..., 1:], axis=-1) > LEAST_DIFFERENCE)
    seed = top & hair & person & other
    if seed.mean() < LEAST_HAIR:
        return np.zeros_like(person)
    colour = np.median(colours[seed], 0)
    from_hair = np.linalg.norm(colours - colour, axis=-1)
    like_hair = from_hair < from_skin
    background = ~(person | skin)
    if background.mean() > LEAST_BACKGROUND:
        behind = np.median(colours[background], 0)
        if np.linalg.norm(behind - colour) > CLEAR_DIFFERENCE:
            like_hair &= from_hair < np.linalg.norm(colours - behind, axis=-1)
    side = 2 * max(1, round(len(person) / 64)) + 1
    like_hair = cv2.medianBlur(like_hair.astype(np.uint8), side).astype(bool) & person
    start = round(_BANGS_FROM / CROP_SIZE * len(person))
    hangs = np.zeros_like(person)
    hangs[start:] = np.logical_and.accumulate(like_hair[start:], axis=0)
    found = like_hair & (hair | fringe | (bangs & hangs))
    line = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, [2 * int(LINE * len(person) / 2) + 1] * 2)
    thick = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, line).astype(bool)
    return found & widen(joined_pixels(thick, seed & thick), EDGE)


def hair_matte(crop: Image.Image, hair: np.ndarray) -> np.ndarray:
    """
    How much of each pixel of an aligned crop is hair, float32 [S, S] in [0, 1]: found hair by a guided filter (He et al. 2010), so that its
    edge is where the picture has one. A new colour that reaches beyond it lights up the wall, one that ends before it leaves a dark rim.

    Args:
        hair: bool [S, S], see [`hair_pixels`].

    Raises:
        ImportError: where OpenCV is missing.
    """
    cv2 = import_opencv("finding hair")
    side = 2 * max(1, round(MATTE_REACH * len(hair))) + 1
    found, guide = hair.astype(np.float32), np.asarray(crop.convert("L"), np.float32) / 255

    def mean(picture: np.ndarray) -> np.ndarray:
        return cv2.blur(picture, (side, side))

    slope = (mean(guide * found) - mean(guide) * mean(found)) / (mean(guide**2) - mean(guide) ** 2 + MATTE_CALM)
    offset = mean(found) - slope * mean(guide)
    matte = mean(slope) * guide + mean(offset)
    # what is hardly hair is none, and what is nearly all hair is all; of the wall so little that nobody sees it: an edit fades in from the
    # edge of what may change, and would leave the outermost hair dark
    return np.clip((matte - 0.1) / 0.8, NOTHING, 1) * widen(hair, FADE)


def recolour_hair(edited: ArrayLike, reconstruction: ArrayLike, hair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Hair in a new colour whose strands stay: of what an edit did to hair, the mean around each pixel, to be laid on the photo's own detail.
    What is painted over it cell by cell is blurred, and some cells have a colour of their own.

    Args:
        edited, reconstruction: decoded codes after and before the edit, float [S, S, 3] in [0, 1].
        hair: bool [S, S], see [`hair_pixels`].

    Returns:
        `edited` with that mean in the place of its own change at hair, float32 [S, S, 3]; and where it is, float32 [S, S].
    """
    after, before = np.asarray(edited, np.float32), np.asarray(reconstruction, np.float32)
    weight = hair[:, :, None].astype(np.float32)
    change = sum_around((after - before) * weight, STRANDS) / (sum_around(weight, STRANDS) + 1e-6)
    near = widen(hair, MARGIN)
    return np.where(near[:, :, None], np.clip(before + change, 0, 1), after), near.astype(np.float32)


def fringe_cells(hair: np.ndarray, grid: int) -> np.ndarray:
    """
    The cells bool [grid, grid] beside the region `"hair"` into which hair hangs, as its one shape for everybody does not have it.

    Args:
        hair: bool [S, S], see [`hair_pixels`].
    """
    near = area_pixels(_FRINGE, len(hair)) | area_pixels(_BANGS, len(hair))
    return covered_cells(widen(hair, MARGIN) & near, grid, LEAST_SHARE) & ~region_cells("hair", grid)
