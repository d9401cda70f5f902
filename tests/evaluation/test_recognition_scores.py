"""Figures of recognition against scikit-learn and cases made by hand; temperatures and thresholds that do what they
promise.
"""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.metrics import average_precision_score, balanced_accuracy_score, confusion_matrix, f1_score

from gptface.metrics.calibration import (
    TEMPERATURE_BOUNDS,
    calibration_pairs,
    choose_thresholds,
    cross_fitted,
    expected_calibration_error,
    fit_temperature,
    halves,
    probabilities,
)
from gptface.metrics.figures import draw_bars, draw_confusion_matrix
from gptface.metrics.recognition_scores import attribute_scores, expression_scores

NAMES = ["Smiling", "Male", "Bald"]


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def faces(generator):
    """200 faces; the last label is too rare for the balanced mean."""
    scores = generator.random((200, 3))
    truth = (generator.random((200, 3)) < 0.3 + 0.4 * scores).astype(int)
    truth[:, 2] = np.arange(200) < 5
    return scores, truth


def test_attribute_figures_are_those_of_scikit_learn(faces):
    scores, truth = faces
    report = attribute_scores(scores, truth, NAMES, [0.5, 0.3, 0.9])
    guess = scores >= [0.5, 0.3, 0.9]
    balanced = [balanced_accuracy_score(truth[:, k], guess[:, k]) for k in range(3)]
    assert report["accuracy"] == pytest.approx((guess == truth).mean())
    assert report["balanced_accuracy_all"] == pytest.approx(np.mean(balanced))
    assert report["balanced_accuracy"] == pytest.approx(np.mean(balanced[:2])) and report["balanced_labels"] == 2
    assert report["f1"] == pytest.approx(np.mean([f1_score(truth[:, k], guess[:, k]) for k in range(3)]))
    assert report["ap"] == pytest.approx(average_precision_score(truth, scores))
    assert report["per_label"]["Bald"]["positive"] == 5 and report["images"] == 200


def test_unknown_labels_do_not_count(faces):
    scores, truth = faces
    truth[50:, 0] = -1
    truth[:, 1] = -1
    report = attribute_scores(scores, truth, NAMES)
    assert report["per_label"]["Smiling"]["accuracy"] == pytest.approx(((scores >= 0.5) == truth)[:50, 0].mean())
    assert report["per_label"]["Male"]["accuracy"] is None and report["per_label"]["Male"]["ap"] is None
    with pytest.raises(ValueError, match="3 labels"):
        attribute_scores(scores[:, :2], truth, NAMES)
    with pytest.raises(ValueError, match="no row"):
        attribute_scores(scores[:0], truth[:0], NAMES)


def test_a_label_that_all_faces_have_is_no_crash():
    report = attribute_scores(np.full((30, 1), 0.9), np.ones((30, 1), int), ["Young"])
    assert report["balanced_accuracy"] is None and report["balanced_accuracy_all"] == 1.0 == report["ap"]


def test_groups(faces):
    scores, truth = faces
    race = np.array(["a", "b"])[np.arange(200) % 2]
    groups = attribute_scores(scores, truth, NAMES, groups={"race": race})["groups"]["race"]
    right = (scores >= 0.5) == truth
    assert groups["a"]["Male"] == pytest.approx(right[::2, 1].mean()) and groups["b"]["images"] == 100
    assert groups["b"]["accuracy"] == pytest.approx(right[1::2].mean())
    with pytest.raises(ValueError, match="race"):
        attribute_scores(scores, truth, NAMES, groups={"race": race[:7]})


def test_expression_figures_are_those_of_scikit_learn(generator):
    truth = generator.integers(0, 3, 150)
    scores = generator.random((150, 4)) + np.eye(4)[truth] * 0.5
    report = expression_scores(scores / scores.sum(1, keepdims=True), truth, ["happy", "sad", "fear", "never"])
    guess = scores.argmax(1)
    assert report["accuracy"] == pytest.approx((guess == truth).mean())
    recalls = [(guess[truth == k] == k).mean() for k in range(3)]
    assert report["balanced_accuracy"] == report["balanced_accuracy_all"] == pytest.approx(np.mean(recalls))
    assert report["f1"] == pytest.approx(f1_score(truth, guess, labels=[0, 1, 2], average="macro"))
    assert report["confusion_matrix"] == confusion_matrix(truth, guess, labels=range(4)).tolist()
    assert report["per_label"]["never"]["recall"] is None and 0 <= report["ece"] <= 1
    from_indices = expression_scores(guess, truth, ["happy", "sad", "fear", "never"])
    assert "ece" not in from_indices and from_indices["accuracy"] == report["accuracy"]


