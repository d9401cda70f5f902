"""Faces that something hid in part: what the refiner learns to fill."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gptface.data.covered_faces import cover_faces
from gptface.data.face_masks import paint_covering
from gptface.data.face_parsing_data import ParsedFaces
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.alignment import CROP_LANDMARKS, CROP_SIZE

cv2 = pytest.importorskip("cv2")
SKIN = np.array((200, 150, 130))


def bald_faces(count: int = 8) -> ParsedFaces:
    """Ovals of one skin colour before a wall."""
    y, x = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    face = ((x - 64) / 44) ** 2 + ((y - 66) / 56) ** 2 < 1
    image = np.where(face[..., None], SKIN, 90).astype(np.uint8)
    return ParsedFaces(
        torch.from_numpy(np.stack([image] * count)),
        torch.from_numpy(np.stack([face.astype(np.uint8) * FACE_CLASSES.index("skin")] * count)),
        torch.zeros(0, CROP_SIZE, CROP_SIZE, 3, dtype=torch.uint8),
        torch.zeros(0, len(FACE_CLASSES)),
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_hand_or_a_scarf_hides_a_part_of_the_face_and_leaves_the_rest(seed):
    """A refiner that is shown whole faces hidden would learn to dream them up."""
    faces = bald_faces(1)
    image, classes = faces.images[0].numpy(), faces.masks[0].numpy()
    worn, hidden = paint_covering(image, classes, CROP_LANDMARKS, np.random.default_rng(seed))
    share = (hidden & (classes > 0)).sum() / (classes > 0).sum()
    assert 0.02 < share < 0.7
    assert not hidden[: CROP_SIZE // 4].any()  # hair and forehead
    above = worn[: CROP_SIZE // 4] == image[: CROP_SIZE // 4]
    assert above.all()
    assert (worn[hidden] != image[hidden]).any()


def test_a_photo_keeps_nothing_of_what_was_taken_out():
    """What hid the face must not colour what the codes of the photo say."""
    covered = cover_faces(bald_faces(12), grid=16, margin=3.0, edge=2.0)
    assert len(covered) == 12
    deep = covered.holes == 255
    assert deep.flatten(1).any(1).all()
    # skin, wall and their shadows alone: no mask is as blue as the wall is gray
    red, blue = covered.photos[..., 0].int(), covered.photos[..., 2].int()
    inside = (blue - red)[deep]
    assert (inside > 40).float().mean() < 0.02
    changed = (covered.photos != covered.faces).any(-1)
    assert not changed[:, : CROP_SIZE // 4].any()
    assert not covered.holes[:, : CROP_SIZE // 4].any()


def test_the_same_seed_hides_the_same():
    one, two, other = (cover_faces(bald_faces(3), 16, 3.0, 2.0, seed) for seed in (1, 1, 2))
    assert torch.equal(one.photos, two.photos) and torch.equal(one.holes, two.holes)
    assert not torch.equal(one.holes, other.holes)
    chosen = one.rows(torch.tensor([2]))
    assert len(chosen) == 1 and torch.equal(chosen.holes[0], one.holes[2])


def test_faces_that_cannot_be_hidden_are_left_out():
    faces = bald_faces(4)
    nothing = replace(faces, masks=torch.zeros_like(faces.masks))
    with pytest.raises(ValueError, match="no face shows skin"):
        cover_faces(nothing, 16, 3.0, 2.0)
