"""The crop shows the face where the model expects it, sharp, and the way back leads to the same pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gptface.processing.alignment import (
    CROP_LANDMARKS,
    align,
    apply,
    celeba_crop,
    check_landmarks,
    compose,
    corners,
    crop_matrix,
    face_width,
    inverse,
    scale_of,
    similarity_transform,
    translation,
    warp,
)
from gptface.processing.image_loading import load_image

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"

similarities = st.builds(
    lambda scale, angle, x, y: np.array(
        [[scale * np.cos(angle), -scale * np.sin(angle), x], [scale * np.sin(angle), scale * np.cos(angle), y]]
    ),
    st.floats(0.05, 20),
    st.floats(-3.1, 3.1),
    st.floats(-500, 500),
    st.floats(-500, 500),
)


def smooth_picture(width, height):
    """Low frequencies only, so that resampling there and back loses nothing."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / 17 + 1) + np.cos(y / 23), np.cos(x / 29) + np.sin(y / 13), np.sin((x + y) / 31)]
    return Image.fromarray(np.stack([127 + 60 * wave for wave in waves], axis=2).astype(np.uint8))


@given(similarities)
@settings(max_examples=60, deadline=None)
def test_a_similarity_is_recovered_from_its_points(matrix):
    target = apply(matrix, CROP_LANDMARKS)
    found = similarity_transform(CROP_LANDMARKS, target)
    np.testing.assert_allclose(found, matrix, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(apply(inverse(found), target), CROP_LANDMARKS, atol=1e-6)
    np.testing.assert_allclose(compose(found, inverse(found)), [[1, 0, 0], [0, 1, 0]], atol=1e-8)
    np.testing.assert_allclose(crop_matrix(target), inverse(matrix), rtol=1e-6, atol=1e-6)


def test_never_a_reflection_even_for_mirrored_points():
    mirrored = CROP_LANDMARKS * [-1, 1]
    matrix = similarity_transform(mirrored + np.random.default_rng(0).normal(size=(5, 2)), CROP_LANDMARKS)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_the_fit_is_the_best_one():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(5, 2)) * 40, CROP_LANDMARKS
    matrix = similarity_transform(source, target)
    error = ((apply(matrix, source) - target) ** 2).sum()
    for _ in range(200):
        c, s = matrix[0, 0] + rng.normal() * 0.01, matrix[1, 0] + rng.normal() * 0.01
        other = np.array([[c, -s, matrix[0, 2] + rng.normal()], [s, c, matrix[1, 2] + rng.normal()]])
        assert ((apply(other, source) - target) ** 2).sum() >= error


def test_bad_points_are_named():
    for source, target, words in (
        (np.zeros((4, 2)), np.zeros((5, 2)), "one shape"),
        (np.zeros((5, 3)), np.zeros((5, 3)), "one shape"),
        (np.full((5, 2), np.nan), CROP_LANDMARKS, "finite"),
        (np.full((5, 2), 1e6), CROP_LANDMARKS, "coincide"),
    ):
        with pytest.raises(ValueError, match=words):
            similarity_transform(source, target)
    with pytest.raises(ValueError, match="five points"):
        crop_matrix(CROP_LANDMARKS[:4])


def test_celeba_landmarks_give_exactly_the_celeba_crop():
    # The training crop and the crop of a photo are one and the same, to the pixel.
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8))
    landmarks = [[69.5, 111.5], [108.5, 111.5], [89, 136], [73, 152], [105, 152]]
    crop = celeba_crop(picture)
    assert crop.size == (128, 128)
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(picture)[56:184, 25:153])
    np.testing.assert_array_equal(np.asarray(align(picture, crop_matrix(landmarks))), np.asarray(crop))


def test_half_size_celeba_pictures_show_the_same_crop():
    picture = smooth_picture(178, 218)
    full, half = np.asarray(celeba_crop(picture), float), np.asarray(celeba_crop(picture.reduce(2)), float)
    assert np.abs(full - half).max() < 4
    assert celeba_crop(picture, 256).size == (256, 256)
    with pytest.raises(ValueError, match="178×218 or 89×109"):
        celeba_crop(Image.new("RGB", (128, 128)))


def test_the_crop_puts_every_landmark_where_the_model_expects_it():
    photo = np.zeros((600, 800, 3), np.uint8)
    landmarks = apply(similarity_transform([[0, 0], [128, 0]], [[300.0, 150.0], [620.0, 260.0]]), CROP_LANDMARKS)
    for x, y in landmarks:
        photo[int(y) - 5 : int(y) + 6, int(x) - 5 : int(x) + 6] = 255
    crop = np.asarray(align(Image.fromarray(photo), crop_matrix(landmarks)), float)[:, :, 0]
    for x, y in CROP_LANDMARKS:
        window = crop[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7]
        rows, columns = np.mgrid[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7] + 0.5
        np.testing.assert_allclose([(window * columns).sum(), (window * rows).sum()] / window.sum(), [x, y], atol=0.3)


def test_points_that_are_not_known_do_not_count():
    """Of a face with a mask the detector guesses nose and mouth: they must not turn it."""
    eyes_alone = np.array([True, True, False, False, False])
    guessed = CROP_LANDMARKS + np.array([[0, 0], [0, 0], [9, -5], [20, 3], [14, -8]])
    found = crop_matrix(guessed, known=eyes_alone)
    np.testing.assert_allclose(found, np.eye(3)[:2], atol=1e-9)
    assert np.abs(crop_matrix(guessed) - found).max() > 0.05


