"""Classifier pipelines on a tiny random checkpoint."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface import GPTFaceForFaceAttributeClassification


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
