"""Masks: what users draw, cells of the grid and pixels, soft edges, and holes that are filled from their edge.

A mask is float32 `[H, W]` in [0, 1], 1 where pixels may change.
"""

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageFilter

from .image_loading import UPRIGHT, load_image

#: Share of a cell from which on a hole touches it.
TOUCHED = 0.05


def import_opencv(what: str) -> Any:
    """
    The module `cv2`.

    Args:
        what: what needs it, as the error says it: `"filling holes"`.

    Raises:
        ImportError: it is missing; says what to install.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f'{what} needs OpenCV: pip install "gptface[detect]"') from error
    return cv2


#: A pixel of a mask above it counts; what resampling or JPEG leaves around an edge stays below.
COUNTS = 0.1
#: Share of a mask's proportions by which they may differ from the picture's: other programs round sizes.
OTHER_SHAPE = 0.02
#: Share of what a picture shows that is of one colour, or of few, where it is no photo but drawn.
FLAT, FEW_COLOURS = 0.98, 3


def cells_to_mask(cells: ArrayLike, size: int) -> np.ndarray:
    """Enlarge a grid of cells bool `[G, G]` to a mask float32 `[size, size]` of zeros and ones."""
    cells = np.asarray(cells, dtype=bool)
    rows, columns = (np.arange(size) * count // size for count in cells.shape)
    return cells[np.ix_(rows, columns)].astype(np.float32)


def mask_to_cells(mask: ArrayLike, grid: int, threshold: float = COUNTS) -> np.ndarray:
    """The cells that a mask touches.

    Args:
        mask: `[H, W]` in [0, 1].
        grid: Number of cells along a side.
        threshold: A pixel above it counts.

    Returns:
        bool `[grid, grid]`, True where any counting pixel lies in the cell, be it partly.
    """
    touched = np.asarray(mask) > threshold
    for _ in range(2):  # Rows, then, transposed, columns.
        length = len(touched)
        bounds = [(i * length // grid, -(-(i + 1) * length // grid)) for i in range(grid)]
        touched = np.stack([touched[start:end].any(axis=0) for start, end in bounds], axis=1)
    return touched


def covered_cells(mask: ArrayLike, grid: int, share: float = 0.5) -> np.ndarray:
    """The cells bool `[grid, grid]` of which a mask `[H, W]` in [0, 1] covers more than a share."""
    shares = Image.fromarray(np.asarray(mask, dtype=np.float32)).resize((grid, grid), Image.Resampling.BOX)
    return np.asarray(shares) > share


def hole_cells(mask: ArrayLike, grid: int) -> np.ndarray:
    """
    The cells bool `[grid, grid]` to be drawn in a hole `[H, W]`: those of which it covers more than half, and of those
    beside them all that it touches, for what fills a hole from its edge is a smear there. Of a thin stroke none.
    """
    wide = covered_cells(mask, grid)
    return wide | (widen(wide, 1 / grid) & covered_cells(mask, grid, TOUCHED))


def widen(pixels: np.ndarray, margin: float) -> np.ndarray:
    """
    Pixels bool `[S, S]` and what is beside them, at most `margin` sides of the picture away along rows and columns.
    """
    side = 2 * round(margin * len(pixels)) + 1
    return np.asarray(Image.fromarray(pixels).convert("L").filter(ImageFilter.MaxFilter(side))) > 0


def feather(mask: ArrayLike, radius: float) -> np.ndarray:
    """Soften the edge of a mask inwards.

    The weight rises from the edge to full strength `radius` pixels inside; outside the mask it stays exactly 0. In a
    mask that is nowhere `radius` deep (a thin stroke) it rises faster, so that the middle still has full strength. The
    border of the picture is no edge. A radius of 0 changes nothing.

    Returns:
        float32 `[H, W]`, nowhere above `mask` (`[H, W]` in [0, 1]).
    """
    mask = np.asarray(mask, dtype=np.float32)
    if radius <= 0 or not mask.any() or mask.all():
        return mask.copy()
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    window = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    depth = distance_inside(mask[window] > 0, int(np.ceil(radius)) + 1)
    weight = np.clip(depth / min(radius + 1.0, float(depth.max())), 0.0, 1.0)
    result = np.zeros_like(mask)
    result[window] = mask[window] * (weight * weight * (3.0 - 2.0 * weight))  # Smoothstep: a ramp without creases.
    return result


def distance_inside(inside: np.ndarray, limit: int) -> np.ndarray:
    """Euclidean distance of every pixel to the nearest one outside, at most `limit`; float32 `[H, W]`."""
    # First along columns, then the lower envelope of parabolas along rows (Felzenszwalb & Huttenlocher 2012).
    position = np.arange(inside.shape[0], dtype=np.int64)[:, None]
    before = np.maximum.accumulate(np.where(inside, -limit, position), axis=0)
    after = np.minimum.accumulate(np.where(inside, inside.shape[0] + limit, position)[::-1], axis=0)[::-1]
    vertical = np.minimum(np.minimum(position - before, after - position), limit).astype(np.float32) ** 2
    squared = vertical.copy()
    for shift in range(1, min(limit, inside.shape[1])):
        squared[:, shift:] = np.minimum(squared[:, shift:], vertical[:, :-shift] + shift**2)
        squared[:, :-shift] = np.minimum(squared[:, :-shift], vertical[:, shift:] + shift**2)
    return np.sqrt(squared)


def normalize_mask(mask: Any, size: tuple[int, int], orientation: int = 1) -> np.ndarray:
    """Bring a user's mask into one form.

    Args:
        mask: White or 1 marks what may change. A PIL image, path, URL, bytes or file as for `load_image`; or a numpy
            array or torch tensor `[H, W]`, `[H, W, 1]` or `[1, H, W]` of bool, integers (0/1 or 0…255) or float in
            [0, 1]. Of a colour picture the strongest channel counts: a mask painted in red works. Of a picture that is
            transparent in places, what is drawn in one colour is the mask; of a photo, what is erased from it.
        size: (width, height) of the picture that the mask belongs to; a mask of another size is resized, with a
            warning.
        orientation: EXIF orientation of the picture: a mask of the size that it was stored in is turned as it was.

    Returns:
        float32 `[height, width]` in [0, 1].

    Raises:
        ValueError: An empty mask, another shape, other proportions than the picture's, values out of range, or an
            unreadable picture (`ImageInputError`).
    """
    if isinstance(mask, (Image.Image, str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(mask, "read"):
        mask = _mask_from_picture(load_image(mask, name="mask_image"))
    values = _mask_from_array(mask)
    width, height = size
    if values.shape == (width, height) != (height, width) and orientation in UPRIGHT:
        values = np.asarray(Image.fromarray(values).transpose(UPRIGHT[orientation]))
    if values.shape != (height, width):
        found = f"the mask has {values.shape[1]}×{values.shape[0]} pixels, the picture {width}×{height}"
        skew = abs(values.shape[1] * height - values.shape[0] * width)
        if skew > max(OTHER_SHAPE * values.shape[1] * height, width, height):  # or by a pixel of the mask
            raise ValueError(f"{found}: give a mask of the whole picture, in its size or at least its proportions")
        warnings.warn(f"{found}: the mask is resized", stacklevel=2)
        values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    if not values.any():
        raise ValueError("the mask is empty: mark what may change with white (1), the rest with black (0)")
    return values


def _mask_from_picture(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    colour = pixels[:, :, :3]
    brightness = colour.max(axis=2)
    if image.mode != "RGBA" or (pixels[:, :, 3] == pixels[0, 0, 3]).all():
        return brightness
    opacity = pixels[:, :, 3]
    shown = opacity > 0
    # The colours of what shows, as one number each, coarse enough to be those that somebody chose.
    chosen = (colour[shown] >> 5).astype(np.int64) @ (1, 8, 64)
    counts = np.sort(np.bincount(chosen))[::-1]
    if counts[0] >= FLAT * counts.sum():
        return opacity
    if counts[:FEW_COLOURS].sum() >= FLAT * counts.sum():
        return np.where(shown, brightness, 0)
    return 255 - opacity


def _mask_from_array(mask: Any) -> np.ndarray:
    if hasattr(mask, "detach"):  # A torch tensor, which may need a gradient or live on another device.
        mask = mask.detach().cpu().numpy()
    values = np.asarray(mask)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[:, :, 0] if values.shape[2] == 1 else values[0]
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise ValueError(f"a mask is one array [H, W] of numbers, not shape {values.shape} of type {values.dtype}")
    low, high = float(values.min()), float(values.max())
    limit = 1.0 if values.dtype.kind in "bf" or high <= 1 else 255.0
    if not (low >= 0 and high <= limit):  # Also true of NaN.
        raise ValueError(f"mask values go from {low:g} to {high:g}: use bool, integers 0…255 or float in [0, 1]")
    return values.astype(np.float32) / np.float32(limit)


def fill_from_edges(photo: Image.Image, hole: np.ndarray) -> Image.Image:
    """
    The hole filled from its edge inwards (by OpenCV, after Bertalmio et al. 2001): hard to beat in strokes of a few
    pixels, a smear where it is wide.

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
