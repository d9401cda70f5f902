"""Where hair is: a new colour belongs on hair, all of it, and not on ears, necks and walls."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gptface.processing.composite import composite_crop, widen
from gptface.processing.hair import fringe_cells, hair_matte, hair_pixels, is_about_hair_colour, recolour_hair
from gptface.processing.regions import region_cells

pytest.importorskip("cv2")
GRID = 16
HAIR, SKIN = (50, 30, 20), (200, 150, 120)


def face(size=128, bangs=0.0, lock=False, hair=HAIR, skin=SKIN, noise=6):
    """A face below hair, before a wall; bangs hang down to a share of the crop, a lock over the cheek at the left."""
    picture = Image.new("RGB", (size, size), (60, 90, 220))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([size * 0.12, size * 0.02, size * 0.88, size * 1.1], fill=hair)
    person = np.asarray(picture)[..., 2] != 220
    draw.ellipse([size * 0.18, size * 0.16, size * 0.82, size * 0.97], fill=skin)
    if bangs:
        draw.rectangle([size * 0.35, size * 0.1, size * 0.65, size * bangs], fill=hair)
    if lock:
        draw.rectangle([size * 0.15, size * 0.4, size * 0.29, size * 0.85], fill=hair)
    pixels = np.asarray(picture) + np.random.default_rng(0).integers(-noise, noise + 1, (size, size, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), person


def fringe(picture, person, grid=GRID):
    return fringe_cells(hair_pixels(picture, person), grid)


@pytest.mark.parametrize("size", [64, 96, 128])
def test_ears_neck_and_wall_are_no_hair(size):
    picture, person = face(size)
    found = hair_pixels(picture, person)
    hair = person & (np.abs(np.asarray(picture, np.int64) - HAIR).max(-1) < 12)
    assert (found & hair).sum() / (found | hair)[: size * 3 // 4].sum() > 0.9
    assert not (found & ~person).any()


@pytest.mark.parametrize("size", [96, 128])
def test_bangs_are_hair_and_what_is_below_them_is_not(size):
    plain, bangs = (fringe(*face(size, bangs=depth)) for depth in (0.0, 0.28))
    middle = np.s_[4, 7:9]
    assert not plain[middle].any() and bangs[middle].all()
    assert not bangs[6:, 5:11].any(), "eyes and mouth are no hair"
    assert not (bangs & region_cells("hair", GRID)).any()


def test_bangs_may_reach_the_brows_and_brows_below_a_gap_are_no_hair():
    picture, person = face(bangs=0.38)
    assert fringe(picture, person)[5, 6:10].all()
    picture, person = face(bangs=0.28)
    ImageDraw.Draw(picture).rectangle([50, 42, 78, 46], fill=HAIR)
    assert not hair_pixels(picture, person)[40:].any(0)[48:80].any()


def test_a_lock_over_a_cheek_is_hair():
    plain, lock = (fringe(*face(lock=hangs))[8:11] for hangs in (False, True))
    assert lock[:, 4].all() and not plain[:, 4].any() and not lock[:, 5:].any()


def test_what_does_not_hang_together_with_hair_is_none():
    """A dark mark on the forehead."""
    picture, person = face()
    ImageDraw.Draw(picture).rectangle([56, 34, 72, 39], fill=HAIR)
    assert not fringe(picture, person)[4, 7:9].any()


def test_the_shadow_along_a_jaw_is_no_hair():
    """It begins at the hair, and a new colour ran down the face."""
    picture, person = face()
    ImageDraw.Draw(picture).line([(30, 40), (36, 110)], fill=HAIR, width=4)
    found = hair_pixels(picture, person)
    assert found[:10, 40:80].any() and not found[70:100, 30:40].any()


def test_a_wall_that_passes_for_the_person_is_no_hair():
    picture, person = face()
    beside = np.zeros_like(person)
    beside[60:, 100:] = True
    assert not (hair_pixels(picture, person | beside) & beside & ~person).any()


@pytest.mark.parametrize("size", [96, 128])
@pytest.mark.parametrize("error", [0, 1], ids=["exact", "a pixel too wide"])
def test_a_new_colour_ends_where_hair_does(size, error):
    """Beyond it a wall would shine, before it a dark rim would stay."""
    picture, person = face(size)
    hair = hair_pixels(picture, person)
    matte = hair_matte(picture, widen(hair, error / size))
    assert matte.shape == hair.shape and matte.min() >= 0 and matte.max() <= 1
    assert matte[hair].mean() > 0.9
    # the widened mask itself gives half of it away
    assert matte[~person & widen(hair, 2 / size)].mean() < 0.4
    assert not matte[~widen(hair, 16 / size)].any()


def test_strands_stay_under_a_new_colour():
    """Cells are painted each in a shade of its own, blurred; the photo's strands and a calm colour are wanted."""
    rng = np.random.default_rng(0)
    hair = np.zeros((128, 128), bool)
    hair[10:60, 20:110] = True
    strands = np.tile(np.where(np.arange(128) % 4 < 2, 0.2, 0.3), (128, 1))[..., None].repeat(3, 2)
    blurred = np.full_like(strands, 0.25)
    shades = rng.normal(0, 0.1, (16, 16)).repeat(8, 0).repeat(8, 1)[..., None]
    edited, kept = recolour_hair(blurred + 0.3 + shades, blurred, hair)
    result = composite_crop(strands, edited, np.ones((128, 128)), "adaptive", blurred, kept)
    change = (result - strands)[hair].mean(-1)
    assert abs(change.mean() - 0.3) < 0.05
    assert change.std() < 0.06, "the photo's strands, and less of the cells' shades (0.1)"
    assert np.array_equal(edited[90:], (blurred + 0.3 + shades)[90:].astype(np.float32)) and not kept[90:].any()


@pytest.mark.parametrize("change", [{"hair": SKIN}, {"skin": HAIR}], ids=["hair like skin", "skin like hair"])
def test_where_colours_do_not_tell_nothing_is_found(change):
    assert not hair_pixels(*face(bangs=0.28, **change)).any()


def test_nobody_and_no_hair_do_no_harm():
    picture, person = face(bangs=0.28)
    assert not hair_pixels(picture, person & False).any()
    assert not hair_pixels(Image.new("RGB", (128, 128), (90, 90, 90)), person).any()
    assert fringe(picture, person, 4).shape == (4, 4)


@pytest.mark.parametrize(
    "prompt",
    [
        "blond hair",
        "Blonde",
        "a brunette",
        "dark brown hair",
        "gray-haired",
        "smiling, red hair",
        "redheaded",
        "blond hair, not smiling",
        "blond hair without glasses",
        "brown hair, thick eyebrows",
    ],
)
def test_a_colour_leaves_the_cut_alone(prompt):
    assert is_about_hair_colour(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "long blond hair",
        "wavy hair",
        "hair",
        "a red hat",
        "curly red hair",
        "no gray hair",
        "blond bangs",
        "bald",
        "",
        "blond pixie cut",
        "never blond hair",
        "without gray hair",
        "hair that isn't blond",
        "red hair band",
        "blond beard",
    ],
)
def test_whoever_asks_for_a_cut_or_not_for_hair_gets_no_recolouring(prompt):
    assert not is_about_hair_colour(prompt)
