"""The modules for `evaluate` load from their folder, offline, and give the figures of the command line."""

import numpy as np
import pytest
from PIL import Image

from gptface.metrics import FACE_ATTRIBUTES, FACIAL_EXPRESSION
from gptface.metrics.recognition_scores import attribute_scores, expression_scores

evaluate = pytest.importorskip("evaluate")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("evaluate"))
    return lambda path: evaluate.load(path, cache_dir=cache)


def test_face_attributes(load, tmp_path):
    generator = np.random.default_rng(0)
    scores, truth = generator.random((50, 2)), generator.integers(0, 2, (50, 2))
    truth[3, 1] = -1
    gender = ["f", "m"] * 25
    figure = tmp_path / "bars.png"
    report = load(FACE_ATTRIBUTES).compute(
        predictions=scores, references=truth, names=["Smiling", "Male"], thresholds=[0.4, 0.5],
        groups={"gender": gender}, figure=str(figure),
    )  # fmt: skip
    expected = attribute_scores(scores, truth, ["Smiling", "Male"], [0.4, 0.5], {"gender": gender})
    assert report == expected and set(report["groups"]["gender"]) == {"f", "m"}
    assert Image.open(figure).format == "PNG"


def test_facial_expression_from_classes_and_from_probabilities(load, tmp_path):
    metric = load(FACIAL_EXPRESSION)
    figure = tmp_path / "matrix.png"
    report = metric.compute(predictions=[0, 1, 1], references=[0, 1, 0], names=["happy", "sad"], figure=str(figure))
    assert report["confusion_matrix"] == [[1, 1], [0, 1]] and "ece" not in report
    assert Image.open(figure).format == "PNG"
    scores = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    report = metric.compute(predictions=scores, references=[0, 1, 1])
    assert report == expression_scores(np.array(scores), np.array([0, 1, 1]), ["0", "1"])
