"""
Masks of a whole batch at once, for captions and code grids. Pure numpy: lengths and noise in, arrays out.

The laws are those of the literature (spans: SpanBERT, blocks: BEiT, ratios: MaskGIT); a sample at a time, drawing them
takes as long as deciding every token in a loop. All noise comes from [`SampleNoise`], which is a function of the seed,
the epoch and the sample alone, so that a mask depends neither on workers, nor on the batch, nor on what was drawn
before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .masking import SPAN_LENGTHS, SPAN_LENGTHS_CDF

# Streams of a sample's noise: what is drawn from one tells nothing of another.
WORDS, CELLS, LAW = 1, 2, 3
_FURTHER = 1 << 20  # between what one law draws for different ends

_BEHIND = np.iinfo(np.int64).max
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _scramble(values: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _unit(values: np.ndarray) -> np.ndarray:
    """64 random bits → numbers in [0, 1)."""
    return (values >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class SampleNoise:
    """
    Uniform noise for B samples. Entry j of a sample's stream is a hash (SplitMix64) of its key and j, so that any part
    of it can be had for all samples at once.

    Args:
        keys: [B] uint64; see [`SampleNoise.of`].
    """

    keys: np.ndarray

    @classmethod
    def of(cls, seed: int, epochs: Sequence[int], samples: Sequence[int]) -> "SampleNoise":
        """Noise of these samples in these epochs."""
        key = _scramble(np.full(len(samples), seed % 2**64, np.uint64) + _GOLDEN)
        for part in (epochs, samples):
            key = _scramble((key ^ np.array([number % 2**64 for number in part], np.uint64)) + _GOLDEN)
        return cls(key)

    def stream(self, number: int) -> "SampleNoise":
        """Independent noise of the same samples."""
        # an array of one: numpy warns where single numbers wrap around
        return SampleNoise(_scramble(self.keys ^ _scramble(np.array([number + 1], np.uint64) * _GOLDEN)))

    def rows(self, rows: np.ndarray) -> "SampleNoise":
        """Noise of some of the samples, by index or mask."""
        return SampleNoise(self.keys[rows])

    def uniform(self, count: int, start: int = 0) -> np.ndarray:
        """Entries `start` … `start + count − 1`, [B, count] in [0, 1)."""
        places = np.arange(start + 1, start + count + 1, dtype=np.uint64) * _GOLDEN
        return _unit(_scramble(self.keys[:, None] + places))

    def entries(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Single entries, each of a sample and a place [M], in [0, 1)."""
        return _unit(_scramble(self.keys[rows] + (places + 1).astype(np.uint64) * _GOLDEN))


