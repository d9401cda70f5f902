"""The Fréchet distance: a figure that is wrong or jumps with a few pictures would choose the wrong setting."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from gptface.metrics.frechet_distance import LEAST_PICTURES, frechet_distance, gaussian_distance


def drawn(count, mean=0.0, scale=1.0, size=64, seed=0):
    return mean + scale * np.random.default_rng(seed).normal(size=(count, size))


def test_distributions_with_known_distance():
    """Where covariances commute it is |μ₁ − μ₂|² + Σ(√a − √b)² over their eigenvalues, in any basis."""
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    first, second, means = generator.uniform(0, 4, 5), generator.uniform(0, 4, 5), generator.normal(size=(2, 5))
    first[0] = second[1] = 0  # no full rank, as of few pictures
    distance = gaussian_distance(means[0], basis * first @ basis.T, means[1], basis * second @ basis.T)
    expected = np.square(means[0] - means[1]).sum() + np.square(np.sqrt(first) - np.sqrt(second)).sum()
    assert distance == pytest.approx(expected, abs=1e-6)


def test_covariances_that_do_not_commute():
    first, second = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 4.0]])
    # of 2×2 matrices tr √M = √(tr M + 2 √det M)
    shared = np.sqrt(np.trace(first @ second) + 2 * np.sqrt(np.linalg.det(first @ second)))
    zeros = np.zeros(2)
    assert gaussian_distance(zeros, first, zeros, second) == pytest.approx(9 - 2 * shared)
    assert gaussian_distance(zeros, second, zeros, first) == pytest.approx(9 - 2 * shared)


def test_many_pictures_come_near_to_the_truth():
    # 4 features: 4·(1² + (2 − 1)²)
    distance = frechet_distance(drawn(20_000, size=4), drawn(20_000, 1.0, 2.0, size=4, seed=1))
    assert distance == pytest.approx(8, rel=0.05)


def test_a_set_has_no_distance_to_itself():
    features = drawn(30)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("count", [24, 100])
def test_sets_with_hardly_more_pictures_than_features_or_fewer_are_told_apart(count):
    """Of 64 features, from sets of as many faces as an evaluation has, whatever faces these are."""
    same = [frechet_distance(drawn(count, seed=seed), drawn(40, seed=99)) for seed in range(6)]
    moved = [frechet_distance(drawn(count, 0.5, seed=seed), drawn(40, seed=99)) for seed in range(6)]
    assert max(same) < min(moved)
    assert np.std(same) < 0.15 * np.mean(moved) and np.mean(moved) - np.mean(same) == pytest.approx(16, rel=0.15)


def test_too_few_pictures_and_other_features():
    assert frechet_distance(drawn(LEAST_PICTURES - 1), drawn(40)) is None
    assert frechet_distance(drawn(40), drawn(0)) is None
    with pytest.raises(ValueError, match="same features"):
        frechet_distance(drawn(40), drawn(40, size=32))
