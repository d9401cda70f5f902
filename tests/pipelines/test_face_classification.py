"""Classifier pipelines on a tiny random checkpoint."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from gptface import GPTFaceConfig, GPTFaceForFaceAttributeClassification, GPTFaceForPreTraining
from gptface.cli import main
from gptface.processing.detection import DetectedFace


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def attributes(tiny_checkpoint):
    return pipeline("face-attribute-classification", model=str(tiny_checkpoint))


def test_scores_are_those_of_the_model(attributes, face):
    result = attributes(face, aligned=True)
    pixel_values = attributes.processor(images=face)["pixel_values"]
    with torch.no_grad():
        expected = attributes.model(pixel_values=pixel_values).logits.sigmoid()[0]
    names = attributes.model.config.heads["attributes"]["labels"]
    scores = {entry["label"]: entry["score"] for entry in result}
    assert scores == pytest.approx(dict(zip(names, expected.tolist(), strict=True)))


def test_top_k_and_threshold_cut_the_list(attributes, face):
    everything = attributes(face, aligned=True)
    assert attributes(face, aligned=True, top_k=2) == everything[:2]
    middle = everything[1]["score"]
    assert attributes(face, aligned=True, threshold=middle) == everything[:2]
    with pytest.raises(ValueError, match="top_k"):
        attributes(face, aligned=True, top_k=0)


def test_a_batch_gives_what_each_gives_alone(attributes, face):
    other = face.rotate(180)
    assert attributes([face, other], aligned=True) == [attributes(each, aligned=True) for each in (face, other)]


def test_grey_pictures_are_taken(attributes, face):
    grey = face.convert("L")
    assert attributes(grey, aligned=True) == attributes(grey.convert("RGB"), aligned=True)


def test_temperature_of_the_head_softens_the_scores(tiny_checkpoint, face):
    expression = pipeline("facial-expression", model=str(tiny_checkpoint))
    sharp = expression(face, aligned=True)
    expression.model.config.heads["expression"]["temperature"] = 100.0
    soft = expression(face, aligned=True)
    assert sharp[0]["score"] > soft[0]["score"] and soft[0]["score"] == pytest.approx(1 / 7, abs=0.01)


def test_weights_that_are_not_numbers_are_an_error_not_a_score(tiny_checkpoint, face):
    expression = pipeline("facial-expression", model=str(tiny_checkpoint))
    with torch.no_grad():
        expression.model.classifiers["expression"].output.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="damaged"):
        expression(face, aligned=True)


def test_a_head_that_is_not_trained_is_refused(tiny_checkpoint, tmp_path):
    model = GPTFaceForFaceAttributeClassification.from_pretrained(tiny_checkpoint)
    model.config.heads["attributes"]["trained"] = False
    with pytest.raises(ValueError, match="not trained"):
        pipeline(
            "face-attribute-classification",
            model=model,
            processor=pipeline("facial-expression", model=str(tiny_checkpoint)).processor,
        )


def test_a_head_that_a_user_trained_opens_in_its_pipeline(tiny_checkpoint, tmp_path, face):
    model = GPTFaceForFaceAttributeClassification.from_pretrained(tiny_checkpoint)
    model.config.heads["attributes"]["trained"] = False
    model.train()
    labels = torch.zeros(1, len(model.config.heads["attributes"]["labels"]))
    model(image_codes=torch.zeros(1, 64, dtype=torch.long), labels=labels).loss.backward()
    model.save_pretrained(tmp_path)
    pipeline("facial-expression", model=str(tiny_checkpoint)).processor.save_pretrained(tmp_path)
    assert pipeline("face-attribute-classification", model=str(tmp_path))(face, aligned=True)


def test_auto_threshold_is_each_labels_own(tiny_checkpoint, face):
    classify = pipeline("face-attribute-classification", model=str(tiny_checkpoint))
    everything = classify(face, aligned=True)
    assert classify(face, aligned=True, threshold="auto") == [entry for entry in everything if entry["score"] >= 0.5]
    head = classify.model.config.heads["attributes"]
    scores = {entry["label"]: entry["score"] for entry in everything}
    chosen = head["labels"][2]
    head["thresholds"] = [scores[label] + (0 if label == chosen else 1e-3) for label in head["labels"]]
    assert [entry["label"] for entry in classify(face, aligned=True, threshold="auto")] == [chosen]
    with pytest.raises(ValueError, match="auto"):
        classify(face, aligned=True, threshold="best")
    with pytest.raises(ValueError, match="top_k=1"):
        pipeline("facial-expression", model=str(tiny_checkpoint))(face, aligned=True, threshold="auto")


def test_temperature_of_independent_labels_softens_their_scores(tiny_checkpoint, face):
    classify = pipeline("face-attribute-classification", model=str(tiny_checkpoint))
    sharp = {entry["label"]: entry["score"] for entry in classify(face, aligned=True)}
    classify.model.config.heads["attributes"]["temperature"] = 2.0
    soft = {entry["label"]: entry["score"] for entry in classify(face, aligned=True)}
    odds = {label: np.log(score / (1 - score)) for label, score in sharp.items()}
    assert soft == pytest.approx({label: 1 / (1 + np.exp(-value / 2)) for label, value in odds.items()}, abs=1e-5)


@pytest.fixture
def two_faces(monkeypatch):
    """A photo in which a detector finds two faces, the right one the larger."""
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 255, (120, 200, 3), dtype=np.uint8))
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.37, 0.75], [0.63, 0.75]])
    boxes = [(95.0, 5.0, 195.0, 105.0), (10.0, 20.0, 80.0, 90.0)]  # largest first, as detectors give them
    found = [DetectedFace(box, points * (box[2] - box[0]) + box[:2], 0.9) for box in boxes]

    class Detector:
        def detect(self, image, thorough=False):
            return found

    monkeypatch.setattr("gptface.pipelines.face_pipeline.default_detector", Detector)
    return photo, boxes


def test_several_faces_of_a_photo_each_with_its_box(attributes, two_faces):
    photo, boxes = two_faces
    both = attributes(photo, face="all", top_k=2)
    assert [[entry["box"] for entry in entries] for entries in both] == [[boxes[0]] * 2, [boxes[1]] * 2]
    assert attributes(photo, top_k=2) == attributes(photo, face=0, top_k=2) == both[0]
    assert attributes(photo, face=1, top_k=2) == both[1]
    grey = photo.convert("L")
    assert attributes([photo, grey], face="all", top_k=2) == [both, attributes(grey, face="all", top_k=2)]


def test_one_bad_picture_of_a_batch_keeps_its_place(attributes, face):
    results = attributes([face, "missing.png", face.convert("L")], aligned=True, on_error="return", top_k=1)
    assert results[0] == attributes(face, aligned=True, top_k=1) and "missing.png" in results[1]["error"]
    assert len(results[2]) == 1


@pytest.fixture(scope="module")
def age_checkpoint(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint with a head for age that reads pixels, and with attributes of the same."""
    folder = tmp_path_factory.mktemp("age")
    shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model*"))
    config = GPTFaceConfig.from_pretrained(tiny_checkpoint, image_reader={"channels": [8, 8, 8], "adapter_rank": 2})
    head = {"labels": ["age"], "problem_type": "regression", "input": "pixels", "trained": True}
    config.heads = {**config.heads, "age": head}
    model = GPTFaceForPreTraining(config)
    torch.nn.init.constant_(model.classifiers["age"].output.bias, 33.0)
    model.save_pretrained(folder)
    return folder