def mask_budgets(counts: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """How many of each row's positions are masked [B]: max(1, round(ratio·count)), 0 where there are none."""
    return np.minimum(counts, np.maximum(1, np.rint(ratios * counts).astype(np.int64)))


def span_masks(counts: np.ndarray, budgets: np.ndarray, noise: SampleNoise) -> np.ndarray:
    """
    Span number of each position [B, longest], −1 = unmasked or behind the row's end.

    Span lengths are those of [`gptface.data.masking.span_lengths`]; spans keep a gap between them where there is room,
    and all ways to share the free positions among the gaps are equally likely.

    Args:
        counts: positions of each row [B].
        budgets: how many of them are masked [B].
    """
    longest, most = int(counts.max(initial=0)), int(budgets.max(initial=0))
    if most == 0:
        return np.full((len(counts), longest), -1)
    lengths = SPAN_LENGTHS[SPAN_LENGTHS_CDF.searchsorted(noise.uniform(most), side="right")]
    before = lengths.cumsum(1) - lengths
    # the last span of a row is clipped, those behind it are none
    lengths = np.clip(budgets[:, None] - before, 0, lengths)
    spans = (lengths > 0).sum(1)
    width = int(spans.max())
    lengths = lengths[:, :width]
    free = counts - budgets
    reserved = np.minimum(np.maximum(spans - 1, 0), free)
    cuts = distinct_numbers(free - reserved + spans, spans, noise.stream(_FURTHER))
    number = np.arange(width)
    gaps = np.diff(cuts, axis=1, prepend=-1) - 1 + ((number >= 1) & (number <= reserved[:, None]))
    gaps[number >= spans[:, None]] = 0
    # gap, span, gap, span, …, what is left
    parts = np.empty((len(counts), 2 * width + 1), np.int64)
    parts[:, :-1:2], parts[:, 1::2] = gaps, lengths
    parts[:, -1] = longest - budgets - gaps.sum(1)
    owners = np.full(2 * width + 1, -1)
    owners[1::2] = number
    return np.repeat(np.broadcast_to(owners, parts.shape).ravel(), parts.ravel()).reshape(len(counts), longest)


def distinct_numbers(limits: np.ndarray, counts: np.ndarray, noise: SampleNoise) -> np.ndarray:
    """
    For each row `counts` different numbers below `limits`, any set of them equally likely, in order, [B, most]; behind
    a row's count stands a number larger than all others.
    """
    most = int(counts.max(initial=0))
    behind = np.arange(most) >= counts[:, None]
    # Few out of many are drawn again until they differ; Floyd's algorithm, one number after the other, never fails.
    dense = counts * counts > 2 * limits
    chosen = np.empty((len(limits), most), np.int64)
    if dense.any():
        chosen[dense] = _floyd(limits[dense], counts[dense], noise.rows(dense), most)
    pending, attempt = np.flatnonzero(~dense), 0
    while pending.size:
        attempt += 1
        uniform = noise.rows(pending).stream(attempt).uniform(most)
        drawn = (uniform * limits[pending, None]).astype(np.int64)
        drawn[behind[pending]] = _BEHIND
        drawn.sort(axis=1)
        chosen[pending] = drawn
        repeated = (drawn[:, 1:] == drawn[:, :-1]) & (drawn[:, 1:] < _BEHIND)
        pending = pending[repeated.any(1)]
    return chosen


def _floyd(limits: np.ndarray, counts: np.ndarray, noise: SampleNoise, most: int) -> np.ndarray:
    chosen = np.full((len(limits), most), _BEHIND)
    uniform = noise.uniform(most)
    for place in range(most):
        last = limits - counts + place
        drawn = (uniform[:, place] * (last + 1)).astype(np.int64)
        drawn = np.where((chosen[:, :place] == drawn[:, None]).any(1), last, drawn)
        chosen[:, place] = np.where(counts > place, drawn, _BEHIND)
    return np.sort(chosen, axis=1)


def random_masks(cells: int, budgets: np.ndarray, noise: SampleNoise) -> np.ndarray:
    """Cells anywhere, [B, cells] bool."""
    uniform = noise.uniform(cells)
    thresholds = np.pad(np.sort(uniform, axis=1), ((0, 0), (1, 0)), constant_values=-1)
    return uniform <= np.take_along_axis(thresholds, budgets[:, None], 1)


def block_masks(cells: int, budgets: np.ndarray, noise: SampleNoise) -> np.ndarray:
    """
    Rectangles on the square grid (BEiT, Bao et al. 2021), see [`draw_blocks`], until the budget is met, [B, cells]
    bool.
    """
    side = round(cells**0.5)
    masks = np.zeros((len(budgets), side, side), bool)
    left, number = budgets.copy(), 0
    line = np.arange(side)
    while (rows := np.flatnonzero(left > 0)).size:
        top, bottom, start, end = (
            edge[:, None] for edge in draw_blocks(side, left[rows], noise.rows(rows).uniform(4, 4 * number))
        )
        inside = ((line >= top) & (line < bottom))[:, :, None] & ((line >= start) & (line < end))[:, None, :]
        masks[rows] |= inside
        left[rows] = budgets[rows] - masks[rows].sum((1, 2))
        number += 1
    return masks.reshape(len(budgets), cells)


def draw_blocks(side: int, left: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, ...]:
    """
    Top, bottom, start and end [B] of a rectangle on a grid of `side` × `side`: at most `left` [B] cells, sides in a
    ratio of about 0.3 to 1/0.3. `uniform` is noise [B, 4].
    """
    least = np.minimum(left, side * side // 16)
    area = least + (left - least) * uniform[:, 0]
    aspect = np.exp((2 * uniform[:, 1] - 1) * -np.log(0.3))
    height = np.clip(np.rint((area * aspect) ** 0.5).astype(np.int64), 1, np.minimum(side, left))
    width = np.rint(area / height).astype(np.int64)
    width = np.clip(np.where(height * width > left, left // height, width), 1, side)
    top = (uniform[:, 2] * (side - height + 1)).astype(np.int64)
    start = (uniform[:, 3] * (side - width + 1)).astype(np.int64)
    return top, top + height, start, start + width


def raster_masks(cells: int, budgets: np.ndarray, noise: SampleNoise) -> np.ndarray:
    """Spans in raster order, [B, cells] bool."""
    return span_masks(np.full(len(budgets), cells), budgets, noise) >= 0


IMAGE_MODES: dict[str, Callable[[int, np.ndarray, SampleNoise], np.ndarray]] = {
    "random": random_masks,
    "block": block_masks,
    "raster": raster_masks,
}
RATIO_LAWS: dict[str, Callable[[float, float, np.ndarray], np.ndarray]] = {
    "fixed": lambda low, high, uniform: np.full_like(uniform, low),
    "uniform": lambda low, high, uniform: low + (high - low) * uniform,
    # MaskGIT (Chang et al. 2022): high ratios are likelier, since decoding begins with everything masked
    "cosine": lambda low, high, uniform: low + (high - low) * np.cos(uniform * np.pi / 2),
}


@dataclass(frozen=True)
class MaskLaw:
    """
    One part of a mixture: `mode` (`"random"`, `"block"`, `"raster"`), `law` of the ratio (`"fixed"` at `low`,
    `"uniform"` or `"cosine"` between `low` and `high`) and its `weight` among the others.
    """

    mode: str = "raster"
    law: str = "fixed"
    low: float = 0.15
    high: float = 0.15
    weight: float = 1.0

    def __post_init__(self):
        if self.mode not in IMAGE_MODES or self.law not in RATIO_LAWS:
            raise ValueError(
                f"mode must be one of {sorted(IMAGE_MODES)} and law one of {sorted(RATIO_LAWS)}, got {self}"
            )
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"ratios must satisfy 0 ≤ low ≤ high ≤ 1, got {self}")


def image_masks(cells: int, mixture: Sequence[MaskLaw], noise: SampleNoise) -> np.ndarray:
    """Masks [B, cells] bool, each by one law out of the mixture, drawn by weight."""
    edges = np.cumsum([law.weight for law in mixture])
    drawn = noise.stream(LAW).uniform(2)
    chosen = np.minimum((edges / edges[-1]).searchsorted(drawn[:, 0], side="right"), len(mixture) - 1)
    masks = np.zeros((len(noise.keys), cells), bool)
    for number, part in enumerate(mixture):
        rows = np.flatnonzero(chosen == number)
        if rows.size:
            ratios = RATIO_LAWS[part.law](part.low, part.high, drawn[rows, 1])
            budgets = mask_budgets(np.full(rows.size, cells), ratios)
            masks[rows] = IMAGE_MODES[part.mode](cells, budgets, noise.rows(rows).stream(CELLS))
    return masks
