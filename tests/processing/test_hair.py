"""Hair in a new colour: which prompts ask for that alone, and that its strands stay."""

import numpy as np
import pytest

from gptface.processing.composite import composite_crop
from gptface.processing.hair import is_about_hair_colour, recolour_hair


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
