"""Glasses, beards, fringes and ages that are laid over a photo: they keep off what they are not about, follow the face
and its hair, and leave no spots; who edits a portrait sees each of these at once.
"""

import numpy as np
import pytest
from drawn_faces import ALL, COLOURS, LABELS, draw_face, shown
from PIL import Image

from gptface.processing.ageing import OLDER, YOUNGER
from gptface.processing.blending import paste
from gptface.processing.canvas import blur, minimum_filter
from gptface.processing.eyewear import CLEAR_GLASSES, SUNGLASSES
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.part_colour import Colour, ColourLayer, to_oklab
from gptface.processing.strands import FRINGE, FULL_BEARD, MUSTACHE, STUBBLE


def laid(transfer, photo, parsing, seed=0, share=1.0):
    """The photo after a transfer as floats, and what changed visibly, bool [H, W]."""
    assert transfer.fits(parsing)
    image, _ = paste(photo, transfer.layers(photo, parsing, share, np.random.default_rng(seed)))
    after = np.asarray(image, float)
    return after, np.abs(after - np.asarray(photo)).mean(-1) > 6


@pytest.mark.parametrize(
    "transfer", [CLEAR_GLASSES, FULL_BEARD, FRINGE, OLDER, YOUNGER], ids=lambda each: type(each).__name__
)
def test_the_same_seed_lays_the_same_and_nothing_lies_on_the_background(transfer):
    photo, parsing = draw_face()
    once, changed = laid(transfer, photo, parsing, seed=3)
    again, _ = laid(transfer, photo, parsing, seed=3)
    assert np.array_equal(once, again)
    assert changed.any() and changed[shown(parsing, "background")].mean() < 0.004
    half, _ = laid(transfer, photo, parsing, seed=3, share=0.5)
    assert np.abs(half - np.asarray(photo)).sum() < 0.7 * np.abs(once - np.asarray(photo)).sum()


