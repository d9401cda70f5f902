"""Masks painted on faces, from which the face parser learns to find them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface.data.face_masks import paint_face_mask, wear_face_masks
from gptface.data.face_parsing_data import ParsedFaces
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.alignment import CROP_LANDMARKS

SIZE = 128
SKIN, HAIR, MASK = (FACE_CLASSES.index(name) for name in ("skin", "hair", "face_mask"))


def portrait():
    """An oval of skin between hair: uint8 [S, S, 3] and its classes."""
    y, x = np.mgrid[:SIZE, :SIZE]
    classes = np.zeros((SIZE, SIZE), np.uint8)
    classes[((x - 64) / 44) ** 2 + ((y - 70) / 55) ** 2 < 1] = SKIN
    classes[(y < 35) & (classes == SKIN)] = HAIR
    classes[50:, :28] = HAIR  # beside the cheek
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    image[classes == SKIN] = (200, 150, 130)
    image[classes == HAIR] = (40, 30, 20)
    return image, classes


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_mask_covers_nose_and_mouth_and_nothing_else(seed):
    """A parser that learns from masks on eyes or hair would take those off."""
    image, classes = portrait()
    worn, shown = paint_face_mask(image, classes, CROP_LANDMARKS, np.random.default_rng(seed))
    mask = shown == MASK
    eyes, nose, mouth = CROP_LANDMARKS[:2].round().astype(int), CROP_LANDMARKS[2], CROP_LANDMARKS[3:].mean(0)
    assert mask[round(float(mouth[1])), round(float(mouth[0]))]
    assert mask[round(float(nose[1])) + 8, round(float(nose[0]))]
    assert not any(mask[y, x] for x, y in eyes)
    assert (mask & (classes == HAIR)).sum() < 0.02 * mask.sum()  # bands may cross it
    # what is said to be as before is as before, but for the shadow of the mask and its soft edge
    far = np.ones_like(mask)
    for row, column in np.argwhere(mask):
        far[max(0, row - 14) : row + 15, max(0, column - 14) : column + 15] = False
    assert (worn[far] == image[far]).all() and (shown[far] == classes[far]).all()


def test_the_same_seed_paints_the_same_masks():
    image, classes = portrait()
    faces = ParsedFaces(
        torch.from_numpy(np.stack([image] * 3)),
        torch.from_numpy(np.stack([classes] * 3)),
        torch.zeros(0, SIZE, SIZE, 3, dtype=torch.uint8),
        torch.zeros(0, len(FACE_CLASSES)),
    )
    one, two, other = (wear_face_masks(faces, seed) for seed in (3, 3, 4))
    assert torch.equal(one.images, two.images) and torch.equal(one.masks, two.masks)
    assert not torch.equal(one.images, other.images)
    assert not torch.equal(one.images[0], one.images[1])  # each face its own


def test_a_face_that_cannot_wear_one_is_left_out():
    image, classes = portrait()
    bare = np.zeros_like(classes)
    with pytest.raises(ValueError, match="no skin below the eyes"):
        paint_face_mask(image, bare, CROP_LANDMARKS, np.random.default_rng(0))
    faces = ParsedFaces(
        torch.from_numpy(np.stack([image] * 2)),
        torch.from_numpy(np.stack([classes, bare])),
        torch.zeros(0, SIZE, SIZE, 3, dtype=torch.uint8),
        torch.zeros(0, len(FACE_CLASSES)),
    )
    assert len(wear_face_masks(faces).images) == 1
    with pytest.raises(ValueError, match="no face shows skin"):
        wear_face_masks(ParsedFaces(faces.images[1:], faces.masks[1:], faces.unlabelled, faces.priors))
