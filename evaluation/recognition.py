"""`gptface evaluate attributes`, `gptface evaluate expression` and `gptface evaluate groups`: recognition as the field
measures it.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptface.data.classification_data import ClassificationData, face_logits, load_classification_data
from gptface.data.code_dataset import spread_rows
from gptface.metrics.calibration import (
    calibration_pairs,
    cross_fitted,
    expected_calibration_error,
    halves,
    probabilities,
)
from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import (
    GPTFaceForFaceAttributeClassification,
    GPTFaceForImageClassification,
)
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT, find_checkpoint

#: Of UTKFace every tenth row is never trained on; the groups are measured on those.
GROUP_ROWS = 10
AGE = "age"
AGES = (18, 30, 45, 60)


def run_recognition(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of the head `options.head`."""
    source = find_checkpoint(options.model or DEFAULT_CHECKPOINT)
    known = GPTFaceConfig.from_pretrained(source).heads
    if options.head not in known:
        raise ValueError(f"{source} has no head {options.head!r}; its heads are {', '.join(known)}")
    model = GPTFaceForImageClassification.from_pretrained(source, head=options.head)
    head = trained_head(model)
    if head["problem_type"] == "regression":
        raise ValueError(f"the head {options.head!r} is a regression: `gptface evaluate groups` measures age")
    names, multi_label = list(head["labels"]), head["problem_type"] == "multi_label_classification"
    labels = options.labels.split(",") if multi_label and options.labels else options.labels
    try:
        data = load_classification_data(
            [options.data],
            multi_label,
            (labels or names) if multi_label else labels,
            names,
            options.layout,
            require_all=False,
            search=options.layout is None,
        )
        unknown = sorted(set(data.names) - set(names))
        if unknown:
            raise ValueError(f"the head {model.head_name!r} has no label {unknown[0]!r}; its labels are {names}")
    except ValueError as error:
        if options.model is not None:
            raise
        raise ValueError(
            f"{error}. Own labels need a checkpoint that was fine-tuned on them: --model FOLDER"
        ) from error
    return recognition_report(model, data, spread_rows(len(data), options.limit), options.batch_size)


def trained_head(model: GPTFaceForImageClassification) -> dict[str, Any]:
    """
    Configuration of the model's head. Raises `ValueError` where it is not trained: random weights measure nothing.
    """
    head = model.config.heads[model.head_name]
    if not head.get("trained"):
        raise ValueError(f"the head {model.head_name!r} of this checkpoint is not trained: fine-tune it first")
    return head


def recognition_report(
    model: GPTFaceForImageClassification, data: ClassificationData, rows: np.ndarray, batch_size: int = 32
) -> dict[str, Any]:
    """
    Figures of the model's head on labelled faces.

    `accuracy`, `f1` and the like are of the scores as the pipelines give them, with the head's own thresholds;
    `ece_as_stored` is their calibration error. `ece` is that of logits whose temperature was fitted on the other half
    of the people (of the rows where the data name no people): what calibration can reach, the same for heads with and
    without a temperature.

    Returns:
        What [`attribute_scores`] or [`expression_scores`] returns, with `ece`, `ece_as_stored` and `temperatures`.
    """
    from gptface.metrics.recognition_scores import attribute_scores, expression_scores

    head = trained_head(model)
    logits, rows = face_logits(model, data, rows, batch_size)
    truth = data.targets[rows]
    if data.multi_label:
        order = [head["labels"].index(name) for name in data.names]
        logits = logits[:, order]
    scores = probabilities(logits / head.get("temperature", 1.0), data.multi_label)
    if data.multi_label:
        thresholds = head_thresholds(head)[order].tolist()
        report = attribute_scores(scores, truth, data.names, thresholds)
    else:
        report = expression_scores(scores, truth, head["labels"])
    people = None if data.people is None else data.people[rows]
    scaled, temperatures = cross_fitted(logits, truth, halves(people, len(rows)))
    report["ece_as_stored"] = report["ece"]
    fitted = probabilities(scaled, data.multi_label)
    report["ece"] = expected_calibration_error(*calibration_pairs(fitted, truth))
    report["temperatures"] = temperatures
    return report


def head_thresholds(head: dict[str, Any]) -> np.ndarray:
    """Thresholds [labels] of a head; 0.5 where it has none."""
    return np.asarray(head.get("thresholds") or [0.5] * len(head["labels"]), np.float64)


def run_groups(options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy of the attribute head, and the error of the head `age` where it is trained, by groups of people."""
    source = options.model or DEFAULT_CHECKPOINT
    model = GPTFaceForFaceAttributeClassification.from_pretrained(source)
    head = trained_head(model)
    # UTKFace says no attributes: what is known of them follows from its columns
    layout = options.layout or "utkface128"
    data = load_classification_data([options.data], False, "gender", layout=layout, search=options.layout is None)
    held_out = np.flatnonzero(data.row_numbers % GROUP_ROWS == 0)
    rows = held_out[spread_rows(len(held_out), options.limit)]
    logits, rows = face_logits(model, data, rows, options.batch_size)
    scores = probabilities(logits / head.get("temperature", 1.0), multi_label=True)
    ages = None
    if model.config.heads.get(AGE, {}).get("trained"):
        model = GPTFaceForImageClassification.from_pretrained(source, head=AGE)
        ages = face_logits(model, data, rows, options.batch_size)[0][:, 0]
    return group_report(scores >= head_thresholds(head), head["labels"], data, rows, options.young_below, ages)


def group_report(
    answers: np.ndarray,
    names: Sequence[str],
    data: ClassificationData,
    rows: np.ndarray,
    young_below: int = 40,
    ages: np.ndarray | None = None,
) -> dict[str, Any]:
    """
    Accuracy of `Male` (against the column gender) and `Young` (against age) by gender, age group and race, and the
    mean absolute error of ages in years as `age_error`.

    Args:
        answers: bool [rows, labels of the head].
        data: with the classes of `gender` and the columns `age` and `race`; `rows` of it were answered.
        ages: guessed [rows], in years.

    Raises:
        ValueError: where a column, or both labels, are missing.
    """
    from gptface.metrics.recognition_scores import group_accuracy

    missing = [name for name in ("age", "race") if name not in data.columns]
    if missing:
        raise ValueError(f"the data have no column {missing[0]!r}, by which groups are formed")
    gender = np.asarray(data.names)[data.targets[rows]]
    age, race = (np.asarray(data.columns[name])[rows] for name in ("age", "race"))
    truth = {"Male": gender == "male", "Young": age < young_below}
    known = [name for name in truth if name in names]
    if not known:
        raise ValueError("the head has neither the label 'Male' nor 'Young'")
    edges = ["0", *(str(year) for year in AGES)]
    ends = [*(f"-{year - 1}" for year in AGES), "+"]
    spans = [start + end for start, end in zip(edges, ends, strict=True)]
    groups = {
        "gender": gender,
        "age": np.asarray(spans)[np.digitize(age, AGES)],
        "race": race,
        "all": ["all"] * len(rows),
    }
    chosen = answers[:, [list(names).index(name) for name in known]]
    figures = group_accuracy(chosen, np.stack([truth[name] for name in known], 1).astype(int), known, groups)
    if ages is not None:
        errors = np.abs(ages - age)
        for kind, values in groups.items():
            for value, entry in figures[kind].items():
                entry["age_error"] = float(errors[np.asarray(values) == value].mean())
    return {"images": len(rows), **figures.pop("all")["all"], "groups": figures}
