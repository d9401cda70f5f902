"""Named regions of the aligned face crop.

All crops share one alignment, so a region has a fixed shape, laid out around the landmarks of `CROP_LANDMARKS`; what
of it may change in a face is told by the classes of a face parser that it names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .alignment import CROP_LANDMARKS, CROP_SIZE


@dataclass(frozen=True)
class Shape:
    """A box or an ellipse, in fractions of the crop's side: centre and half extents."""

    x: float
    y: float
    half_width: float
    half_height: float
    round: bool

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which points, in fractions of the crop's side, lie inside; bool of the common shape of `x` and `y`."""
        u, v = np.abs(x - self.x) / self.half_width, np.abs(y - self.y) / self.half_height
        return u * u + v * v <= 1 if self.round else (u <= 1) & (v <= 1)


#: In radii of an ellipse that is kept, where the edit has taken over wholly.
KEPT_REACH = 1.35


@dataclass(frozen=True)
class Region:
    """
    The union of the shapes in `include` without those in `exclude`.

    Args:
        shown: what is shown of an edit, where there are any: the rest is redrawn for their sake, so that they may fit
            to it, and then put back.
        kept: ellipses whose pixels stay the photo's in an edit by a prompt: all is redrawn, but what is behind clear
            lenses is the person's.
        classes: of `FACE_CLASSES` or groups of them (`face_parsing.GROUPS`), what the region may change; anything
            where there are none.
        removed: whether what its classes show is to go.
        spared: classes that stay, with what lies so near to them that it may be theirs, `margin`.
        beside: what may change with them, up to `margin` pixels of the 128-pixel crop away.
    """

    include: tuple[Shape, ...]
    exclude: tuple[Shape, ...] = ()
    shown: tuple[Shape, ...] = ()
    kept: tuple[Shape, ...] = ()
    classes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    margin: float = 0.0
    removed: bool = False
    spared: tuple[str, ...] = ()

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """As `Shape.contains`."""
        inside = np.any([shape.contains(x, y) for shape in self.include], axis=0)
        return inside & ~np.any([shape.contains(x, y) for shape in self.exclude], axis=0) if self.exclude else inside


def ellipse(x: float, y: float, half_width: float, half_height: float) -> Shape:
    """An ellipse in pixels of the 128-pixel crop."""
    return Shape(x / CROP_SIZE, y / CROP_SIZE, half_width / CROP_SIZE, half_height / CROP_SIZE, round=True)


def box(x0: float, y0: float, x1: float, y1: float) -> Shape:
    """A box in pixels of the 128-pixel crop."""
    centre_x, centre_y, scale = (x0 + x1) / 2, (y0 + y1) / 2, CROP_SIZE
    return Shape(centre_x / scale, centre_y / scale, (x1 - x0) / 2 / scale, (y1 - y0) / 2 / scale, round=False)


(_LEFT_EYE_X, _EYE_Y), (_RIGHT_EYE_X, _), (_MIDDLE, _NOSE_Y), (_, _MOUTH_Y), _ = CROP_LANDMARKS.tolist()
_BROW_Y = _EYE_Y - 13

_MOUTH = ellipse(_MIDDLE, _MOUTH_Y + 1, 25, 14)
_CHEEKS = (ellipse(_LEFT_EYE_X - 5, _NOSE_Y + 3, 16, 16), ellipse(_RIGHT_EYE_X + 5, _NOSE_Y + 3, 16, 16))
_FOLDS = ellipse(_MIDDLE, _MOUTH_Y, 35, 15)
_CHIN = ellipse(_MIDDLE, _MOUTH_Y + 19, 28, 14)
_BEARD = (_MOUTH, _CHIN, ellipse(_MIDDLE, _MOUTH_Y + 8, 40, 24))
_FOREHEAD = box(30, 14, 98, _BROW_Y)
_GLASSES = box(18, _BROW_Y - 4, 110, _EYE_Y + 16)
# Rims and their shadows on cheeks and temples.
_WORN_GLASSES = box(14, _BROW_Y - 4.5, 114, _EYE_Y + 33)
_EVERYTHING = box(0, 0, CROP_SIZE, CROP_SIZE)
_EYES = (ellipse(_LEFT_EYE_X, _EYE_Y, 10, 6), ellipse(_RIGHT_EYE_X, _EYE_Y, 10, 6))

