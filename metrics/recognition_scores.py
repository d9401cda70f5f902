"""Figures of recognition from scores and truth, for `gptface evaluate` and the modules in `metrics/`: numpy and
scikit-learn.

Unknown truth (negative) never counts. A figure that cannot be formed (no face of a kind) is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .calibration import calibration_pairs, expected_calibration_error

try:
    from sklearn.metrics import average_precision_score, confusion_matrix, f1_score
except ImportError as error:
    raise ImportError('these figures need scikit-learn: pip install "gptface[metrics]"') from error

#: Labels with fewer faces of either kind do not enter `balanced_accuracy`: a few faces would decide it.
LEAST_FACES = 20


def recalls(right: np.ndarray, classes: np.ndarray) -> list[float]:
    """Share of right answers [n] in each class that occurs."""
    return [float(right[classes == value].mean()) for value in np.unique(classes)]


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def attribute_scores(
    scores: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    thresholds: Sequence[float] | float = 0.5,
    groups: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """
    Figures of independent labels.

    Args:
        scores: probabilities [rows, labels].
        truth: 0/1 [rows, labels], −1 = unknown.
        names: of the labels.
        thresholds: one, or one for each label: a label holds where its score is at least that.
        groups: column → a value for each row (gender, age group, …); accuracy is given for each value.

    Returns:
        `accuracy`, `balanced_accuracy_all`, `f1`, `ap` (means over the labels), `balanced_accuracy` (over the
        `balanced_labels` labels with at least 20 faces of both kinds), `ece` (15 bins of equal mass, labels pooled),
        `images`, `per_label` (name → figures) and, where asked for, `groups` (column → value → figures).

    Raises:
        ValueError: where the shapes do not fit.
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth)
    if scores.ndim != 2 or scores.shape != truth.shape or scores.shape[1] != len(names):
        raise ValueError(
            f"scores {list(scores.shape)} and truth {list(truth.shape)} must both be [rows, {len(names)} labels]"
        )
    if len(scores) == 0:
        raise ValueError("there is no row to measure")
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), len(names))
    per_label = {
        name: _label_figures(scores[:, index], truth[:, index], float(limits[index]))
        for index, name in enumerate(names)
    }
    figures = per_label.values()
    counted = [entry for entry in figures if min(entry["positive"], entry["negative"]) >= LEAST_FACES]
    report = {
        "accuracy": mean_or_none([entry["accuracy"] for entry in figures]),
        "balanced_accuracy": mean_or_none([entry["balanced_accuracy"] for entry in counted]),
        "balanced_accuracy_all": mean_or_none([entry["balanced_accuracy"] for entry in figures]),
        "balanced_labels": len(counted),
        "f1": mean_or_none([entry["f1"] for entry in figures]),
        "ap": mean_or_none([entry["ap"] for entry in figures]),
        "ece": expected_calibration_error(*calibration_pairs(scores, truth)) if (truth >= 0).any() else None,
        "images": len(scores),
        "per_label": per_label,
    }
    if groups is not None:
        report["groups"] = group_accuracy(scores >= limits, truth, names, groups)
    return report


def _label_figures(scores: np.ndarray, truth: np.ndarray, threshold: float) -> dict[str, Any]:
    known = truth >= 0
    scores, truth = scores[known], truth[known]
    guess = scores >= threshold
    positive = int((truth == 1).sum())
    any_known = len(truth) > 0
    return {
        "accuracy": float((guess == truth).mean()) if any_known else None,
        "balanced_accuracy": float(np.mean(recalls(guess == truth, truth))) if any_known else None,
        "f1": float(f1_score(truth, guess, zero_division=0)) if any_known else None,
        "ap": float(average_precision_score(truth, scores)) if positive else None,
        "threshold": threshold,
        "positive": positive,
        "negative": len(truth) - positive,
    }


def group_accuracy(
    guess: np.ndarray, truth: np.ndarray, names: Sequence[str], groups: Mapping[str, Sequence[Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Column → value → accuracy of each label among its rows, their mean as `accuracy`, and `images`."""
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for column, values in groups.items():
        kinds = np.asarray([str(value) for value in values])
        if len(kinds) != len(truth):
            raise ValueError(f"groups[{column!r}] has {len(kinds)} values for {len(truth)} rows")
        report[column] = {}
        for kind in np.unique(kinds):
            rows = kinds == kind
            known = truth[rows] >= 0
            right = (guess[rows] == truth[rows]) & known
            accuracy = [
                float(hits / count) if count else None for hits, count in zip(right.sum(0), known.sum(0), strict=True)
            ]
            report[column][str(kind)] = {
                "accuracy": mean_or_none(accuracy),
                "images": int(rows.sum()),
                **dict(zip(names, accuracy, strict=True)),
            }
    return report


def expression_scores(scores: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """
    Figures of classes that exclude each other.

    Args:
        scores: probabilities [rows, classes], or class indices [rows] (then there is no `ece`).
        truth: class indices [rows], negative = unknown.
        names: of the classes.

    Returns:
        `accuracy`, `balanced_accuracy` (mean recall of the `balanced_labels` classes with at least 20 faces),
        `balanced_accuracy_all` (of all that occur), `f1` (macro), `ece` (15 bins of equal mass, likeliest class),
        `images`, `confusion_matrix` (rows = truth, columns = answer) and `per_label` (name → figures).
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    if truth.ndim != 1 or len(scores) != len(truth) or (scores.ndim == 2 and scores.shape[1] != len(names)):
        raise ValueError(
            f"scores {list(scores.shape)} must be [rows, {len(names)} classes] or [rows], "
            f"truth {list(truth.shape)} [rows]"
        )
    known = truth >= 0
    scores, truth = scores[known], truth[known]
    if len(truth) == 0:
        raise ValueError("there is no row to measure")
    guess = scores.argmax(-1) if scores.ndim == 2 else scores
    classes = np.arange(len(names))
    matrix = confusion_matrix(truth, guess, labels=classes)
    counts = matrix.sum(1)
    recall = [float(matrix[index, index] / counts[index]) if counts[index] else None for index in classes]
    f1 = f1_score(truth, guess, labels=classes, average=None, zero_division=0)
    frequent = [recall[index] for index in classes if counts[index] >= LEAST_FACES]
    report = {
        "accuracy": float((guess == truth).mean()),
        "balanced_accuracy": mean_or_none(frequent),
        "balanced_accuracy_all": mean_or_none(recall),
        "balanced_labels": len(frequent),
        "f1": mean_or_none([float(f1[index]) for index in classes if counts[index]]),
        "images": len(truth),
        "confusion_matrix": matrix.tolist(),
        "per_label": {
            name: {"recall": recall[index], "f1": float(f1[index]), "images": int(counts[index])}
            for index, name in enumerate(names)
        },
    }
    if scores.ndim == 2:
        report["ece"] = expected_calibration_error(*calibration_pairs(scores, truth))
    return report
