"""Glasses that are taken off: eyes that are seen stay the person's, bit for bit, and no frame, no smear and no gap in
the outline of the head is left where they were.
"""

import numpy as np
import pytest
from drawn_faces import ALL, COLOURS, LABELS, draw_face
from PIL import Image, ImageDraw, ImageFilter

from gptface.processing.blending import paste
from gptface.processing.canvas import Canvas
from gptface.processing.eyewear import CLEAR_GLASSES, SUNGLASSES
from gptface.processing.eyewear_removal import NO_GLASSES, _shares
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.masks import widen
from gptface.processing.signs import BEARD, GLASSES
from gptface.processing.skin import borrowed_detail, fill_smoothly, skin_texture

#: Lenses of the 128-pixel crop, and how thick their rims are.
LENSES, RIM = ((28, 44, 60, 70), (68, 44, 100, 70)), 3


def wearing(dark=False):
    """The drawn face with glasses, the face without them, and where the frame is, bool [ALL, ALL]."""
    bare, parsing = draw_face()
    photo, rims = bare.copy(), Image.new("L", bare.size)
    classes = Image.fromarray(parsing.classes().astype(np.uint8))
    for x0, y0, x1, y1 in LENSES:
        box = [128 + 2 * value for value in (x0, y0, x1, y1)]
        if dark:
            ImageDraw.Draw(photo).rectangle(box, fill=(12, 12, 12))
            ImageDraw.Draw(classes).rectangle(box, fill=LABELS.index("eyeglasses"))
        for picture, colour in ((photo, (12, 12, 12)), (rims, 255), (classes, LABELS.index("eyeglasses"))):
            ImageDraw.Draw(picture).rectangle(box, outline=colour, width=2 * RIM)
    shares = np.stack([np.asarray(classes) == index for index in range(len(LABELS))]).astype(np.float32)
    return photo, FaceParsing(shares, LABELS, parsing.matrix), bare, np.asarray(rims) > 0


def removed(photo, parsing, seed=0):
    image, weight = paste(photo, NO_GLASSES.layers(photo, parsing, 1.0, np.random.default_rng(seed)))
    return np.asarray(image).astype(float), weight