_LIPS_AND_SKIN = ("facial_skin", "whole_mouth")
_FACE = ("facial_skin", "eyes", "brows", "whole_mouth")
_AROUND_THE_EYES = ("facial_skin", "eyes", "brows", "eyeglasses")
_HEAD_WITHOUT_EARS = ("face", "hair", "hat", "neck")

REGIONS: dict[str, Region] = {
    "mouth": Region((_MOUTH,), classes=_LIPS_AND_SKIN),
    # A mouth opens downwards: drawn above a chin that stays it fails more often (lab/NOTES.md); but the jaw is the
    # person's.
    "smile": Region(
        (_MOUTH, *_CHEEKS, _CHIN), shown=(ellipse(_MIDDLE, _MOUTH_Y + 6, 28, 20), *_CHEEKS), classes=_LIPS_AND_SKIN
    ),
    # A smile draws folds beside the mouth, and they go with it.
    "resting_mouth": Region(
        (_MOUTH, _FOLDS, *_CHEEKS, _CHIN),
        shown=(ellipse(_MIDDLE, _MOUTH_Y + 6, 28, 20), _FOLDS, *_CHEEKS),
        classes=_LIPS_AND_SKIN,
    ),
    "smiling_mouth": Region((_MOUTH, _CHIN), shown=(ellipse(_MIDDLE, _MOUTH_Y + 6, 28, 20),), classes=_LIPS_AND_SKIN),
    "eyes": Region(
        (ellipse(_LEFT_EYE_X, _EYE_Y, 15, 9), ellipse(_RIGHT_EYE_X, _EYE_Y, 15, 9)), classes=("eyes", "facial_skin")
    ),
    "brows": Region(
        (box(26, _BROW_Y - 6, 60, _BROW_Y + 6), box(68, _BROW_Y - 6, 102, _BROW_Y + 6)), classes=("brows", "skin")
    ),
    "nose": Region((ellipse(_MIDDLE, _NOSE_Y - 7, 14, 20),), classes=("facial_skin",)),
    "cheeks": Region(_CHEEKS, classes=("facial_skin",)),
    "chin": Region((_CHIN,), classes=_LIPS_AND_SKIN),
    # A beard grows around the mouth, which is the person's, and stays where one is shaved off.
    "beard": Region(_BEARD, classes=("facial_skin",), margin=1, spared=("whole_mouth",)),
    # A mask that is worn may look like clothes.
    "lower_face": Region((box(20, _EYE_Y + 10, 108, CROP_SIZE),), classes=(*_LIPS_AND_SKIN, "neck", "cloth")),
    "upper_face": Region((box(20, 12, 108, _EYE_Y + 10),), classes=_AROUND_THE_EYES),
    "forehead": Region((_FOREHEAD,), classes=("skin", "hair")),
    "bangs": Region((_FOREHEAD, box(16, 0, 112, 16)), classes=("skin", "hair")),
    # Whatever frames the face, less the neck.
    "hair": Region(
        (_EVERYTHING,),
        (ellipse(_MIDDLE, _NOSE_Y - 6, 36, 50), box(36, 100, 92, CROP_SIZE)),
        classes=_HEAD_WITHOUT_EARS,
        beside=("background",),
        margin=3,
    ),
    "hat": Region((box(0, 0, CROP_SIZE, _BROW_Y - 2),), classes=("background", "hair", "hat", "skin")),
    "glasses": Region((_GLASSES,), classes=_AROUND_THE_EYES, beside=("hair",), margin=3),
    # Lenses that one looks through: the eyes behind them are the person's.
    "clear_glasses": Region((_GLASSES,), kept=_EYES, classes=_AROUND_THE_EYES, beside=("hair",), margin=3),
    "worn_glasses": Region((_WORN_GLASSES,), classes=("eyeglasses",), beside=("face", "hair"), margin=8, removed=True),
    "ears": Region(
        (box(8, _EYE_Y - 8, 28, _MOUTH_Y), box(100, _EYE_Y - 8, 120, _MOUTH_Y)),
        classes=("ear", "earring", "skin", "hair", "neck"),
    ),
    "face": Region((ellipse(_MIDDLE, _NOSE_Y - 8, 42, 54),), classes=_FACE),
    "all": Region((_EVERYTHING,)),
}


