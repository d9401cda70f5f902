"""`gptface evaluate sharpness|seam|area`: what of an edit is seen and not judged by attributes."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter
from transformers import pipeline

from gptface.cli import main
from gptface.evaluation.changes import (
    Change,
    Photo,
    area_figures,
    changes_by,
    find_edit,
    first_photos,
    seam_figures,
    sharpness_figures,
)
from gptface.evaluation.crops import PerceptualDistance
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.face_parsing import FaceParsing

SIDE = 64
DISTANCE = PerceptualDistance(None)


@pytest.fixture(scope="module")
def edit(tiny_checkpoint):
    return pipeline("guided-face-editing", model=str(tiny_checkpoint), num_inference_steps=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three noisy pictures, of which one is damaged and one is known to smile."""
    path = tmp_path_factory.mktemp("photos")
    for name in ("a", "c"):
        noise = np.random.default_rng(ord(name)).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path / f"{name}.png")
    (path / "b.png").write_bytes(b"no picture")
    return path


def change(edit_pixels, mask, parsing=None):
    """A grey photo with some grain, and what an edit made of it."""
    grain = np.random.default_rng(0).integers(80, 120, (SIDE, SIDE, 1), dtype=np.uint8)
    photo = np.repeat(grain, 3, 2)
    return Change(Photo(Image.fromarray(photo), {}, parsing), edit_pixels(photo), mask)


def middle():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    return mask


def test_a_blurred_edit_is_told_from_a_sharp_one():
    def blurred(photo):
        soft = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(2)))
        return np.where(middle()[:, :, None] > 0, soft, photo)

    figures = sharpness_figures([change(blurred, middle()), change(lambda photo: photo + 20, middle())])
    assert figures["low"] < 0.3 < figures["ratio"] < 0.6, "one of nearly 0, one of 1"
    assert sharpness_figures([]) == {"ratio": None, "low": None}


def test_a_step_at_the_edge_is_a_seam_and_a_change_in_the_middle_is_none():
    def step(photo):
        return np.where(middle()[:, :, None] > 0, photo + 60, photo)

    def inside(photo):
        return np.where(np.pad(middle()[24:40, 24:40], 24)[:, :, None] > 0, photo + 60, photo)

    hard, soft = seam_figures([change(step, middle())], DISTANCE), seam_figures([change(inside, middle())], DISTANCE)
    assert hard["delta_e"] > 20 and soft["delta_e"] < 0.1 and hard["lpips"] is None


@pytest.fixture(scope="module")
def parsing():
    """Hair in the left half, an ear in the upper right quarter, clothes below it."""
    names = np.full((2 * SIDE, 2 * SIDE), FACE_CLASSES.index("hair"))
    names[:SIDE, SIDE:], names[SIDE:, SIDE:] = FACE_CLASSES.index("ear"), FACE_CLASSES.index("cloth")
    shares = np.stack([names == index for index in range(len(FACE_CLASSES))]).astype(np.float32)
    return FaceParsing(shares, FACE_CLASSES, np.array([[1.0, 0, SIDE / 2], [0, 1.0, SIDE / 2]]))


def test_change_besides_what_the_edit_is_about_is_found(parsing):
    def left(photo):
        return np.where(np.arange(SIDE)[:, None] < SIDE // 2, photo + 40, photo)

    def all_over(photo):
        return photo + 40

    left_half = np.where(np.arange(SIDE) < SIDE // 2, np.uint8(255), np.uint8(0))[None].repeat(SIDE, 0)
    hair = area_figures([change(left, left_half, parsing)], hair_colour=True)
    assert hair["hair_iou"] == pytest.approx(1, abs=0.02) and hair["ears"] < 0.02 and hair["clothes"] < 0.02
    everywhere = area_figures([change(all_over, middle(), parsing)])
    assert everywhere["ears"] == pytest.approx(0.25, abs=0.02) == everywhere["clothes"]
    assert everywhere["background"] == pytest.approx(0, abs=0.02) and everywhere["hair_iou"] is None
    assert area_figures([change(left, middle(), parsing)], hair_colour=True)["hair_iou"] < 0.6, "half of it is not"
    with pytest.raises(ValueError, match="parse=True"):
        area_figures([change(left, middle())])


def test_doubt_of_the_parser_is_no_change_of_the_background(parsing):
    doubtful = 0.8 * parsing.probabilities
    doubtful[FACE_CLASSES.index("background")] += 0.2
    unsure = FaceParsing(doubtful, parsing.labels, parsing.matrix)
    figures = area_figures([change(lambda photo: photo + 40, middle(), unsure)])
    assert figures["background"] == 0 and figures["ears"] == pytest.approx(0.25, abs=0.02)


def test_photos_are_the_first_that_can_be_read_and_are_edited_where_the_edit_is_news(edit, folder, caplog):
    photos = first_photos(folder, 5, edit, aligned=True, parse=True)
    assert len(photos) == 2 and "b is left out" in caplog.text and photos[0].parsing is not None
    smiling = [Photo(photos[0].image, {"Smiling": 1}), Photo(photos[1].image, {"Smiling": 0})]
    (change,) = changes_by(edit, find_edit("smiling"), smiling, aligned=True)
    expected = edit(photos[1].image, prompt="smiling", seed=0, force=True, aligned=True)[0]
    assert change.photo is smiling[1] and np.array_equal(change.edited, np.asarray(expected["image"]))
    with pytest.raises(ValueError, match="--limit"):
        first_photos(folder, 0, edit)


@pytest.mark.parametrize("kind", ["sharpness", "seam", "area"])
def test_the_commands_report_each_edit(folder, tiny_checkpoint, capsys, kind):
    arguments = ["--data", str(folder), "--model", str(tiny_checkpoint), "--aligned", "--limit", "1", "--json"]
    assert main(["evaluate", kind, *arguments, "--edits", "smiling,blond_hair"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["images", "smiling", "blond_hair"] and report["images"] == 1
    assert all(report[name]["edited"] == 1 for name in ("smiling", "blond_hair"))
    columns = {"sharpness": {"ratio", "low"}, "seam": {"delta_e", "lpips"}}
    assert set(report["smiling"]) - {"edited"} == columns.get(kind, {"ears", "background", "clothes", "hair_iou"})


def test_an_unknown_edit_is_one_line(folder, tiny_checkpoint, capsys):
    arguments = ["--data", str(folder), "--model", str(tiny_checkpoint), "--edits", "smile"]
    assert main(["evaluate", "sharpness", *arguments]) == 2
    assert "smiling" in capsys.readouterr().err.strip().splitlines()[-1]
