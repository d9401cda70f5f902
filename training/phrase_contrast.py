"""Opposite phrases about regions of a face: under which of them are the codes of the region likelier?"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from gptface.processing.regions import region_cells, regions_from_prompt

from .captions import phrase_for
from .code_dataset import IGNORED
from .phrases import PHRASES, SAYABLE


@lru_cache
def phrase_regions(attribute: str, value: int) -> tuple[str, ...]:
    """Named regions that the committed phrase of a mention speaks of; none for what is said of the whole picture."""
    return tuple(regions_from_prompt(phrase_for(attribute, value))) if value in SAYABLE.get(attribute, {}) else ()


cells_of_regions = lru_cache(region_cells)

#: Attributes that a region shows.
PLACED = tuple(name for name in PHRASES if phrase_regions(name, 1))


def opposite_phrases() -> list[str]:
    """
    Of each attribute of `PLACED` the phrase for value 0, then that for value 1; where the lack of one cannot be said ("not blond"),
    the empty caption stands for it.
    """
    return [phrase_for(name, value) if value in SAYABLE[name] else "" for name in PLACED for value in (0, 1)]


@lru_cache
def placed_cells(side: int) -> np.ndarray:
    """Cells of a grid [side, side] that each attribute of `PLACED` speaks of, bool [A, side²]."""
    return np.stack([cells_of_regions(phrase_regions(name, 1), side).reshape(-1) for name in PLACED])


def contrast_labels(
    known: Sequence[Mapping[str, int]],
    mentions: Sequence[Mapping[str, int]],
    masked: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """
    Which phrase is true of each picture of a batch [B, A]; `IGNORED` where the picture is not asked.

    As many pictures of one value are asked as of the other, so that a phrase that is rarely true does not simply become unlikely.

    Args:
        known: attributes of each picture.
        mentions: what its own caption says: read beside the picture, it would tell.
        masked: [B, N] bool, cells whose codes are predicted; a picture counts where the region has some.
    """
    visible = masked @ placed_cells(round(masked.shape[1] ** 0.5)).T
    labels = np.full((len(known), len(PLACED)), IGNORED)
    for column, name in enumerate(PLACED):
        values = np.array(
            [IGNORED if name in said else row.get(name, IGNORED) for row, said in zip(known, mentions, strict=True)]
        )
        sides = [generator.permutation(np.flatnonzero((values == value) & visible[:, column])) for value in (0, 1)]
        for value, rows in enumerate(sides):
            labels[rows[: min(map(len, sides))], column] = value
    return labels
