"""Whoever asks for a smile gets one that shows; what was said of the mouth, or denied, stays as it was said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptface.processing.prompt_words import MOUTH_OPEN, expand_prompt, regions_from_prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "smiling",
        "A SMILE",
        "a happy woman with glasses",
        "laughing.",
        "no glasses, smiling",
        "surprised",
        "not sad, laughing",
    ],
)
def test_a_smile_opens_the_mouth(prompt):
    assert expand_prompt(prompt) == f"{prompt.rstrip('.')}, {MOUTH_OPEN}"


@pytest.mark.parametrize(
    "prompt",
    [
        "not smiling",
        "no smile",
        "without a smile",
        "doesn't smile",
        "not really smiling",
        "unsmiling",
        "unhappy",
        "a neutral expression",
        "smiling with closed lips",
        "smiling, mouth closed",
        "a toothy grin",
        "neither smiling nor laughing",
        "non-smiling",
        "no  (smile)",
        "isn’t smiling",
        "doesnt smile",
        "remove the smile",
        "stopped smiling",
        "sad instead of happy",
        "a tight-lipped smile",
        "laughing with tongue out",
        "smile lines",
        "blond hair",
        "",
    ],
)
def test_what_is_denied_or_said_stays(prompt):
    assert expand_prompt(prompt) == prompt


@pytest.mark.parametrize(
    "word",
    ["smile", "grinning", "laughter", "happily", "cheerful", "joyful", "surprised", "astonished", "amazed", "shocked"],
)
def test_a_word_that_opens_the_mouth_redraws_the_mouth_and_no_eyes(word):
    assert expand_prompt(word) != word
    regions = regions_from_prompt(word)
    assert {"smile", "mouth"} & set(regions) and not {"eyes", "face"} & set(regions)
    # what the model was told, given back as a prompt, is the same edit
    assert regions_from_prompt(expand_prompt(word)) == regions


@given(st.text())
def test_an_expanded_prompt_is_not_expanded_again(prompt):
    once = expand_prompt(f"{prompt} smile")
    assert expand_prompt(once) == once
