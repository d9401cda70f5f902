"""Masks mean the same in every form, edges fade inwards, and holes are filled from their edge."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gptface.processing.masks import (
    cells_to_mask,
    covered_cells,
    feather,
    fill_from_edges,
    hole_cells,
    mask_to_cells,
    normalize_mask,
)

NEEDS_OPENCV = pytest.mark.skipif(find_spec("cv2") is None, reason="needs OpenCV")
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.floats(0, 12), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_feather_never_leaves_the_mask(seed, radius, height, width):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) * (rng.random((height, width)) < rng.random())
    soft = feather(mask, radius)
    assert soft.shape == mask.shape and soft.dtype == np.float32
    assert (soft[mask == 0] == 0).all()
    assert (soft >= 0).all() and (soft <= mask.astype(np.float32)).all()
    assert ((soft > 0) == (mask.astype(np.float32) > 0)).all()


def test_feather_rises_over_its_radius_to_full_strength():
    mask = np.zeros((60, 60))
    mask[10:50, 10:50] = 1
    soft = feather(mask, 6)
    ramp = soft[30, 10:30]
    assert ramp[0] < 0.1 and (np.diff(ramp) >= 0).all() and (ramp[6:] == 1).all() and ramp[5] < 1
    np.testing.assert_allclose(soft, soft.T)
    np.testing.assert_allclose(soft, soft[::-1])


def test_feather_measures_true_distance():
    mask = np.ones((41, 41))
    mask[20, 20] = 0
    soft = feather(mask, 10)
    y, x = np.mgrid[-20:21, -20:21]
    weight = np.clip(np.hypot(x, y) / 11, 0, 1)
    np.testing.assert_allclose(soft, weight**2 * (3 - 2 * weight), atol=1e-5)


def test_a_thin_stroke_still_has_an_effect():
    stroke = np.zeros((50, 50))
    stroke[24:27, 5:45] = 1
    assert feather(stroke, 12)[25, 20] == 1


def test_the_border_of_the_picture_is_no_edge():
    half = np.zeros((20, 20))
    half[:10] = 1
    assert feather(half, 4)[0].min() == 1
    np.testing.assert_array_equal(feather(np.ones((5, 5)), 3), 1)


@given(seeds, st.integers(1, 20), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_cells_survive_the_way_to_pixels_and_back(seed, grid, extra):
    cells = np.random.default_rng(seed).random((grid, grid)) < 0.3
    multiple = cells_to_mask(cells, grid * (1 + extra % 5))
    assert multiple.dtype == np.float32
    np.testing.assert_array_equal(mask_to_cells(multiple, grid), cells)
    # Where pixels straddle cells, more cells may be touched, never fewer.
    assert (mask_to_cells(cells_to_mask(cells, grid + extra), grid) >= cells).all()


def test_one_painted_pixel_touches_its_cell_and_resampling_dust_does_not():
    mask = np.zeros((100, 128))
    mask[99, 0] = 1
    mask[10, 100] = 0.02
    cells = mask_to_cells(mask, 16)
    assert cells.sum() == 1 and cells[15, 0]
    assert mask_to_cells(np.ones((3, 3)), 8).all()


def test_masks_of_every_kind_mean_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    truth = np.zeros((6, 9), bool)
    truth[2:4, 3:8] = True
    picture = Image.fromarray(truth)
    grey = picture.convert("L")
    red = Image.new("RGB", grey.size)
    red.paste((255, 0, 0), mask=grey)
    layer = Image.new("RGBA", grey.size, (0, 0, 0, 0))
    layer.putalpha(grey)
    opaque = grey.convert("RGBA")
    half_transparent = grey.convert("RGBA")
    half_transparent.putalpha(Image.linear_gradient("L").resize(grey.size))
    path = tmp_path / "mask.png"
    grey.save(path)
    masks = [
        picture,
        grey,
        red,
        layer,
        opaque,
        half_transparent,
        picture.convert("P"),
        Image.fromarray(truth.astype(np.uint8)),
        path,
        str(path),
        path.read_bytes(),
        truth,
        truth.astype(np.uint8),
        truth.astype(np.uint8) * 255,
        truth.astype(np.int64),
        truth.astype(np.float64),
        truth[:, :, None],
        truth[None],
        torch.from_numpy(truth),
        torch.from_numpy(truth)[None].float().requires_grad_(),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index, mask in enumerate(masks):
            result = normalize_mask(mask, (9, 6))
            assert result.dtype == np.float32
            np.testing.assert_array_equal(result, truth, err_msg=f"{index}: {type(mask)}")


def test_soft_masks_stay_soft_and_other_sizes_warn_once():
    assert normalize_mask(np.full((4, 4), 0.25), (4, 4)).max() == 0.25
    half = np.zeros((10, 20))
    half[:5] = 1
    with pytest.warns(UserWarning, match="20×10 pixels, the picture 40×20") as caught:
        result = normalize_mask(half, (40, 20))
    assert len(caught) == 1 and result.shape == (20, 40)
    assert result[:8].min() == 1 and result[12:].max() == 0


def test_useless_masks_are_refused():
    for mask, words in (
        (np.zeros((4, 4)), "empty"),
        (Image.new("L", (4, 4)), "empty"),
        (np.full((4, 4), 2.0), "0…255|0, 1"),
        (np.full((4, 4), np.nan), "mask values"),
        (np.full((4, 4), 300), "mask values"),
        (np.zeros((4, 4, 3)), "one array"),
        (np.zeros((0, 4)), "one array"),
        ("missing.png", "mask_image.*does not exist"),
    ):
        with pytest.raises(ValueError, match=words):
            normalize_mask(mask, (4, 4))


@NEEDS_OPENCV
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


@NEEDS_OPENCV
def test_what_an_eraser_left_is_filled_too():
    """A hole cut out of an RGBA picture is transparent: below it stands a colour that nobody sees."""
    pixels = np.full((20, 20, 4), (90, 120, 60, 255), np.uint8)
    hole = np.zeros((20, 20), bool)
    hole[6:14, 9:12] = True
    pixels[hole] = (255, 0, 255, 0)
    filled = np.asarray(fill_from_edges(Image.fromarray(pixels), hole))
    assert np.abs(filled.astype(int) - (90, 120, 60, 255)).max() <= 2


@NEEDS_OPENCV
def test_a_photo_that_is_all_hole_is_refused():
    with pytest.raises(ValueError, match="nothing is left"):
        fill_from_edges(Image.new("RGB", (9, 7)), np.ones((7, 9), bool))


def test_what_a_hole_touches_beside_it_is_drawn_too():
    """A face mask ends in the middle of cells: a smear would stay at the jaw."""
    mask = np.zeros((64, 64))
    mask[16:35, 16:48] = 1  # two rows of four cells, and a sliver of the next row
    assert hole_cells(mask, 8).tolist() == [[2 <= y <= 4 and 2 <= x <= 5 for x in range(8)] for y in range(8)]


def test_of_a_scratch_no_cell_is_drawn():
    mask = np.zeros((64, 64))
    mask[:, 30:32] = 1
    assert not hole_cells(mask, 8).any()


def test_cells_count_as_covered_from_half_their_pixels_on():
    mask = np.zeros((12, 12))
    mask[:4, :3] = 1  # three quarters of a cell
    mask[4:8, 4:6] = 1  # just half of one
    mask[8:, 8:] = 1
    assert covered_cells(mask, 3).tolist() == [[True, False, False], [False, False, False], [False, False, True]]
