"""An edit changes what the mask allows and nothing else, and leaves no seam."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from gptface.processing.alignment import apply, inverse, translation
from gptface.processing.blending import COMPOSITE_MODES, Layer, decoded_layer, paste
from gptface.processing.image_loading import load_image
from gptface.processing.masks import cells_to_mask

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
SAME_PLACE = translation(0, 0)


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


def as_photo(pixels):
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


def replaced(photo, edited, mask, matrix):
    """The photo with edited pixels in it."""
    return paste(photo, [decoded_layer(edited, edited, mask, matrix, "replace")])[0]


@given(seed=seeds, detail=st.floats(0, 1), alpha=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_layer_is_the_one_formula(seed, detail, alpha):
    rng = np.random.default_rng(seed)
    photo, edited, reconstruction = rng.random((3, 12, 12, 3)).astype(np.float32)
    photo = np.rint(photo * 255) / 255
    layer = Layer(edited - detail * reconstruction, np.full((12, 12), detail), np.full((12, 12), alpha), SAME_PLACE)
    result, weight = paste(as_photo(photo), [layer])
    change = edited - reconstruction
    expected = photo + alpha * ((reconstruction + change) - detail * reconstruction - (1 - detail) * photo)
    seen = alpha >= 1 / 512
    np.testing.assert_allclose(np.asarray(result) / 255, expected.clip(0, 1) if seen else photo, atol=0.51 / 255)
    np.testing.assert_allclose(weight, alpha if seen else 0, atol=1e-6)


def test_the_modes_are_shares_of_the_photos_detail():
    half = np.full((4, 4), 0.5)
    edited, reconstruction = (np.full((4, 4, 3), value) for value in (0.9, 0.7))
    photo = Image.new("RGB", (4, 4), (128, 128, 128))
    for mode, expected in (("replace", (0.9 - 0.5) / 2), ("residual", (0.9 - 0.7) / 2)):
        result, _ = paste(photo, [decoded_layer(edited, reconstruction, half, SAME_PLACE, mode)])
        np.testing.assert_allclose((np.asarray(result) - 128.0) / 255, expected, atol=0.004)
    assert decoded_layer(edited, edited, half, SAME_PLACE, "blend").detail.min() == 1, "nothing changed"
    assert decoded_layer(edited, edited - 0.6, half, SAME_PLACE, "blend").detail.max() < 1e-6, "all changed"


@pytest.mark.parametrize("mode", COMPOSITE_MODES)
@given(seed=seeds, matrix=matrices, photo_mode=st.sampled_from(["RGB", "RGBA"]))
@settings(max_examples=60, deadline=None)
def test_photo_outside_the_mask_is_untouched(mode, seed, matrix, photo_mode):
    rng = np.random.default_rng(seed)
    photo = random_photo(rng, photo_mode)
    layers = [decoded_layer(*random_edit(rng, 24), place, mode) for place in (matrix, translation(-9, -4))]
    photo_mask = (rng.random((photo.height, photo.width)) < 0.5).astype(np.float32)
    before = np.asarray(photo)
    for bound in (None, photo_mask):
        result, weight = paste(photo, layers, bound)
        assert weight.shape == (photo.height, photo.width) and weight.min() >= 0 and weight.max() <= 1
        after = np.asarray(result)
        np.testing.assert_array_equal(after[weight == 0], before[weight == 0])
        np.testing.assert_array_equal(after[:, :, 3:], before[:, :, 3:])
    np.testing.assert_array_equal(after[photo_mask == 0], before[photo_mask == 0])
    assert (weight[photo_mask == 0] == 0).all()


@given(seed=seeds, matrix=matrices)
@settings(max_examples=60, deadline=None)
def test_the_weight_stays_near_the_mask(seed, matrix):
    # Half a pixel of the crop, or of the photo where that is the coarser, and the reach of the interpolation.
    rng = np.random.default_rng(seed)
    mask = cells_to_mask(rng.random((4, 4)) < 0.3, 24)
    grey = np.full((24, 24, 3), 0.5)
    _, weight = paste(Image.new("RGB", (60, 50)), [decoded_layer(grey, grey, mask, matrix, "replace")])
    rows, columns = np.nonzero(weight)
    positions = apply(matrix, np.column_stack([columns, rows]) + 0.5)
    painted = np.column_stack(np.nonzero(mask)[::-1]) + 0.5
    reach = 2.5 + 2.5 * np.hypot(matrix[0, 0], matrix[1, 0])
    for position in positions:
        assert np.abs(painted - position).max(axis=1).min() <= reach


def test_the_edit_lands_where_the_matrix_says():
    photo = Image.new("RGB", (300, 200), (100, 100, 100))
    matrix = similarity(0.5, 0.3, -20, -10)
    before = np.full((64, 64, 3), 100 / 255)
    edited = before.copy()
    edited[40:44, 20:24] = 1
    for mode in COMPOSITE_MODES:
        result, _ = paste(photo, [decoded_layer(edited, before, np.ones((64, 64)), matrix, mode)])
        change = np.asarray(result, float)[:, :, 0] - 100
        y, x = np.mgrid[:200, :300] + 0.5
        centre = [(change * x).sum() / change.sum(), (change * y).sum() / change.sum()]
        np.testing.assert_allclose(centre, apply(inverse(matrix), [22, 42]), atol=0.5)


def test_a_residual_keeps_the_photo_sharp_and_an_unchanged_one_keeps_it_exact():
    photo = load_image(PORTRAIT)
    matrix, mask = similarity(0.5, 0.05, -20, -30), np.ones((128, 128))
    decoded = np.random.default_rng(0).random((128, 128, 3))
    for mode in ("residual", "blend"):
        same, _ = paste(photo, [decoded_layer(decoded, decoded, mask, matrix, mode)])
        np.testing.assert_array_equal(np.asarray(same), np.asarray(photo))
    lighter, _ = paste(photo, [decoded_layer(decoded * 0.9 + 0.1, decoded * 0.9, mask, matrix, "residual")])

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
    mask, gone = np.ones((64, 64)), np.zeros((64, 64), bool)
    gone[:, :8] = True  # rims in the colour of the skin, say

    def pasted(mode):
        result, _ = paste(as_photo(photo), [decoded_layer(edited, reconstruction, mask, SAME_PLACE, mode, gone)])
        return np.asarray(result) / 255

    blend, ghost = pasted("blend"), pasted("residual")
    np.testing.assert_allclose(blend[:, 12:22], np.asarray(as_photo(photo))[:, 12:22] / 255)
    np.testing.assert_allclose(blend[:, 44:], 0.9, atol=0.005)
    np.testing.assert_allclose(blend[:, :6], 0.425, atol=0.005)
    share = (blend - edited) / (photo - reconstruction)
    assert np.abs(np.diff(share[:, 12:, 0], axis=1)).max() < 0.3, "detail goes by degrees, so that no line is seen"
    assert np.ptp(ghost[:, 44:]) > 0.2, "the lines of the photo are still there"


def test_no_seam_where_a_mask_reaches_the_edge_of_the_crop():
    photo = Image.new("RGB", (400, 400), (120, 120, 120))
    matrix = similarity(0.5, 0.4, -10, -60)
    after = np.asarray(replaced(photo, np.ones((128, 128, 3)), np.ones((128, 128)), matrix), int)[:, :, 0]
    assert after.max() == 255
    assert np.abs(np.diff(after, axis=0)).max() < 25 and np.abs(np.diff(after, axis=1)).max() < 25


def test_an_aligned_picture_is_edited_up_to_its_border():
    photo = Image.new("RGB", (512, 512), (10, 10, 10))
    white, everywhere = np.ones((128, 128, 3)), np.ones((128, 128))
    assert np.asarray(replaced(photo, white, everywhere, similarity(0.25, 0, 0, 0))).min() == 255
    assert np.asarray(replaced(photo.resize((128, 128)), white, everywhere, SAME_PLACE)).min() == 255


def test_a_later_layer_lies_on_an_earlier_one():
    photo = Image.new("RGB", (16, 16), (40, 40, 40))
    white, grey, left = np.ones((16, 16, 3)), np.full((16, 16, 3), 0.5), np.zeros((16, 16))
    left[:, :8] = 1
    everywhere = decoded_layer(white, white, np.full((16, 16), 0.5), SAME_PLACE, "replace")
    result, weight = paste(photo, [everywhere, decoded_layer(grey, grey, left, SAME_PLACE, "replace")])
    assert np.asarray(result)[:, 2, 0].tolist() == [128] * 16 and np.asarray(result)[0, 13, 0] in (147, 148)
    assert (weight[:, :6] == 1).all() and np.allclose(weight[:, 10:], 0.5)


def test_mode_alpha_and_profile_are_kept_and_the_input_is_not_changed():
    photo = load_image(PORTRAIT)
    assert photo.info["icc_profile"]
    for image in (photo, photo.convert("RGBA")):
        before = np.array(image)
        result = replaced(image, np.zeros((64, 64, 3)), np.ones((64, 64)), similarity(0.3, 0, -10, -10))
        assert result.mode == image.mode and result.size == image.size
        assert result.info["icc_profile"] == photo.info["icc_profile"]
        assert (np.asarray(result) != before).any()
        np.testing.assert_array_equal(np.asarray(image), before)


def test_a_crop_outside_the_photo_an_empty_mask_and_no_layer_change_nothing():
    photo = random_photo(np.random.default_rng(3))
    white = np.ones((8, 8, 3))
    for layers in (
        [decoded_layer(white, white, np.ones((8, 8)), translation(500, 0), "replace")],
        [decoded_layer(white, white, np.zeros((8, 8)), SAME_PLACE, "replace")],
        [],
    ):
        result, weight = paste(photo, layers)
        np.testing.assert_array_equal(np.asarray(result), np.asarray(photo))
        assert not weight.any()


def test_mistakes_are_named():
    photo, crop, mask = Image.new("RGB", (8, 8)), np.zeros((8, 8, 3)), np.ones((8, 8))
    for arguments, words in (
        ((crop + 200, crop, mask), r"edited must lie in \[0, 1\]"),
        ((crop * np.nan, crop, mask), "edited"),
        ((crop.astype(np.uint8), crop, mask), "uint8"),
        ((crop, crop[:, :, 0], mask), "reconstruction"),
        ((crop, crop, mask[:4]), r"must have shape \(8, 8\)"),
    ):
        with pytest.raises(ValueError, match=words):
            decoded_layer(*arguments, SAME_PLACE, "replace")
    layer = decoded_layer(crop, crop, mask, SAME_PLACE)
    with pytest.raises(ValueError, match="RGB or RGBA"):
        paste(photo.convert("L"), [layer])
    with pytest.raises(ValueError, match="photo_mask"):
        paste(photo, [layer], mask[:4])
