"""Decoding: what was given never changes, everything masked is filled, and a sample does not depend on its batch."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface.modeling_gptface.decoding import (
    DecodingSchedule,
    decoding_step,
    fill_masked,
    gumbel_noise,
    place_in_run,
    sample_codes,
    uniform_noise,
)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def decode(logits, codes, mask, schedule, seeds):
    """All steps with the same logits [B, N, K]; yields codes and mask after each."""
    random, total = generators(*seeds), mask.sum(-1)
    for step in range(schedule.num_steps):
        codes, mask = decoding_step(logits[mask], codes, mask, step, total, schedule, random)
        yield codes, mask


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(1, 12),
    steps=st.integers(1, 9),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    ratio=st.floats(0, 1),
    mode=st.sampled_from(["parallel", "span", "one_shot"]),
    top_k=st.sampled_from([None, 1, 3, 100]),
)
def test_given_codes_never_change_and_all_masked_cells_are_filled(seed, cells, steps, temperature, ratio, mode, top_k):
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(7, (2, cells), generator=random)
    mask = torch.rand(2, cells, generator=random) < ratio
    logits = torch.randn(2, cells, 7, generator=random)
    # Code 6 is never sampled: what holds it at the end was given.
    logits[..., 6] = -1e9
    start = torch.where(mask, 6, codes.clamp(max=5))
    before = mask
    schedule = DecodingSchedule(steps, temperature, mode=mode, top_k=top_k)
    for filled, still in decode(logits, start, mask, schedule, (seed, seed + 1)):
        assert torch.equal(filled[~mask], start[~mask])
        assert not (still & ~before).any(), "a cell that was decided is masked again"
        assert (filled[mask] < 6).all()
        before = still
    assert not before.any()


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 40), total=st.integers(0, 300))
def test_masked_counts_fall_strictly_to_zero(steps, total):
    schedule = DecodingSchedule(steps)
    counts = [int(schedule.masked_after(step, torch.tensor([total]))) for step in range(steps)]
    assert all(later < earlier for earlier, later in itertools.pairwise([total, *counts]) if earlier)
    assert counts[-1] == 0 and min(counts) >= 0


def test_the_schedule_is_the_cosine():
    schedule = DecodingSchedule(4)
    counts = [int(schedule.masked_after(step, torch.tensor([1000]))) for step in range(4)]
    assert counts == [923, 707, 382, 0]  # 1000·cos(π/2·(1…4)/4), rounded down


def test_confidence_noise_falls_to_zero():
    schedule = DecodingSchedule(4, confidence_temperature=2.0)
    assert [schedule.noise_scale(step) for step in range(4)] == [1.5, 1.0, 0.5, 0.0]


def test_without_noise_the_most_confident_cells_are_decided_first():
    logits = torch.zeros(1, 4, 3)
    logits[0, :, 1] = torch.tensor([1.0, 4.0, 2.0, 3.0])
    schedule = DecodingSchedule(3, temperature=0, confidence_temperature=0)
    codes, mask = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool)
    remaining = [still[0].nonzero()[:, 0].tolist() for _, still in decode(logits, codes, mask, schedule, (0,))]
    assert remaining == [[0, 2, 3], [0, 2], []]


@pytest.mark.parametrize("mode", ["parallel", "span", "one_shot"])
def test_a_sample_is_the_same_in_any_batch(mode):
    """
    Otherwise a user who edits ten photos gets other faces than one who edits them one by one, with the same seeds.
    """
    random = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 9, 7, generator=random)
    codes = torch.randint(7, (3, 9), generator=random)
    mask = torch.rand(3, 9, generator=random) < 0.8
    schedule = DecodingSchedule(4, mode=mode, top_k=5)
    *_, (together, _) = decode(logits, codes, mask, schedule, (11, 12, 13))
    for index, seed in enumerate((11, 12, 13)):
        row = slice(index, index + 1)
        *_, (alone, _) = decode(logits[row], codes[row], mask[row], schedule, (seed,))
        assert torch.equal(alone, together[row])
    *_, (others, _) = decode(logits, codes, mask, schedule, (21, 22, 23))
    assert not torch.equal(others, together)


def sample_all(logits, *arguments, **options):
    """Codes and log-probabilities [B, N] where every cell is masked."""
    everywhere = torch.ones(logits.shape[:2], dtype=torch.bool)
    return [
        part.view(logits.shape[:2]) for part in sample_codes(logits.flatten(0, 1), everywhere, *arguments, **options)
    ]


def test_a_cells_sample_does_not_depend_on_what_else_is_masked():
    """
    Only masked cells are drawn: which others are must change nothing, or an edit would depend on its neighbours' mask.
    """
    logits = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(4))
    mask = torch.rand(2, 9, generator=torch.Generator().manual_seed(5)) < 0.5
    every, log_probabilities = sample_all(logits, generators(1, 2))
    some, some_log_probabilities = sample_codes(logits[mask], mask, generators(1, 2))
    assert torch.equal(some, every[mask]) and torch.equal(some_log_probabilities, log_probabilities[mask])


def test_samples_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = probabilities.log().expand(1, 20000, 4)
    codes, log_probabilities = sample_all(logits, generators(0))
    shares = torch.bincount(codes[0], minlength=4) / 20000
    torch.testing.assert_close(shares, probabilities, atol=0.015, rtol=0)
    torch.testing.assert_close(log_probabilities, probabilities.log()[codes])


def test_temperature_zero_takes_the_likeliest():
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample_all(logits, generators(0, 1), temperature=0)[0], logits.argmax(-1))


def test_noise_is_finite_and_of_its_own_generator():
    noise = gumbel_noise((1000,), generators(3, 4, 3), torch.device("cpu"))
    assert torch.isfinite(noise).all()
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert abs(noise.mean() - 0.5772) < 0.1  # the mean of the Gumbel distribution
    assert uniform_noise((2, 3), generators(0), torch.device("cpu")).shape == (1, 2, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_raise(value):
    logits = torch.zeros(1, 4, 3)
    logits[0, 2, 1] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        sample_all(logits, generators(0))


@pytest.mark.parametrize("arguments", [(0,), (-1,), (4, -0.1), (4, 1.0, -2.0)])
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(ValueError):
        DecodingSchedule(*arguments)


def test_an_unknown_mode_or_top_k_is_refused():
    with pytest.raises(ValueError, match="one_shot"):
        DecodingSchedule(4, mode="serial")
    with pytest.raises(ValueError, match="top_k"):
        DecodingSchedule(4, top_k=0)


def test_spans_are_filled_from_left_to_right():
    """Runs of 5, 1 and 3 masked cells in three steps: 2, 2 and 1 cells of the first, one a step of the last."""
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1]]).bool()
    logits, codes = torch.zeros(1, 11, 3), torch.zeros(1, 11, dtype=torch.long)
    schedule = DecodingSchedule(3, mode="span")
    left = [still[0].nonzero()[:, 0].tolist() for _, still in decode(logits, codes, mask, schedule, (0,))]
    assert left == [[2, 3, 4, 9, 10], [4, 10], []]


@settings(max_examples=60, deadline=None)
@given(bits=st.lists(st.booleans(), min_size=1, max_size=30))
def test_places_in_runs(bits):
    expected, place = [], -1
    for bit in bits:
        place = place + 1 if bit else -1
        expected.append(place)
    assert place_in_run(torch.tensor([bits]))[0].tolist() == expected


def test_one_shot_asks_the_model_once():
    calls = []

    def predict(codes, mask):
        calls.append(mask.sum().item())
        return torch.zeros(int(mask.sum()), 4)

    mask = torch.ones(1, 6, dtype=torch.bool)
    schedule = DecodingSchedule(8, mode="one_shot")
    fill_masked(torch.zeros(1, 6, dtype=torch.long), mask, predict, schedule, generators(0))
    assert calls == [6]


def test_the_step_that_fails_is_named():
    def predict(codes, mask):
        return torch.full((int(mask.sum()), 4), float("nan") if mask.sum() < 6 else 0.0)

    mask = torch.ones(1, 6, dtype=torch.bool)
    with pytest.raises(FloatingPointError, match="decoding step 2 of 8"):
        fill_masked(torch.zeros(1, 6, dtype=torch.long), mask, predict, DecodingSchedule(8), generators(0))


def test_top_k_draws_from_the_likeliest_only():
    logits = torch.tensor([0.5, 2.0, 0.5, 1.9, -1.0]).expand(1, 4000, 5)
    codes, log_probabilities = sample_all(logits, generators(0), top_k=2)
    assert set(codes.unique().tolist()) == {1, 3}
    # confidence is that of the whole distribution: the mask of the next step must not depend on k
    torch.testing.assert_close(log_probabilities, logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0])
    ties, _ = sample_all(torch.zeros(1, 4000, 5), generators(0), top_k=1)
    assert len(ties.unique()) == 1
    everything, _ = sample_all(logits, generators(0), top_k=9)
    assert torch.equal(everything, sample_all(logits, generators(0))[0])


@pytest.mark.parametrize("mode", ["parallel", "span", "one_shot"])
def test_a_sample_that_is_done_early_leaves_its_generator_as_it_would_alone(mode):
    """What is drawn next from it (the codes below a plan) would otherwise depend on the other samples of the batch."""
    logits = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(5))
    codes, mask = torch.zeros(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.bool)
    mask[0, 2:] = False
    schedule = DecodingSchedule(6, mode=mode)

    def next_draw(rows):
        generators = [torch.Generator().manual_seed(3 + index) for index in range(2)][rows]
        fill_masked(codes[rows], mask[rows], lambda _, still: logits[rows][still], schedule, generators)
        return torch.rand(1, generator=generators[0])

    assert torch.equal(next_draw(slice(0, 2)), next_draw(slice(0, 1)))
