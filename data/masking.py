"""Masks of one caption or code grid. Pure numpy: lengths and a generator in, arrays out; for whole batches see
`batch_masking`.

A generator for a sample comes from [`sample_generator`], so that a mask depends on the seed, the epoch and the sample
alone, never on workers, batches or what was drawn before.
"""

import numpy as np

SPAN_PROBABILITY = 0.2
MAX_SPAN = 10
SPAN_LENGTHS = np.arange(1, MAX_SPAN + 1)
_LAW = SPAN_PROBABILITY * (1 - SPAN_PROBABILITY) ** (SPAN_LENGTHS - 1)
SPAN_LENGTHS_CDF = (_LAW / _LAW.sum()).cumsum()
SPAN_LENGTHS_CDF /= SPAN_LENGTHS_CDF[-1]


def sample_generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The generator of one sample in one epoch."""
    return np.random.Generator(np.random.Philox(key=[(seed << 32) ^ epoch, sample]))


def mask_budget(count: int, ratio: float) -> int:
    """How many of `count` positions a ratio in [0, 1] masks: max(1, round(ratio·count)), 0 where there are none."""
    return min(count, max(1, round(ratio * count))) if count > 0 else 0


def span_lengths(budget: int, generator: np.random.Generator) -> np.ndarray:
    """
    Span lengths that sum to `budget`: geometric with p = 0.2 truncated at 10 (SpanBERT, Joshi et al. 2020; mean 3.80);
    the last one is clipped.
    """
    drawn = SPAN_LENGTHS[SPAN_LENGTHS_CDF.searchsorted(generator.random(budget), side="right")]
    total = drawn.cumsum()
    spans = drawn[: np.searchsorted(total, budget) + 1]
    spans[-1] -= total[len(spans) - 1] - budget
    return spans


def place_spans(count: int, spans: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """
    Span number of each of `count` positions [count], −1 = unmasked. Spans keep a gap between them where there is room;
    all ways to share the free positions among the gaps are equally likely.
    """
    free = count - int(spans.sum())
    inner = len(spans) - 1
    reserved = min(inner, free)
    cuts = np.sort(generator.choice(free - reserved + inner + 1, size=inner + 1, replace=False))
    gaps = np.diff(cuts, prepend=-1) - 1
    gaps[1 : reserved + 1] += 1
    starts = np.cumsum(gaps) + np.concatenate([[0], np.cumsum(spans)[:-1]])
    owner = np.full(count, -1)
    owner[np.repeat(starts - np.cumsum(spans) + spans, spans) + np.arange(spans.sum())] = np.repeat(
        np.arange(len(spans)), spans
    )
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
