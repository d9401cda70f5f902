"""Hats and earrings that are laid over a photo: a hat sits on the head and hides the hair that it would press,
earrings hang from lobes that are seen, and hairs stay at their places from frame to frame of a film.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from drawn_faces import ALL, COLOURS, LABELS, draw_face, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from test_transfers import laid

from gptface.processing.alignment import align, compose, inverse, warp
from gptface.processing.blending import paste
from gptface.processing.canvas import Canvas, blur, minimum_filter, nearest_colours
from gptface.processing.colour_words import COLOUR_WORDS
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.headwear import KNITTED_HAT, KNITTED_HATS, Head, KnittedHat, Wool
from gptface.processing.jewellery import EARRINGS, Earring, Earrings
from gptface.processing.lighting import exposure, light_on_face
from gptface.processing.signs import GLASSES
from gptface.processing.strands import FRINGE, FULL_BEARD, Forehead, curliness

GREY_HAT = KnittedHat((Wool((0.4, 0.4, 0.4)),), 21.0)
#: The row of the brows of a drawn face, in its photo.
BROWS = 128 + 2 * 41


def with_ears(hair_before=False, worn=False):
    """A bald face with ears, and what a parser sees in it."""
    photo, parsing = draw_face(hair=False)
    pixels, seen = np.array(photo), parsing.probabilities.copy()
    seen = np.concatenate([seen, np.zeros_like(seen[:1])])
    y, x = np.mgrid[:ALL, :ALL] / 2 - 64
    names = (*LABELS, "earring")

    def put(name, where, colour):
        seen[:, where] = (np.array(names) == name)[:, None]
        pixels[where] = colour

    for middle in (22, 106):
        put("ear", ((x - middle) / 5) ** 2 + ((y - 66) / 13) ** 2 < 1, COLOURS["ear"])
        if hair_before:
            put("hair", (np.abs(x - middle) < 9) & (y > 60), COLOURS["hair"])
        if worn:
            put("earring", (np.abs(x - middle) < 2) & (np.abs(y - 78) < 2.5), (240, 200, 90))
    return Image.fromarray(pixels), FaceParsing(seen, names, parsing.matrix)


def moved(photo, parsing, angle=0.0, scale=1.0, shift=(0.0, 0.0), size=(ALL, ALL)):
    """The same face elsewhere in a photo: the parser's view of it is the same."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    away = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])
    matrix = compose(inverse(away), parsing.matrix)
    back = tuple(inverse(away).ravel())
    picture = photo.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC, fillcolor=(60, 90, 220))
    return picture, FaceParsing(parsing.probabilities, parsing.labels, matrix)


