"""Hair in a new colour: its strands stay, and what lies beyond the crop changes with it; a dark strip on top gives an
edit away.
"""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from gptface.processing.alignment import align, compose, translation
from gptface.processing.blending import paste
from gptface.processing.canvas import blur, minimum_filter
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.hair import refine_hair
from gptface.processing.masks import widen
from gptface.processing.part_colour import (
    Colour,
    PartColour,
    colour_layer,
    from_oklab,
    in_light,
    measure_colour,
    recolour,
    to_oklab,
)

HAIR, SKIN, WALL = (50, 30, 20), (200, 150, 120), (60, 90, 220)
LABELS = ("background", "skin", "hair", "cloth", "neck", "nose", "eyeglasses", "hat", "earring", "necklace")
SIZE = 96
BLOND = PartColour("hair", Colour((0.7, 0.02, 0.09), (0.1, 0.01, 0.02)))


@pytest.fixture
def head():
    """
    A photo of long hair that the crop (half as fine) cuts off above and below, the crop's matrix, and the classes of
    the photo.
    """
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


def recoloured(photo, matrix, parsing, wanted=BLOND):
    """The photo with blond hair, in the crop and beyond it, and where its pixels are others now, bool [H, W]."""
    layer = colour_layer(photo, refine_hair(photo, parsing), wanted)
    result, _ = paste(photo, [layer])
    return result, (np.abs(np.asarray(result, float) - np.asarray(photo)) > 12).any(-1)


def test_structure_stays_under_a_new_colour():
    """What is painted cell by cell is blurred; the strands of the photo are wanted, in the contrast of that colour."""
    strands = np.tile(np.where(np.arange(64) % 4 < 2, 0.20, 0.28), (64, 1))[..., None].repeat(3, 2)
    now = measure_colour(strands, np.ones((64, 64)))
    made = recolour(strands, now, BLOND.colour)
    then = measure_colour(made, np.ones((64, 64)))
    assert np.allclose(then.mean, BLOND.colour.mean, atol=0.01)
    before, after = (each.mean(-1) - each.mean() for each in (strands, made))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.99
    assert 1 < then.deviation[0] / now.deviation[0] < 1.9, "no more than bounded: dark hair is smooth"


def noisy(pixels, deviation=3.0, seed=1):
    """A photo with noise that neighbours share, as compression leaves it, and a JPEG of it."""
    noise = blur(np.random.default_rng(seed).normal(0, 1, pixels.shape), 1.2)
    noisy = np.asarray(pixels, float) + deviation * noise / noise.std()
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return Image.open(file).convert("RGB")


def blond(photo, parsing, wanted=BLOND):
    image, _ = paste(photo, wanted.layers(photo, parsing, 1.0, np.random.default_rng(0)))
    return image


def test_noise_of_dark_hair_is_not_made_stronger_with_its_light(head):
    """Blotches and blocks of a JPEG, hardly seen in black hair, were what one saw of blond hair."""
    photo, matrix, classes = head
    clean = np.asarray(Image.fromarray(np.array([WALL, SKIN, HAIR], np.uint8)[classes]))
    photo, parsing = noisy(clean), parsed(classes, matrix)
    after = np.asarray(blond(photo, parsing), float)
    hair = minimum_filter((classes == 2).astype(np.float32), 8) > 0.5
    assert after[hair].mean() > np.asarray(photo, float)[hair].mean() + 60, "it is blond"
    rough = [(pixels - blur(pixels, 3))[hair].std() for pixels in (np.asarray(photo, float), after)]
    assert rough[1] < 1.45 * rough[0]


def test_strands_that_stand_out_from_noise_are_kept(head):
    photo, matrix, classes = head
    pixels = np.array(photo)
    strands = (classes == 2) & (np.arange(len(classes)) % 8 < 4)
    pixels[strands] = pixels[strands] + 30
    hair = minimum_filter((classes == 2).astype(np.float32), 8) > 0.5
    after = np.asarray(blond(Image.fromarray(pixels), parsed(classes, matrix)), float).mean(-1)
    assert after[hair & strands].mean() - after[hair & ~strands].mean() > 20


def test_skin_right_beside_hair_is_not_dyed_and_a_softer_edge_has_no_rim(head):
    """Pixels that mix hair and skin became lighter than both: a pink line along the hairline."""
    photo, matrix, classes = head
    soft = photo.filter(ImageFilter.GaussianBlur(2))
    after = np.asarray(blond(soft, parsed(classes, matrix)), float)
    skin = (classes == 1) & (np.arange(len(classes)) < SIZE + 60)[:, None]
    rim = skin & widen(classes == 2, 8 / len(classes)) & ~widen(classes != 1, 4 / len(classes))
    assert np.abs(after - np.asarray(soft, float))[rim].max() < 25
    lightest = max(
        np.percentile(after[minimum_filter((classes == each).astype(np.float32), 6) > 0.5].mean(-1), 99)
        for each in (1, 2)
    )
    assert after[widen(classes == 2, 6 / len(classes)) & (classes == 1)].mean(-1).max() < lightest + 6


