"""Named regions cover the features that they name, and a prompt finds the region that it speaks of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface.processing.alignment import CROP_LANDMARKS, CROP_SIZE
from gptface.processing.masks import cells_to_mask
from gptface.processing.prompt_words import regions_from_prompt, speaks_of_expressions_alone
from gptface.processing.regions import REGIONS, kept_pixels, region_cells, shown_cells

LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = CROP_LANDMARKS


@pytest.mark.parametrize("grid", [8, 16, 32])
def test_regions_cover_the_landmarks_they_name(grid):
    mouth = (LEFT_MOUTH + RIGHT_MOUTH) / 2
    for name, points in {
        "mouth": [LEFT_MOUTH, mouth, RIGHT_MOUTH],
        "smile": [LEFT_MOUTH, mouth, RIGHT_MOUTH],
        "eyes": [LEFT_EYE, RIGHT_EYE],
        "glasses": [LEFT_EYE, RIGHT_EYE],
        "upper_face": [LEFT_EYE, RIGHT_EYE],
        "nose": [NOSE],
        "beard": [LEFT_MOUTH, mouth, RIGHT_MOUTH],
        "lower_face": [NOSE, LEFT_MOUTH, mouth, RIGHT_MOUTH],
        "face": [*CROP_LANDMARKS, mouth],
        "all": [*CROP_LANDMARKS, mouth],
    }.items():
        for point in points:
            # A little towards the middle, for some landmarks lie exactly between two cells.
            column, row = ((0.98 * point + 0.02 * CROP_SIZE / 2) * grid / CROP_SIZE).astype(int)
            assert region_cells(name, grid)[row, column], (name, point)


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("grid", [1, 2, 4, 7, 16, 32])
def test_every_region_has_cells_on_every_grid_and_is_symmetric(name, grid):
    cells = region_cells(name, grid)
    assert cells.shape == (grid, grid) and cells.dtype == bool and cells.any()
    np.testing.assert_array_equal(cells, cells[:, ::-1])
    assert name == "all" or grid < 7 or not cells.all()


@pytest.mark.parametrize("grid", [1, 2, 7, 16])
def test_what_is_shown_of_a_region_lies_in_it_and_the_chin_under_a_smile_stays_the_persons(grid):
    for name in REGIONS:
        assert not (shown_cells(name, grid) & ~region_cells(name, grid)).any(), name
    chin = region_cells("chin", 16)
    assert (region_cells("smile", 16) >= chin).all() and not (shown_cells("smile", 16) >= chin).all()
    assert (shown_cells(["smile", "chin"], 16) == region_cells(["smile", "chin"], 16)).all()


def test_the_eyes_behind_clear_glasses_stay_and_what_is_around_them_does_not():
    for size in (64, 128, 256):
        kept = kept_pixels("clear_glasses", size)
        for column, row in (CROP_LANDMARKS[:2] * size / CROP_SIZE).astype(int):
            assert kept[row, column] == 1
        # the bridge and the cheeks are drawn
        assert 0 < kept.mean() < 0.06 and not kept[:, size // 2 - 1 : size // 2 + 1].any()
        assert not (kept > 0)[cells_to_mask(region_cells("clear_glasses", 16), size) == 0].any()
    assert not kept_pixels("glasses", 128).any()


def test_how_regions_lie_to_each_other():
    cells = {name: region_cells(name, 16) for name in REGIONS}
    for inner, outer in (
        ("mouth", "smile"),
        ("mouth", "beard"),
        ("cheeks", "smile"),
        ("chin", "smile"),
        ("chin", "beard"),
        ("mouth", "lower_face"),
        ("nose", "face"),
        ("eyes", "glasses"),
        ("eyes", "upper_face"),
        ("forehead", "bangs"),
    ):
        assert not (cells[inner] & ~cells[outer]).any(), (inner, outer)
    for one, other in (
        ("mouth", "eyes"),
        ("hair", "eyes"),
        ("hair", "mouth"),
        ("hair", "nose"),
        ("hat", "eyes"),
        ("beard", "eyes"),
        ("forehead", "eyes"),
        ("lower_face", "eyes"),
    ):
        assert not (cells[one] & cells[other]).any(), (one, other)
    assert cells["all"].all()
    assert cells["hair"][0].all() and cells["hat"][0].all()


def test_spelling_does_not_matter_and_several_unite():
    expected = region_cells("lower_face", 16)
    for name in ("lower face", "Lower-Face", " LOWER_FACE "):
        np.testing.assert_array_equal(region_cells(name, 16), expected)
    both = region_cells(["eyes", "mouth"], 16)
    np.testing.assert_array_equal(both, region_cells("eyes", 16) | region_cells("mouth", 16))


@pytest.mark.parametrize("name", ["knee", "", [], ["mouth", "knee"]])
def test_an_unknown_region_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"mouth, smile, .*eyes.*all"):
        region_cells(name, 16)


@pytest.mark.parametrize(
    ("prompt", "regions"),
    [
        ("a smiling woman", ["smile"]),
        ("She GRINS.", ["smile"]),
        ("a man laughing, with glasses", ["smile", "clear_glasses"]),
        ("sunglasses, not smiling", ["glasses", "mouth", "cheeks"]),
        ("no eyeglasses, smiling", ["worn_glasses", "smile"]),
        ("not smiling, with glasses", ["mouth", "cheeks", "clear_glasses"]),
        ("make the mouth smaller", ["mouth"]),
        ("a serious man", ["mouth", "cheeks"]),
        ("not smiling", ["mouth", "cheeks"]),
        ("She is not smiling, with a hat", ["mouth", "cheeks", "hat"]),
        ("an angry face", ["mouth", "cheeks", "brows"]),
        ("surprised", ["mouth", "chin", "brows"]),
        ("a man without sunglasses", ["worn_glasses"]),
        ("a woman with blond hair", ["hair"]),
        ("dark-haired", ["hair"]),
        ("a brunette", ["hair"]),
        ("bangs", ["bangs"]),
        ("a man with facial hair", ["beard"]),
        ("no beard", ["beard"]),
        ("clean-shaven", ["beard"]),
        ("shaved head", ["hair", "forehead"]),
        ("five o'clock shadow", ["beard"]),
        ("red lipstick", ["mouth"]),
        ("heavy make-up", ["face"]),
        ("wearing a hat", ["hat"]),
        ("make her look older", ["face"]),
        ("bald", ["hair", "forehead"]),
        ("mouth slightly open", ["mouth", "chin"]),
        ("remove the face mask", ["lower_face"]),
        ("eye shadow and eyebrows", ["eyes", "brows"]),
        ("happy, happy, HAPPY with a smile", ["smile"]),
        # Whole words only.
        ("what a chat about chairs, hearing the agent", []),
        ("a person", []),
        ("", []),
    ],
)
def test_prompts(prompt, regions):
    assert regions_from_prompt(prompt) == regions


def test_every_visible_celeba_attribute_speaks_of_a_region():
    text = """5_o_Clock_Shadow Arched_Eyebrows Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Young"""
    for attribute in text.split():
        assert regions_from_prompt(attribute), attribute


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_prompt_gives_known_regions_once(prompt):
    regions = regions_from_prompt(prompt)
    assert len(set(regions)) == len(regions) and set(regions) <= set(REGIONS)
    assert not regions or region_cells(regions, 16).any()


@pytest.mark.parametrize(
    "prompt", ["smiling", "Not smiling", "a surprised face", "angry, mouth open", "mouth closed", "winking, a smile"]
)
def test_what_a_face_does_leaves_its_colour(prompt):
    assert speaks_of_expressions_alone(prompt)


@pytest.mark.parametrize(
    "prompt",
    ["a beard", "smiling with a beard", "red lips", "smiling, rosy cheeks", "pale skin", "zombie", "", "blond hair"],
)
def test_what_may_colour_a_face_is_left_to_do_so(prompt):
    assert not speaks_of_expressions_alone(prompt)
