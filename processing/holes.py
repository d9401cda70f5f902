"""Holes in photos: what is damaged or covered, filled from its edge."""

import numpy as np
from PIL import Image

from .opencv import import_opencv


def fill_from_edges(photo: Image.Image, hole: np.ndarray) -> Image.Image:
    """
    The hole filled from its edge inwards (by OpenCV, after Bertalmio et al. 2001): hard to beat in strokes of a few pixels, a
    smear where it is wide.

    Args:
        photo: mode RGB or RGBA; transparency in the hole, as an eraser leaves it, is filled too.
        hole: bool [height, width].

    Returns:
        a new picture; outside of the hole its pixels are those of the photo.

    Raises:
        ImportError: where OpenCV is missing.
        ValueError: where the hole is the whole photo.
    """
    cv2 = import_opencv("filling holes")
    if hole.all():
        raise ValueError("the hole is the whole photo: nothing is left to fill it from")
    pixels = np.array(photo)
    for channels in np.split(
        np.arange(pixels.shape[2]), [3]
    ):  # colour, then opacity: OpenCV takes one channel or three
        if len(channels):
            filled = cv2.inpaint(
                np.ascontiguousarray(pixels[:, :, channels]), hole.astype(np.uint8), 3, cv2.INPAINT_NS
            )
            pixels[hole[:, :, None] & np.isin(np.arange(pixels.shape[2]), channels)] = filled[hole].reshape(-1)
    result = photo.copy()  # keeps the colour profile
    result.paste(Image.fromarray(pixels))
    return result
