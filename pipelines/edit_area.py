"""What of a face crop an edit redraws, and what of that is shown."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from transformers.utils import logging

from gptface.processing.composite import cells_to_mask, widen
from gptface.processing.hair import fringe_cells, hair_matte, hair_pixels
from gptface.processing.outline import person_outline
from gptface.processing.regions import region_cells, region_key, shown_cells

logger = logging.get_logger(__name__)

# What an outline is widened by, in sides of the crop: the edge of an edit fades in over twice as much, so that it has half its strength at
# the outline. And the share of the hair's region that the person must fill for the outline to be believed.
OUTLINE_MARGIN, LEAST_HAIR = 3 / 128, 0.15


@dataclass(frozen=True)
class EditArea:
    """
    Args:
        cells: bool [G, G], to be redrawn.
        bound: float32 [S, S], what of the crop may change; None where all of the cells may.
        hair: bool [S, S], the hair whose colour alone changes, if it is that.
    """

    cells: np.ndarray
    bound: np.ndarray | None = None
    hair: np.ndarray | None = None


def named_area(crop: Image.Image, names: list[str], grid: int, keep_cut: bool = False) -> EditArea:
    """
    The area of named regions. Of hair the bound is the outline of the person, since it has no shape that fits everybody. What is behind
    the person is redrawn and put back: cells of it beside hair would be continued.

    Args:
        keep_cut: whether of hair only that is shown which is there, where any is found: a new colour in the old cut.
    """
    cells = region_cells(names, grid)
    others = [name for name in names if region_key(name) != "hair"]
    shown = shown_cells(others, grid) if others else np.zeros_like(cells)
    if len(others) < len(names):
        area = hair_area(crop, grid, keep_cut)
        cells = cells | area.cells
        if area.bound is not None:
            size = len(area.bound)
            bound = np.minimum(area.bound, cells_to_mask(area.cells, size)) if others else area.bound
            # a hat has another colour than the hair below it
            covered = (shown & region_cells("hair", grid))[: grid // 4].any()
            return EditArea(cells, np.maximum(bound, cells_to_mask(shown, size)), None if covered else area.hair)
        shown = shown | area.cells
    return EditArea(cells, None if (shown == cells).all() else cells_to_mask(shown, crop.height))


def hair_area(crop: Image.Image, grid: int, keep_cut: bool) -> EditArea:
    """
    The area of the region `"hair"` and of hair beside it, bounded a little outside of where it ends; the region alone where too little
    of it is a person, or without OpenCV.
    """
    region = region_cells("hair", grid)
    try:
        person = person_outline(crop)
    except ImportError:
        logger.warning_once('without OpenCV what is behind the hair changes with it: pip install "gptface[detect]"')
        return EditArea(region)
    outline = widen(person, OUTLINE_MARGIN).astype(np.float32)
    if (outline * cells_to_mask(region, len(outline))).mean() <= LEAST_HAIR * region.mean():
        return EditArea(region)
    hair = hair_pixels(crop, person)
    cells = region | fringe_cells(hair, grid)
    if keep_cut and hair.any():
        return EditArea(cells, hair_matte(crop, hair), hair)
    return EditArea(cells, outline)
