"""What in a photo tells whether a thing that is put on a face or taken off is there."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from .alignment import CROP_SIZE, align, compose
from .canvas import blur
from .face_parsing import FaceParsing
from .part_colour import SURELY, to_oklab

#: Share of the crop that glasses, hats, earrings and face masks fill where they are worn.
LEAST_GLASSES, LEAST_HAT, LEAST_EARRING, LEAST_MASK = 1 / 250, 1 / 100, 1 / 4000, 1 / 50
#: Of the chroma (Oklab) of cheeks, what skin around the mouth has at least where no hair grows: hair takes it away.
#: Bare skin of 30 men has 0.82 to 1.1 of it, beards and stubble 0.4 to 0.8 (white ones up to 0.86).
COLOURED = 0.8
#: Chroma of cheeks below which a photo has no colours that could tell, and least number of pixels of skin.
LEAST_CHROMA, LEAST_PIXELS = 0.02, 20
#: In pixels of the 128-pixel crop: the uppermost row of cheeks and how far above the mouth they end; how far to the
#: sides of its middle skin above and below the mouth reaches; and how far from lips it begins.
CHEEKS, ABOVE_THE_MOUTH, BESIDE_ABOVE, BESIDE_BELOW, OFF_THE_LIPS = 60.0, 12.0, 14.0, 22.0, 2.0


class Sign(Protocol):
    """Tells whether a thing is there."""

    def seen(self, photo: Image.Image, parsing: FaceParsing) -> bool | None:
        """Whether a face has it; None where that cannot be told."""
        ...


@dataclass(frozen=True)
class Worn:
    """
    A thing that the face parser knows, a [`Sign`].

    Args:
        name: of its class.
        least: share of the crop that it fills where it is worn.
    """

    name: str
    least: float

    def seen(self, photo: Image.Image, parsing: FaceParsing) -> bool:
        """See [`Sign.seen`]."""
        return self.worn(parsing)

    def worn(self, parsing: FaceParsing) -> bool:
        """Whether the parser sees enough of it in the photo; never where it does not know it."""
        if self.name not in parsing.labels:
            return False
        seen = (parsing.crop_mask(self.name, CROP_SIZE) > SURELY) & parsing.in_photo()  # beyond its edge are streaks
        return bool(seen.mean() >= self.least)


@dataclass(frozen=True)
class FacialHair:
    """
    Hair on skin around the mouth, a [`Sign`]: it has less colour than skin.

    Args:
        above, below: whether that above the mouth counts, and that below it.
    """

    above: bool = True
    below: bool = True

    def seen(self, photo: Image.Image, parsing: FaceParsing) -> bool | None:
        """False where skin is bare; None where it may not be, or no bare skin is known: light and make-up differ."""
        lips, nose = (parsing.crop_mask(name, CROP_SIZE) > SURELY for name in ("whole_mouth", "nose"))
        if not lips.any() or not nose.any():
            return None
        skin = (parsing.crop_mask("skin", CROP_SIZE) > 0.9) & (blur(lips.astype(np.float32), OFF_THE_LIPS / 2) < 0.05)
        crop = align(photo, compose(parsing.matrix, parsing.to_crop), CROP_SIZE)
        colours = to_oklab(np.asarray(crop, np.float32) / 255)
        rows, columns = np.nonzero(lips)
        y, x = np.arange(CROP_SIZE)[:, None], np.abs(np.arange(CROP_SIZE) - columns.mean())
        cheeks = skin & (y > CHEEKS) & (y < rows.mean() - ABOVE_THE_MOUTH)
        parts = []
        if self.above:
            above = (y >= np.nonzero(nose)[0].max()) & (y <= rows.min() + OFF_THE_LIPS)
            parts.append(skin & above & (x < BESIDE_ABOVE))
        if self.below:
            parts.append(skin & (y > rows.max()) & (x < BESIDE_BELOW))
        if any(part.sum() < LEAST_PIXELS for part in (cheeks, *parts)):
            return None
        chroma = [float(np.hypot(*np.median(colours[part], 0)[1:])) for part in (cheeks, *parts)]
        return None if min(chroma) < COLOURED * chroma[0] or chroma[0] < LEAST_CHROMA else False


GLASSES, HAT, EARRING, FACE_MASK = (
    Worn("eyeglasses", LEAST_GLASSES),
    Worn("hat", LEAST_HAT),
    Worn("earring", LEAST_EARRING),
    Worn("face_mask", LEAST_MASK),
)
BEARD, MUSTACHE_HAIR, CHIN_HAIR = FacialHair(), FacialHair(below=False), FacialHair(above=False)
