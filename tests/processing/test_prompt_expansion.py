"""Whoever asks for a smile gets one that shows; what was said of the mouth, or denied, stays as it was said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptface.processing.prompt_expansion import MOUTH_OPEN, expand_prompt


@pytest.mark.parametrize(
    "prompt",
    ["smiling", "A SMILE", "a happy woman with glasses", "laughing.", "no glasses, smiling", "surprised", "not sad but laughing"],
)  # fmt: skip
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
        "blond hair",
        "",
    ],
)
def test_what_is_denied_or_said_stays(prompt):
    assert expand_prompt(prompt) == prompt


@given(st.text())
def test_an_expanded_prompt_is_not_expanded_again(prompt):
    once = expand_prompt(f"{prompt} smile")
    assert expand_prompt(once) == once
