"""The embedded checkpoint on a public-domain portrait: the main job, offline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import gptface
from gptface.processing.alignment import apply, inverse
from gptface.processing.edits import Edit

pytest.importorskip("cv2")
PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def edit():
    return pipeline("guided-face-editing", force=True)


def test_a_portrait_is_edited_where_the_prompt_says_and_nowhere_else(edit):
    photo = Image.open(PORTRAIT)
    result = edit(photo, prompt="a serious face, mouth closed", seed=0)[0]
    changed = (np.asarray(result["image"]) != np.asarray(photo.convert("RGB"))).any(-1)
    assert result["image"].size == photo.size
    rows, columns = np.nonzero(changed)
    left, top, right, bottom = result["box"]
    # an expression is redrawn inside the face, and most of the photo is not touched
    assert 0.01 < changed.mean() < 0.35
    assert rows.min() > top and rows.max() < bottom + (bottom - top) / 2
    assert columns.min() > left - (right - left) and columns.max() < right + (right - left)


def test_paths_and_lists_work_and_agree(edit):
    one = edit(str(PORTRAIT), prompt="smiling", seed=1)[0]
    many = edit([PORTRAIT, Image.open(PORTRAIT)], prompt="smiling", seed=1)
    for result in many:
        assert np.array_equal(np.asarray(result[0]["image"]), np.asarray(one["image"]))


def test_two_faces_in_one_photo(edit):
    photo = Image.open(PORTRAIT).convert("RGB")
    pair = Image.new("RGB", (2 * photo.width, photo.height))
    pair.paste(photo, (0, 0))
    pair.paste(photo, (photo.width, 0))
    both = edit(pair, prompt="smiling", seed=0, face="all")[0]
    assert len(both["box"]) == len(both["face"]) == 2 and both["mask"].size == pair.size
    changed = (np.asarray(both["image"]) != np.asarray(pair)).any(-1)
    assert not changed[np.asarray(both["mask"]) == 0].any()
    assert changed[:, : photo.width].any() and changed[:, photo.width :].any()
    one = edit(pair, prompt="smiling", seed=0, face=1)[0]
    changed = (np.asarray(one["image"]) != np.asarray(pair)).any(-1)
    assert changed[:, : photo.width].any() != changed[:, photo.width :].any()
    with pytest.raises(ValueError, match="2 faces were"):
        edit(pair, prompt="smiling", face=2)


def test_faces_that_lack_what_others_have_are_told_of(edit, monkeypatch):
    """A family of which one wears a hat already: that one stays, and the result says so."""
    photo = Image.open(PORTRAIT).convert("RGB")
    pair = Image.new("RGB", (2 * photo.width, photo.height))
    pair.paste(photo, (0, 0))
    pair.paste(photo, (photo.width, 0))

    def fits(_, parsing):
        middle = np.array(parsing.probabilities.shape[1:]) / 2
        return apply(inverse(parsing.matrix), middle[None])[0, 0] < photo.width

    monkeypatch.setattr(Edit, "suits", fits)
    both = edit(pair, prompt="a hat", seed=0, face="all")[0]
    changed = (np.asarray(both["image"]) != np.asarray(pair)).any(-1)
    assert changed[:, : photo.width].any() and not changed[:, photo.width :].any()
    assert "1 of 2 faces" in both["note"] and "bare head" in both["note"]


def test_embedded_weights_open_as_float32_in_a_few_seconds(edit):
    assert {parameter.dtype for parameter in edit.model.parameters()} == {torch.float32}
    size = sum(file.stat().st_size for file in Path(gptface.DEFAULT_CHECKPOINT).rglob("*") if file.is_file())
    assert size < 32e6


def test_the_embedded_tokenizer_keeps_a_portrait(edit):
    """24 dB on aligned CelebA faces; a damaged or mismatched tokenizer falls far below 20."""
    face = edit.find_faces(Image.open(PORTRAIT))[0].crop
    pixels = edit.processor(images=face)["pixel_values"]
    with torch.no_grad():
        error = (edit.model.image_tokenizer.decode(edit.model.image_tokenizer.encode(pixels)) - pixels).square().mean()
    assert float(10 * torch.log10(4 / error)) > 20


@pytest.mark.parametrize("task", ["face-attribute-classification", "facial-expression"])
def test_classifiers_give_labels_scores_and_a_box(task):
    classify = pipeline(task)
    one, many = classify(PORTRAIT, top_k=3), classify([PORTRAIT, str(PORTRAIT)], top_k=3)
    assert many[0] == many[1] == one and len(one) == 3
    assert all(0 <= entry["score"] <= 1 and len(entry["box"]) == 4 for entry in one)
    assert one == sorted(one, key=lambda entry: -entry["score"])


def test_expression_scores_sum_to_one():
    scores = pipeline("facial-expression")(PORTRAIT)
    assert len(scores) == 7 and sum(entry["score"] for entry in scores) == pytest.approx(1, abs=1e-4)


def test_a_batch_draws_the_codes_that_each_photo_gets_alone(edit, monkeypatch):
    """By rounding alone may a picture depend on what else is in its batch: 999 of 1,000 codes are the same."""
    drawn, generate = [], edit.model.generate_plan_first

    def noted(**arguments):
        output = generate(**arguments)
        drawn.append(output.codes[output.filled])
        return output

    monkeypatch.setattr(edit.model, "generate_plan_first", noted)
    photos = [PORTRAIT.with_name(f"{name}.jpg") for name in ("serious", "clean_shaven", "portrait")]
    ask = {"prompt": "smiling", "draw": True, "seed": [1, 2, 3], "num_inference_steps": 4}
    edit(photos, **ask)
    alone = torch.cat(drawn)
    drawn.clear()
    edit(photos, batch_size=3, **ask)
    together = torch.cat(drawn)
    assert len(alone) == len(together) and (alone == together).float().mean() >= 0.999
