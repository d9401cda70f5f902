"""Calibration of classifier scores: expected calibration error, temperatures, thresholds. Pure numpy.

Logits are [rows, labels]. The truth is [rows, labels] of 0/1 for independent labels (−1 = unknown) or [rows] of class
indices (negative = unknown); its number of dimensions says which of the two it is.
"""

import numpy as np

#: A temperature beyond these bounds says that the logits carry no information, or that the classes were separated
#: perfectly.
TEMPERATURE_BOUNDS = (0.05, 20.0)


def probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Logits [rows, labels] → sigmoids, or softmax over the labels; float64."""
    logits = np.asarray(logits, np.float64)
    if multi_label:
        # as exp(−log(1 + e^−z)), which does not overflow
        return np.exp(-np.logaddexp(0, -logits))
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def expected_calibration_error(confidence: np.ndarray, outcome: np.ndarray, bins: int = 15) -> float:
    """
    Mean distance of confidence and frequency over bins of equal mass (Nguyen & O'Connor 2015), weighted by their size.

    Args:
        confidence: probabilities [n].
        outcome: 0/1 [n], what they predict.

    Raises:
        ValueError: where there is nothing to average.
    """
    confidence, outcome = np.asarray(confidence, np.float64), np.asarray(outcome, np.float64)
    if confidence.size == 0:
        raise ValueError("the calibration error needs at least one prediction")
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    return float(sum(abs((confidence[part] - outcome[part]).sum()) for part in parts) / confidence.size)


def calibration_pairs(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Probabilities [rows, labels] and truth → (confidence [n], outcome [n]) for [`expected_calibration_error`].

    Independent labels are pooled: the probability of each label and whether it holds. Of classes that exclude each
    other it is the probability of the likeliest and whether that is right.
    """
    truth = np.asarray(truth)
    known = truth >= 0
    if truth.ndim == 2:
        return scores[known], truth[known]
    scores, truth = scores[known], truth[known]
    return scores.max(-1), scores.argmax(-1) == truth


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """
    The temperature that minimises the negative log-likelihood of logits / temperature (Guo et al. 2017).

    The likelihood is convex in 1 / temperature, so its slope is bisected; the result lies within `TEMPERATURE_BOUNDS`.
    """
    logits, truth = np.asarray(logits, np.float64), np.asarray(truth)
    multi_label = truth.ndim == 2
    known = truth >= 0
    if not known.any():
        raise ValueError("a temperature needs at least one known label")
    if multi_label:
        target = np.where(known, truth, 0)
    else:
        logits, target = logits[known], np.eye(logits.shape[1])[truth[known]]

    def slope(inverse: float) -> float:
        excess = (probabilities(logits * inverse, multi_label) - target) * logits
        return float(excess[known].sum() if multi_label else excess.sum())

    low, high = np.log(1 / TEMPERATURE_BOUNDS[1]), np.log(1 / TEMPERATURE_BOUNDS[0])
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def cross_fitted(logits: np.ndarray, truth: np.ndarray, second_half: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """
    Logits divided by a temperature that was fitted on the other half of the rows.

    Args:
        second_half: bool [rows]; rows of one person must lie in one half.

    Returns:
        The logits [rows, labels] and the temperatures applied to the first and the second half.

    Raises:
        ValueError: where a half is empty.
    """
    second_half = np.asarray(second_half, bool)
    if second_half.all() or not second_half.any():
        raise ValueError("calibration needs faces in both halves: measure at least two people, or two rows")
    scaled = np.array(logits, np.float64)
    temperatures = []
    for half in (~second_half, second_half):
        temperature = fit_temperature(logits[~half], truth[~half])
        scaled[half] /= temperature
        temperatures.append(temperature)
    return scaled, temperatures


def halves(groups: np.ndarray | None, rows: int) -> np.ndarray:
    """
    Bool [rows], True in the second half: every other group (in order of their values) or, without groups, odd rows.
    """
    if groups is None:
        return np.arange(rows) % 2 == 1
    return np.unique(np.asarray(groups), return_inverse=True)[1] % 2 == 1


def choose_thresholds(truth: np.ndarray, balance: float = 0.2, least: int = 20) -> np.ndarray:
    """
    One threshold [labels] for each independent label: it holds where its calibrated score is at least that.

    It maximises (1 − balance) · accuracy + balance · balanced accuracy. With a share π of positives that is reached
    where p · w₁ = (1 − p) · w₀, with w₁ = (1 − balance) + balance / 2π and w₀ = (1 − balance) + balance / 2(1 − π): a
    closed form of π alone, which a few positives do not lead astray as a search among scores would be.

    Args:
        truth: 0/1 [rows, labels] of training faces, −1 = unknown.
        balance: 0 = accuracy alone (0.5 everywhere), 1 = balanced accuracy alone (π).
        least: a label with fewer faces of either kind keeps 0.5.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must lie in 0…1, got {balance}")
    positive, negative = ((np.asarray(truth) == value).sum(0) for value in (1, 0))
    enough = np.minimum(positive, negative) >= max(least, 1)
    share = np.where(enough, positive / np.maximum(positive + negative, 1), 0.5)
    present, absent = (1 - balance) + balance / (2 * share), (1 - balance) + balance / (2 * (1 - share))
    return np.where(enough, absent / (absent + present), 0.5)