def area_pixels(area: Shape | Region, size: int) -> np.ndarray:
    """The pixels bool `[size, size]` of a crop whose centres lie in an area."""
    centres = (np.arange(size) + 0.5) / size
    return area.contains(centres[None, :], centres[:, None])


# A cell belongs to a region that covers this much of it.
_MINIMAL_COVER = 1 / 3
_SAMPLES = 8


def region_cells(name: str | Iterable[str], grid: int) -> np.ndarray:
    """The cells of one region, or of several together.

    Args:
        name: Key of `REGIONS`, or several. Case does not matter, and `"lower face"` or `"lower-face"` will do.
        grid: Number of cells along a side of the crop.

    Returns:
        bool `[grid, grid]`, at least one True for every region.

    Raises:
        ValueError: An unknown name, or none.
    """
    return np.any([_cells(region, grid) for region in _look_up_all(name)], axis=0)


def shown_cells(name: str | Iterable[str], grid: int) -> np.ndarray:
    """Those of `region_cells` that are shown of an edit; see there."""
    cells = [(_cells(region, grid), region.shown) for region in _look_up_all(name)]
    return np.any([all_ & _cells(Region(shown), grid) if shown else all_ for all_, shown in cells], axis=0)


def kept_pixels(name: str, size: int) -> np.ndarray:
    """
    How much of each pixel of a crop stays the photo's, float32 `[size, size]`: 1 in the ellipses of `kept`, then
    falling to 0.
    """
    places = (np.arange(size) + 0.5) / size
    kept = np.zeros((size, size), np.float32)
    for shape in find_region(name).kept:
        across, down = (places - shape.x) / shape.half_width, (places - shape.y) / shape.half_height
        distance = np.hypot(across[None, :], down[:, None])
        kept = np.maximum(kept, ((KEPT_REACH - distance) / (KEPT_REACH - 1)).clip(0, 1).astype(np.float32))
    return kept


def _look_up_all(name: str | Iterable[str]) -> list[Region]:
    names = [name] if isinstance(name, str) else list(name)
    if not names:
        raise ValueError(f"name at least one region: {', '.join(REGIONS)}")
    return [find_region(each) for each in names]


def region_key(name: str) -> str:
    """
    A region's name as users may write it (`"Lower face"`, `"lower-face"`) → as the keys of `REGIONS` are written.
    """
    return "_".join(re.split(r"[\s_-]+", str(name).strip().lower()))


def find_region(name: str) -> Region:
    """
    A region by its name, as users may write it.

    Raises:
        ValueError: an unknown name.
    """
    key = region_key(name)
    if key not in REGIONS:
        raise ValueError(f"unknown region {name!r}; known are: {', '.join(REGIONS)}")
    return REGIONS[key]


def _cells(region: Region, grid: int) -> np.ndarray:
    inside = area_pixels(region, grid * _SAMPLES)
    cover = inside.reshape(grid, _SAMPLES, grid, _SAMPLES).mean(axis=(1, 3))
    # On a coarse grid no cell may be covered enough: then the best one stands for the region.
    return cover >= min(_MINIMAL_COVER, float(cover.max()))