def test_a_hat_covers_the_head_above_the_brows_and_nothing_below_it():
    photo, parsing = draw_face()
    after, changed = laid(GREY_HAT, photo, parsing)
    dome = np.s_[128 : 128 + 2 * 30, 128 + 2 * 40 : 128 + 2 * 88]
    assert changed[dome].mean() > 0.99, "no hair shines through"
    assert np.abs(after[dome] - after[dome].mean(-1, keepdims=True)).mean() < 8, "it is grey as its wool is"
    for name in ("eye", "nose", "upper_lip", "neck"):
        assert not changed[shown(parsing, name)].any(), name
    ends = np.flatnonzero(changed[:, ALL // 2])
    assert BROWS - 30 < ends.max() < BROWS + 2
    assert ends.min() < 128 - 2 * 5, "it reaches above the crop, where the head does"


def test_a_hat_fits_a_head_that_wears_a_mask():
    """It was as narrow as what a mask leaves to be seen of a face."""
    parsing = draw_face()[1]
    seen, y = parsing.probabilities, np.arange(ALL)[:, None] / 2 - 64
    hidden = (parsing.mask("face") > 0.5) & (y > 52)
    masked = FaceParsing(np.concatenate([seen * ~hidden, hidden[None]]), (*LABELS, "face_mask"), parsing.matrix)
    bare, worn = Head.of(parsing), Head.of(masked)
    assert (worn.half, worn.middle) == pytest.approx((bare.half, bare.middle), abs=0.1)


def test_hair_beside_a_hat_is_pressed_and_the_wall_is_seen_there():
    """Hair that stands out to both sides of a hat belongs to another head."""
    photo, parsing = draw_face()
    y, x = np.mgrid[:ALL, :ALL] / 2 - 64
    wide = (np.abs(x - 64) < 70) & (y > -4) & (y < 90) & (parsing.mask("face") < 0.5)
    pixels, seen = np.array(photo), parsing.probabilities.copy()
    pixels[wide] = COLOURS["hair"]
    seen[:, wide] = (np.array(LABELS) == "hair")[:, None]
    photo, parsing = Image.fromarray(pixels), FaceParsing(seen, LABELS, parsing.matrix)
    after, _ = laid(GREY_HAT, photo, parsing)
    beside = wide & (y > 8) & (y < 24) & (np.abs(np.abs(x - 64) - 62) < 4)
    assert np.abs(after[beside] - COLOURS["background"]).mean() < 20
    below = wide & (y > 80) & (np.abs(np.abs(x - 64) - 62) < 4)
    assert np.array_equal(after[below], np.asarray(photo, float)[below]), "below the rim it stays"


def test_the_wall_behind_pressed_hair_is_that_of_near_by_however_far_another_one_is():
    """Where nothing near was known, rounding errors of a blur were taken for colours: blue, or black."""
    pixels = np.full((300, 300, 3), 0.4, np.float32)
    pixels[:, 250:] = (0.1, 0.3, 0.9)
    known = np.zeros((300, 300), np.float32)
    known[:, :20] = known[:, 290:] = 1
    found = nearest_colours(pixels, known, 2.0)
    assert np.abs(found[:, :100] - 0.4).max() < 0.02 and np.abs(found[:, 280:] - pixels[:, 280:]).max() < 0.02
    only = np.zeros_like(known)
    only[:4, :4] = 1
    assert np.abs(nearest_colours(pixels, only, 1.0) - 0.4).max() < 1e-3


def test_what_is_worn_in_a_dark_photo_does_not_glow():
    photo, parsing = with_ears()
    dark = Image.fromarray((np.asarray(photo) * 0.3).astype(np.uint8))
    for transfer in (GREY_HAT, Earrings((Earring(8, 0, (0.9, 0.9, 0.9), 0.2),))):
        bright, dim = (laid(transfer, each, parsing) for each in (photo, dark))
        worn = bright[1] & (np.abs(bright[0] - np.asarray(photo)).mean(-1) > 40)
        assert dim[0][worn].mean() < 0.5 * bright[0][worn].mean()
    canvas = Canvas.of(parsing)
    assert exposure(canvas, canvas.pixels(photo), parsing) > 0.8


def test_a_hat_has_the_colour_that_is_asked_for():
    photo, parsing = draw_face()
    for name, strongest in (("red", 0), ("green", 1), ("blue", 2)):
        after, _ = laid(KNITTED_HATS[name], photo, parsing)
        assert after[150:180, 220:290].mean((0, 1)).argmax() == strongest
    light = {name: laid(KNITTED_HATS[name], photo, parsing)[0][150:180, 220:290].mean() for name in ("black", "white")}
    assert light["black"] < 60 < 130 < light["white"]
    assert set(KNITTED_HATS) == set(COLOUR_WORDS.values()), "each colour that is understood can be had"


def test_a_fringe_curls_where_the_hair_does():
    photo, parsing = draw_face()
    straight, curly = (np.array(photo, float) for _ in range(2))
    waves = np.random.default_rng(0).normal(size=(ALL // 3, ALL // 3)).astype(np.float32)
    hair = parsing.mask("hair") > 0.5
    straight[hair] += 25 * np.tile(np.sin(np.arange(ALL) / 2), (ALL, 1))[hair][:, None]
    curly[hair] += 25 * np.asarray(Image.fromarray(waves).resize((ALL, ALL), Image.Resampling.BICUBIC))[hair][:, None]
    canvas = Canvas.of(parsing)
    found = [
        curliness(canvas, Image.fromarray(each.clip(0, 255).astype(np.uint8)), parsing) for each in (straight, curly)
    ]
    assert found[0] < 0.1 and found[1] > 0.5


def test_who_fills_the_photo_keeps_hair_for_want_of_a_wall():
    """There is nothing to put in place of hair where no background is seen: it became black."""
    photo, parsing = draw_face()
    seen = parsing.probabilities.copy()
    seen[LABELS.index("hair")] += seen[0]
    seen[0] = 0
    after, changed = laid(GREY_HAT, photo, FaceParsing(seen, LABELS, parsing.matrix))
    corner = np.s_[140:160, 128:150]
    assert changed.any() and np.isfinite(after).all() and not changed[corner].any()


def test_a_hat_is_lit_from_the_side_from_which_the_face_is():
    photo, parsing = draw_face(skin=(160, 120, 100))
    slope = np.linspace(1.5, 0.5, ALL)[None, :, None]
    for light, sign in ((slope, 1), (slope[:, ::-1], -1)):
        lit = Image.fromarray(np.clip(np.asarray(photo) * light, 0, 255).astype(np.uint8))
        canvas = Canvas.of(parsing)
        assert sign * light_on_face(canvas, canvas.pixels(lit), parsing)[0] < -0.1
        after, _ = laid(GREY_HAT, lit, parsing)
        left, right = (after[140:190, 128 + 2 * x : 128 + 2 * x + 24].mean() for x in (34, 82))
        assert sign * (left - right) > 6


def test_a_hat_is_as_soft_as_the_photo():
    """A sharp hat on a blurred face is pasted."""
    photo, parsing = draw_face()
    soft = photo.filter(ImageFilter.GaussianBlur(4))
    rough = {}
    for name, picture in (("sharp", photo), ("soft", soft)):
        after, _ = laid(GREY_HAT, picture, parsing)
        dome = after[140:180, 220:292].mean(-1).astype(np.float32)
        rough[name] = np.abs(dome - blur(dome, 3)).mean()
    assert rough["soft"] < 0.6 * rough["sharp"]
    assert Canvas.of(parsing).softness(photo) < 0.4 < 0.8 < Canvas.of(parsing).softness(soft) < 2.6


def test_a_hat_that_is_worn_keeps_another_off_and_so_does_the_want_of_a_face():
    _, parsing = draw_face()
    seen = parsing.probabilities.copy()
    hair, hat = LABELS.index("hair"), LABELS.index("hat")
    seen[[hair, hat]] = seen[[hat, hair]]
    assert not KNITTED_HAT.fits(FaceParsing(seen, LABELS, parsing.matrix))
    nobody = np.zeros_like(seen)
    nobody[0] = 1
    assert not KNITTED_HAT.fits(FaceParsing(nobody, LABELS, parsing.matrix))


def test_wools_differ_by_the_seed():
    photo, parsing = draw_face()
    hats = {tuple(laid(KNITTED_HAT, photo, parsing, seed)[0][150, 240:270].mean(0).round(-1)) for seed in range(9)}
    assert len(hats) >= 3


@pytest.mark.parametrize("transfer", [KNITTED_HAT, EARRINGS], ids=["hat", "earrings"])
def test_the_same_seed_lays_the_same_and_a_share_lays_less(transfer):
    photo, parsing = with_ears()
    once, changed = laid(transfer, photo, parsing, seed=3)
    assert changed.any() and np.array_equal(once, laid(transfer, photo, parsing, seed=3)[0])
    half, _ = laid(transfer, photo, parsing, seed=3, share=0.5)
    assert 0.4 < np.abs(half - np.asarray(photo)).sum() / np.abs(once - np.asarray(photo)).sum() < 0.6


@settings(max_examples=8, deadline=None)
@given(
    angle=st.floats(-0.6, 0.6),
    scale=st.floats(0.25, 1.1),
    shift=st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
    size=st.tuples(st.integers(120, 520), st.integers(120, 520)),
    seed=st.integers(0, 99),
)
def test_a_hat_and_earrings_go_with_a_head_however_it_is_held_and_end_with_the_photo(angle, scale, shift, size, seed):
    still, parsing = with_ears()
    middle = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale @ [256, 256]
    place = np.array(size) / 2 - middle + shift
    photo, there = moved(still, parsing, angle, scale, place, size)
    for transfer in (KNITTED_HAT, EARRINGS):
        image, weight = paste(photo, transfer.layers(photo, there, 1.0, np.random.default_rng(seed)))
        assert image.size == size and weight.shape == size[::-1]
        back = np.asarray(warp(Image.fromarray(weight), there.matrix, (ALL, ALL)))
        below = BROWS + 34 if transfer is KNITTED_HAT else 128 + 2 * 110
        inside = align(Image.new("RGB", size, "white"), there.matrix, ALL)
        known = (np.asarray(inside)[below:, 185:327] > 250).all(-1)
        assert not (back[below:, 185:327][known] > 0.02).any()
        assert np.array_equal(np.asarray(image)[weight == 0], np.asarray(photo)[weight == 0])


def test_earrings_hang_from_both_lobes_and_shine():
    photo, parsing = with_ears()
    ball = Earrings((Earring(8, 0, (0.9, 0.9, 0.9), 0.2),))
    after, changed = laid(ball, photo, parsing)
    rows, columns = np.nonzero(changed & (np.abs(after - np.asarray(photo)).mean(-1) > 25))
    assert rows.min() > 128 + 2 * 66 and rows.max() < 128 + 2 * 84
    for middle in (22, 106):
        assert (np.abs(columns - (128 + 2 * middle)) < 9).sum() > 20
    hoop = Earrings((Earring(17, 2.2, (0.9, 0.7, 0.4), 1.0),))
    _, hung = laid(hoop, photo, parsing)
    assert np.flatnonzero(hung.any(1)).max() > rows.max() + 6, "a hoop hangs lower than a ball"
    assert not hung[128 + 2 * 75 : 128 + 2 * 80, 128 + 2 * 22].all(), "and has a hole"


def test_ears_below_hair_or_with_earrings_get_none():
    assert EARRINGS.fits(with_ears()[1])
    assert not EARRINGS.fits(with_ears(hair_before=True)[1]), "nobody would see them"
    assert not EARRINGS.fits(with_ears(worn=True)[1])


def test_a_fringe_of_short_hair_is_short():
    """On short hair, bangs down to the brows are a wig."""
    photo, parsing = draw_face()
    y, x = np.mgrid[:ALL, :ALL] / 2 - 64
    seen = parsing.probabilities.copy()
    seen[:, (y > 60) & (y < 116) & (np.abs(np.abs(x - 64) - 50) < 8)] = (np.array(LABELS) == "hair")[:, None]
    cropped = parsing.probabilities.copy()
    cropped[:, y[:, 0] < 2] = (np.array(LABELS) == "background")[:, None, None]
    short, parsing = (FaceParsing(each, LABELS, parsing.matrix) for each in (cropped, seen))
    assert Forehead.of(short).long == 0 and Forehead.of(parsing).long == 1
    ends = []
    for each in (short, parsing):
        _, changed = laid(FRINGE, photo, each)
        ends.append(np.flatnonzero(changed[:, 240:272].mean(1) > 0.5).max())
    assert ends[0] < ends[1] - 6
    assert ends[0] > 128 + 2 * 18, "but it is one"


def test_beards_differ_by_the_seed_in_their_outline():
    photo, parsing = draw_face()
    outlines = [blur(laid(FULL_BEARD, photo, parsing, seed)[1].astype(np.float32), 4) > 0.5 for seed in range(6)]
    assert all((one ^ other).sum() > 150 for one, other in pairwise(outlines))
    sizes = [each.sum() for each in outlines]
    assert max(sizes) < 2 * min(sizes), "each is a full beard"


@pytest.mark.parametrize("transfer", [FULL_BEARD, FRINGE, KNITTED_HAT], ids=["beard", "fringe", "hat"])
def test_hairs_stay_at_their_places_where_a_parser_sees_a_little_else(transfer):
    """Sown anew in each frame of a film they swarmed."""
    photo, parsing = draw_face()
    seen = parsing.probabilities.copy()
    seen[:, :, :] = blur(np.moveaxis(seen, 0, 2), 1.2).transpose(2, 0, 1)
    other = FaceParsing(seen, LABELS, parsing.matrix)
    one, two = (laid(transfer, photo, each)[0].mean(-1).astype(np.float32) for each in (parsing, other))
    another, _ = laid(transfer, photo, parsing, seed=1)
    inside = minimum_filter((np.abs(one - np.asarray(photo).mean(-1)) > 6).astype(np.float32), 4) > 0
    fine = [each - blur(each, 3) for each in (one, two, another.mean(-1).astype(np.float32))]
    same, chance = (np.corrcoef(fine[0][inside], each[inside])[0, 1] for each in fine[1:])
    assert same > 0.6 and same > chance + 0.3


def test_a_head_is_measured_by_what_is_seen_of_it():
    _, parsing = draw_face()
    head = Head.of(parsing)
    assert abs(head.middle - 64) < 1 and abs(head.brows - 41) < 1.5 and abs(head.turned) < 0.15
    aside = FaceParsing(np.roll(parsing.probabilities, 12, axis=2), LABELS, parsing.matrix)
    assert Head.of(aside).middle == pytest.approx(head.middle + 6, abs=1)


@pytest.mark.parametrize("transfer", [KNITTED_HAT, FULL_BEARD, FRINGE])
def test_a_head_that_looks_aside_wears_nothing_that_is_made_for_the_front(transfer):
    """Hats lay beside heads in half profile, beards on their necks."""
    _, parsing = draw_face()
    seen, nose = parsing.probabilities.copy(), LABELS.index("nose")
    assert parsing.frontal and abs(parsing.turn) < 0.1 and transfer.fits(parsing)
    where = seen[nose] > 0.5
    seen[LABELS.index("skin")][where], seen[nose][where] = 1, 0
    aside = np.roll(where, 40, axis=1)
    seen[:, aside] = 0
    seen[nose][aside] = 1
    turned = FaceParsing(seen, LABELS, parsing.matrix)
    assert turned.turn > 0.45 and not transfer.fits(turned)
    mirrored = FaceParsing(np.ascontiguousarray(seen[:, :, ::-1]), LABELS, parsing.matrix)
    assert mirrored.turn == pytest.approx(-turned.turn, abs=0.05) and not mirrored.frontal


def test_streaks_beyond_the_edge_of_a_photo_are_no_glasses():
    _, parsing = draw_face(glasses=True)
    assert GLASSES.worn(parsing) and GLASSES.worn(replace(parsing, photo_size=(ALL, ALL)))
    # the photo ends right beside the outer end of the glasses
    assert not GLASSES.worn(replace(parsing, photo_size=(128 + 2 * 31, ALL)))
