"""Faces that something hides in part, as a photo shows them once it is taken out, and as they are."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.alignment import CROP_LANDMARKS, CROP_SIZE
from gptface.processing.masks import cells_to_mask, feather, fill_from_edges, hole_cells, widen

from .face_masks import paint_covering, paint_face_mask
from .face_parsing_data import ParsedFaces

#: Share of the faces that a hand or a scarf hides, and no mask.
NO_MASK = 0.25
#: Factors of the width of what goes with the mask: a parser is not always right.
MARGINS = (0.5, 1.5)


@dataclass(frozen=True)
class CoveredFaces:
    """
    Args:
        faces: uint8 [N, S, S, 3], bare.
        photos: uint8 [N, S, S, 3], with a hole where something hid the face, filled from its edge.
        holes: uint8 [N, S, S], weights of what is drawn there, 255 = all of it is.
    """

    faces: torch.Tensor
    photos: torch.Tensor
    holes: torch.Tensor

    def __len__(self) -> int:
        return len(self.faces)

    def to(self, device: torch.device | str) -> "CoveredFaces":
        return CoveredFaces(self.faces.to(device), self.photos.to(device), self.holes.to(device))

    def rows(self, rows: torch.Tensor) -> "CoveredFaces":
        """Some of them, by number [B]."""
        return CoveredFaces(*(each.index_select(0, rows) for each in (self.faces, self.photos, self.holes)))


def cover_faces(faces: ParsedFaces, grid: int, margin: float, edge: float, seed: int = 0) -> CoveredFaces:
    """
    Hides a part of each face (masks, some hands and scarves) and makes holes of it as an edit does that takes it off.
    Faces that show nothing where it would be are left out.

    Args:
        faces: aligned ones, one at least that can wear a mask.
        grid: cells along a side that are drawn or not, see [`hole_cells`].
        margin: pixels of the 128-pixel crop beside what hides the face that go with it; drawn from about there.
        edge: pixels of that crop over which a hole fades in, see [`feather`].
        seed: the same gives the same.

    Raises:
        ImportError: where OpenCV is missing.
        ValueError: no face can be hidden.
    """
    points = CROP_LANDMARKS * (faces.images.shape[1] / CROP_SIZE)
    generator = np.random.default_rng(seed)
    made = []
    for image, classes in zip(faces.images.numpy(), faces.masks.numpy(), strict=True):
        with suppress(ValueError):
            if generator.random() < NO_MASK:
                worn, hidden = paint_covering(image, classes, points, generator)
            else:
                worn, shown = paint_face_mask(image, classes, points, generator)
                hidden = shown == FACE_CLASSES.index("face_mask")
            hole = widen(hidden, generator.uniform(*MARGINS) * margin / CROP_SIZE)
            photo = fill_from_edges(Image.fromarray(worn), hole)
            made.append((image, np.asarray(photo), _weights(hole, grid, edge)))
    if not made:
        raise ValueError("no face shows skin where something would hide it")
    return CoveredFaces(*(torch.from_numpy(np.stack(each)) for each in zip(*made, strict=True)))


def _weights(hole: np.ndarray, grid: int, edge: float) -> np.ndarray:
    """What is drawn in a hole bool [S, S], uint8 [S, S]."""
    picture = Image.fromarray(hole.astype(np.float32))
    bound = np.asarray(picture.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BILINEAR)).clip(0, 1)
    drawn = cells_to_mask(hole_cells(bound, grid), CROP_SIZE)
    weights = np.minimum(feather(drawn, edge), feather(bound, edge))
    enlarged = Image.fromarray(weights).resize(picture.size, Image.Resampling.BILINEAR)
    return np.rint(np.asarray(enlarged).clip(0, 1) * 255).astype(np.uint8)
