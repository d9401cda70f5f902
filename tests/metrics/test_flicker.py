"""How a film flickers: what a viewer would see tremble must show in the figure."""

import numpy as np
import pytest

from gptface.metrics.flicker import Flicker


def measured(source, edited, area=None, cuts=()):
    flicker = Flicker()
    for index, pair in enumerate(zip(source, edited, strict=True)):
        if index in cuts:
            flicker.cut()
        flicker.add(*pair, np.ones(pair[0].shape[:2], bool) if area is None else area)
    return flicker.ratio


@pytest.fixture
def film():
    return np.random.default_rng(0).integers(60, 190, (5, 12, 16, 3)).astype(np.uint8)


def test_an_edit_that_goes_with_the_film_does_not_flicker(film):
    assert measured(film, film) == 1
    assert measured(film, film + np.uint8(20)) == 1  # brighter, but as calm


def test_what_trembles_counts_by_how_much_it_does(film):
    assert measured(film, (film - 128.0) * 0.5 + 128) == pytest.approx(0.5, abs=0.02)
    trembling = film.astype(int) + np.array([0, 60, 0, 60, 0]).reshape(-1, 1, 1, 1)
    assert measured(film, trembling.clip(0, 255).astype(np.uint8)) > 1.2


def test_only_where_both_frames_are_edited_and_no_cut_is_between(film):
    area = np.zeros((12, 16), bool)
    area[:4] = True
    elsewhere = film.copy()
    elsewhere[1::2, 6:] = 255
    assert measured(film, elsewhere, area) == 1
    jump = film.copy()
    jump[2:] //= 3
    assert (
        measured(film[[0, 0, 1, 1]], jump[[0, 0, 2, 2]], cuts=[2])
        == 1
        < measured(film[[0, 0, 0, 0]], jump[[0, 0, 2, 2]])
    )
    assert measured(film[:1], film[:1]) is None


def test_a_still_picture_has_no_division_by_zero():
    still = np.full((3, 8, 8, 3), 90, np.uint8)
    assert measured(still, still) == 1
