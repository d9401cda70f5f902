"""Holes in faces, the same for the same seed and row, and the simple ways to fill them."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from gptface.data.masking import sample_generator

#: Colours of what covers the face: a flat grey, white scratches, a surgical mask.
GREY, WHITE, SURGICAL = (128, 128, 128), (255, 255, 255), (133, 193, 214)

# Outline of a mask over nose, mouth and chin, in fractions of the crop.
_MASK_OUTLINE = (
    (0.16, 0.56),
    (0.5, 0.5),
    (0.84, 0.56),
    (0.8, 0.8),
    (0.66, 0.95),
    (0.5, 0.99),
    (0.34, 0.95),
    (0.2, 0.8),
)


def rectangle_hole(size: int, row: int, seed: int = 0) -> np.ndarray:
    """A rectangle with sides of a quarter to two fifths of the crop, its middle inside the face; bool [size, size]."""
    random = sample_generator(seed, 0, row)
    height, width = (random.uniform(0.25, 0.4, 2) * size).round().astype(int)
    top = int(random.uniform(0.25, 0.85) * size - height / 2)
    left = int(random.uniform(0.2, 0.8) * size - width / 2)
    hole = np.zeros((size, size), bool)
    hole[max(top, 0) : top + height, max(left, 0) : left + width] = True
    return hole


def scratches_hole(size: int, row: int, seed: int = 0) -> np.ndarray:
    """Five bent scratches of about two pixels of 128; bool [size, size]."""
    random = sample_generator(seed, 1, row)
    picture = Image.new("1", (size, size))
    draw = ImageDraw.Draw(picture)
    for _ in range(5):
        points = np.cumsum(np.vstack([random.uniform(0, size, 2), random.normal(0, size / 6, (5, 2))]), 0)
        draw.line([tuple(point) for point in points.tolist()], fill=1, width=max(1, round(size / 64)))
    return np.array(picture)


def lower_face_hole(size: int, row: int = 0, seed: int = 0) -> np.ndarray:
    """A mask over nose, mouth and chin, the same for all; bool [size, size]."""
    picture = Image.new("1", (size, size))
    ImageDraw.Draw(picture).polygon([(x * size, y * size) for x, y in _MASK_OUTLINE], fill=1)
    return np.array(picture)


Hole = Callable[[int, int, int], np.ndarray]
HOLES: dict[str, tuple[Hole, tuple[int, int, int]]] = {
    "rectangles": (rectangle_hole, GREY),
    "scratches": (scratches_hole, WHITE),
    "lower_face": (lower_face_hole, SURGICAL),
}


def cover(face: Image.Image, hole: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """The face with the hole painted over."""
    pixels = np.array(face.convert("RGB"))
    pixels[hole] = colour
    return Image.fromarray(pixels)


def mean_face_fill(faces: Sequence[Image.Image], index: int, hole: np.ndarray) -> Image.Image:
    """
    The hole of face `index` filled with the mean of all other faces.

    Raises:
        ValueError: where there is no other face.
    """
    if len(faces) < 2:
        raise ValueError("the mean face needs at least two faces: raise --limit")
    others = np.mean([np.asarray(face, np.float64) for place, face in enumerate(faces) if place != index], 0)
    pixels = np.array(faces[index])
    pixels[hole] = others.round().astype(np.uint8)[hole]
    return Image.fromarray(pixels)
