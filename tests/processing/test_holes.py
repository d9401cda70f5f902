"""Holes that are filled from their edge: what stays, and what cannot be done."""

import numpy as np
import pytest
from PIL import Image

from gptface.processing.composite import covered_cells
from gptface.processing.holes import fill_from_edges

pytest.importorskip("cv2")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_stroke_on_a_ramp_disappears_and_the_rest_stays(mode):
    ramp = np.tile(np.arange(40, 200, 4, dtype=np.uint8)[None, :, None], (31, 1, len(mode)))
    photo = Image.fromarray(ramp, mode=mode)
    photo.info["icc_profile"] = b"profile"
    hole = np.zeros((31, 40), bool)
    hole[5:25, 18:21] = True
    scratched = photo.copy()
    scratched.paste((255, 0, 0, 255)[: len(mode)], (18, 5, 21, 25))
    filled = fill_from_edges(scratched, hole)
    assert filled.mode == mode and filled.info["icc_profile"] == b"profile"
    before, after = np.asarray(scratched).astype(int), np.asarray(filled).astype(int)
    assert (after[~hole] == before[~hole]).all()
    assert np.abs(after[hole][:, :3] - ramp[hole][:, :3]).max() < 12


def test_what_an_eraser_left_is_filled_too():
    """A hole cut out of an RGBA picture is transparent: below it stands a colour that nobody sees."""
    pixels = np.full((20, 20, 4), (90, 120, 60, 255), np.uint8)
    hole = np.zeros((20, 20), bool)
    hole[6:14, 9:12] = True
    pixels[hole] = (255, 0, 255, 0)
    filled = np.asarray(fill_from_edges(Image.fromarray(pixels), hole))
    assert np.abs(filled.astype(int) - (90, 120, 60, 255)).max() <= 2


def test_a_photo_that_is_all_hole_is_refused():
    with pytest.raises(ValueError, match="nothing is left"):
        fill_from_edges(Image.new("RGB", (9, 7)), np.ones((7, 9), bool))


def test_cells_count_as_covered_from_half_their_pixels_on():
    mask = np.zeros((12, 12))
    mask[:4, :3] = 1  # three quarters of a cell
    mask[4:8, 4:6] = 1  # just half of one
    mask[8:, 8:] = 1
    assert covered_cells(mask, 3).tolist() == [[True, False, False], [False, False, False], [False, False, True]]
