"""Facial expression, one of several classes a face: accuracy, balanced accuracy, F1, confusion matrix, calibration."""

import datasets
import evaluate
import numpy as np

from gptface.metrics.figures import draw_confusion_matrix
from gptface.metrics.recognition_scores import expression_scores
from gptface.processing.image_saving import save_picture

_DESCRIPTION = """
Figures of classes that exclude each other: accuracy, balanced accuracy (mean recall of the classes with at least 20
faces, and of all), macro F1, confusion matrix and, where probabilities are given, the expected calibration error over
15 bins of equal mass.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: class indices, or probabilities of all classes for each face.
    references: class indices; -1 = unknown.
    names: of the classes; "0", "1", ... by default.
    figure: path of a PNG with the confusion matrix.

Returns:
    accuracy, balanced_accuracy, balanced_accuracy_all, balanced_labels, f1, images, confusion_matrix (rows = truth,
    columns = answer), per_label and, of probabilities, ece.

Examples:
    >>> metric = evaluate.load("metrics/facial_expression")
    >>> metric.compute(predictions=[0, 1, 1], references=[0, 1, 0], names=["happy", "sad"])["confusion_matrix"]
    [[1, 1], [0, 1]]
"""


class FacialExpression(evaluate.Metric):
    """See `_DESCRIPTION`."""

    def _info(self):
        truth = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": datasets.Value("int64"), "references": truth}),
                datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), "references": truth}),
            ],
        )

    def _compute(self, predictions, references, names=None, figure=None):
        answers = np.asarray(predictions)
        if names is None:
            classes = answers.shape[1] if answers.ndim == 2 else max(*predictions, *references) + 1
            names = [str(index) for index in range(classes)]
        report = expression_scores(answers, references, names)
        if figure is not None:
            save_picture(draw_confusion_matrix(report["confusion_matrix"], names), figure)
        return report