def test_a_rare_class_counts_in_the_mean_over_all_alone():
    truth = np.repeat([0, 1, 2], [30, 30, 5])
    report = expression_scores(np.repeat([0, 1, 0], [30, 30, 5]), truth, ["happy", "sad", "disgust"])
    assert report["balanced_accuracy"] == 1.0 and report["balanced_accuracy_all"] == pytest.approx(2 / 3)


def test_calibration_error_of_a_case_made_by_hand():
    # two bins of two: |mean(.1, .3) − .5| and |mean(.6, .8) − 1|, the order of the input does not matter
    confidence, outcome = np.array([0.8, 0.1, 0.6, 0.3]), np.array([1, 0, 1, 1])
    assert expected_calibration_error(confidence, outcome, bins=2) == pytest.approx((0.3 + 0.3) / 2)
    # fewer predictions than bins: each is its own bin
    assert expected_calibration_error(confidence, outcome) == pytest.approx(np.mean([0.2, 0.1, 0.4, 0.7]))
    with pytest.raises(ValueError, match="at least one"):
        expected_calibration_error([], [])


def test_what_is_binned():
    confidence, outcome = calibration_pairs(np.array([[0.9, 0.2]]), np.array([[1, -1]]))
    assert confidence.tolist() == [0.9] and outcome.tolist() == [1]
    confidence, outcome = calibration_pairs(np.array([[0.7, 0.3], [0.4, 0.6], [1, 0]]), np.array([1, 1, -100]))
    assert confidence.tolist() == [0.7, 0.6] and outcome.tolist() == [False, True]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_logits_is_found(generator, temperature):
    logits = generator.normal(0, 2, (6000, 5))
    truth = (generator.random((6000, 5)) < probabilities(logits, True)).astype(int)
    assert fit_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.05)
    truth[:, 0] = -1  # unknown
    assert fit_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.05)
    classes = np.array([generator.choice(5, p=row) for row in probabilities(logits, False)])
    assert fit_temperature(logits * temperature, classes) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_stays_finite_where_the_data_decide_nothing():
    perfect = np.array([[9.0, -9.0], [-9.0, 9.0]])
    assert fit_temperature(perfect, np.array([0, 1])) == pytest.approx(TEMPERATURE_BOUNDS[0], rel=1e-3)
    assert fit_temperature(-perfect, np.array([0, 1])) == pytest.approx(TEMPERATURE_BOUNDS[1], rel=1e-3)
    with pytest.raises(ValueError, match="known"):
        fit_temperature(perfect, np.array([-100, -100]))


def test_no_face_is_calibrated_by_itself(generator):
    logits = generator.normal(0, 2, (4000, 3))
    second = halves(np.repeat(np.arange(400), 10), 4000)
    assert second.sum() == 2000 and len(set(second[:10])) == 1, "people are not split"
    made = np.where(second[:, None], logits * 3, logits)
    truth = (generator.random((4000, 3)) < probabilities(logits, True)).astype(int)
    scaled, (first, other) = cross_fitted(made, truth, second)
    assert first == pytest.approx(3, rel=0.1) and other == pytest.approx(1, rel=0.1)
    assert scaled[second] == pytest.approx(made[second] / other)
    assert halves(None, 5).tolist() == [False, True, False, True, False]


def test_thresholds_maximise_what_they_promise(generator):
    scores = generator.beta(0.4, 2.0, 40000)
    truth = (generator.random(40000) < scores).astype(int)[:, None]
    grid = np.linspace(0.02, 0.98, 97)

    def value(threshold, balance):
        guess = scores >= threshold
        accuracy = (guess == truth[:, 0]).mean()
        return (1 - balance) * accuracy + balance * balanced_accuracy_score(truth[:, 0], guess)

    for balance in (0.0, 0.5, 1.0):
        (threshold,) = choose_thresholds(truth, balance)
        assert value(threshold, balance) >= max(value(each, balance) for each in grid) - 2e-3
    assert choose_thresholds(truth, 0.0) == 0.5
    assert choose_thresholds(truth, 1.0) == pytest.approx(truth.mean())
    assert choose_thresholds(np.array([[1], [0], [0]])) == 0.5, "too few faces to say"
    with pytest.raises(ValueError, match="balance"):
        choose_thresholds(truth, 1.5)


def test_extreme_logits_give_probabilities():
    assert probabilities(np.array([[1000.0, -1000.0]]), True).tolist() == [[1.0, 0.0]]
    assert probabilities(np.array([[1000.0, -1000.0]]), False).tolist() == [[1.0, 0.0]]


def test_figures_show_every_label():
    assert draw_confusion_matrix([[3, 1], [0, 0]], ["happy", "sad"]).width > 128
    few, many = (draw_bars(dict.fromkeys(map(str, range(n)), 0.5) | {"none": None}, "accuracy") for n in (2, 9))
    assert many.height > few.height
