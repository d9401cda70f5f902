"""Small encoded data sets."""

import numpy as np
import pytest

from gptface.training.captions import emotion_labels
from gptface.training.code_dataset import CodeTable

LABELS = {"Smiling": 0, "Male": 1, "Eyeglasses": 0, "Blond_Hair": 1, "Young": 1, "No_Beard": 1}


@pytest.fixture
def code_table():
    """Forty faces with attributes and eight with emotions, 8×8 cells."""
    generator = np.random.default_rng(0)
    labels = [{name: int(generator.integers(2)) for name in LABELS} for _ in range(40)]
    emotions = [None] * 40 + ["happy", "sad"] * 4
    labels += [emotion_labels(emotion) for emotion in emotions[40:]]
    return CodeTable(generator.integers(0, 1200, (48, 2, 64)).astype(np.uint16), labels, emotions)
