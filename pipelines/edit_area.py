"""What of a face crop an edit redraws, and what of that is shown."""

from dataclasses import dataclass

import numpy as np

from gptface.processing.alignment import CROP_SIZE
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.masks import cells_to_mask, covered_cells, widen
from gptface.processing.regions import (
    REGIONS,
    find_region,
    kept_pixels,
    region_cells,
    shown_cells,
)

# In sides of the crop: what is redrawn beside an area, since an edit fades in from the edge of its cells; and the way
# on which an edit fades in from the edge of its bound, or more.
MARGIN, FADE = 5 / 128, 8 / 128
# Share of a cell that must be in an area, and of a region that its classes must fill to be believed.
LEAST_SHARE, LEAST_SEEN = 0.08, 0.03
# How much of a pixel what is to go must be, and how wide its edge is, in sides of the crop.
SOME, EDGE = 0.3, 4 / 128
# A weight that changes no pixel.
NOTHING = 1 / 600
#: What may change where a region's own classes are not seen.
INSTEAD = ("face", "hair", "hat", "neck")


@dataclass(frozen=True)
class EditArea:
    """
    Args:
        cells: bool [G, G], to be redrawn.
        bound: float32 [S, S], what of the crop may change; None where all of the cells may.
        gone: bool [S, S], what is there and is to go, with its edges: none of its detail may shine through the edit.
    """

    cells: np.ndarray
    bound: np.ndarray | None = None
    gone: np.ndarray | None = None


def named_area(names: list[str], grid: int, size: int, parsing: FaceParsing | None = None) -> EditArea:
    """
    The area of named regions: their shapes, and of these, where a parser has seen the face, only what shows what they
    are about.

    Args:
        names: of regions, as users may write them.
        grid: cells along a side of the crop.
        size: pixels along a side of the crop.
        parsing: what the face and its surroundings show.

    Raises:
        ValueError: an unknown region, none, or a parser without the classes that it needs.
    """
    if not names:
        raise ValueError(f"name at least one region: {', '.join(REGIONS)}")
    if parsing is None:
        cells, shown = region_cells(names, grid), shown_cells(names, grid)
        kept = np.max([kept_pixels(name, size) for name in names], axis=0)
        if (shown >= cells).all() and not kept.any():
            return EditArea(cells)
        return EditArea(cells, cells_to_mask(shown, size) * (1 - kept))
    cells, bound = np.zeros((grid, grid), bool), np.zeros((size, size), np.float32)
    for name in names:
        seen = _seen(name, parsing, grid, size)
        redrawn, shown = region_cells(name, grid) & _touched(seen, grid), shown_cells(name, grid)
        cells |= redrawn
        # An edit fades in from the edge of its bound; where that is the edge of what is seen, a rim of the old colour
        # would stay.
        seen = np.maximum(seen, NOTHING * widen(seen > 0.5, FADE))
        bound = np.maximum(bound, seen * cells_to_mask(redrawn & shown, size) * (1 - kept_pixels(name, size)))
    gone = [parsing.crop_mask(find_region(name).classes, size) for name in names if find_region(name).removed]
    return EditArea(cells, bound, widen(np.max(gone, axis=0) > SOME, EDGE) if gone else None)


def _touched(area: np.ndarray, grid: int) -> np.ndarray:
    """The cells bool [grid, grid] that have a share in an area [S, S] in [0, 1] or lie right beside it."""
    return covered_cells(widen(area > 0.5, MARGIN), grid, LEAST_SHARE)


def _seen(name: str, parsing: FaceParsing, grid: int, size: int) -> np.ndarray:
    """How much of each pixel [size, size] of a crop a region may change."""
    region = find_region(name)
    shape = cells_to_mask(region_cells(name, grid), size)
    for classes in (region.classes, INSTEAD):
        seen = parsing.crop_mask(classes, size) if classes else np.ones_like(shape)
        if ((seen > 0.5) * shape).sum() >= LEAST_SEEN * shape.sum():
            break
    else:
        return shape
    if region.beside:
        near = widen(seen > 0.5, region.margin / CROP_SIZE)
        seen = np.maximum(seen, near * parsing.crop_mask(region.beside, size))
    return seen
