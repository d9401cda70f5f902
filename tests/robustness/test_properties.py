"""
Any picture, prompt, region, seed and size: the size stays, what is not to change does not change, and nothing is
raised but what is documented.

`GPTFACE_EXAMPLES=1000 python -m pytest tests/robustness/test_properties.py` looks longer than the suite does.
"""

import math
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from gptface.pipelines.face_pipeline import MIN_SIDE
from gptface.processing.regions import REGIONS

EXAMPLES = int(os.environ.get("GPTFACE_EXAMPLES", "30"))
# What the pipelines document; `on_error="return"` catches the same.
DOCUMENTED = (ValueError, FloatingPointError)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def rarely(strategy, mostly):
    """One draw in eight from `strategy`; `st.one_of` would take it half of the time."""
    return st.integers(0, 7).flatmap(lambda draw: strategy if draw == 5 else mostly)


modes = st.sampled_from(["L", "RGB", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
# Mostly what can be edited: a refusal is a quick case and teaches little.
sides = rarely(st.sampled_from([1, MIN_SIDE - 1, 300]), mostly=st.integers(MIN_SIDE, 130))
known_words = st.lists(
    st.sampled_from(["a", "smiling", "woman", "with", "blond", "hair", "and", "glasses", ",", "sad"]),
    min_size=1,
    max_size=20,
)
prompts = rarely(st.text(max_size=30), mostly=known_words.map(" ".join))
seeds = st.integers(0, 2**31)


@st.composite
def pictures(draw):
    """Noise, a ramp or one colour, of any mode and size."""
    width, height, mode, seed = draw(sides), draw(sides), draw(modes), draw(seeds)
    kind = draw(st.sampled_from(["noise", "ramp", "flat"]))
    if kind == "noise":
        values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    elif kind == "ramp":
        values = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 4)).astype(np.uint8)
    else:
        values = np.full((height, width, 4), seed % 256, np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
    picture = Image.fromarray(np.ascontiguousarray(values))
    return (
        picture
        if mode == "RGBA"
        else picture.convert("RGB").convert(mode)
        if mode == "CMYK"
        else picture.convert(mode)
    )


@st.composite
def masks(draw, size):
    """A rectangle with a soft or hard edge, which may be empty or everything, as an array of some kind."""
    width, height = size
    left, right = sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    top, bottom = sorted(draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    mask = np.zeros((height, width), np.float32)
    mask[top:bottom, left:right] = draw(st.sampled_from([0.2, 1.0]))
    return draw(st.sampled_from([mask, mask > 0, np.rint(mask * 255).astype(np.uint8)]))


options = st.fixed_dictionaries(
    {"seed": seeds},
    optional={
        "strength": st.floats(0.01, 1),
        "composite": st.sampled_from(["blend", "residual", "replace"]),
        "num_images_per_prompt": st.integers(1, 2),
        "num_inference_steps": st.integers(1, 3),
        "guidance_scale": st.sampled_from([1.0, 2.0, 7.5]),
        "itm_guidance": st.sampled_from([0, 1.0, 20.0]),
        "temperature": st.sampled_from([0.0, 0.5, 1.0]),
        "negative_prompt": prompts,
    },
)


def as_seen(picture):
    """Pixels as the pipeline gives them back, RGB or RGBA."""
    if picture.mode == "I;16":
        return np.repeat(np.rint(np.asarray(picture) / 257).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))


@many
@given(picture=pictures(), prompt=prompts, options=options, data=st.data())
def test_an_edit_keeps_the_size_and_every_pixel_outside_the_mask(edit, picture, prompt, options, data):
    """The promise of the README, for whatever a user brings along."""
    place = data.draw(st.sampled_from(["prompt", "region", "auto", "mask"]))
    if place == "mask":
        options = {**options, "mask_image": data.draw(masks(picture.size))}
    elif place != "prompt":
        region = (
            "auto"
            if place == "auto"
            else data.draw(st.lists(st.sampled_from(sorted(REGIONS)), min_size=1, max_size=3))
        )
        options = {**options, "region": region}
    before = as_seen(picture)
    try:
        results = edit(picture, prompt=prompt, **options)
    except DOCUMENTED as error:
        event(f"refused: {type(error).__name__}")
        assert str(error).strip()
        assert explains(error, picture, prompt, options), str(error)
        return
    event(f"edited by {place}")
    # of faces that are all skin hats and the like cannot be taken off
    painted = results[0]["match_score"] is not None
    assert painted or results[0]["note"]
    assert len(results) == (options.get("num_images_per_prompt", 1) if painted else 1)
    for result in results:
        after = np.asarray(result["image"])
        assert result["image"].size == picture.size and after.shape == before.shape
        assert not painted or math.isfinite(result["match_score"])
        if after.shape[2] == 4:
            assert np.array_equal(after[:, :, 3], before[:, :, 3])
        outside = options["mask_image"] == 0 if place == "mask" else np.asarray(result["mask"]) == 0
        assert np.array_equal(after[outside], before[outside])


def explains(error, picture, prompt, options):
    """Whether the message speaks of something that is indeed wrong with this call."""
    message = str(error)
    mask = options.get("mask_image")
    return (
        ("needs at least" in message and min(picture.size) < MIN_SIDE)
        or (
            message.startswith("prompt")
            and ("must say" in message or "no word" in message or "Unicode" in message or "asks for both" in message)
        )
        or message.startswith("negative_prompt")
        or ("negative prompt acts through guidance_scale" in message and options.get("guidance_scale") == 1)
        or ("mask is empty" in message and not mask.any())
        or ("does not touch" in message and mask is not None)
    )


@many
@given(picture=pictures(), top_k=st.integers(1, 9), threshold=st.one_of(st.none(), st.floats(0, 1)))
def test_scores_are_sorted_probabilities(classify, picture, top_k, threshold):
    """Whoever filters by score counts on numbers in [0, 1], the best first, whatever the picture."""
    try:
        result = classify(picture, top_k=top_k, threshold=threshold)
    except DOCUMENTED as error:
        assert "needs at least" in str(error) and min(picture.size) < MIN_SIDE
        return
    scores = [entry["score"] for entry in result]
    assert len(scores) <= min(top_k, 5) and scores == sorted(scores, reverse=True)
    assert all((threshold or 0) <= score <= 1 for score in scores)
