"""Hair in a new colour: its strands stay, and what lies beyond the crop changes with it; a dark strip on top gives an edit away."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gptface.processing.alignment import align, compose, translation
from gptface.processing.blending import HairMask, hair_colour_layer, paste
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.hair import refine_hair
from gptface.processing.masks import widen

HAIR, SKIN, WALL = (50, 30, 20), (200, 150, 120), (60, 90, 220)
LABELS = ("background", "skin", "hair", "cloth", "neck")
SIZE = 96
BLOND = np.float32([0.5, 0.4, 0.2])


@pytest.fixture
def head():
    """A photo of long hair that the crop (half as fine) cuts off above and below, the crop's matrix, and the classes of the photo."""
    side, left, top = 4 * SIZE, SIZE, SIZE
    photo, classes = Image.new("RGB", (side, side), WALL), Image.new("L", (side, side))
    for picture, hair, skin in ((photo, HAIR, SKIN), (classes, 2, 1)):
        draw = ImageDraw.Draw(picture)
        draw.ellipse([left + 20, top - 38, left + 172, top + 160], fill=hair)
        draw.rectangle([left + 20, top + 60, left + 60, top + 260], fill=hair)
        draw.ellipse([left + 40, top + 30, left + 152, top + 190], fill=skin)
    noise = np.random.default_rng(0).integers(-6, 7, (side, side, 3))
    photo = Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))
    return photo, np.array([[0.5, 0, -left / 2], [0, 0.5, -top / 2]]), np.asarray(classes)


def parsed(classes, matrix):
    frame = compose(matrix, translation(SIZE // 2, SIZE // 2))
    masks = [Image.fromarray(((classes == index) * 255).astype(np.uint8)) for index in range(len(LABELS))]
    shares = [np.asarray(align(mask.convert("RGB"), frame, 2 * SIZE), np.float32)[..., 0] / 255 for mask in masks]
    return FaceParsing(np.stack(shares), LABELS, frame)


def recoloured(photo, matrix, parsing, change=BLOND):
    """The photo with blond hair, in the crop and beyond it, and the change by it [H, W, 3] in [0, 1]."""
    parsing = refine_hair(photo, parsing)
    crop, hair = np.asarray(align(photo, matrix, SIZE), np.float32) / 255, parsing.crop_mask("hair", SIZE)
    mask = HairMask(hair > 0.5, parsing.mask("hair"), parsing.matrix)
    result, _ = paste(photo, [hair_colour_layer(crop + hair[..., None] * change, crop, mask)])
    return (np.asarray(result, np.float32) - np.asarray(photo)) / 255


def test_strands_stay_under_a_new_colour():
    """Cells are painted each in a shade of its own, blurred; the photo's strands and a calm colour are wanted."""
    rng = np.random.default_rng(0)
    hair = np.zeros((128, 128), bool)
    hair[10:60, 20:110] = True
    strands = np.tile(np.where(np.arange(128) % 4 < 2, 0.2, 0.3), (128, 1))[..., None].repeat(3, 2)
    photo = Image.fromarray(np.rint(strands * 255).astype(np.uint8))
    blurred = np.full_like(strands, 0.25)
    shades = rng.normal(0, 0.1, (16, 16)).repeat(8, 0).repeat(8, 1)[..., None]
    mask = HairMask(hair, np.pad(hair.astype(np.float32), 64), translation(64, 64))
    result, weight = paste(photo, [hair_colour_layer(blurred + 0.3 + shades, blurred, mask)])
    change = ((np.asarray(result, float) - np.asarray(photo)) / 255).mean(-1)
    assert abs(change[hair].mean() - 0.3) < 0.05
    assert change[hair].std() < 0.06, "the photo's strands, and less of the cells' shades (0.1)"
    assert not change[64:].any() and not weight[64:].any()


def test_hair_above_and_below_the_crop_changes_with_the_hair_in_it_and_nothing_else_does(head):
    photo, matrix, classes = head
    change = recoloured(photo, matrix, parsed(classes, matrix))
    near = np.abs(change - BLOND).max(-1) < 0.1
    for rows in (np.s_[: SIZE - 4], np.s_[SIZE : 3 * SIZE], np.s_[3 * SIZE + 4 : 3 * SIZE + 60]):
        assert near[rows][classes[rows] == 2].mean() > 0.85, "but for soft edges"
    beside = widen(classes == 2, 10 / len(classes))
    assert not (np.abs(change[~beside]).max(-1) > 0.05).any()


@pytest.mark.parametrize("wrong", [0, 3], ids=["wall", "clothes"])
def test_what_the_parser_takes_for_hair_beyond_the_crop_against_its_colour_stays(head, wrong):
    photo, matrix, classes = head
    believed, pixels = classes.copy(), np.array(photo)
    place = np.s_[10:50, 150:230] if wrong == 0 else np.s_[320:380, 200:260]
    if wrong == 3:
        pixels[300:, 170:] = (150, 20, 60)
        believed[300:, 170:] = 3
    believed[place] = 2
    change = recoloured(Image.fromarray(pixels), matrix, parsed(believed, matrix))
    assert np.abs(change[place]).mean() < 0.02


def test_what_the_edit_did_not_change_stays_beyond_the_crop_too(head):
    photo, matrix, classes = head
    assert not recoloured(photo, matrix, parsed(classes, matrix), 0 * BLOND).any()


def test_beside_another_edit_only_hair_outside_of_the_crop_is_recoloured(head):
    photo, matrix, classes = head
    parsing = parsed(classes, matrix)
    hair = parsing.crop_mask("hair", SIZE)
    mask = HairMask(hair > 0.5, parsing.mask("hair"), parsing.matrix)
    outside = mask.outside_crop(photo.size).frame
    middle = np.s_[SIZE // 2 + 8 : -SIZE // 2 - 8, SIZE // 2 + 8 : -SIZE // 2 - 8]
    assert mask.frame[middle].any() and not outside[middle].any()
    assert np.array_equal(outside[: SIZE // 2], mask.frame[: SIZE // 2]) and outside[: SIZE // 2].any()
    whole = photo.crop((SIZE, SIZE, 3 * SIZE, 3 * SIZE))
    in_whole = HairMask(mask.crop, mask.frame, translation(SIZE // 2, SIZE // 2) @ np.diag([0.5, 0.5, 1]))
    assert not in_whole.outside_crop(whole.size).frame[middle].any(), "where the photo ends, the crop does not fade"


def test_a_photo_that_ends_at_the_crop_has_no_seam(head):
    photo, matrix, classes = head
    box = (0, SIZE, 4 * SIZE, 3 * SIZE)
    change = recoloured(
        photo.crop(box),
        compose(translation(0, SIZE), matrix),
        parsed(classes[SIZE : 3 * SIZE], compose(translation(0, SIZE), matrix)),
    )
    near = np.abs(change - BLOND).max(-1) < 0.1
    assert near[:8][classes[SIZE : SIZE + 8] == 2].mean() > 0.8, "but for soft edges"


def test_refined_probabilities_are_probabilities_and_a_head_without_hair_stays_as_it_was_seen(head):
    photo, matrix, classes = head
    refined = refine_hair(photo, parsed(classes, matrix)).probabilities
    assert refined.min() >= 0 and np.allclose(refined.sum(0), 1, atol=0.02)
    bald = parsed(np.where(classes == 2, 1, classes), matrix)
    assert refine_hair(photo, bald) is bald
