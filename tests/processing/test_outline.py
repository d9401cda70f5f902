"""The outline of a person: hair edits must not repaint what is behind them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gptface.processing.outline import person_outline

pytest.importorskip("cv2")


def person(size=128, background=(60, 90, 220)):
    """A head with dark hair before a plain wall, and where it is."""
    noise = np.random.default_rng(0).integers(-6, 7, (size, size, 3))
    shown, where = Image.new("RGB", (size, size), background), Image.new("1", (size, size))
    for picture, hair, skin in ((shown, (50, 30, 20), (200, 150, 120)), (where, 1, 1)):
        draw = ImageDraw.Draw(picture)
        draw.ellipse([size * 0.15, size * 0.08, size * 0.85, size * 1.1], fill=hair)
        draw.ellipse([size * 0.3, size * 0.3, size * 0.7, size * 0.95], fill=skin)
    pixels = np.clip(np.asarray(shown) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), np.asarray(where)


@pytest.mark.parametrize("size", [96, 128])
def test_hair_belongs_to_the_person_and_the_wall_does_not(size):
    picture, where = person(size)
    found = person_outline(picture)
    assert found.shape == where.shape
    assert (found & where).sum() / (found | where).sum() > 0.95


def test_the_same_picture_has_the_same_outline():
    # hair and wall of nearly one colour, with noise: what is found hangs on how the colours are clustered at the start
    picture, _ = person(background=(64, 44, 34))
    first = person_outline(picture)
    for turn in (90, 180, 270):
        person_outline(picture.rotate(turn))
    assert np.array_equal(person_outline(picture), first)


@pytest.mark.parametrize("size", [16, 96])
def test_a_picture_of_one_colour_does_no_harm(size):
    assert person_outline(Image.new("RGB", (size, size), (90, 90, 90))).shape == (size, size)