@given(st.floats(0.3, 4), st.floats(-0.7, 0.7))
@settings(max_examples=15, deadline=None)
def test_there_and_back_again(scale, angle):
    # A photo whose face is `scale` times the crop: crop and warped-back crop agree with the photo.
    size = max(60, round(180 * scale))
    photo = smooth_picture(200, 200).resize((size, size), Image.Resampling.BICUBIC)
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    middle = np.array([size / 2, size / 2])
    linear = np.array([[c, -s], [s, c]])
    matrix = np.column_stack([linear, [64, 64] - linear @ middle])
    crop = warp(photo, matrix, (128, 128))
    back = np.asarray(warp(crop, inverse(matrix), photo.size), float)
    inside = (np.abs(apply(matrix, np.stack(np.mgrid[:size, :size][::-1], -1) + 0.5) - 64) < 60).all(axis=2)
    assert inside.sum() > 100
    assert np.abs(back - np.asarray(photo, float))[inside].mean() < 3


@pytest.mark.parametrize("scale", [3, 8.3, 20])
def test_fine_texture_does_not_alias_in_the_crop(scale):
    # A hair-fine checkerboard must become grey, not a moiré that the model takes for a feature.
    size = round(128 * scale)
    board = (np.indices((size, size)).sum(axis=0) % 2 * 255).astype(np.uint8)
    angle = 0.2
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    matrix = np.array([[c, -s, 10], [s, c, -10]])
    crop = np.asarray(align(Image.fromarray(board).convert("RGB"), matrix), float)[30:90, 40:100]
    assert np.abs(crop - 127.5).max() < 30


def test_beyond_the_photo_its_edge_goes_on():
    photo = Image.fromarray(np.tile(np.linspace(50, 200, 100).astype(np.uint8)[None, :, None], (100, 1, 3)))
    for matrix in (translation(14, 20), np.array([[0.2, 0, 40], [0, 0.2, 40.0]])):
        crop = np.asarray(align(photo, matrix), int)
        assert (abs(crop[:, 0] - 50) <= 2).all() and (abs(crop[:, -1] - 200) <= 2).all()


def test_a_huge_face_costs_no_huge_memory():
    # Landmarks that reach far beyond the photo: the padding must not be as large as the crop's extent in the photo.
    crop = warp(Image.new("RGB", (300, 300), "red"), np.array([[1e-4, 0, 64], [0, 1e-4, 64.0]]), (128, 128))
    assert (abs(np.asarray(crop, int) - (255, 0, 0)) <= 1).all()


def test_landmarks_of_another_picture_are_refused():
    photo = Image.new("RGB", (300, 300))
    for landmarks in (CROP_LANDMARKS + 5000, CROP_LANDMARKS * 100):
        with pytest.raises(ValueError, match="pixels of this photo"):
            align(photo, crop_matrix(landmarks))


def test_transparent_photos_lie_over_white_and_masks_stay_grey():
    matrix = translation(0, 0)
    assert np.asarray(align(Image.new("RGBA", (128, 128), (0, 0, 0, 0)), matrix)).min() == 255
    assert align(Image.new("L", (128, 128), 7), matrix).mode == "L"


def test_sizes_other_than_the_default():
    photo = load_image(PORTRAIT)
    landmarks = CROP_LANDMARKS * 1.7 + (60, 40)
    large = align(photo, crop_matrix(landmarks, 256), 256)
    assert large.size == (256, 256)
    assert scale_of(crop_matrix(landmarks, 256)) == pytest.approx(2 * scale_of(crop_matrix(landmarks)))
    small = np.asarray(align(photo, crop_matrix(landmarks)), float)
    assert np.abs(np.asarray(large.reduce(2), float) - small).mean() < 4
    np.testing.assert_allclose(corners(4, 3), [[0, 0], [4, 0], [4, 3], [0, 3]])


LANDMARKS = np.array([[130.0, 150.0], [196.0, 147.0], [161.0, 190.0], [137.0, 220.0], [192.0, 218.0]])
QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])


@pytest.mark.report("Landmarks in another order, as (y, x) or as fractions give confident wrong scores")
@pytest.mark.parametrize(
    ("points", "words"),
    [
        (LANDMARKS[[1, 0, 2, 4, 3]], "in the person's own order"),
        (LANDMARKS[:, ::-1], r"seem to be \(y, x\)"),
        (LANDMARKS / (335, 410), "are fractions"),
        (LANDMARKS[[3, 4, 2, 0, 1]], "left eye, right eye, nose"),
        (LANDMARKS[[2, 0, 1, 3, 4]], "left eye, right eye, nose"),
        (LANDMARKS[:4], "five points"),
        (np.full((5, 2), np.nan), "finite"),
    ],
)
def test_points_that_are_no_landmarks_are_refused(points, words):
    """They are refused, and the message says which order or unit was meant."""
    with pytest.raises(ValueError, match=words):
        check_landmarks(points)


def test_faces_that_are_turned_or_look_aside_are_fine():
    check_landmarks(LANDMARKS)
    check_landmarks(LANDMARKS @ QUARTER)
    check_landmarks(-LANDMARKS)
    check_landmarks(LANDMARKS + np.array([[0, 0], [-14, 0], [22, 0], [6, 0], [-12, 0]]))  # a face in half profile


def test_the_width_of_a_face_is_in_pixels_of_the_photo():
    assert face_width(LANDMARKS * 3) == pytest.approx(3 * face_width(LANDMARKS))
    assert 110 < face_width(LANDMARKS) < 170
