"""`pipeline("face-parsing")` and `gptface parse` on a tiny random checkpoint."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface import GPTFaceForGuidedGeneration, GPTFaceParser, GPTFaceParserConfig
from gptface.cli import main
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES

TINY = {"image_size": 64, "block_out_channels": [8, 8, 16, 16], "dilations": [1]}


@pytest.fixture(scope="module")
def face_parser(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("parser")
    GPTFaceParser(GPTFaceParserConfig(**TINY)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, face_parser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with-parser") / "model"
    assert main(["convert", "parser", str(tiny_checkpoint), str(face_parser), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def parse(checkpoint):
    return pipeline("face-parsing", model=str(checkpoint))


def test_the_format_is_that_of_image_segmentation(parse, face_picture):
    segments = parse(face_picture, aligned=True)
    assert segments and {each["label"] for each in segments} <= set(FACE_CLASSES)
    masks = np.stack([np.asarray(each["mask"]) for each in segments])
    assert all(each["mask"].size == face_picture.size and each["mask"].mode == "L" for each in segments)
    assert set(np.unique(masks)) == {0, 255}
    assert ((masks == 255).sum(0) == 1).all()  # each pixel shows one thing
    areas = (masks == 255).sum((1, 2))
    assert (np.diff(areas) <= 0).all()
    assert all(0 < each["score"] <= 1 for each in segments)


def test_landmarks_say_where_the_face_is(parse, face_picture):
    points = [[30, 40], [50, 40], [40, 52], [32, 60], [48, 60]]
    segments = parse(face_picture, landmarks=points)
    assert segments[0]["mask"].size == face_picture.size
    both = parse([face_picture, face_picture], landmarks=points)
    assert [each["label"] for each in both[1]] == [each["label"] for each in segments]


def test_putting_a_parser_in_changes_nothing_else(checkpoint, tiny_checkpoint, face_parser):
    old = GPTFaceForGuidedGeneration.from_pretrained(tiny_checkpoint).state_dict()
    model = GPTFaceForGuidedGeneration.from_pretrained(checkpoint)
    new = model.state_dict()
    inside = GPTFaceParser.from_pretrained(face_parser).state_dict()
    for name, tensor in new.items():
        parser_name = name.removeprefix("gptface.face_parser.")
        expected = inside[parser_name] if parser_name in inside else old[name]
        torch.testing.assert_close(tensor, expected.half().float())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_checkpoint_without_a_parser_says_so(tiny_model, tiny_processor, tmp_path):
    tiny_model(GPTFaceForGuidedGeneration).save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="train-parser"):
        pipeline("face-parsing", model=str(tmp_path))


def test_one_bad_picture_does_not_stop_the_others(parse, face_picture):
    results = parse(["missing.jpg", face_picture], aligned=True, on_error="return")
    assert "missing.jpg" in results[0]["error"] and results[1][0]["label"] in FACE_CLASSES


def test_the_command_writes_an_overlay(checkpoint, face_picture, tmp_path, capsys):
    photo, output = tmp_path / "photo.png", tmp_path / "overlay.png"
    face_picture.save(photo)
    command = ["parse", str(photo), "-o", str(output), "--aligned", "--model", str(checkpoint), "--json"]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)["classes"]
    assert sum(each["share"] for each in shown) == pytest.approx(1, abs=0.01)
    assert Image.open(output).size == face_picture.size
    assert main(["parse", str(tmp_path / "none.png"), "--model", str(checkpoint)]) == 2
