"""Prompts as people type, paste and generate them."""

import warnings

import numpy as np
import pytest


def said(edit, *arguments, **options):
    """The warnings of a call under Python's default filter, as a user sees them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        edit(*arguments, **options)
    return [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t", "\x00\x01\x1b", "\u200b", "😀🙂", "笑顔の女性", "улыбка"])
def test_a_prompt_of_which_nothing_is_understood_is_refused(edit, face, prompt):
    """It would be edited as if nothing had been asked, and the user would blame the model."""
    with pytest.raises(ValueError, match=r"prompt .*(must say|has no word)"):
        edit(face, prompt=prompt)
    batch = edit([face, face], prompt=[prompt, "smiling"], region="mouth", on_error="return")
    assert "image 0: prompt" in batch[0]["error"] and batch[1][0]["image"].size == face.size


@pytest.mark.parametrize("prompt", ["as a pirate", "a robot", "", "purple hair"])
def test_a_refused_prompt_leaves_the_photo_untouched_and_draws_nothing(edit, face, prompt, monkeypatch):
    def draws(*_, **__):
        raise AssertionError("something was drawn")

    monkeypatch.setattr(edit.model, "generate", draws)
    monkeypatch.setattr(edit.model, "generate_plan_first", draws)
    before = np.array(face)
    with pytest.raises(ValueError, match="prompt"):
        edit(face, prompt=prompt)
    assert np.array_equal(np.asarray(face), before)


def test_words_that_are_ignored_change_no_pixel(edit, face):
    with pytest.warns(UserWarning, match="ignored 'pirate'"):
        more = edit(face, prompt="smiling as a pirate")[0]
    assert np.array_equal(np.asarray(more["image"]), np.asarray(edit(face, prompt="smiling")[0]["image"]))


@pytest.mark.parametrize("prompt", ["smiling 😀", "a smiling \x00 woman\x1b[31m", "SMILING", "une femme smiling"])
def test_a_prompt_with_something_known_in_it_is_taken(edit, face, prompt):
    """An emoji at the end of a sentence is no reason to refuse it."""
    assert edit(face, prompt=prompt, region="mouth")[0]["image"].size == face.size


def test_broken_unicode_is_refused_as_such(edit, face):
    """
    File names and scraped text hold lone surrogates; the tokenizer would raise a TypeError about its own arguments.
    """
    with pytest.raises(ValueError, match=r"prompt .* is not valid Unicode"):
        edit(face, prompt="smiling \ud800")


@pytest.mark.parametrize("negative", [3, ["glasses"], "\x00", "😀"])
def test_negative_prompts_are_held_to_the_same(edit, face, negative):
    with pytest.raises(ValueError, match="negative_prompt"):
        edit(face, prompt="smiling", negative_prompt=negative)


def test_ten_thousand_words_are_cut_and_that_is_said_once(edit, face, tmp_path):
    """
    Silent truncation hides why the end of a prompt has no effect; a line for each of a thousand photos hides it too.
    """
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        face.save(path)
    options = {"region": "mouth", "strict": False}
    messages = said(edit, paths, prompt="a smiling woman " * 3334, **options)
    assert len(messages) == 1 and "prompt has 10002 tokens and this checkpoint reads 14" in messages[0]
    long, short = (edit(face, prompt="a smiling woman " * count, **options)[0] for count in (3334, 6))
    assert np.array_equal(np.asarray(long["image"]), np.asarray(short["image"]))
    assert not said(edit, face, prompt="a smiling woman", **options)


@pytest.mark.parametrize("name", ["prompt", "negative_prompt", "mask_image", "landmarks"])
def test_lists_of_another_length_than_the_images_are_refused(edit, face, name):
    """Zipped in silence, pictures would be edited under their neighbour's prompt, or not at all."""
    with pytest.raises(ValueError, match=f"{name} has 3 entries for 2 images"):
        edit([face, face], **{"prompt": "smiling", name: ["smiling"] * 3})
