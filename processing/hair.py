"""Whether a prompt is about the colour of hair alone, and how hair gets a new one."""

import re

import numpy as np
from numpy.typing import ArrayLike

from .composite import sum_around, widen
from .regions import clauses

#: In sides of the crop: the reach of a mean over hair, wide enough for one colour of a head; and what beside hair gets its colour: an edit fades in from its edge, and the old
#: one would show through there.
STRANDS, MARGIN = 16 / 128, 5 / 128

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


def is_about_hair_colour(prompt: str) -> bool:
    """Whether a prompt names a colour of hair and says nothing of its cut ("blond hair, not smiling", but not "long blond hair")."""
    of_hair = [clause for clause in clauses(prompt) if _OF_HAIR.search(clause)]
    return any(map(_COLOURS.search, of_hair)) and not any(map(_CUTS.search, of_hair))


def recolour_hair(edited: ArrayLike, reconstruction: ArrayLike, hair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Hair in a new colour whose strands stay: of what an edit did to hair, the mean around each pixel, to be laid on the photo's own detail.
    What is painted over it cell by cell is blurred, and some cells have a colour of their own.

    Args:
        edited, reconstruction: decoded codes after and before the edit, float [S, S, 3] in [0, 1].
        hair: bool [S, S].

    Returns:
        `edited` with that mean in the place of its own change at hair, float32 [S, S, 3]; and where it is, float32 [S, S].
    """
    after, before = np.asarray(edited, np.float32), np.asarray(reconstruction, np.float32)
    weight = hair[:, :, None].astype(np.float32)
    change = sum_around((after - before) * weight, STRANDS) / (sum_around(weight, STRANDS) + 1e-6)
    near = widen(hair, MARGIN)
    return np.where(near[:, :, None], np.clip(before + change, 0, 1), after), near.astype(np.float32)
