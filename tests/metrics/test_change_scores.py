"""Figures of an edit against pictures whose answer is known: whoever reads a ratio of 0.2 must be able to trust that
it is blur.
"""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from gptface.metrics.change_scores import (
    change_share,
    colour_difference,
    inner_ring,
    overlap,
    sharpness_ratio,
)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def area():
    area = np.zeros((40, 50), bool)
    area[10:30, 5:30] = True
    return area


def test_blur_lowers_sharpness_where_it_is_and_a_constant_does_not(photo, area):
    blurred = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(1.5)))
    inside = np.where(area[:, :, None], blurred, photo)
    assert sharpness_ratio(photo, inside, area) < 0.1
    assert sharpness_ratio(photo, inside, ~np.roll(area, 0) & (np.arange(50) > 35)) == 1
    assert sharpness_ratio(photo // 2, photo // 2 + 60, area) == pytest.approx(1)
    assert sharpness_ratio(photo // 2, photo // 2 * 2, area) == pytest.approx(4)


def test_where_there_is_nothing_there_is_no_ratio(photo, area):
    assert sharpness_ratio(photo, photo, area & False) is None
    assert sharpness_ratio(photo * 0, photo, area) is None
    assert change_share(photo, photo, area) is None and overlap(area & False, area & False) is None


def test_the_ring_is_the_outermost_pixels_and_the_border_of_the_picture_is_no_edge(area):
    ring = inner_ring(area, 3)
    core = np.zeros_like(area)
    core[13:27, 8:27] = True
    assert np.array_equal(ring, area & ~core)
    half = np.zeros((20, 20), bool)
    half[:10] = True
    assert np.array_equal(np.flatnonzero(inner_ring(half, 4).any(1)), np.arange(6, 10))
    assert not inner_ring(np.ones((9, 9), bool)).any()


@pytest.mark.parametrize(
    ("colour", "other", "expected"),
    [((255, 255, 255), (0, 0, 0), 100.0), ((255, 0, 0), (0, 0, 255), 176.3), ((119, 119, 119), (119, 119, 119), 0.0)],
)
def test_colour_differences_are_those_of_the_cie(colour, other, expected):
    before, after = (np.full((2, 3, 3), each, np.uint8) for each in (colour, other))
    np.testing.assert_allclose(colour_difference(before, after), expected, atol=0.1)


def test_shares_of_change_and_overlaps(photo, area):
    dark = photo // 2
    edited = np.where(area[:, :, None], dark + 40, dark)
    left = np.broadcast_to(np.arange(50) < 15, area.shape)
    assert change_share(dark, edited, area) == 1
    assert change_share(dark, edited, left) == pytest.approx(0.4)
    assert change_share(dark, edited, 0.5 * left) == pytest.approx(0.2)
    assert overlap(area, area) == 1 and overlap(area, left) == pytest.approx(200 / (500 + 600 - 200))
