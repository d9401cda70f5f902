"""No NaN and no infinity leaves a public function: they would show as grey pictures, equal scores, random codes."""

import math

import numpy as np
import pytest
import torch
from transformers import pipeline

from gptface import GPTFaceForGuidedGeneration, ITMGuidance
from gptface.processing.alignment import crop_matrix


def spoil_from(model, monkeypatch, call):
    """From this call on (counted from 1) the match log-odds are NaN, as after an overflow in half precision."""
    original, calls = model.match_log_odds, []

    def match_log_odds(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs) * (math.nan if len(calls) >= call else 1.0)

    monkeypatch.setattr(model, "match_log_odds", match_log_odds)


@pytest.mark.parametrize("step", [1, 3])
def test_guidance_that_meets_a_nan_names_the_step(tiny_model, tiny_inputs, monkeypatch, step):
    """Whoever tunes the guidance must learn when it diverged, not only that it did."""
    model = tiny_model(GPTFaceForGuidedGeneration, match_trained=True)
    inputs = tiny_inputs(model.config)
    spoil_from(model, monkeypatch, call=step)
    with pytest.raises(FloatingPointError, match=f"decoding step {step} of 4: the guidance gradient is not finite"):
        model.generate(**inputs, num_inference_steps=4, itm_guidance=ITMGuidance())


def test_a_match_score_that_is_no_number_is_not_returned(tiny_model, tiny_inputs, monkeypatch):
    """Candidates are ranked by it, and NaN sorts anywhere."""
    model = tiny_model(GPTFaceForGuidedGeneration)
    spoil_from(model, monkeypatch, call=1)
    with pytest.raises(FloatingPointError, match="match scores are not finite"):
        model.generate(**tiny_inputs(model.config), num_inference_steps=2)


def test_classifier_free_guidance_that_overflows_names_the_step(edit, face):
    with pytest.raises(FloatingPointError, match="decoding step 1 of 2: logits are not finite"):
        edit(face, prompt="smiling", region="mouth", guidance_scale=1e300, itm_guidance=0)


@pytest.mark.parametrize(
    "options",
    [
        {name: value}
        for name in ("strength", "temperature", "guidance_scale", "itm_guidance")
        for value in (math.nan, math.inf)
    ]
    + [{"itm_guidance": {"kl_weight": math.nan}}, {"itm_guidance": {"temperature": math.inf}}],
)
def test_options_that_are_no_numbers_are_refused(edit, face, options):
    """A division by zero in a user's sweep must not come back as a picture."""
    with pytest.raises((ValueError, FloatingPointError), match=r"strength|temperature|finite"):
        edit(face, prompt="smiling", region="mouth", **options)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_landmarks_that_are_no_numbers_are_refused(edit, face, value):
    landmarks = np.array([[30.0, 40.0], [50.0, 40.0], [40.0, 50.0], [33.0, 62.0], [47.0, 62.0]])
    assert np.isfinite(crop_matrix(landmarks)).all()
    landmarks[2] = value
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"finite|landmarks"):
        edit(face, prompt="smiling", aligned=False, landmarks=landmarks)


def test_auto_region_without_a_finite_gradient_is_an_error(edit, face, monkeypatch):
    """The cells with the largest NaN are any cells."""
    spoil_from(edit.model, monkeypatch, call=1)
    with pytest.raises(FloatingPointError, match="gradient of the match is not finite"):
        edit(face, prompt="smiling", region="auto")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_pixels_that_are_no_numbers_become_neither_codes_nor_a_picture(edit, value):
    """A NaN as a byte is black, as a code anything: a data set encoded from it would be wrong for ever."""
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[0, 1, 5, 7] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        edit.model.image_tokenizer.encode(pixels)
    with pytest.raises(FloatingPointError, match="not finite"):
        edit.processor.pixels_to_pil(pixels)


def test_a_temperature_of_zero_gives_no_scores(tiny_checkpoint, face):
    """A calibration that failed would turn every expression into NaN."""
    expression = pipeline("facial-expression", model=str(tiny_checkpoint), aligned=True)
    expression.model.config.heads["expression"]["temperature"] = 0.0
    with pytest.raises(FloatingPointError, match="not finite"):
        expression(face)


@pytest.mark.parametrize("seed", [math.nan, 1.5, 3.0, "7", [1, 2], 2**63, -(2**63) - 1, 10**30, math.inf])
def test_a_seed_that_is_no_number_of_63_bits_is_refused(edit, face, seed):
    """A random picture, or the same one for all such seeds, would pass for that of the seed."""
    with pytest.raises(ValueError, match="seed must"):
        edit(face, prompt="smiling", seed=seed)
    assert "seed must" in edit([face], prompt="smiling", seed=[seed], on_error="return")[0]["error"]


@pytest.mark.parametrize("seed", [0, -1, np.int64(5), 2**63 - 2, -(2**63)])
def test_a_seed_of_63_bits_is_taken(edit, face, seed):
    results = edit(face, prompt="smiling", region="mouth", seed=seed, num_images_per_prompt=2)
    assert {result["seed"] for result in results} == {int(seed), int(seed) + 1}


@pytest.mark.parametrize("value", [10**9, math.nan, 2.5, 0, -3])
@pytest.mark.parametrize("name", ["num_inference_steps", "num_images_per_prompt"])
def test_counts_beyond_reason_are_refused_before_any_work(edit, face, name, value):
    """One number in a request must not hold a server for hours, or take all of its memory."""
    with pytest.raises(ValueError, match="at least 1 and at most"):
        edit(face, prompt="smiling", **{name: value})
    if name == "num_images_per_prompt":
        with pytest.raises(ValueError, match="num_captions must be at least 1"):
            pipeline("face-captioning", model=edit.model, processor=edit.processor)(
                face, aligned=True, num_captions=value
            )
