"""Fréchet distance between sets of features: how far a set of pictures as a whole is from another."""

import numpy as np

try:
    from sklearn.covariance import ledoit_wolf
except ImportError as error:
    raise ImportError('the Fréchet distance needs scikit-learn: pip install "gptface[metrics]"') from error

#: Of fewer pictures the covariance says nothing.
LEAST_PICTURES = 8


def frechet_distance(features: np.ndarray, others: np.ndarray) -> float | None:
    """
    Squared Fréchet distance of the normal distributions that are fitted to two sets of features (Heusel et al. 2017).

    Covariances are shrunk (Ledoit & Wolf 2004), so that sets with fewer pictures than features have one, too. A bias
    remains that falls with their number: compare figures of equally many pictures with the same others.

    Args:
        features, others: [n, d] and [m, d].

    Returns:
        a distance ≥ 0, in squared units of the features; None where a set has fewer than `LEAST_PICTURES`.

    Raises:
        ValueError: sets of different features.

    Example:

    ```python
    >>> features = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(frechet_distance(features, features + 2), 6)
    12.0

    ```
    """
    if features.ndim != 2 or features.shape[1:] != others.shape[1:]:
        raise ValueError(f"two sets of the same features are compared, not {features.shape} with {others.shape}")
    if min(len(features), len(others)) < LEAST_PICTURES:
        return None
    first, second = (np.asarray(each, dtype=np.float64) for each in (features, others))
    return gaussian_distance(first.mean(0), ledoit_wolf(first)[0], second.mean(0), ledoit_wolf(second)[0])


def gaussian_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """
    Squared Fréchet (2-Wasserstein) distance of two normal distributions: |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½).

    Args:
        mean, other_mean: [d].
        covariance, other_covariance: [d, d], positive semi-definite.
    """
    # (Σ₁Σ₂)^½ has the trace of (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other_covariance @ root).clip(min=0)).sum()
    difference = mean - other_mean
    distance = difference @ difference + np.trace(covariance) + np.trace(other_covariance) - 2 * shared
    return max(0.0, float(distance))
