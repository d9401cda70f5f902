"""Opposite phrases about regions of a face: under which of them are the codes of the region likelier?"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from gptface.processing.prompt_words import regions_from_prompt
from gptface.processing.regions import region_cells

from .captions import phrase_for
from .code_dataset import IGNORED
from .phrases import GRAYSCALE, PHRASES, SAYABLE

#: Columns of [`label_matrix`].
MENTIONS = (*SAYABLE, GRAYSCALE)
_COLUMNS = {name: column for column, name in enumerate(MENTIONS)}
UNKNOWN = -1


@lru_cache
def phrase_regions(attribute: str, value: int) -> tuple[str, ...]:
    """Named regions that the committed phrase of a mention speaks of; none for what is said of the whole picture."""
    return tuple(regions_from_prompt(phrase_for(attribute, value))) if value in SAYABLE.get(attribute, {}) else ()


cells_of_regions = lru_cache(region_cells)

#: Attributes that a region shows.
PLACED = tuple(name for name in PHRASES if phrase_regions(name, 1))


def opposite_phrases() -> list[str]:
    """
    Of each attribute of `PLACED` the phrase for value 0, then that for value 1; where the lack of one cannot be said
    ("not blond"), the empty caption stands for it.
    """
    return [phrase_for(name, value) if value in SAYABLE[name] else "" for name in PLACED for value in (0, 1)]


@lru_cache
def placed_cells(side: int) -> np.ndarray:
    """Cells of a grid [side, side] that each attribute of `PLACED` speaks of, bool [A, side²]."""
    return np.stack([cells_of_regions(phrase_regions(name, 1), side).reshape(-1) for name in PLACED])


def label_matrix(rows: Sequence[Mapping[str, int]]) -> np.ndarray:
    """What is known of each row, or said of it, as a column for each of `MENTIONS` [B, M] int8, −1 = nothing."""
    matrix = np.full((len(rows), len(MENTIONS)), UNKNOWN, np.int8)
    for row, labels in zip(matrix, rows, strict=True):
        for name, value in labels.items():
            column = _COLUMNS.get(name)
            if column is not None:
                row[column] = value
    return matrix


def truths(mentions: Mapping[str, int], known: np.ndarray) -> np.ndarray:
    """
    Whether a caption that states something is true of rows of a [`label_matrix`] [B, M]: 1, 0, or `IGNORED` where the
    labels do not say.
    """
    columns = [_COLUMNS[name] for name in mentions if name in _COLUMNS]
    own, stated = known[:, columns], np.array([mentions[MENTIONS[column]] for column in columns])
    false = ((own != stated) & (own != UNKNOWN)).any(1)
    return np.where(false, 0, np.where((own == stated).all(1), 1, IGNORED))


def contrast_pairs(
    known: np.ndarray,
    said: np.ndarray,
    labelled: np.ndarray,
    attributes: int,
    pairs: int,
    cells: int,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """
    Pairs of a picture and an attribute whose region has codes to predict.

    Of each attribute as many pictures of one value are asked as of the other, so that a phrase that is rarely true
    does not simply become unlikely; attributes are asked alike, rare ones as often as others.

    Args:
        known: attributes of each picture, and
        said: those that its own caption, read beside it, tells: two [`label_matrix`].
        labelled: [B, N] bool, cells whose codes are predicted.
        attributes: how many attributes are asked for.
        pairs: how many pairs, an even number.
        cells: at most so many cells of the region a pair.

    Returns:
        `asked` [attributes], numbers of attributes of `PLACED`; `phrases` [pairs, 2], numbers of the phrases for 0 and
        1 among the two of each asked attribute; `pictures` [pairs]; `positions` [pairs, cells], −1 = none; `labels`
        [pairs], which phrase is true, `IGNORED` where the batch has no such pair.
    """
    columns = [_COLUMNS[name] for name in PLACED]
    regions = placed_cells(round(labelled.shape[1] ** 0.5))
    visible = labelled.astype(np.float32) @ regions.T.astype(np.float32) > 0
    values = np.where((said[:, columns] == UNKNOWN) & visible, known[:, columns], UNKNOWN)
    sides = np.stack([(values == value).any(0) for value in (0, 1)])
    possible = np.flatnonzero(sides.all(0))
    rest = np.flatnonzero(~sides.all(0))
    asked = np.concatenate([generator.permutation(possible), rest])[:attributes]
    usable = min(len(possible), attributes)
    result = {
        "asked": asked,
        "phrases": np.tile([0, 1], (pairs, 1)),
        "pictures": np.zeros(pairs, np.int64),
        "positions": np.full((pairs, cells), -1),
        "labels": np.full(pairs, IGNORED),
    }
    if not usable:
        return result
    chosen = np.repeat(generator.integers(usable, size=pairs // 2), 2)
    truth = np.tile([0, 1], pairs // 2)
    # a random picture of each value: the largest of random numbers among those that have it
    scores = generator.random((pairs, len(known)))
    scores[truth[:, None] != values[:, asked[chosen]].T] = -1
    pictures = scores.argmax(1)
    inside = labelled[pictures] & regions[asked[chosen]]
    order = np.where(inside, generator.random(inside.shape), 2.0)
    positions = np.argpartition(order, min(cells, order.shape[1]) - 1, axis=1)[:, :cells]
    positions = np.where(np.take_along_axis(inside, positions, 1), positions, -1)
    result["positions"][:, : positions.shape[1]] = positions
    return result | {
        "phrases": 2 * chosen[:, None] + np.array([0, 1]),
        "pictures": pictures,
        "labels": truth,
    }
