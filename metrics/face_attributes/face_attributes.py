"""Face attributes, several independent labels a face: accuracy, balanced accuracy, F1, average precision, calibration,
groups.
"""

import datasets
import evaluate

from gptface.metrics.figures import draw_bars
from gptface.metrics.recognition_scores import attribute_scores
from gptface.processing.image_saving import save_picture

_DESCRIPTION = """
Figures of independent labels: accuracy, balanced accuracy (over labels with at least 20 faces of both kinds, and over
all), F1, average precision, expected calibration error over 15 bins of equal mass, for each label and as means, and
accuracy by groups.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: probabilities, one for each label of each face.
    references: 1 = the label holds, 0 = it does not, -1 = unknown.
    names: of the labels; "0", "1", ... by default.
    thresholds: one, or one for each label: a label holds where its probability is at least that.
    groups: column -> a value for each face (gender, age group, ...): accuracy is given for each value.
    figure: path of a PNG with a bar for each label's balanced accuracy.

Returns:
    accuracy, balanced_accuracy, balanced_accuracy_all, balanced_labels, f1, ap, ece, images, per_label and groups.

Examples:
    >>> metric = evaluate.load("metrics/face_attributes")
    >>> names = ["Smiling", "Male"]
    >>> scores = metric.compute(predictions=[[0.9, 0.2], [0.4, 0.7]], references=[[1, 0], [1, 1]], names=names)
    >>> scores["accuracy"]
    0.75
"""


class FaceAttributes(evaluate.Metric):
    """See `_DESCRIPTION`."""

    def _info(self):
        features = {
            "predictions": datasets.Sequence(datasets.Value("float64")),
            "references": datasets.Sequence(datasets.Value("int64")),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references, names=None, thresholds=0.5, groups=None, figure=None):
        names = names or [str(index) for index in range(len(references[0]))]
        report = attribute_scores(predictions, references, names, thresholds, groups)
        if figure is not None:
            values = {name: entry["balanced_accuracy"] for name, entry in report["per_label"].items()}
            save_picture(draw_bars(values, "balanced accuracy"), figure)
        return report
