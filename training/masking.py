"""Masks for captions and code grids. Pure numpy: lengths and a generator in, boolean arrays out.

A generator for a sample comes from [`sample_generator`], so that a mask depends on the seed, the epoch and the sample alone,
never on workers, batches or what was drawn before.
"""

from dataclasses import dataclass

import numpy as np

SPAN_PROBABILITY = 0.2
MAX_SPAN = 10


def sample_generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The generator of one sample in one epoch."""
    return np.random.Generator(np.random.Philox(key=[(seed << 32) ^ epoch, sample]))


def mask_budget(count: int, ratio: float) -> int:
    """How many of `count` positions a ratio in [0, 1] masks: max(1, round(ratio·count)), 0 where there are none."""
    return min(count, max(1, round(ratio * count))) if count > 0 else 0


def span_lengths(budget: int, generator: np.random.Generator) -> np.ndarray:
    """
    Span lengths that sum to `budget`: geometric with p = 0.2 truncated at 10 (SpanBERT, Joshi et al. 2020; mean 3.80); the
    last one is clipped.
    """
    lengths = np.arange(1, MAX_SPAN + 1)
    law = SPAN_PROBABILITY * (1 - SPAN_PROBABILITY) ** (lengths - 1)
    drawn = generator.choice(lengths, size=budget, p=law / law.sum())
    total = drawn.cumsum()
    spans = drawn[: np.searchsorted(total, budget) + 1]
    spans[-1] -= total[len(spans) - 1] - budget
    return spans


def place_spans(count: int, spans: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """
    Span number of each of `count` positions [count], −1 = unmasked. Spans keep a gap between them where there is room; all
    ways to share the free positions among the gaps are equally likely.
    """
    free = count - int(spans.sum())
    inner = len(spans) - 1
    reserved = min(inner, free)
    cuts = np.sort(generator.choice(free - reserved + inner + 1, size=inner + 1, replace=False))
    gaps = np.diff(cuts, prepend=-1) - 1
    gaps[1 : reserved + 1] += 1
    starts = np.cumsum(gaps) + np.concatenate([[0], np.cumsum(spans)[:-1]])
    owner = np.full(count, -1)
    for number, (start, length) in enumerate(zip(starts, spans, strict=True)):
        owner[start : start + length] = number
    return owner


def span_mask(count: int, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Span number of each position [count], −1 = unmasked, for a ratio in (0, 1]."""
    budget = mask_budget(count, ratio)
    if budget == 0:
        return np.full(count, -1)
    return place_spans(count, span_lengths(budget, generator), generator)


def random_mask(cells: int, budget: int, generator: np.random.Generator) -> np.ndarray:
    """`budget` cells anywhere, [cells] bool."""
    mask = np.zeros(cells, bool)
    mask[generator.permutation(cells)[:budget]] = True
    return mask


def draw_block(side: int, left: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a rectangle on a grid of `side` × `side`: at most `left` cells, sides in a ratio of about 0.3 to 1/0.3."""
    area = generator.uniform(min(left, side * side // 16), left)
    aspect = np.exp(generator.uniform(np.log(0.3), -np.log(0.3)))
    height = int(np.clip(round((area * aspect) ** 0.5), 1, min(side, left)))
    width = int(np.clip(left // height if height * round(area / height) > left else round(area / height), 1, side))
    top, start = int(generator.integers(side - height + 1)), int(generator.integers(side - width + 1))
    return slice(top, top + height), slice(start, start + width)


def block_mask(cells: int, budget: int, generator: np.random.Generator) -> np.ndarray:
    """Rectangles on the square grid (BEiT, Bao et al. 2021), see [`draw_block`], until `budget` cells are masked, [cells] bool."""
    side = round(cells**0.5)
    mask = np.zeros((side, side), bool)
    left = budget
    while left > 0:
        mask[draw_block(side, left, generator)] = True
        left = budget - int(mask.sum())
    return mask.reshape(-1)


def raster_mask(cells: int, budget: int, generator: np.random.Generator) -> np.ndarray:
    """Spans in raster order, [cells] bool."""
    return place_spans(cells, span_lengths(budget, generator), generator) >= 0


IMAGE_MODES = {"random": random_mask, "block": block_mask, "raster": raster_mask}
RATIO_LAWS = {
    "fixed": lambda low, high, generator: low,
    "uniform": lambda low, high, generator: generator.uniform(low, high),
    # MaskGIT (Chang et al. 2022): high ratios are likelier, since decoding begins with everything masked
    "cosine": lambda low, high, generator: low + (high - low) * np.cos(generator.uniform() * np.pi / 2),
}


@dataclass(frozen=True)
class MaskLaw:
    """
    One part of a mixture: `mode` (`"random"`, `"block"`, `"raster"`), `law` of the ratio (`"fixed"` at `low`, `"uniform"` or
    `"cosine"` between `low` and `high`) and its `weight` among the others.
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


def image_mask(cells: int, mixture: list[MaskLaw], generator: np.random.Generator) -> np.ndarray:
    """A mask [cells] bool by one law out of the mixture, drawn by weight."""
    weights = np.array([law.weight for law in mixture], float)
    law = mixture[generator.choice(len(mixture), p=weights / weights.sum())]
    ratio = float(RATIO_LAWS[law.law](law.low, law.high, generator))
    return IMAGE_MODES[law.mode](cells, mask_budget(cells, ratio), generator)
