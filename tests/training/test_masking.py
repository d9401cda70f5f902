"""Masks that break their laws teach the model another task than the one that is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface.data.batch_masking import (
    IMAGE_MODES,
    MaskLaw,
    SampleNoise,
    block_masks,
    distinct_numbers,
    draw_blocks,
    image_masks,
    mask_budgets,
    span_masks,
)
from gptface.data.masking import (
    MAX_SPAN,
    mask_budget,
    place_spans,
    random_mask,
    sample_generator,
    span_lengths,
    span_mask,
)


def noise(seed=0, count=1, epoch=0):
    return SampleNoise.of(seed, [epoch] * count, range(count))


@given(
    mode=st.sampled_from(sorted(IMAGE_MODES)),
    side=st.integers(2, 17),
    ratios=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_every_mode_masks_exactly_its_budget(mode, side, ratios, seed):
    cells = side * side
    budgets = mask_budgets(np.full(len(ratios), cells), np.array(ratios))
    assert budgets.tolist() == [mask_budget(cells, ratio) for ratio in ratios]
    masks = IMAGE_MODES[mode](cells, budgets, noise(seed, len(ratios)))
    assert masks.shape == (len(ratios), cells) and masks.dtype == bool
    assert masks.sum(1).tolist() == budgets.tolist()
    assert budgets.tolist() == [min(cells, max(1, round(ratio * cells))) for ratio in ratios]


def check_spans(owner, budget):
    assert (owner >= 0).sum() == budget
    for number in set(owner.tolist()) - {-1}:
        places = np.flatnonzero(owner == number)
        assert places[-1] - places[0] + 1 == len(places) <= MAX_SPAN


@given(count=st.integers(0, 80), ratio=st.floats(0.01, 1), seed=st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_spans_of_words_meet_the_budget_and_are_contiguous(count, ratio, seed):
    check_spans(span_mask(count, ratio, sample_generator(seed, 1, 2)), mask_budget(count, ratio))


@given(
    rows=st.lists(st.tuples(st.integers(0, 80), st.floats(0.01, 1)), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_spans_of_a_batch_meet_their_budgets_within_their_rows(rows, seed):
    counts, ratios = (np.array(column) for column in zip(*rows, strict=True))
    owners = span_masks(counts, mask_budgets(counts, ratios), noise(seed, len(rows)))
    assert owners.shape == (len(rows), counts.max())
    for owner, (count, ratio) in zip(owners, rows, strict=True):
        check_spans(owner, mask_budget(count, ratio))
        assert (owner[count:] == -1).all()


@given(
    rows=st.lists(
        st.integers(1, 40).flatmap(lambda limit: st.tuples(st.just(limit), st.integers(0, limit))), min_size=1
    ),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=100, deadline=None)
def test_numbers_drawn_for_spans_differ(rows, seed):
    limits, counts = np.array(rows).T
    for row, limit, count in zip(
        distinct_numbers(limits, counts, noise(seed, len(rows))), limits, counts, strict=True
    ):
        assert len(set(row[:count].tolist())) == count and (np.diff(row[:count]) > 0).all()
        assert ((row[:count] >= 0) & (row[:count] < limit)).all() and (row[count:] >= limit).all()


@pytest.mark.parametrize("count", [2, 4])  # drawn again until they differ, and one after the other
def test_every_set_of_numbers_is_equally_likely(count):
    drawn = distinct_numbers(np.full(30000, 6), np.full(30000, count), noise(5, 30000))
    sets, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(sets) == 15 and np.abs(counts / 2000 - 1).max() < 0.1


def test_spans_of_a_batch_are_as_long_and_lie_where_single_ones_do():
    owners = span_masks(np.full(6000, 60), np.full(6000, 18), noise(1, 6000))
    single = np.array([span_mask(60, 0.3, sample_generator(0, 0, sample)) for sample in range(6000)])
    for statistic in (lambda o: (o >= 0).mean(0), lambda o: np.bincount(o.max(1), minlength=19) / len(o)):
        assert np.abs(statistic(owners) - statistic(single)).max() < 0.035


def test_noise_is_uniform_and_independent_between_samples_streams_and_places():
    drawn = noise(3, 20000).uniform(6)
    assert (
        abs(drawn.mean() - 0.5) < 0.004 and abs(drawn.var() - 1 / 12) < 0.002 and drawn.min() >= 0 and drawn.max() < 1
    )
    others = np.column_stack(
        [drawn, noise(3, 20000).stream(1).uniform(2), noise(4, 20000).uniform(2), np.roll(drawn, 1, 0)]
    )
    assert np.abs(np.corrcoef(others.T) - np.eye(others.shape[1])).max() < 0.04
    assert np.array_equal(noise(3, 20).uniform(2, start=3), noise(3, 20).uniform(5)[:, 3:])


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
    union, number = np.zeros((side, side), bool), 0
    while union.sum() < budget:
        left = budget - union.sum()
        edges = draw_blocks(side, np.array([left]), noise(seed).uniform(4, 4 * number))
        top, bottom, start, end = (int(edge[0]) for edge in edges)
        height, width = bottom - top, end - start
        assert 0 <= top < bottom <= side and 0 <= start < end <= side
        assert height * width <= left
        if height * width >= 16 and max(height, width) < side:  # smaller ones are rounded
            assert 0.15 < height / width < 1 / 0.15
        union[top:bottom, start:end] = True
        number += 1
    assert (block_masks(side * side, np.array([budget]), noise(seed))[0] == union.reshape(-1)).all()


def test_blocks_hold_together():
    big = block_masks(256, np.full(50, 100), noise(0, 50)).reshape(50, 16, 16)
    neighbours = np.mean([(mask[1:] & mask[:-1]).sum() / mask.sum() for mask in big])
    assert neighbours > 0.6  # cells drawn one by one would have 0.37


def test_a_mask_depends_on_seed_epoch_and_sample_alone():
    laws = [MaskLaw("block", "uniform", 0.1, 0.6), MaskLaw("random", "cosine", 0.0, 1.0), MaskLaw()]

    def masks(seed, epoch, *samples):
        drawn = image_masks(256, laws, SampleNoise.of(seed, [epoch] * len(samples), samples))
        return [mask.tobytes() for mask in drawn]

    alone = masks(1, 2, 3)[0]
    assert masks(1, 2, *range(40))[3] == masks(1, 2, 2**62, 3)[1] == alone
    assert len({alone, masks(2, 2, 3)[0], masks(1, 3, 3)[0], masks(1, 2, 4)[0]}) == 4


def test_laws_of_a_mixture_are_drawn_by_weight():
    laws = [MaskLaw("random", "fixed", 0.25, 0.25, weight=3), MaskLaw("raster", "fixed", 0.5, 0.5, weight=1)]
    counts = image_masks(64, laws, noise(0, 4000)).sum(1)
    assert set(counts.tolist()) == {16, 32} and abs((counts == 16).mean() - 0.75) < 0.03


def test_protocols_draw_random_cells_one_sample_at_a_time():
    assert random_mask(50, 7, sample_generator(0, 0, 0)).sum() == 7


@pytest.mark.parametrize("fields", [{"mode": "rows"}, {"law": "linear"}, {"low": 0.5, "high": 0.2}, {"high": 1.5}])
def test_a_law_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValueError, match="must"):
        MaskLaw(**fields)
