"""Masks that break their laws teach the model another task than the one that is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface.training.masking import (
    IMAGE_MODES,
    MAX_SPAN,
    MaskLaw,
    block_mask,
    draw_block,
    image_mask,
    mask_budget,
    place_spans,
    sample_generator,
    span_lengths,
    span_mask,
)


@given(
    mode=st.sampled_from(sorted(IMAGE_MODES)),
    side=st.integers(2, 17),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_every_mode_masks_exactly_its_budget(mode, side, ratio, seed):
    cells = side * side
    budget = mask_budget(cells, ratio)
    mask = IMAGE_MODES[mode](cells, budget, sample_generator(seed, 0, 0))
    assert mask.shape == (cells,) and mask.dtype == bool
    assert mask.sum() == budget == min(cells, max(1, round(ratio * cells)))


@given(count=st.integers(0, 80), ratio=st.floats(0.01, 1), seed=st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_spans_of_words_meet_the_budget_and_are_contiguous(count, ratio, seed):
    owner = span_mask(count, ratio, sample_generator(seed, 1, 2))
    assert (owner >= 0).sum() == mask_budget(count, ratio)
    for number in set(owner.tolist()) - {-1}:
        places = np.flatnonzero(owner == number)
        assert places[-1] - places[0] + 1 == len(places) <= MAX_SPAN


def test_span_lengths_follow_the_truncated_geometric_law():
    generator = sample_generator(0, 0, 0)
    # the last span of a draw is clipped at the budget, so it does not count
    lengths = np.concatenate([span_lengths(512, generator)[:-1] for _ in range(600)])
    assert abs(lengths.mean() - 3.797) < 0.03
    law = 0.2 * 0.8 ** np.arange(MAX_SPAN)
    observed = np.bincount(lengths, minlength=MAX_SPAN + 1)[1:] / len(lengths)
    assert np.abs(observed - law / law.sum()).max() < 0.006


def test_spans_keep_a_gap_where_there_is_room():
    for sample in range(200):
        owner = place_spans(40, np.array([3, 5, 2, 4]), sample_generator(0, 0, sample))
        starts = [np.flatnonzero(owner == number)[0] for number in range(1, 4)]
        assert all(owner[start - 1] == -1 for start in starts)


def test_spans_start_anywhere_with_like_probability():
    masked = sum(span_mask(20, 0.15, sample_generator(0, 0, sample)) >= 0 for sample in range(4000))
    share = masked / 4000
    assert share.max() / share.mean() < 1.35 and share.min() / share.mean() > 0.5


@given(side=st.integers(2, 17), ratio=st.floats(0.01, 1), seed=st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_blocks_are_rectangles_inside_the_grid_and_the_budget(side, ratio, seed):
    budget = mask_budget(side * side, ratio)
    replayed, union = sample_generator(seed, 0, 0), np.zeros((side, side), bool)
    while union.sum() < budget:
        left = budget - union.sum()
        rows, columns = draw_block(side, left, replayed)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert 0 <= rows.start < rows.stop <= side and 0 <= columns.start < columns.stop <= side
        assert height * width <= left
        if height * width >= 16 and max(height, width) < side:  # smaller ones are rounded
            assert 0.15 < height / width < 1 / 0.15
        union[rows, columns] = True
    assert (block_mask(side * side, budget, sample_generator(seed, 0, 0)) == union.reshape(-1)).all()


def test_blocks_hold_together():
    big = [block_mask(256, 100, sample_generator(0, 0, sample)).reshape(16, 16) for sample in range(50)]
    neighbours = np.mean([(mask[1:] & mask[:-1]).sum() / mask.sum() for mask in big])
    assert neighbours > 0.6  # cells drawn one by one would have 0.37


def test_a_mask_depends_on_seed_epoch_and_sample_alone():
    laws = [MaskLaw("block", "uniform", 0.1, 0.6), MaskLaw("random", "cosine", 0.0, 1.0)]

    def mask(seed, epoch, sample):
        return image_mask(256, laws, sample_generator(seed, epoch, sample)).tobytes()

    assert mask(1, 2, 3) == mask(1, 2, 3)
    assert len({mask(1, 2, 3), mask(2, 2, 3), mask(1, 3, 3), mask(1, 2, 4)}) == 4


@pytest.mark.parametrize("fields", [{"mode": "rows"}, {"law": "linear"}, {"low": 0.5, "high": 0.2}, {"high": 1.5}])
def test_a_law_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValueError, match="must"):
        MaskLaw(**fields)
