"""The lines of glasses: a rim that is found in dashes, a bridge or an arm that is left, is the first thing that the
owner of a photo sees where glasses were taken off.
"""

import numpy as np
import pytest

from gptface.processing.canvas import Canvas
from gptface.processing.rims import LONGEST, Rims

SKIN, DARK, PALE = (0.75, 0.03, 0.04), (0.2, 0.0, 0.0), (0.8, 0.01, 0.02)
#: (x, y) of the middles of lenses, and half their width and height, in pixels of the 128-pixel crop.
LENSES, HALF = ((44.0, 58.0), (84.0, 58.0)), (16.0, 11.0)


@pytest.fixture
def canvas():
    return Canvas(3.0, np.array([[3.0, 0, 48], [0, 3.0, 48]]))


def depths(canvas, larger=0.0):
    """How far inside of the ellipses of lenses each pixel is, nearly."""
    x, y = canvas.places()
    width, height = (half + larger for half in HALF)
    return np.max([(1 - np.hypot((x - left) / width, (y - top) / height)) * height for left, top in LENSES], axis=0)


def wearing(canvas, thick, colour, bars=()):
    """Skin with rims, and with bars (left, top, right, bottom); and where the rims are, bool [S, S]."""
    x, y = canvas.places()
    rims = (depths(canvas, thick / 2) > 0) & (depths(canvas, -thick / 2) < 0)
    seen = rims.copy()
    for left, top, right, bottom in bars:
        seen |= (x > left) & (x < right) & (y > top) & (y < bottom)
    noise = np.random.default_rng(0).normal(0, 0.01, (*seen.shape, 1))
    return (np.where(seen[:, :, None], colour, SKIN) + noise).astype(np.float32), rims


def found(canvas, colours, wider=3.0, unlike=0.0):
    """As seen by a parser whose outlines are so much too wide."""
    return Rims.of(canvas, colours, depths(canvas, wider), np.full(colours.shape[:2], unlike, np.float32))


@pytest.mark.parametrize(("thick", "colour", "beside"), [(1.6, DARK, 0.9), (1.6, PALE, 0.9), (6.0, DARK, 2.0)])
def test_a_rim_is_found_all_around_where_the_outline_is_not_quite_known(canvas, thick, colour, beside):
    colours, rims = wearing(canvas, thick, colour)
    beyond = found(canvas, colours).beyond
    assert (beyond[rims] < beside).mean() > 0.98, "no dashes are left"
    assert (beyond[np.abs(depths(canvas)) > thick / 2 + 3] > 0).all(), "skin stays"


def test_what_lies_within_a_rim_is_seen_through_the_lens(canvas):
    colours, rims = wearing(canvas, 3.0, DARK)
    within = found(canvas, colours).within
    assert (within[depths(canvas) > 3] > 0).all()
    assert not (within[depths(canvas) < -1] > 0).any() and not (within[rims] > 2).any()


def test_bridge_and_arms_are_found_and_end_where_they_do(canvas):
    bridge, arm = (59, 54, 69, 56), (100, 54, 112, 56)
    colours, _ = wearing(canvas, 2.0, DARK, (bridge, arm))
    beyond = found(canvas, colours).beyond
    x, y = canvas.places()
    for left, top, right, bottom in (bridge, arm):
        inside = (x > left + 1) & (x < right - 3) & (y > top) & (y < bottom)
        assert (beyond[inside] < 0.6).all()
    assert (beyond[:, x > arm[2] + 4] > 0).all() and (beyond[:, x < 24] > 0).all(), "no arm, nothing to take off"
    assert arm[2] + 4 < 100 + LONGEST


def test_a_line_that_is_surely_an_eyes_is_no_rim(canvas):
    colours, _ = wearing(canvas, 2.0, PALE)
    y = canvas.places()[1]
    lids = np.max([np.abs(y - top - 4) < 1 for _, top in LENSES], axis=0) & (depths(canvas) > 2)
    colours[lids] = DARK
    known = Rims.of(canvas, colours, depths(canvas, 3.0), lids.astype(np.float32))
    assert (known.beyond[lids] > 0).mean() > 0.95