def test_frames_are_whole_on_both_sides_and_differ_by_the_seed():
    photo, parsing = draw_face()
    _, changed = laid(CLEAR_GLASSES, photo, parsing)
    left, right = changed[:, : ALL // 2], changed[:, ALL // 2 :][:, ::-1]
    assert (left & right).sum() > 0.8 * (left | right).sum(), "no temple breaks"
    pictures = {laid(CLEAR_GLASSES, photo, parsing, seed)[0].tobytes() for seed in range(12)}
    assert len(pictures) == len(CLEAR_GLASSES.frames)


def test_eyes_are_seen_through_clear_lenses_and_not_through_dark_ones():
    photo, parsing = draw_face()
    eyes, before = shown(parsing, "eye"), np.asarray(photo, float)
    clear, _ = laid(CLEAR_GLASSES, photo, parsing)
    dark, _ = laid(SUNGLASSES, photo, parsing)
    assert np.abs(clear - before)[eyes].mean() < 12
    assert dark[eyes].mean() < 0.4 * before[eyes].mean()


def test_hair_before_the_face_hides_glasses_and_glasses_that_are_worn_keep_others_off():
    photo, parsing = draw_face(over_left_eye=True)
    seen = parsing.probabilities.copy()
    open_eyed = draw_face()[1]
    parsing = FaceParsing(seen, LABELS, parsing.matrix)
    _, changed = laid(CLEAR_GLASSES, photo, parsing)
    assert not changed[shown(parsing, "hair")].any() and changed[:, ALL // 2 :].any()
    seat = FaceParsing(
        np.where(np.isin(LABELS, ["eye"])[:, None, None], open_eyed.probabilities, seen), LABELS, parsing.matrix
    )
    _, changed = laid(SUNGLASSES, photo, seat)
    assert not changed[shown(seat, "hair")].any()
    assert not SUNGLASSES.fits(draw_face(glasses=True)[1]), "dark ones are worn"


def test_a_beard_has_the_colour_of_the_hair_and_leaves_lips_nose_and_eyes():
    photo, parsing = draw_face()
    after, changed = laid(FULL_BEARD, photo, parsing)
    for name in ("upper_lip", "nose", "eye", "brow"):
        assert changed[shown(parsing, name)].mean() < 0.1, name
    chin = np.s_[128 + 2 * 108 : 128 + 2 * 116, 128 + 2 * 58 : 128 + 2 * 70]
    assert changed[chin].mean() > 0.9
    assert np.abs(after[chin].mean((0, 1)) - COLOURS["hair"]).mean() < 30
    _, above = laid(MUSTACHE, photo, parsing)
    assert np.flatnonzero(above.any(1)).max() < 128 + 2 * 108 and above.sum() < 0.4 * changed.sum()
    stubble, _ = laid(STUBBLE, photo, parsing)
    assert after[chin].mean() < stubble[chin].mean() < np.asarray(photo)[chin].mean()


def test_a_fringe_covers_the_forehead_and_ends_above_the_eyes_in_no_straight_line():
    photo, parsing = draw_face()
    after, changed = laid(FRINGE, photo, parsing)
    forehead = np.s_[128 + 2 * 18 : 128 + 2 * 28, 128 + 2 * 50 : 128 + 2 * 78]
    assert changed[forehead].mean() > 0.9 and after[forehead].mean() < 90
    assert not changed[shown(parsing, "eye")].any()
    middle = changed[:, 128 + 2 * 44 : 128 + 2 * 84]
    ends = len(middle) - middle[::-1].argmax(0)
    assert np.ptp(ends) > 6 and np.abs(np.diff(ends)).mean() > 0.25, "it does not end like a ruler"


def test_a_bald_head_has_no_fringe():
    assert not FRINGE.fits(draw_face(hair=False)[1])


@pytest.mark.parametrize("skin", [(205, 155, 130), (95, 65, 50)], ids=["light", "dark"])
def test_age_changes_the_detail_of_skin_and_leaves_no_spots(skin):
    """Cells that were redrawn in another tone were grey blots."""
    photo, parsing = draw_face(skin)
    before = to_oklab(np.asarray(photo) / 255)
    cheek = np.s_[128 + 2 * 70 : 128 + 2 * 80, 128 + 2 * 34 : 128 + 2 * 44]
    found = {}
    for name, transfer in (("old", OLDER), ("young", YOUNGER)):
        after, changed = laid(transfer, photo, parsing)
        lab = to_oklab(after / 255)
        found[name] = lab
        assert not changed[shown(parsing, "eye")].any()
        inside = minimum_filter(parsing.mask(("skin", "nose")), 8) > 0.95
        tone = blur((lab - before).astype(np.float32), 8)[inside]
        assert np.abs(tone[:, 0]).max() < 0.13 and np.abs(tone[:, 1:]).max() < 0.03
    rough = {name: np.std((lab[..., 0] - blur(lab[..., 0], 3))[cheek]) for name, lab in found.items()}
    assert rough["young"] < 0.8 * np.std((before[..., 0] - blur(before[..., 0], 3))[cheek]) < 0.7 * rough["old"]


def test_hair_turns_grey_with_age_and_grey_hair_gets_its_colour_back():
    photo, parsing = draw_face()
    hair = minimum_filter(parsing.mask("hair"), 6) > 0.95
    old, _ = laid(OLDER, photo, parsing)
    lightness, chroma = to_oklab(old / 255)[hair].mean(0)[0], np.hypot(*to_oklab(old / 255)[hair].mean(0)[1:])
    was = to_oklab(np.asarray(photo) / 255)[hair].mean(0)
    assert lightness > was[0] + 0.08 and chroma < np.hypot(*was[1:])
    young, _ = laid(YOUNGER, Image.fromarray(old.astype(np.uint8)), parsing)
    assert to_oklab(young / 255)[hair].mean(0)[0] < lightness


def test_a_new_colour_spares_what_shows_another_hue_between_the_hairs():
    """A parser's edge lies over the wall: gray hair drew a halo around heads."""
    pixels = np.zeros((4, 8, 3), np.float32)
    pixels[:, :4], pixels[:, 4:] = (0.25, 0.17, 0.12), (0.24, 0.35, 0.86)
    brown = to_oklab(pixels[0, 0])
    layer = ColourLayer(
        Colour(tuple(brown), (0.08, 0.01, 0.01)),
        Colour((0.6, 0.01, 0.01), (0.1, 0.01, 0.01)),
        np.ones((4, 8)),
        np.eye(2, 3),
    )
    change = np.abs(layer.change(pixels, (0, 0, 8, 4)))
    assert change[:, :4].max() > 0.2 and change[:, 4:].max() < 0.02