def test_the_frame_goes_and_eyes_and_background_stay():
    photo, parsing, bare, rims = wearing()
    assert NO_GLASSES.fits(parsing)
    after, weight = removed(photo, parsing)
    for name in ("eye", "background", "upper_lip"):
        shown = parsing.mask(name) > 0.5
        assert (after[shown] == np.asarray(photo)[shown]).all(), name
    # right beside hair either may be behind it
    on_skin = (
        rims
        & ~widen(parsing.mask("hair") > 0.5, 8 / (ALL // 2))
        & (np.asarray(bare).astype(int) - COLOURS["skin"] > -40).all(2)
    )
    left = np.abs(after - np.asarray(bare)).mean(2)
    assert np.abs(np.asarray(photo).astype(float) - np.asarray(bare)).mean(2)[on_skin].mean() > 100
    assert np.median(left[on_skin]) < 10 and (left[on_skin] > 60).mean() < 0.02, "what is left of the frame"
    assert weight[~rims].mean() < 0.05, "what is no frame stays"


def test_skin_in_its_place_has_the_texture_of_skin():
    photo, parsing, bare, rims = wearing()
    after, _ = removed(photo, parsing)
    lower = rims.copy()
    lower[: 128 + 2 * 66] = False
    grain, made = (values[lower].std(0).mean() for values in (np.asarray(bare).astype(float), after))
    assert 0.3 * grain < made < 1.3 * grain, "neither a smear nor noise"


def test_sunglasses_tint_the_lenses_of_clear_glasses_and_their_frame_stays():
    photo, parsing, _, rims = wearing()
    assert SUNGLASSES.fits(parsing) and not CLEAR_GLASSES.fits(parsing)
    layers = [SUNGLASSES.layers(photo, parsing, 1.0, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    after, again, other = (np.asarray(paste(photo, each)[0]).astype(float) for each in layers)
    before = np.asarray(photo).astype(float)
    assert (after == again).all() and (after == other).all(), "nothing of what is worn is left to chance"
    assert after[parsing.mask("eye") > 0.5].mean() < 60
    for x0, y0, x1, y1 in LENSES:
        inner = np.s_[128 + 2 * (y0 + 7) : 128 + 2 * (y1 - 7), 128 + 2 * (x0 + 7) : 128 + 2 * (x1 - 7)]
        assert after[inner].max() < 90, "no skin shines through a lens"
    assert np.abs(after - before)[rims].mean() < 12, "the frame is the person's"
    around = Image.fromarray(rims).filter(ImageFilter.MaxFilter(25))
    below = ~np.asarray(around) & (np.arange(ALL)[:, None] > 128 + 2 * 74)
    assert (after == before)[below].all()


def test_skin_behind_a_lens_stays_and_only_what_is_near_the_rim_is_made_up():
    """Cheeks below thick frames became flat patches."""
    photo, parsing, *_ = wearing()
    _, weight = removed(photo, parsing)
    for x0, _, x1, y1 in LENSES:
        cheek = np.s_[128 + 2 * (y1 - 9) : 128 + 2 * (y1 - 7), 128 + 2 * (x0 + 12) : 128 + 2 * (x1 - 12)]
        assert (weight[cheek] < 0.1).mean() > 0.8


def test_dark_glasses_and_bare_faces_are_for_the_model():
    assert not NO_GLASSES.fits(draw_face()[1]), "no glasses"
    assert not NO_GLASSES.fits(wearing(dark=True)[1]), "no eye is seen"


def test_the_same_seed_makes_the_same_skin():
    photo, parsing, *_ = wearing()
    first, again, other = (removed(photo, parsing, seed)[0] for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_the_outline_of_a_head_goes_on_behind_a_rim_that_stands_out():
    """Heads were bitten: what is beside a gap was background, and so all of the gap."""
    weights = np.zeros((64, 64, 2), np.float32)
    weights[:, :32, 1] = weights[:, 32:, 0] = 1
    weights[20:44, 28:62] = 0
    skin, background = np.moveaxis(_shares(weights), 2, 0)
    assert (skin[20:44, 36:] > background[20:44, 36:]).all() and (background[20:44, :28] > 0.9).all()


def test_colours_are_spread_from_both_sides():
    pixels, known = np.zeros((16, 16, 1), np.float32), np.ones((16, 16), np.float32)
    pixels[:, 8:] = 1
    known[:, 4:12] = 0
    filled = fill_smoothly(pixels, known)[8, :, 0]
    assert filled[3] == 0 and filled[12] == 1 and (np.diff(filled) > -0.01).all() and 0.2 < filled[7:9].mean() < 0.8


@pytest.mark.parametrize("grain", [2.0, 8.0])
def test_texture_is_as_strong_and_as_fine_as_that_of_the_skin(grain):
    photo, parsing = draw_face()
    canvas = Canvas.of(parsing)
    rng = np.random.default_rng(0)
    pixels = (0.6 + rng.normal(0, grain / 255, (canvas.size, canvas.size, 1))).repeat(3, 2)
    texture = skin_texture(canvas, pixels, canvas.mask(parsing, "skin"), np.random.default_rng(1))
    assert texture.std() * 255 == pytest.approx(grain, rel=0.2) and abs(texture.mean()) < 1e-3
    assert np.diff(texture).std() > 1.2 * texture.std(), "white noise has no neighbours"
    assert skin_texture(canvas, pixels, np.zeros(pixels.shape[:2]), np.random.default_rng(1)) is None
    assert photo.size == (ALL, ALL)


def test_strands_beside_a_gap_continue_in_it():
    """Hair at a temple was a grey smear where an arm had been."""
    _, parsing = draw_face()
    canvas = Canvas.of(parsing)
    stripes = np.broadcast_to(
        np.sin(np.arange(canvas.size) * 1.3)[None, :, None] * 0.2 + 0.4, (canvas.size,) * 2 + (3,)
    )
    gap = np.zeros((canvas.size,) * 2)
    gap[200:230, 200:260] = 1
    detail = borrowed_detail(canvas, stripes, gap, 1 - gap)
    assert 0.5 < detail[gap > 0].std() / stripes.std() < 1.5
    assert not borrowed_detail(canvas, stripes, gap, np.zeros_like(gap)).any()


def test_bare_skin_around_a_mouth_is_told_from_hair_by_its_colour():
    """Mouths of men without a beard were redrawn."""
    photo, parsing = draw_face()
    assert BEARD.seen(photo, parsing) is False
    pixels = np.array(photo)
    chin = (parsing.mask("skin") > 0.5) & (np.arange(ALL)[:, None] > 128 + 2 * 103)
    pixels[chin] = (0.7 * pixels[chin].mean(-1, keepdims=True)).astype(np.uint8)
    assert BEARD.seen(Image.fromarray(pixels), parsing) is None, "it may be hair"
    assert BEARD.seen(photo.convert("L").convert("RGB"), parsing) is None, "a black-and-white photo does not tell"
    assert not GLASSES.worn(parsing) and GLASSES.worn(draw_face(glasses=True)[1])
