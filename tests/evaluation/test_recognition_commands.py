"""`gptface evaluate attributes | expression | groups`: figures from pictures, by the head's own temperature and
thresholds.
"""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface import GPTFaceConfig, GPTFaceForFaceAttributeClassification, GPTFaceForPreTraining
from gptface.cli import main
from gptface.data.labels import VOTES

pytest.importorskip("sklearn")
ROWS = 30


def faces(path, columns, rows=ROWS, size=64, damaged=()):
    generator = np.random.default_rng(0)
    images = []
    for row in range(rows):
        data = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(data, "PNG")
        images.append({"bytes": data.getvalue()[: 60 if row in damaged else None], "path": None})
    pq.write_table(pa.table({"image": images, **columns}), path)
    return str(path)


@pytest.fixture
def evaluate(tiny_checkpoint, capsys):
    def run(kind, data, *options, model=tiny_checkpoint):
        status = main(["evaluate", kind, "--data", data, "--model", str(model), "--json", *options])
        output = capsys.readouterr()
        return json.loads(output.out) if status == 0 else output.err.strip().splitlines()[-1]

    return run


@pytest.fixture
def labels():
    generator = np.random.default_rng(1)
    return {
        "identity": [row // 3 for row in range(ROWS)],
        "Smiling": generator.integers(0, 2, ROWS).tolist(),
        "Male": generator.integers(0, 2, ROWS).tolist(),
        "Oval_Face": [0, 1] * (ROWS // 2),
    }


def test_attributes_are_judged_as_the_pipeline_answers(evaluate, tiny_checkpoint, tmp_path, labels):
    data = faces(tmp_path / "faces.parquet", labels)
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    head = config["heads"]["attributes"]
    head |= {"temperature": 2.0, "thresholds": [0.3, 0.5, 0.6, 0.4, 0.5]}
    (folder / "config.json").write_text(json.dumps(config))
    report = evaluate("attributes", data, model=folder)
    keys = {"accuracy", "balanced_accuracy", "balanced_accuracy_all", "f1", "ap", "ece", "ece_as_stored", "images"}
    assert keys <= set(report) and report["images"] == ROWS
    # two of the head's five labels are in the data, one of the data's is none of the head's
    known = {name for name, entry in report["per_label"].items() if entry["accuracy"] is not None}
    assert known == {"Smiling", "Male"}
    classify = pipeline("face-attribute-classification", model=str(folder))
    pictures = [Image.open(io.BytesIO(row["bytes"])) for row in pq.read_table(data)["image"].to_pylist()]
    answers = [{e["label"] for e in result} for result in classify(pictures, aligned=True, threshold="auto")]
    right = [("Smiling" in answer) == bool(truth) for answer, truth in zip(answers, labels["Smiling"], strict=True)]
    assert report["per_label"]["Smiling"]["accuracy"] == pytest.approx(np.mean(right))


def test_expressions_and_what_is_printed_without_json(evaluate, tmp_path, capsys, tiny_checkpoint):
    emotions = sorted(["happy", "sad", "neutral"] * 10)
    data = faces(tmp_path / "faces.parquet", {"emotion": emotions}, size=48, damaged=(4,))
    report = evaluate("expression", data)
    assert report["images"] == ROWS - 1 and np.sum(report["confusion_matrix"]) == ROWS - 1
    assert report["balanced_accuracy"] is None and 0 <= report["ece"] <= 1
    some = evaluate("expression", data, "--limit", "9")
    assert some["images"] == 9, "rows 0, 3, 7, ...: without the damaged one"
    assert np.count_nonzero(np.sum(some["confusion_matrix"], axis=1)) == 3, (
        "a file sorted by label still shows every label"
    )
    assert main(["evaluate", "expression", "--data", data, "--model", str(tiny_checkpoint)]) == 0
    assert f"images: {ROWS - 1}" in capsys.readouterr().out


def test_groups_are_measured_on_every_tenth_row(evaluate, tmp_path):
    rows = 41
    columns = {
        "age": [10 + row for row in range(rows)],
        "gender": ["male", "female"] * 20 + ["male"],
        "race": [("Asian", "White")[row % 20 == 0] for row in range(rows)],
    }
    data = faces(tmp_path / "utkface.parquet", columns, rows=rows, size=64)
    report = evaluate("groups", data)
    assert report["images"] == 5 and set(report["groups"]) == {"gender", "age", "race"}
    assert {name: entry["images"] for name, entry in report["groups"]["race"].items()} == {"White": 3, "Asian": 2}
    assert {name: entry["images"] for name, entry in report["groups"]["age"].items()} == {
        "0-17": 1,
        "18-29": 1,
        "30-44": 2,
        "45-59": 1,
    }
    men = report["groups"]["gender"]["male"]
    assert men["images"] == 5 and men["Male"] == report["Male"] and 0 <= men["Young"] <= 1
    assert "race" in evaluate(
        "groups", faces(tmp_path / "few.parquet", {"age": [1] * 3, "gender": ["male"] * 3}, rows=3)
    )


def test_a_group_gets_the_answers_of_its_own_faces(tmp_path):
    from gptface.data.classification_data import ClassificationData
    from gptface.evaluation.recognition import group_report

    columns = {"age": [20, 70, 20, 70], "race": ["a", "a", "b", "b"]}
    data = ClassificationData(np.array([1, 0, 1, 0]), ["female", "male"], np.arange(4), columns=columns)
    answers = np.array([[1, 1], [0, 0], [1, 1], [1, 1]], bool)
    report = group_report(answers, ["Male", "Young"], data, np.arange(4))
    assert report["Male"] == 0.75 and report["Young"] == 0.75 and report["images"] == 4
    assert report["groups"]["race"]["b"] == {"accuracy": 0.5, "images": 2, "Male": 0.5, "Young": 0.5}
    guessed = group_report(answers, ["Male"], data, np.arange(4), ages=np.array([25, 60, 20, 73]))
    assert guessed["age_error"] == 4.5 and guessed["groups"]["race"]["b"]["age_error"] == 1.5
    assert report["groups"]["age"]["60+"]["Young"] == 0.5 and report["groups"]["gender"]["male"]["Male"] == 1.0


def test_mistakes_are_one_line_that_says_what_would_be_right(evaluate, tmp_path, tiny_checkpoint):
    unlabelled = faces(tmp_path / "names.parquet", {"name": ["x"] * 3}, rows=3)
    assert "no column" in evaluate("attributes", unlabelled)
    assert "'emotion'" in evaluate("expression", unlabelled)
    assert "does not exist" in evaluate("attributes", str(tmp_path / "missing.parquet"))
    other = faces(tmp_path / "other.parquet", {"emotion": ["happy", "grim", "sad"]}, rows=3)
    assert "no label 'grim'" in evaluate("expression", other)
    damaged = faces(tmp_path / "damaged.parquet", {"emotion": ["happy", "sad"]}, rows=2, damaged=(1,))
    assert "halves" in evaluate("expression", damaged)
    model = GPTFaceForFaceAttributeClassification.from_pretrained(tiny_checkpoint)
    model.config.heads["attributes"]["trained"] = False
    model.save_pretrained(tmp_path / "untrained")
    data = faces(tmp_path / "faces.parquet", {"Male": [0, 1, 1]}, rows=3)
    assert "not trained" in evaluate("attributes", data, model=tmp_path / "untrained")


def test_rafdb_and_ferplus_are_read_as_they_are(evaluate, tmp_path):
    """FER+ has other names for the seven, ten columns of votes, and rows of three more kinds, which do not count."""
    colour = faces(tmp_path / "rafdb100.parquet", {"emotion": ["angry", "sad", "happy"] * 3}, rows=9, size=100)
    assert np.sum(evaluate("expression", colour)["confusion_matrix"]) == 9
    majority = ["anger", "sadness", "happiness", "contempt", "unknown", "NF", "neutral", "fear", "disgust", "surprise"]
    votes = {name: [10 * (name == row) for row in majority] for name in VOTES}
    columns = {"fer_index": list(range(10)), "expression": majority, **votes}
    grey = faces(tmp_path / "ferplus48.parquet", columns, rows=10, size=48)
    report = evaluate("expression", grey)
    assert report["images"] == 7 and np.sum(report["confusion_matrix"], axis=1).tolist() == [1] * 7
    assert 0 <= report["ece_as_stored"] <= 1


def test_the_age_is_measured_by_group_where_the_head_is_trained(evaluate, tmp_path, tiny_checkpoint):
    config = GPTFaceConfig.from_pretrained(tiny_checkpoint, image_reader={"channels": [8, 8, 8], "adapter_rank": 2})
    head = {"labels": ["age"], "problem_type": "regression", "input": "pixels", "trained": True}
    config.heads = {**config.heads, "age": head}
    model = GPTFaceForPreTraining(config)
    with torch.no_grad():
        model.classifiers["age"].output.weight.zero_()
        model.classifiers["age"].output.bias.fill_(30)
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("model*"))
    model.save_pretrained(folder)
    columns = {
        "age": [*range(20, 41)],
        "gender": ["male"] * 21,
        "race": [("White", "Asian")[r % 2] for r in range(21)],
    }
    data = faces(tmp_path / "utkface.parquet", columns, rows=21)
    report = evaluate("groups", data, model=folder)
    assert report["images"] == 3 and report["age_error"] == pytest.approx(20 / 3, abs=0.01), "of 20, 30 and 40 years"
    assert report["groups"]["age"]["18-29"]["age_error"] == pytest.approx(10, abs=0.01)
    assert "groups" in evaluate("head", data, "--head", "age", model=folder)
