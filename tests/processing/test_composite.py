"""An edit changes what the mask allows and nothing else, and leaves no seam."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from gptface.processing.alignment import apply, inverse, translation
from gptface.processing.composite import (
    cells_to_mask,
    composite_crop,
    feather,
    mask_to_cells,
    normalize_mask,
    paste_back,
    warp_mask,
)
from gptface.processing.image_loading import load_image

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
MODES = ("adaptive", "residual", "replace")


def similarity(scale, angle, x, y):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


# From photo to crop: the crop may be coarser or finer than the photo, turned, and partly outside it.
matrices = st.builds(similarity, st.floats(0.1, 6), st.floats(-3, 3), st.floats(-40, 40), st.floats(-40, 40))
seeds = st.integers(0, 2**32 - 1)


def random_photo(rng, mode="RGB"):
    height, width = rng.integers(1, 90, 2)
    return Image.fromarray(rng.integers(0, 256, (height, width, len(mode)), dtype=np.uint8))


def random_edit(rng, size):
    edited, reconstruction = rng.random((2, size, size, 3))
    return edited, reconstruction, cells_to_mask(rng.random((4, 4)) < 0.4, size)


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


@pytest.mark.parametrize("mode", MODES)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_crop_outside_the_mask_is_the_original_bit_for_bit(mode, seed):
    rng = np.random.default_rng(seed)
    edited, reconstruction, mask = random_edit(rng, 16)
    original = rng.random((16, 16, 3)).astype(np.float32)
    result = composite_crop(original, edited, feather(mask, 2), mode, reconstruction)
    np.testing.assert_array_equal(result[mask == 0], original[mask == 0])
    assert result.min() >= 0 and result.max() <= 1


def test_composite_formulas():
    original, edited, reconstruction = (np.full((2, 2, 3), value) for value in (0.5, 0.9, 0.7))
    half = np.full((2, 2), 0.5)
    np.testing.assert_allclose(composite_crop(original, edited, half, "replace"), 0.7)
    np.testing.assert_allclose(composite_crop(original, edited, half, "residual", reconstruction), 0.6)
    # Codes that did not change leave the photo's own detail, whatever the tokenizer loses.
    sharp = np.random.default_rng(0).random((2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(composite_crop(sharp, edited, np.ones((2, 2)), "residual", edited), sharp)


@pytest.mark.parametrize("mode", MODES)
@given(seed=seeds, matrix=matrices, photo_mode=st.sampled_from(["RGB", "RGBA"]))
@settings(max_examples=60, deadline=None)
def test_photo_outside_the_mask_is_untouched(mode, seed, matrix, photo_mode):
    rng = np.random.default_rng(seed)
    photo = random_photo(rng, photo_mode)
    edited, reconstruction, mask = random_edit(rng, 24)
    photo_mask = (rng.random((photo.height, photo.width)) < 0.5).astype(np.float32)
    weight = warp_mask(mask, matrix, photo.size)
    assert weight.shape == (photo.height, photo.width) and weight.min() >= 0 and weight.max() <= 1
    before = np.asarray(photo)
    after = np.asarray(paste_back(photo, edited, mask, matrix, mode, reconstruction))
    np.testing.assert_array_equal(after[weight == 0], before[weight == 0])
    np.testing.assert_array_equal(after[:, :, 3:], before[:, :, 3:])
    bounded = np.asarray(paste_back(photo, edited, mask, matrix, mode, reconstruction, photo_mask))
    np.testing.assert_array_equal(bounded[photo_mask == 0], before[photo_mask == 0])


@given(seed=seeds, matrix=matrices)
@settings(max_examples=60, deadline=None)
def test_the_weight_stays_near_the_mask(seed, matrix):
    # Half a pixel of the crop, or of the photo where that is the coarser, and the reach of the interpolation.
    rng = np.random.default_rng(seed)
    mask = cells_to_mask(rng.random((4, 4)) < 0.3, 24)
    weight = warp_mask(mask, matrix, (60, 50))
    rows, columns = np.nonzero(weight)
    positions = apply(matrix, np.column_stack([columns, rows]) + 0.5)
    painted = np.column_stack(np.nonzero(mask)[::-1]) + 0.5
    reach = 2.5 + 2.5 * np.hypot(matrix[0, 0], matrix[1, 0])
    for position in positions:
        assert np.abs(painted - position).max(axis=1).min() <= reach


def test_the_edit_lands_where_the_matrix_says():
    photo = Image.new("RGB", (300, 200), (100, 100, 100))
    matrix = similarity(0.5, 0.3, -20, -10)
    edited = np.full((64, 64, 3), 100 / 255)
    edited[40:44, 20:24] = 1
    for mode in MODES:
        after = np.asarray(
            paste_back(photo, edited, np.ones((64, 64)), matrix, mode, np.full((64, 64, 3), 100 / 255)), float
        )
        change = after[:, :, 0] - 100
        y, x = np.mgrid[:200, :300] + 0.5
        centre = [(change * x).sum() / change.sum(), (change * y).sum() / change.sum()]
        np.testing.assert_allclose(centre, apply(inverse(matrix), [22, 42]), atol=0.5)


def test_a_residual_keeps_the_photo_sharp_and_an_unchanged_one_keeps_it_exact():
    photo = load_image(PORTRAIT)
    matrix = similarity(0.5, 0.05, -20, -30)
    mask = np.ones((128, 128))
    decoded = np.random.default_rng(0).random((128, 128, 3))
    for mode in ("residual", "adaptive"):
        same = paste_back(photo, decoded, mask, matrix, mode, decoded)
        np.testing.assert_array_equal(np.asarray(same), np.asarray(photo))
    lighter = paste_back(photo, decoded * 0.9 + 0.1, mask, matrix, "residual", decoded * 0.9)

    def detail(image):
        return np.asarray(image.convert("L").filter(ImageFilter.FIND_EDGES), float)[100:250, 100:250].mean()

    assert detail(lighter) > 0.9 * detail(photo)


def test_detail_of_what_is_gone_does_not_shine_through():
    # a photo with dark lines everywhere, which the image tokenizer cannot express; the edit turns the right half white
    photo = np.full((64, 64, 3), 0.5, dtype=np.float32)
    photo[::4] = 0.2
    reconstruction = np.full_like(photo, 0.425)
    edited = reconstruction.copy()
    edited[:, 32:] = 0.9
    mask = np.ones((64, 64))
    adaptive = composite_crop(photo, edited, mask, "adaptive", reconstruction)
    np.testing.assert_array_equal(adaptive[:, :24], photo[:, :24])
    np.testing.assert_allclose(adaptive[:, 40:], 0.9, atol=1e-3)
    share = (adaptive - edited) / (photo - reconstruction)
    assert np.abs(np.diff(share[:, :, 0], axis=1)).max() < 0.3, "detail goes by degrees, so that no line is seen"
    ghost = composite_crop(photo, edited, mask, "residual", reconstruction)
    assert np.ptp(ghost[:, 40:]) > 0.2, "the lines of the photo are still there"
    pasted = paste_back(
        Image.fromarray(np.uint8(photo * 255)), edited, mask, translation(0, 0), "adaptive", reconstruction
    )
    np.testing.assert_allclose(np.asarray(pasted)[2:-2, 2:-2] / 255, adaptive[2:-2, 2:-2], atol=0.02)


@pytest.mark.parametrize("kept", [0.0, 0.4, 1.0])
def test_at_least_the_share_of_detail_that_is_asked_for_stays(kept):
    """Hair keeps its strands under whatever colour."""
    rng = np.random.default_rng(0)
    original = rng.uniform(0.3, 0.5, (32, 32, 3))
    before, after = np.full((2, 32, 32, 3), 0.4) + np.array([0, 0.3])[:, None, None, None]
    mask = np.ones((32, 32))
    crop = composite_crop(original, after, mask, "adaptive", before, mask * kept)
    np.testing.assert_allclose(crop, after + kept * (original - before), atol=1e-5)
    photo = Image.fromarray(np.rint(original * 255).astype(np.uint8))
    pasted = paste_back(photo, after, mask, similarity(1, 0, 0, 0), "adaptive", before, kept=mask * kept)
    np.testing.assert_allclose(np.asarray(pasted) / 255, crop, atol=0.03)


def test_no_seam_where_a_mask_reaches_the_edge_of_the_crop():
    photo = Image.new("RGB", (400, 400), (120, 120, 120))
    matrix = similarity(0.5, 0.4, -10, -60)
    edited = np.ones((128, 128, 3))
    after = np.asarray(paste_back(photo, edited, np.ones((128, 128)), matrix, "replace"), int)[:, :, 0]
    assert after.max() == 255
    assert np.abs(np.diff(after, axis=0)).max() < 25 and np.abs(np.diff(after, axis=1)).max() < 25


def test_an_aligned_picture_is_edited_up_to_its_border():
    photo = Image.new("RGB", (512, 512), (10, 10, 10))
    after = paste_back(photo, np.ones((128, 128, 3)), np.ones((128, 128)), similarity(0.25, 0, 0, 0), "replace")
    assert np.asarray(after).min() == 255
    same_size = paste_back(
        photo.resize((128, 128)), np.ones((128, 128, 3)), np.ones((128, 128)), translation(0, 0), "replace"
    )
    assert np.asarray(same_size).min() == 255


def test_mode_alpha_and_profile_are_kept_and_the_input_is_not_changed():
    photo = load_image(PORTRAIT)
    assert photo.info["icc_profile"]
    for image in (photo, photo.convert("RGBA")):
        before = np.array(image)
        result = paste_back(image, np.zeros((64, 64, 3)), np.ones((64, 64)), similarity(0.3, 0, -10, -10), "replace")
        assert result.mode == image.mode and result.size == image.size
        assert result.info["icc_profile"] == photo.info["icc_profile"]
        assert (np.asarray(result) != before).any()
        np.testing.assert_array_equal(np.asarray(image), before)


def test_a_crop_outside_the_photo_and_an_empty_mask_change_nothing():
    photo = random_photo(np.random.default_rng(3))
    for mask, matrix in ((np.ones((8, 8)), translation(500, 0)), (np.zeros((8, 8)), translation(0, 0))):
        result = paste_back(photo, np.ones((8, 8, 3)), mask, matrix, "replace")
        np.testing.assert_array_equal(np.asarray(result), np.asarray(photo))


def test_mistakes_are_named():
    photo, crop, mask = Image.new("RGB", (8, 8)), np.zeros((8, 8, 3)), np.ones((8, 8))
    for arguments, words in (
        ((photo.convert("L"), crop, mask, translation(0, 0), "replace"), "RGB or RGBA"),
        ((photo, crop, mask, translation(0, 0), "blend"), "blend"),
        ((photo, crop, mask, translation(0, 0), "residual"), "reconstruction"),
        ((photo, crop + 200, mask, translation(0, 0), "replace"), r"edited must lie in \[0, 1\]"),
        ((photo, crop * np.nan, mask, translation(0, 0), "replace"), "edited"),
        ((photo, crop.astype(np.uint8), mask, translation(0, 0), "replace"), "uint8"),
        ((photo, crop, mask[:4], translation(0, 0), "replace"), r"mask must have shape \(8, 8\)"),
        ((photo, crop, mask, translation(0, 0), "replace", None, mask[:4]), "photo_mask"),
    ):
        with pytest.raises(ValueError, match=words):
            paste_back(*arguments)
    with pytest.raises(ValueError, match="reconstruction"):
        composite_crop(crop, crop, mask)


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
    half = np.zeros((10, 10))
    half[:5] = 1
    with pytest.warns(UserWarning, match="10×10 pixels, the picture 40×20") as caught:
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
