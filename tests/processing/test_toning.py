"""A photo without colours must not get some by an edit: lips came out blue-green, hair beige."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gptface.processing.blending import find_toning, keep_toning

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
REPORT = "Black-and-white and sepia photos gain colours"


def as_jpeg(photo, quality=75):
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def grey(photo):
    return photo.convert("L").convert("RGB")


def sepia(photo):
    """Brown shadows, yellowish lights, and the grain of film."""
    luma = np.asarray(photo.convert("L"), np.float32)[:, :, None] / 255
    grain = np.random.default_rng(0).normal(0, 3, (photo.height, photo.width, 3))
    return Image.fromarray((luma ** np.array([0.75, 1.0, 1.35]) * 255 + grain).clip(0, 255).astype(np.uint8))


def blue(photo):
    luma = np.asarray(photo.convert("L"), np.float32)[:, :, None] / 255
    return Image.fromarray((luma ** np.array([1.5, 1.1, 0.7]) * 255).astype(np.uint8))


@pytest.fixture
def photo():
    return Image.open(PORTRAIT).convert("RGB")


def with_lipstick(photo):
    """A box of red in the middle, as an edit might draw it."""
    edited = photo.copy()
    edited.paste((200, 30, 60), (120, 200, 180, 230))
    return edited


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("tone", [grey, sepia, blue])
def test_only_brightness_changes_in_a_toned_photo(photo, tone):
    """The change is projected onto the colours that the photo has; the rest stays bit for bit."""
    toned = as_jpeg(tone(photo))
    edited = with_lipstick(toned)
    toning = find_toning(toned)
    assert toning is not None
    result = keep_toning(toned, edited, toning)
    box = (120, 200, 180, 230)
    inside, as_drawn, before = (np.asarray(each.crop(box), np.float32) for each in (result, edited, toned))
    weights = (0.299, 0.587, 0.114)
    assert np.abs(inside @ weights - as_drawn @ weights).mean() < 6  # as bright as the edit
    levels = Image.fromarray(np.tile(np.rint(inside @ weights).astype(np.uint8)[:, :, None], 3))
    expected = np.asarray(tone(levels), np.float32)

    def chroma(values):
        return values - (values @ weights)[:, :, None]

    assert np.abs(chroma(inside) - chroma(expected)).mean() < 6 < np.abs(chroma(as_drawn) - chroma(expected)).mean()
    if tone is grey:
        assert not np.ptp(np.asarray(result), axis=2).any()
    assert not np.array_equal(inside, before)
    outside = (np.asarray(edited) == np.asarray(toned)).all(axis=2)
    assert np.array_equal(np.asarray(result)[outside], np.asarray(toned)[outside])


@pytest.mark.report(REPORT)
def test_a_colour_photo_is_one_also_where_it_is_pale(photo):
    """Colour photos keep the colours of their edits."""
    assert find_toning(photo) is None
    assert find_toning(Image.blend(grey(photo), photo, 0.5)) is None
    assert find_toning(photo.crop((90, 90, 245, 290))) is None  # skin, hair and lips alone


def test_what_is_transparent_is_no_colour_of_the_photo(photo):
    toned = grey(photo).convert("RGBA")
    erased = Image.new("RGBA", toned.size, (255, 0, 0, 0))
    erased.paste(toned.crop((0, 0, 200, 300)))
    toning = find_toning(erased)
    assert toning is not None and not np.abs(toning).any()
    assert find_toning(Image.new("RGBA", (30, 30), (9, 9, 9, 0))) is None
    result = keep_toning(erased, erased, toning)
    assert result.mode == "RGBA" and np.array_equal(np.asarray(result), np.asarray(erased))
