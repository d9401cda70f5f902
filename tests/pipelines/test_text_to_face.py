"""What a user of `pipeline("text-to-face")` and `gptface generate` counts on, with a tiny random checkpoint."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface.cli import main
from gptface.pipelines.guided_face_editing import GuidedFaceEditingPipeline


@pytest.fixture(scope="module")
def make(tiny_checkpoint):
    return pipeline("text-to-face", model=str(tiny_checkpoint), num_inference_steps=2)


def pixels(result):
    return np.asarray(result["image"])


def test_candidates_come_best_first_and_repeat(make):
    results = make("a smiling woman", seed=3, num_images_per_prompt=3)
    assert sorted(result["seed"] for result in results) == [3, 4, 5]
    # the tiny checkpoint has no head that knows a smile, and no critic
    scores = [result["match_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(result["image"].size == (64, 64) and result["guidance_kl"] > 0 for result in results)
    alone = make("a smiling woman", seed=4)[0]
    assert np.array_equal(pixels(alone), pixels(next(result for result in results if result["seed"] == 4)))
    assert not np.array_equal(pixels(alone), pixels(make("a smiling woman", seed=5)[0]))


def test_lists_of_prompts_give_lists(make):
    results = make(["smiling", "glasses"], seed=1)
    assert len(results) == 2 and np.array_equal(pixels(results[1][0]), pixels(make("glasses", seed=1)[0]))
    assert make([]) == []


def test_every_parameter_reaches_the_picture(make):
    plain = pixels(make("smiling", seed=0, itm_guidance=0, guidance_scale=1)[0])
    for change in (
        {"itm_guidance": 5.0, "guidance_scale": 1},
        {"itm_guidance": 0, "guidance_scale": 50.0},
        {"itm_guidance": 0, "guidance_scale": 1, "temperature": 0.0},
        {"itm_guidance": 0, "guidance_scale": 1, "decoding": "span"},
        {"itm_guidance": 0, "guidance_scale": 1, "top_k": 1},
        {"itm_guidance": 0, "guidance_scale": 1, "num_inference_steps": 5},
    ):
        assert not np.array_equal(plain, pixels(make("smiling", seed=0, **change)[0])), change
    negative = make("smiling", seed=0, itm_guidance=0, guidance_scale=50.0, negative_prompt="glasses")[0]
    assert not np.array_equal(
        pixels(negative), pixels(make("smiling", seed=0, itm_guidance=0, guidance_scale=50.0)[0])
    )


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ("", {}, ValueError, "prompt must say"),
        (None, {}, ValueError, "prompt must say"),
        ("☃", {}, ValueError, "no word"),
        ("smiling", {"negative_prompt": 3}, ValueError, "negative_prompt must be a text"),
        ("smiling", {"num_images_per_prompt": 0}, ValueError, "num_images_per_prompt"),
        ("smiling", {"plan_first": True}, ValueError, "no trained plan"),
        ("smiling", {"decoding": "serial"}, ValueError, "one_shot"),
        ("smiling", {"seed": 1, "generator": torch.Generator()}, ValueError, "not both"),
        ("smiling", {"guidence_scale": 2}, TypeError, "guidence_scale"),
    ],
)
def test_mistakes_are_named(make, prompt, options, error, message):
    with pytest.raises(error, match=message):
        make(prompt, **options)


def test_things_that_are_worn_are_laid_over_a_face_that_is_drawn_without_them():
    make = pipeline("text-to-face", num_inference_steps=4)
    bare, worn = (make(prompt, seed=0)[0] for prompt in ("a man", "a man wearing a red hat"))
    assert bare["edits"] == [] and worn["edits"] == ["hat"]
    difference = np.abs(pixels(bare).astype(int) - pixels(worn)).max(-1)
    assert not difference[160:].any()  # the chin is that of the face without a hat
    hat = pixels(worn)[:64][difference[:64] > 60]
    assert len(hat) > 1000 and hat[:, 0].mean() > 1.5 * hat[:, 2].mean()
    drawn = make("a man wearing a red hat", seed=0, draw=True)[0]
    assert drawn["edits"] == [] and np.abs(pixels(bare).astype(int) - pixels(drawn))[160:].any()


def test_each_thing_that_a_face_has_no_room_for_is_drawn_beside_others_that_are_laid_over(monkeypatch):
    make = pipeline("text-to-face", num_inference_steps=4)
    drawn = []
    edit = GuidedFaceEditingPipeline.__call__

    def noted(self, images, prompt, draw=False, **options):
        drawn.extend([prompt] if draw else [])
        return edit(self, images, prompt, draw=draw, **options)

    monkeypatch.setattr(GuidedFaceEditingPipeline, "__call__", noted)
    # hair hides the ears of this face
    result = make("a woman with glasses and earrings", seed=0)[0]
    assert result["edits"] == ["eyeglasses", "earrings"] and drawn == ["earrings"]
    assert result["verified"]["eyeglasses"] > 0.9


def test_what_lays_things_over_moves_with_the_pipeline(tiny_checkpoint):
    make = pipeline("text-to-face", model=str(tiny_checkpoint), num_inference_steps=2)
    make("glasses", seed=0)
    make.to("meta")  # stands for a GPU
    assert make.device.type == make._editing.device.type == "meta"


def test_the_command_writes_the_picture(tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "face.png"
    arguments = ["generate", "a smiling woman", "-o", str(output), "--model", str(tiny_checkpoint), "--steps", "2"]
    assert main([*arguments, "--json", "--candidates", "2", "--seed", "7"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == str(output) and report["seed"] in (7, 8)
    assert Image.open(output).size == (64, 64)
    assert main(["generate", "smiling", "-o", str(tmp_path / "face.xyz")]) == 2
    assert "unknown picture format" in capsys.readouterr().err