def test_an_age_is_a_number_of_years(age_checkpoint, face):
    """A softmax over one label would say 1.0 of everybody."""
    tell = pipeline("face-classification", model=str(age_checkpoint), head="age")
    (entry,) = tell(face, aligned=True)
    with torch.no_grad():
        pixels = tell.processor(images=face)["pixel_values"]
        years = float(tell.model.classify("age", tell.model.read_for("age", pixels)))
    assert entry["label"] == "age" and entry["score"] == pytest.approx(years) and 20 < years < 50
    with pytest.raises(ValueError, match="values"):
        tell(face, aligned=True, threshold="auto")


def test_the_command_tells_the_age(age_checkpoint, face, tmp_path, capsys):
    face.save(tmp_path / "face.png")
    options = ["--head", "age", "--aligned", "--model", str(age_checkpoint), "--json"]
    assert main(["classify", str(tmp_path / "face.png"), *options]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["scores"]
    assert entry["label"] == "age" and 20 < entry["score"] < 50


def test_attributes_are_meant_where_no_head_is_named(age_checkpoint, face, tmp_path, capsys):
    """A saved configuration has heads in alphabetical order: age first, of which nobody asked."""
    face.save(tmp_path / "face.png")
    options = ["--aligned", "--model", str(age_checkpoint), "--json"]
    labels = GPTFaceConfig.from_pretrained(age_checkpoint).heads["attributes"]["labels"]
    assert main(["classify", str(tmp_path / "face.png"), *options, "--threshold", "0"]) == 0
    assert {entry["label"] for entry in json.loads(capsys.readouterr().out)["scores"]} == set(labels)
    assert set(AutoModelForImageClassification.from_pretrained(age_checkpoint).config.id2label.values()) == set(labels)
