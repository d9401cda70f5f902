"""Masks of what a face shows: they must lie where the photo shows it."""

import numpy as np
import pytest
from PIL import Image

from gptface.processing.alignment import CROP_LANDMARKS, apply, crop_matrix
from gptface.processing.face_parsing import FaceParsing, overlay, parse

LABELS = ("background", "skin", "nose", "eye", "brow", "mouth", "upper_lip", "lower_lip", "eyeglasses", "hair")
SIZE = 64


def by_colour(crops):
    """A network that takes red for skin, blue for hair and everything else for background."""
    stack = np.stack([np.asarray(crop, np.float32) / 255 for crop in crops])
    probabilities = np.zeros((len(crops), len(LABELS), SIZE, SIZE), np.float32)
    probabilities[:, LABELS.index("skin")] = stack[..., 0]
    probabilities[:, LABELS.index("hair")] = stack[..., 2]
    probabilities[:, 0] = 1 - probabilities[:, 1:].sum(1)
    return probabilities


@pytest.fixture
def photo():
    """300×260 pixels; the face is red, hair above it, and far beyond the crop, is blue."""
    pixels = np.zeros((260, 300, 3), np.uint8)
    pixels[120:200, 110:190] = (255, 0, 0)
    pixels[60:120, 100:200] = (0, 0, 255)
    return Image.fromarray(pixels)


@pytest.fixture
def parsing(photo):
    landmarks = CROP_LANDMARKS * (100 / 128) + (100, 100)  # the crop is the square (100, 100)–(200, 200)
    return parse(photo, crop_matrix(landmarks, SIZE), by_colour, LABELS, SIZE)


def test_masks_lie_on_the_photo(photo, parsing):
    pixels = np.asarray(photo, np.float32) / 255
    for name, channel in (("skin", 0), ("hair", 2)):
        mask = parsing.photo_mask(name, photo.size)
        assert mask.shape == (260, 300) and mask.dtype == np.float32
        assert mask.min() >= 0 and mask.max() <= 1
        assert np.abs(mask - pixels[..., channel])[50:250, 50:250].mean() < 0.03


def test_hair_beyond_the_crop_is_seen(photo, parsing):
    assert parsing.photo_mask("hair", photo.size)[70:90, 110:190].mean() > 0.9


def test_beyond_the_surroundings_nothing_is_known(photo, parsing):
    classes = parsing.photo_classes(photo.size)
    assert (classes[:, :45] == -1).all() and (classes[55:245, 55:245] >= 0).all()
    assert classes[150, 150] == LABELS.index("skin") and classes[80, 150] == LABELS.index("hair")
    assert parsing.photo_mask("background", photo.size)[:, :45].max() == 0


def test_the_mask_of_the_crop(parsing):
    mask = parsing.crop_mask("skin", 20)  # five pixels of the photo each
    assert mask.shape == (20, 20) and mask[10, 10] > 0.95 and mask[1, 10] < 0.05 and mask[10, 0] < 0.05


def test_several_classes_are_one_mask(parsing):
    together = parsing.mask(["skin", "hair"])
    np.testing.assert_allclose(together, parsing.mask("skin") + parsing.mask("hair"), atol=1e-6)
    np.testing.assert_allclose(parsing.mask("person"), 1 - parsing.mask("background"), atol=1e-5)
    np.testing.assert_allclose(parsing.mask(["skin", "facial_skin"]), parsing.mask("facial_skin"), atol=1e-6)


def test_the_crop_is_read_where_there_is_no_photo_around_it(photo):
    crop = photo.crop((100, 100, 200, 200))
    parsing = parse(crop, np.array([[SIZE / 100, 0, 0], [0, SIZE / 100, 0.0]]), by_colour, LABELS, SIZE)
    assert parsing.photo_mask("skin", crop.size)[30:90, 20:80].mean() > 0.98


def test_a_mask_that_is_worn_is_a_part_of_the_face():
    """A head that looks aside was one from the front, for where its cheeks are masked its face seemed to end."""
    y, x = np.mgrid[:256, :256] / 2
    face, nose = (np.abs(x - 64) < 24) & (np.abs(y - 64) < 32), (np.abs(x - 50) < 4) & (np.abs(y - 64) < 8)
    turns = []
    for masked in (np.zeros_like(face), face & ~nose & (y > 50)):
        shown = [~face, face & ~nose & ~masked, nose, masked]
        labels = ("background", "skin", "nose", "face_mask")
        turns.append(FaceParsing(np.stack(shown).astype(np.float32), labels, np.eye(2, 3)).turn)
    assert turns[0] == turns[1] < -0.45


def test_parsers_may_lack_classes_of_a_group(parsing):
    """Those that were trained before masks were a class, or on other classes, still tell faces."""
    np.testing.assert_array_equal(parsing.mask("face"), parsing.mask([name for name in LABELS[1:] if name != "hair"]))
    assert parsing.known(("hat", "hair", "lips", "jewellery")) == ("hair", "lips")
    with pytest.raises(ValueError, match="no jewellery"):
        parsing.mask("jewellery")


def test_places_of_the_crop_and_of_the_frame_are_told_by_one_matrix(parsing):
    """The crop is the middle of the frame: what is drawn by one and laid by the other must meet."""
    places = np.array([[0.0, 0.0], [128.0, 128.0], [64.0, 10.0]])
    np.testing.assert_allclose(parsing.in_frame(places), [[32, 32], [96, 96], [64, 37]])
    np.testing.assert_allclose(apply(parsing.to_crop, parsing.in_frame(places)), places)
    np.testing.assert_allclose(parsing.in_crop(parsing.in_frame(places)), places)
    assert parsing.mask("skin")[parsing.window].shape == (SIZE, SIZE)


def test_unknown_names_are_told(parsing):
    with pytest.raises(ValueError, match=r"moustache.*known.*hair"):
        parsing.mask("moustache")


def test_a_network_of_another_shape_is_refused(photo):
    with pytest.raises(ValueError, match="probabilities"):
        parse(photo, crop_matrix(CROP_LANDMARKS + 80, SIZE), lambda crops: by_colour(crops)[:, :3], LABELS, SIZE)


def test_a_face_at_the_edge_of_its_photo():
    photo = Image.fromarray(np.full((100, 100, 3), (255, 0, 0), np.uint8))
    parsing = parse(photo, crop_matrix(CROP_LANDMARKS - 40, SIZE), by_colour, LABELS, SIZE)
    assert parsing.photo_mask("skin", photo.size)[:60, :60].min() > 0.95


def test_one_picture_frame_outside_of_a_photo_gives_empty_masks():
    parsing = FaceParsing(np.ones((1, 8, 8), np.float32), ("skin",), np.array([[1.0, 0, 500], [0, 1, 500]]))
    assert parsing.photo_mask("skin", (40, 30)).sum() == 0


def test_the_overlay_colours_masks_alone(photo):
    mask = Image.new("L", photo.size)
    mask.paste(255, (0, 0, 10, 10))
    shown = np.asarray(overlay(photo, {9: mask}, opacity=0.5), int)
    original = np.asarray(photo, int)
    assert (shown[10:, 10:] == original[10:, 10:]).all() and (shown[:10, :10] != original[:10, :10]).any(-1).all()
