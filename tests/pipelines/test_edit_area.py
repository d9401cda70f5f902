"""What an edit may change: what it is about, and not the wall behind, ears, clothes or the eyes behind new lenses."""

import numpy as np
import pytest

from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.pipelines.edit_plan import NOTHING, named_area
from gptface.processing.alignment import CROP_LANDMARKS, CROP_SIZE
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.masks import widen
from gptface.processing.prompt_words import regions_from_prompt
from gptface.processing.regions import REGIONS, ellipse, region_cells, shown_cells

GRID, SIZE = 16, 128
# Edges of the parser's pixels, averaged.
SOFT = 0.03


def parsing(**parts):
    """
    A head before a wall, by shapes in pixels of the crop, the later over the earlier; `parts` adds or takes away
    (None).
    """
    shapes = {
        "cloth": ellipse(64, 190, 90, 60),
        "hair": ellipse(64, 60, 52, 62),
        "ear": ellipse(64, 68, 49, 12),
        "neck": ellipse(64, 130, 20, 30),
        "skin": ellipse(64, 72, 42, 54),
        "brow": ellipse(64, 42, 28, 3),
        "nose": ellipse(64, 72, 8, 14),
        "mouth": ellipse(64, 97, 18, 5),
        **parts,
    }
    centres = (np.arange(4 * SIZE) + 0.5) / (2 * SIZE) - 0.5
    classes = np.zeros((4 * SIZE, 4 * SIZE), int)
    for name, shape in shapes.items():
        if shape is not None:
            classes[shape.contains(centres[None, :], centres[:, None])] = FACE_CLASSES.index(name)
    probabilities = np.stack([classes == index for index in range(len(FACE_CLASSES))]).astype(np.float32)
    return FaceParsing(probabilities, FACE_CLASSES, np.array([[1.0, 0, 0], [0, 1.0, 0]]))


WORN = ellipse(64, 58, 40, 12)


def area(prompt, face=None, **options):
    return named_area(regions_from_prompt(prompt), GRID, SIZE, face or parsing(), **options)


def share(area, face, names):
    """Of what may change, the share that shows some classes."""
    weight = np.where(area.bound > NOTHING, area.bound, 0) * np.kron(area.cells, np.ones((SIZE // GRID,) * 2))
    return (weight * face.crop_mask(names, SIZE)).sum() / weight.sum()


@pytest.mark.parametrize(
    "prompt",
    [
        "eyeglasses",
        "sunglasses",
        "a beard",
        "no beard",
        "smiling",
        "not smiling",
        "surprised",
        "angry",
        "old",
        "lipstick",
    ],
)
def test_an_edit_of_the_face_leaves_background_ears_neck_and_clothes(prompt):
    face = parsing()
    assert share(area(prompt, face), face, ["background", "ear", "neck", "cloth"]) < SOFT


@pytest.mark.parametrize("prompt", ["smiling", "old", "a beard"])
def test_glasses_that_are_worn_stay_in_another_edit(prompt):
    face = parsing(eyeglasses=WORN)
    assert share(area(prompt, face), face, "eyeglasses") < SOFT


def test_lips_and_what_lies_right_beside_them_stay_where_a_beard_is_shaved_off():
    """Mouths came out in another shape."""
    face = parsing()
    beside = widen(face.crop_mask("whole_mouth", SIZE) > 0.5, 0.9 / CROP_SIZE)
    bound = area("no beard", face).bound
    assert bound[beside].max() <= NOTHING < bound[~beside].max()


def test_behind_clear_lenses_the_eyes_stay_and_behind_dark_ones_they_do_not():
    for prompt, shown in (("eyeglasses", 0.0), ("sunglasses", 1.0)):
        result = area(prompt)
        for column, row in (CROP_LANDMARKS[:2] * SIZE / CROP_SIZE).astype(int):
            assert result.bound[row, column] == pytest.approx(shown, abs=SOFT)
        # all is redrawn, so that frames come out whole; the bridge is shown
        assert result.cells[6:8, 4:12].all() and result.bound[SIZE * 6 // 16 : SIZE // 2, SIZE // 2].min() > 1 - SOFT


def test_glasses_are_taken_off_where_they_are_worn():
    face = parsing(eyeglasses=WORN)
    result = area("no eyeglasses", face)
    assert result.bound[face.crop_mask("eyeglasses", SIZE) > 0.9].min() == 1
    assert share(result, face, "background") < SOFT and result.cells[6:8, 4:12].all()
    assert (result.bound > 0.5).sum() < 0.3 * SIZE**2
    assert result.gone[face.crop_mask("eyeglasses", SIZE) > 0.5].all() and result.gone.mean() < 0.3
    assert area("eyeglasses", face).gone is None


def test_what_the_parser_does_not_see_is_still_edited():
    assert (area("no eyeglasses").bound > 0.5).sum() > 400, "rims that are too thin to be found"
    wall = parsing(**dict.fromkeys(("hair", "skin", "brow", "nose", "mouth", "neck", "ear", "cloth")))
    for prompt in ("smiling", "blond hair", "no eyeglasses"):
        assert (area(prompt, wall).bound > 0.5).any()


def test_the_lower_edge_of_the_chin_stays_in_a_smile():
    result = named_area(["smile"], GRID, SIZE, parsing())
    put_back = np.kron(region_cells("smile", GRID) & ~shown_cells("smile", GRID), np.ones((8, 8), bool))
    assert result.cells[14, 7:9].all() and (result.bound[put_back] <= 2 * NOTHING).all()


def test_another_cut_may_reach_beyond_the_hair_but_not_over_ears_and_clothes():
    face = parsing()
    result = area("long curly hair", face)
    assert share(result, face, ["ear", "cloth"]) < SOFT and share(result, face, "background") > 0.03


def test_a_hat_needs_room_above_the_head():
    face = parsing(hair=ellipse(64, 70, 52, 52))
    assert share(area("a hat", face), face, "background") > 0.2


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("grid", [7, 8, 16])
def test_every_region_has_an_area_with_and_without_a_parser(name, grid):
    for face in (None, parsing()):
        result = named_area([name], grid, 64, face)
        assert result.cells.shape == (grid, grid) and result.cells.any()
        assert not (result.cells & ~region_cells(name, grid)).any()
        assert result.bound is None or (
            result.bound.shape == (64, 64) and result.bound.min() >= 0 and result.bound.max() <= 1
        )


def test_an_unknown_region_lists_the_known_ones():
    for face in (None, parsing()):
        with pytest.raises(ValueError, match="unknown region"):
            named_area(["knee"], GRID, SIZE, face)
        with pytest.raises(ValueError, match="at least one region"):
            named_area([], GRID, SIZE, face)
