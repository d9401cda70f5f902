"""Which prompts ask for a new colour of hair alone."""

import pytest

from gptface.processing.hair import is_about_hair_colour


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
