"""What users type reaches the edit that they mean, or is refused kindly."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptface.processing.prompt_reading import UnknownEditError, read_prompt

HERE = Path(__file__).parent


def names(text):
    return [intent.edit.name for intent in read_prompt(text).intents]


def reached(text):
    try:
        return "+".join(names(text))
    except UnknownEditError:
        return "refuse"


@pytest.mark.parametrize(("file", "least"), [("development", 0.97), ("held_out", 0.92)])
def test_phrasings_reach_their_rows(file, least):
    """Nobody tunes to the held-out ones: only their share is told."""
    with open(HERE / f"phrasings_{file}.csv", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    wrong = [row["text"] for row in rows if reached(row["text"]) != row["row"]]
    assert 1 - len(wrong) / len(rows) >= least, wrong if file == "development" else f"{len(wrong)} wrong"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("don't remove the glasses, smiling", ["smiling"]),
        ("keep the beard, blond hair", ["blond_hair"]),
        ("remove glasses, beard and hat", ["no_eyeglasses", "no_beard", "no_hat"]),
        ("take the glasses and hat off and smile", ["no_eyeglasses", "no_hat", "smiling"]),
        ("stop smiling, red lips", ["not_smiling", "lipstick"]),
        ("no glasses, a beard", ["no_eyeglasses", "beard"]),
        ("a man with no beard and a hat", ["no_beard", "hat"]),
        ("neither smiling nor wearing glasses", ["not_smiling", "no_eyeglasses"]),
        ("change the black hair to blond", ["blond_hair"]),
        ("turn the frown into a smile", ["smiling"]),
        ("happy, smiling", ["happy"]),
        ("not sad", ["neutral"]),
        ("ne souris pas", ["not_smiling"]),
        ("sie hat blonde Haare", ["blond_hair"]),
    ],
)
def test_negation_reaches_as_far_as_it_is_meant(text, rows):
    """One word too far, and the glasses that were to stay are taken off."""
    assert names(text) == rows


def test_what_the_mouth_does_belongs_to_the_expression():
    (intent,) = read_prompt("smiling with closed lips").intents
    assert intent.phrase == "smiling, mouth closed" and intent.regions == ("smile",)


@pytest.mark.parametrize(
    ("text", "more"), [("older", True), ("old", False), ("a bigger smile", True), ("smiling", False)]
)
def test_comparatives_ask_for_more_of_what_may_be_there(text, more):
    assert read_prompt(text).intents[0].comparative is more


def test_what_is_left_over_or_corrected_is_told():
    reading = read_prompt("a smilling zombie")
    assert reading.corrected == (("smilling", "smiling"),) and reading.ignored == ("zombie",)
    assert "'zombie'" in reading.remark and '"smilling"' in reading.remark
    assert read_prompt("please make this woman smile").remark is None


def test_a_refusal_names_what_is_near():
    with pytest.raises(UnknownEditError, match=r"hair.*gptface edits"):
        read_prompt("purple hair")


def test_edits_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="choose one"):
        read_prompt("smiling, not smiling")


@pytest.mark.parametrize("text", ["a bear", "the shape of her face", "a scarf", "on the beach"])
def test_ordinary_words_are_no_typing_errors(text):
    """A bear is no beard, and a shape is not shaved."""
    assert reached(text) == "refuse"


@pytest.mark.parametrize("text", [None, 7, "", "  ", "smiling \ud800"])
def test_what_is_no_text_is_refused_as_such(text):
    with pytest.raises(ValueError, match="prompt"):
        read_prompt(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        assert read_prompt(text).intents
    except ValueError as error:
        assert str(error).startswith("prompt")
