"""Every kind of edit on a public-domain portrait with the embedded checkpoint; few steps, for the ways and not the
beauty.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers import pipeline

from gptface.processing.alignment import align
from gptface.processing.masks import fill_from_edges
from gptface.processing.prompt_words import regions_from_prompt
from gptface.processing.regions import REGIONS

pytest.importorskip("cv2")
PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def edit():
    return pipeline("guided-face-editing", num_inference_steps=1, guidance_scale=1.0, force=True)


@pytest.fixture(scope="module")
def photo():
    return Image.open(PORTRAIT).convert("RGB")


def changes(photo, result):
    return (np.asarray(result["image"]) != np.asarray(photo)).any(-1)


def row_in_crop(edit, photo, result):
    """Where the edit lies in the face crop: the middle row of its mask, as a share of the height."""
    matrix = edit.find_faces(photo)[0].matrix
    mask = np.asarray(align(result["mask"].convert("RGB"), matrix, edit.face_size), np.float64)[:, :, 0]
    return float((mask.sum(1) @ np.arange(len(mask))) / mask.sum() / len(mask))


@pytest.mark.parametrize(
    ("prompt", "region", "between"),
    [
        ("eyeglasses", "clear_glasses", (0.3, 0.55)),
        ("no eyeglasses", "worn_glasses", (0.3, 0.6)),
        ("blond hair", "hair", (0.2, 0.6)),
        ("bangs", "bangs", (0.0, 0.35)),
        ("a beard", "beard", (0.65, 1.0)),
        ("heavy makeup", "face", (0.4, 0.65)),
        ("a hat", "hat", (0.0, 0.3)),
        ("old", "face", (0.4, 0.65)),
        ("smiling", "smile", (0.5, 0.9)),
        ("surprised", "mouth", (0.3, 0.8)),
        ("neutral expression", "cheeks", (0.6, 0.9)),
    ],
)
def test_attributes_and_expressions_change_their_place(edit, photo, prompt, region, between):
    assert region in regions_from_prompt(prompt) and region in REGIONS
    result = edit(photo, prompt=prompt, seed=0)[0]
    assert result["image"].size == photo.size
    laid = prompt not in ("no eyeglasses", "heavy makeup")
    assert (result["guidance_kl"] > 0) == (not laid), "not drawn, and not guided by matching"
    assert 0.001 < changes(photo, result).mean() < 0.6
    assert between[0] < row_in_crop(edit, photo, result) < between[1]


def test_who_wants_the_model_to_draw_glasses_has_them_drawn(edit, photo):
    """What is laid over looks better, but says nothing of the model."""
    laid, drawn = (edit(photo, prompt="eyeglasses", seed=0, draw=draw)[0] for draw in (False, True))
    assert laid["guidance_kl"] == 0 < drawn["guidance_kl"]
    assert not np.array_equal(np.asarray(laid["image"]), np.asarray(drawn["image"]))


def test_a_mouth_mask_is_removed_with_the_region_lower_face(edit, photo):
    result = edit(photo, prompt="a smiling man", region="lower_face", composite="replace", seed=0)[0]
    assert row_in_crop(edit, photo, result) > 0.6
    top = int(result["box"][1])
    assert not changes(photo, result)[:top].any()


@pytest.mark.parametrize("shape", ["rectangle", "stroke"])
def test_a_hole_is_filled_wholly_and_nothing_else_changes(edit, photo, shape):
    """Feathering would leave the scratch's edge in the picture."""
    box = edit(photo, prompt="a face", region="mouth", seed=0)[0]["box"]
    x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    hole = Image.new("L", photo.size)
    draw = ImageDraw.Draw(hole)
    if shape == "rectangle":
        draw.rectangle([x + width * 0.3, y + height * 0.5, x + width * 0.7, y + height * 0.8], fill=255)
    else:
        points = [
            (x + width * 0.2, y + height * 0.3),
            (x + width * 0.5, y + height * 0.6),
            (x + width * 0.8, y + height * 0.4),
        ]
        draw.line(points, fill=255, width=4)
    inside = np.asarray(hole) > 0
    damaged = np.array(photo)
    damaged[inside] = (255, 0, 255)
    damaged = Image.fromarray(damaged)
    result = edit(damaged, prompt="a face", mask_image=hole, hole=True, seed=0)[0]
    changed = changes(damaged, result)
    assert not changed[~inside].any() and changed[inside].mean() > 0.99
    # strokes are filled from their edge alone, what is wider is redrawn
    redrawn = np.asarray(result["image"]) != np.asarray(fill_from_edges(damaged, inside))
    assert redrawn.any() == (shape == "rectangle")


def test_a_caption_of_the_face_as_it_is_reaches_the_edit(edit, photo):
    options = {"prompt": "smiling", "region": "mouth", "seed": 0, "itm_guidance": 3.0, "num_inference_steps": 4}
    plain = edit(photo, **options)[0]
    contrast = edit(photo, source_prompt="not smiling", **options)[0]
    assert plain["guidance_kl"] != contrast["guidance_kl"]
    assert not np.array_equal(np.asarray(plain["image"]), np.asarray(contrast["image"]))


def test_the_partial_picture_can_be_watched(edit, photo):
    seen = []
    edit(
        photo,
        prompt="smiling",
        draw=True,
        seed=0,
        num_inference_steps=2,
        num_images_per_prompt=2,
        callback_on_step_end=lambda pipe, step, timestep, state: seen.append(
            (step, timestep, [image.size for image in state["images"]])
        ),
        callback_on_step_end_tensor_inputs=["images"],
    )
    # two of the plan, and those of the codes below it
    assert seen == [(step, left, [(128, 128)] * 2) for step, left in enumerate([1, 0, 3, 2, 1, 0])]


@pytest.mark.parametrize("guidance", [0, 1.0])
def test_a_face_is_described(guidance):
    describe = pipeline("face-captioning")
    result = describe(PORTRAIT, seed=0, num_inference_steps=2, itm_guidance=guidance)[0]
    assert result["caption"] and "[" not in result["caption"] and len(result["box"]) == 4
    assert (result["guidance_kl"] > 0) == bool(guidance)


def test_a_face_from_text_has_the_refiners_size_and_is_one(edit):
    make = pipeline("text-to-face", num_inference_steps=4)
    planned, by_codes = (make("a smiling woman", seed=3, plan_first=way)[0]["image"] for way in (None, False))
    assert planned.size == by_codes.size == (256, 256)
    assert not np.array_equal(np.asarray(planned), np.asarray(by_codes))
    framed = Image.new("RGB", (512, 512), "gray")
    framed.paste(planned, (128, 128))
    assert len(edit.find_faces(framed)) == 1
