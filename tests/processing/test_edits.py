"""The table of edits: every row can be said, done and told, and the captions for training say it in the same words."""

import re
from pathlib import Path

import pytest

from gptface.data.phrases import EMOTION_PREFIX, SAYABLE, SUNGLASSES
from gptface.pipelines.face_pipeline import DECODING
from gptface.processing.edits import EDITS, PICTURES, edits_table, list_edits
from gptface.processing.prompt_reading import read_prompt
from gptface.processing.regions import REGIONS

ROOT = Path(__file__).parents[2]
PROVENANCE = b"DigitalSourceType"


@pytest.mark.parametrize("edit", EDITS.values(), ids=lambda edit: edit.name)
def test_a_row_can_be_asked_for_and_done(edit):
    """A row that its own phrase or example does not reach is a line in a list that refuses who types it."""
    for text in (edit.phrase, edit.example):
        assert [intent.edit.name for intent in read_prompt(text).intents] == [edit.name]
    assert edit.regions and set(edit.regions) <= set(REGIONS)
    assert set(edit.defaults) <= {*DECODING, "corrections", "plan_first", "composite", "strength"}
    assert edit.sentence.endswith(".")
    assert edit.opposite is None or (edit.opposite in EDITS and edit.opposite != edit.name)


def test_the_model_is_told_what_captions_say():
    """A phrase that no caption has is noise to the model."""
    said = {phrases.canonical for values in SAYABLE.values() for phrases in values.values()}
    assert {edit.phrase for edit in EDITS.values() if edit.kind != "fill" and not edit.told} <= said


@pytest.mark.parametrize("edit", [edit for edit in EDITS.values() if edit.target], ids=lambda edit: edit.name)
def test_what_a_head_verifies_is_what_the_phrase_means(edit):
    target = edit.target
    if edit.name == "no_sunglasses":
        assert (target.label, target.value) == ("Eyeglasses", 0)
        return
    name = EMOTION_PREFIX + target.label if target.head == "expression" else target.label
    assert SAYABLE[name][target.value].canonical == edit.phrase


@pytest.mark.parametrize("name", [*SAYABLE, SUNGLASSES])
def test_prompts_may_use_the_words_of_captions(name):
    """Who reads a caption and types it back is understood, and is not given the opposite."""
    by_phrase = {edit.phrase: edit for edit in EDITS.values()}
    for phrases in SAYABLE[name].values():
        edit = by_phrase.get(phrases.canonical)
        for phrase in phrases.listed if edit is not None else ():
            (intent,) = read_prompt(phrase).intents
            same = intent.edit is edit or intent.edit.group == edit.group != ""
            assert same and intent.edit.name != edit.opposite, phrase


def test_the_list_begins_with_what_works():
    qualities = [edit.quality for edit in list_edits()]
    assert qualities == sorted(qualities, key=["good", "fair", "experimental"].index)
    assert {edit.quality for edit in list_edits("good")} == {"good"}
    with pytest.raises(ValueError, match="experimental"):
        list_edits("excellent")


def test_the_table_in_the_documents_is_that_of_the_code():
    page = (ROOT / "docs" / "edits.md").read_text()
    shown = re.search(r"<!-- edits -->\n(.*?)\n<!-- /edits -->", page, re.DOTALL)
    assert shown is not None and shown[1] == edits_table(list_edits()), "run: gptface edits --markdown"


def test_each_good_edit_is_shown_and_no_other():
    shown = {edit.picture for edit in EDITS.values()} - {None}
    assert shown == {path.relative_to(ROOT).as_posix() for path in (ROOT / PICTURES).iterdir()}, "lab/edit_pictures.py"
    assert all(PROVENANCE in (ROOT / name).read_bytes() for name in shown), "they must say that they are edited"
