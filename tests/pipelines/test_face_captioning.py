"""What a user of `pipeline("face-captioning")` and `gptface caption` counts on, with a tiny random checkpoint."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from gptface.cli import main


@pytest.fixture(scope="module")
def describe(tiny_checkpoint):
    return pipeline("face-captioning", model=str(tiny_checkpoint), num_inference_steps=2)


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def test_captions_are_words_best_first(describe, face):
    results = describe(face, aligned=True, seed=2, num_captions=3)
    assert sorted(result["seed"] for result in results) == [2, 3, 4]
    scores = [result["match_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    for result in results:
        assert result["caption"] and "[" not in result["caption"] and result["box"] is None
    alone = describe(face, aligned=True, seed=3)[0]
    assert alone["caption"] == next(result["caption"] for result in results if result["seed"] == 3)


def test_several_lengths_compete(describe, face):
    results = describe(face, aligned=True, seed=0, num_tokens=[2, 6])
    assert len(results) == 2 and len({len(result["caption"].split()) for result in results}) >= 1
    assert describe(face, aligned=True, seed=0, num_tokens=2)[0]["caption"] in {r["caption"] for r in results}


def test_guidance_is_reported_and_can_be_turned_off(describe, face):
    assert describe(face, aligned=True, seed=0)[0]["guidance_kl"] > 0
    assert describe(face, aligned=True, seed=0, itm_guidance=0)[0]["guidance_kl"] == 0


def test_one_bad_input_does_not_stop_the_others(describe, face, tmp_path):
    results = describe([face, tmp_path / "missing.jpg", face], aligned=True, seed=0, on_error="return")
    assert "missing.jpg" in results[1]["error"] and results[0] == results[2]


def test_all_faces_of_a_photo(describe, face):
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 64
    both = describe(face, landmarks=np.stack([points, points * 0.9]), face="all", seed=0)
    assert len(both) == 2 and all(captions[0]["caption"] for captions in both)


@pytest.mark.parametrize(
    ("options", "message"), [({"num_captions": 0}, "num_captions"), ({"num_tokens": 99}, "1 to 14 tokens")]
)
def test_mistakes_are_named(describe, face, options, message):
    with pytest.raises(ValueError, match=message):
        describe(face, aligned=True, **options)


def test_an_unknown_parameter_is_refused(describe, face):
    with pytest.raises(TypeError, match="tokens"):
        describe(face, aligned=True, tokens=3)


def test_the_command_prints_a_line_for_each_photo(tiny_checkpoint, face, tmp_path, capsys):
    photo, missing = tmp_path / "face.png", tmp_path / "missing.png"
    face.save(photo)
    options = ["--model", str(tiny_checkpoint), "--aligned", "--steps", "2"]
    assert main(["caption", str(photo), *options, "--tokens", "3", "--tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith(f"{photo}: ")
    assert main(["caption", str(missing), str(photo), "--json", *options]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "missing.png" in lines[0]["error"] and lines[1]["caption"]
