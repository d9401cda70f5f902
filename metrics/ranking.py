"""Scores of predictions that pre-training and evaluation share."""

import math

import numpy as np


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive scores above a negative (ties count half); NaN where one side is empty."""
    if len(positive) == 0 or len(negative) == 0:
        return math.nan
    order = np.sort(negative)
    below, not_above = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float((below + not_above).mean() / (2 * len(negative)))
