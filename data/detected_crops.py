"""The project's crop of pictures that have another alignment, and which of its cells have pixels of the picture at
all.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from gptface.processing.alignment import (
    CROP_SIZE,
    align,
    apply,
    covered_cells,
    crop_matrix,
    scale_of,
    similarity_transform,
)
from gptface.processing.detection import DetectedFace, FaceNotFoundError
from gptface.processing.image_loading import to_rgb

# Pictures without a result are searched again with a margin of this share of their side: the detector knows faces with
# something around them.
_MARGIN = 0.25
# A found face is another one, or none, where it is so much larger, smaller or farther away than the expected one.
_LARGEST_RATIO = 1.4
_LARGEST_SHIFT = 0.2


class Detector(Protocol):
    """Finds faces, such as [`~gptface.processing.detection.YuNetDetector`]."""

    def detect(self, image: Image.Image) -> Sequence[DetectedFace]: ...


def find_landmarks(image: Image.Image, detector: Detector, expected: ArrayLike | None = None) -> np.ndarray:
    """
    Landmarks [5, 2] of a picture's face, in its pixels: the largest, or the one like `expected`, the landmarks [5, 2]
    that pictures of its set usually have.

    Raises:
        FaceNotFoundError: no face, or none that is like the expected one.
    """
    image = to_rgb(image)
    found = [face.landmarks for face in detector.detect(image)]
    if not found:
        margin = round(_MARGIN * min(image.size))
        padded = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        found = [face.landmarks - margin for face in detector.detect(Image.fromarray(padded))]
    if expected is not None:
        found = [landmarks for landmarks in found if is_alike(landmarks, expected, image.size)]
    if not found:
        raise FaceNotFoundError("no face found" if expected is None else "no face found where the set has its faces")
    return found[0]


def is_alike(landmarks: ArrayLike, expected: ArrayLike, size: tuple[int, int]) -> bool:
    """
    Whether landmarks [5, 2] in a picture of `size` (width, height) may be those of the face that is expected at
    others.
    """
    matrix = similarity_transform(expected, landmarks)
    centre = np.asarray(expected, dtype=np.float64).mean(axis=0)
    shift = np.abs(apply(matrix, centre) - centre).max() / min(size)
    return 1 / _LARGEST_RATIO <= scale_of(matrix) <= _LARGEST_RATIO and bool(shift <= _LARGEST_SHIFT)


def crop_by_landmarks(
    image: Image.Image, landmarks: ArrayLike, size: int = CROP_SIZE, grid: int = 16
) -> tuple[Image.Image, np.ndarray]:
    """
    The aligned crop, RGB, `size` × `size`, and which of its `grid` × `grid` cells lie wholly inside of the picture,
    boolean [grid, grid]. Elsewhere the outermost pixels of the picture are repeated.

    Raises:
        ValueError: landmarks that give no face, or no face of this picture.
    """
    return align(image, crop_matrix(landmarks, size), size), covered_cells(crop_matrix(landmarks), image.size, grid)
