"""Dark faces keep their colour when they are made to smile, and what is new in an edit keeps its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface.processing.composite import cells_to_mask
from gptface.processing.regions import region_cells, speaks_of_expressions_alone
from gptface.processing.tone import match_tone


def face(size, level, seed=0):
    """Skin of one tone, with the grain of a photo."""
    grain = np.random.default_rng(seed).uniform(-0.02, 0.02, (size, size, 1))
    return (np.array([1.0, 0.8, 0.7]) * level + grain).astype(np.float32)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(24, 140),
    st.floats(0.2, 0.8),
    st.tuples(*[st.floats(-0.15, 0.15)] * 3),
    st.sampled_from(["smile", "cheeks", "lower_face"]),
)
def test_skin_in_another_tone_gets_its_own_back(size, level, change, region):
    before = face(size, level)
    mask = cells_to_mask(region_cells(region, 12), size)
    after = before + np.float32(change) * mask[:, :, None]
    result = match_tone(after, before, mask)
    inside = mask > 0
    left = np.abs(result - before)[inside].mean(axis=0)
    # the larger the change, the less it is the same skin
    assert (left <= np.abs(change) * 0.4 + 1e-6).all()
    assert np.array_equal(result[~inside], after[~inside])


def test_a_small_change_of_tone_is_taken_out_nearly_whole_and_teeth_stay_white():
    before = face(128, 0.4)
    mask = cells_to_mask(region_cells("smile", 16), 128)
    after = before + 0.06 * mask[:, :, None]
    after[92:98, 54:74] = 0.95
    result = match_tone(after, before, mask)
    skin = mask > 0
    skin[88:102, 50:78] = False
    assert np.abs(result - before)[skin].max() < 0.015
    assert result[93:97, 57:71].min() > 0.93


def test_lips_do_not_tint_the_skin_around_them():
    before = face(128, 0.6)
    mask = cells_to_mask(region_cells("smile", 16), 128)
    lips = before.copy()
    lips[90:103, 46:82] += np.float32([0.1, -0.15, -0.1])  # before the edit there were lips, now there is skin
    result = match_tone(before, lips, mask)
    assert np.abs(result - before)[mask > 0].max() < 0.01


def test_what_the_edit_left_as_it_was_is_not_tinted_by_the_skin_beside_it():
    before = face(128, 0.5)
    mask = cells_to_mask(region_cells("lower_face", 16), 128)
    after = before.copy()
    after[:, :64] += 0.1 * mask[:, :64, None]
    result = match_tone(after, before, mask)
    assert np.abs(result - before)[:, 72:].max() < 0.005
    changed = mask > 0
    changed[:, 64:] = False
    assert np.abs(result - before)[changed].mean() < 0.06


def test_each_cheek_gets_its_own_tone_back():
    before = face(128, 0.5)
    mask = cells_to_mask(region_cells("cheeks", 16), 128)
    after = before.copy()
    after[:, :64] += 0.08 * mask[:, :64, None]
    after[:, 64:] -= 0.08 * mask[:, 64:, None]
    result = match_tone(after, before, mask)
    assert np.abs(result - before)[mask > 0].mean() < 0.03


@pytest.mark.parametrize("region", ["mouth", "smile"])
def test_where_nothing_changed_nothing_is_changed(region):
    before = face(64, 0.5)
    assert np.allclose(match_tone(before, before, cells_to_mask(region_cells(region, 8), 64)), before, atol=1e-6)


@pytest.mark.parametrize(
    "prompt", ["smiling", "Not smiling", "a surprised face", "angry, mouth open", "mouth closed", "winking, a smile"]
)
def test_what_a_face_does_leaves_its_colour(prompt):
    assert speaks_of_expressions_alone(prompt)


@pytest.mark.parametrize(
    "prompt", ["a beard", "smiling with a beard", "red lips", "smiling, rosy cheeks", "pale skin", "zombie", "", "blond hair"]
)  # fmt: skip
def test_what_may_colour_a_face_is_left_to_do_so(prompt):
    assert not speaks_of_expressions_alone(prompt)