def test_hair_that_becomes_grey_is_grey_in_shadow_too():
    """Blond hair is less yellow where it is dark: that it was so by less made shadows of grey hair blue."""
    shades = np.linspace(0.3, 1.0, 50)[:, None] * np.array([0.85, 0.65, 0.4])
    pixels = np.tile(shades[:, None], (1, 4, 1))
    now = measure_colour(pixels, np.ones(pixels.shape[:2]))
    made = to_oklab(recolour(pixels, now, Colour((0.46, 0.0, 0.0), (0.16, 0.01, 0.01))))
    assert np.abs(made[..., 1:]).max() < 0.02


def test_grey_hair_under_a_yellow_lamp_is_as_yellow_as_a_part_of_the_skin():
    grey, usual = Colour((0.46, 0.0, 0.0), (0.1, 0.01, 0.01)), Colour((0.7, 0.046, 0.05), (0.1, 0.01, 0.01))
    assert in_light(grey, usual) == grey
    tinted = in_light(grey, Colour((0.7, 0.046, 0.1), (0.1, 0.01, 0.01)))
    assert tinted.mean[1] == 0 and 0.005 < tinted.mean[2] < 0.46 * 0.05 / 0.7


def test_hair_of_a_black_and_white_photo_gets_the_colour_that_was_asked_for(head):
    """Grey skin was taken for skin under a blue lamp: blond hair was green."""
    photo, matrix, classes = head
    layer = colour_layer(photo.convert("L").convert("RGB"), parsed(classes, matrix), BLOND)
    assert layer.becomes == BLOND.colour


def test_a_parser_of_fewer_classes_will_do_for_hair(head):
    """Who trained one without jewellery and hats got an error."""
    photo, matrix, classes = head
    parsing = parsed(classes, matrix)
    few = FaceParsing(parsing.probabilities[:3], LABELS[:3], parsing.matrix)
    assert np.array_equal(blond(photo, few), blond(photo, parsing))


def test_oklab_and_back():
    pixels = np.random.default_rng(0).random((50, 3))
    assert np.allclose(from_oklab(to_oklab(pixels)), pixels, atol=1e-9)
    white, grey = to_oklab(np.ones(3)), to_oklab(np.full(3, 0.5))
    assert np.allclose(white, [1, 0, 0], atol=1e-4) and np.allclose(grey[1:], 0, atol=1e-4)


def test_a_share_of_the_way_and_a_colour_told_by_skin(head):
    photo, matrix, classes = head
    parsing = parsed(classes, matrix)
    half, whole = (colour_layer(photo, parsing, BLOND, share) for share in (0.5, 1.0))
    assert np.allclose(half.alpha, whole.alpha / 2)
    beside = colour_layer(
        photo, parsing, PartColour("hair", Colour((-0.1, 0.03, 0.0), (0.1, 0.01, 0.01)), beside="skin")
    )
    skin = to_oklab(np.array(SKIN) / 255)
    assert np.allclose(np.subtract(beside.becomes.mean, skin), (-0.1, 0.03, 0.0), atol=0.02)


def test_a_face_that_does_not_show_the_part_has_no_layer(head):
    photo, matrix, classes = head
    bald = parsed(np.where(classes == 2, 1, classes), matrix)
    assert colour_layer(photo, bald, BLOND) is None


def test_hair_above_and_below_the_crop_changes_with_the_hair_in_it_and_nothing_else_does(head):
    photo, matrix, classes = head
    _, changed = recoloured(photo, matrix, parsed(classes, matrix))
    for rows in (np.s_[: SIZE - 4], np.s_[SIZE : 3 * SIZE], np.s_[3 * SIZE + 4 : 3 * SIZE + 60]):
        assert changed[rows][classes[rows] == 2].mean() > 0.85, "but for soft edges"
    assert not changed[~widen(classes == 2, 10 / len(classes))].any()


@pytest.mark.parametrize("wrong", [0, 3], ids=["wall", "clothes"])
def test_what_the_parser_takes_for_hair_beyond_the_crop_against_its_colour_stays(head, wrong):
    photo, matrix, classes = head
    believed, pixels = classes.copy(), np.array(photo)
    place = np.s_[10:50, 150:230] if wrong == 0 else np.s_[320:380, 200:260]
    if wrong == 3:
        pixels[300:, 170:] = (150, 20, 60)
        believed[300:, 170:] = 3
    believed[place] = 2
    _, changed = recoloured(Image.fromarray(pixels), matrix, parsed(believed, matrix))
    assert changed[place].mean() < 0.05


def test_a_photo_that_ends_at_the_crop_has_no_seam(head):
    photo, matrix, classes = head
    box = (0, SIZE, 4 * SIZE, 3 * SIZE)
    _, changed = recoloured(
        photo.crop(box),
        compose(translation(0, SIZE), matrix),
        parsed(classes[SIZE : 3 * SIZE], compose(translation(0, SIZE), matrix)),
    )
    assert changed[:8][classes[SIZE : SIZE + 8] == 2].mean() > 0.8, "but for soft edges"


def test_refined_probabilities_are_probabilities_and_a_head_without_hair_stays_as_it_was_seen(head):
    photo, matrix, classes = head
    refined = refine_hair(photo, parsed(classes, matrix)).probabilities
    assert refined.min() >= 0 and np.allclose(refined.sum(0), 1, atol=0.02)
    bald = parsed(np.where(classes == 2, 1, classes), matrix)
    assert refine_hair(photo, bald) is bald
