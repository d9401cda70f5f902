"""Hair beyond the crop: new blond hair with a dark strip on top gives the edit away."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from gptface.processing.alignment import align
from gptface.processing.composite import paste_back
from gptface.processing.crown import find_crown, recolour_crown

pytest.importorskip("cv2")
HAIR, SKIN, WALL = (50, 30, 20), (200, 150, 120), (60, 90, 220)


@pytest.fixture(params=[128, 96])
def person(request):
    """A photo of a head whose crop (twice as coarse) cuts its hair off, where its hair is, and the crop's matrix."""
    size, scale = request.param, 0.5
    side = 4 * size
    photo, where = Image.new("RGB", (side, side), WALL), Image.new("1", (side, side))
    left, top = side / 4, side / 3
    for picture, hair, skin in ((photo, HAIR, SKIN), (where, 1, 0)):
        draw = ImageDraw.Draw(picture)
        draw.ellipse([left + size * 0.2, top - size * 0.4, left + size * 1.8, top + size * 1.7], fill=hair)
        draw.ellipse([left + size * 0.4, top + size * 0.3, left + size * 1.6, top + size * 2], fill=skin)
    noise = np.random.default_rng(0).integers(-6, 7, (side, side, 3))
    photo = Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    crop = np.asarray(align(photo, matrix, size), np.float32) / 255
    hair = np.asarray(align(where.convert("L"), matrix, size)) > 127
    return photo, np.asarray(where), matrix, crop, hair


def test_the_change_of_colour_is_carried_on_to_hair_above_the_crop_alone(person):
    photo, where, matrix, crop, hair = person
    edited = crop + hair[..., None] * np.float32([0.5, 0.4, 0.2])
    result = recolour_crown(photo, find_crown(photo, matrix, hair), crop, edited)
    change = np.asarray(result, np.int64) - np.asarray(photo)
    top = round(-matrix[1, 2] / matrix[1, 1])
    above = where[: top - 4]
    wanted = 255 * np.array([0.5, 0.4, 0.2])
    near = np.abs(change[: top - 4][above] - wanted).max(-1) < 20
    assert near.mean() > 0.8, "all of it, but for the edge that fades"
    beside = np.asarray(Image.fromarray(where).convert("L").filter(ImageFilter.MaxFilter(25))) == 0
    assert not change[: top - 4][beside[: top - 4]].any(), "the wall stays"
    assert not change[top + 40 : top + 100, 200:300].any(), "the crop has its own edit"


def test_what_the_edit_did_not_change_stays_above_too(person):
    photo, _, matrix, crop, hair = person
    result = recolour_crown(photo, find_crown(photo, matrix, hair), crop, crop.copy())
    assert np.array_equal(np.asarray(result), np.asarray(photo))


def test_without_hair_at_the_top_or_beyond_the_crop_there_is_no_crown(person):
    photo, _, matrix, _, hair = person
    assert find_crown(photo, matrix, hair & False) is None
    low = hair & (np.arange(len(hair)) > 0.5 * len(hair))[:, None]
    assert find_crown(photo, matrix, low) is None


@pytest.mark.parametrize("cut", [0, -6, 20])
def test_with_the_edit_of_the_crop_the_change_is_the_same_everywhere(person, cut):
    """A photo that ends at the crop's edge, above it, or beyond it."""
    photo, _, matrix, _, _ = person
    left, top = (round(-row[2] / 0.5) for row in matrix)
    photo = photo.crop((0, top - cut, *photo.size))
    matrix = np.array([[0.5, 0, -left * 0.5], [0, 0.5, -cut * 0.5]])
    size = len(person[4])
    crop = np.asarray(align(photo, matrix, size), np.float32) / 255
    hair = crop[..., 0] < 0.35
    hair &= crop[..., 2] < 0.4
    edited = crop + np.float32([0.4, 0.4, 0.4])
    pasted = paste_back(photo, edited, hair.astype(np.float32), matrix, "residual", crop)
    crown = find_crown(photo, matrix, hair)
    both = pasted if crown is None else recolour_crown(pasted, crown, crop, edited)
    middle = round(left + size)
    change = (np.asarray(both, np.int64) - np.asarray(photo))[:16, middle - 10 : middle + 10]
    assert np.abs(change - 102).max() < 12
