"""Masks, and how edited pixels of the crop get back into the photo.

Conventions of this file: a crop is float `[S, S, 3]` in [0, 1]; a mask is float32 `[H, W]` in [0, 1], 1 where pixels may
change; photos are PIL images. Where a mask is 0 the result is the input, bit for bit.
"""

import os
import warnings
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageFilter

from .alignment import apply, compose, corners, inverse, translation, warp
from .image_loading import load_image

CompositeMode = Literal["adaptive", "residual", "replace"]
Box = tuple[int, int, int, int]  # (x0, y0, x1, y1)

#: Of `"adaptive"`: the difference in [0, 1] at which 1/e of the photo's detail is left, and the side in pixels of the squares
#: that it is averaged over.
CHANGE_SCALE, CHANGE_CELL = 0.06, 4

#: A pixel of a mask above it counts; what resampling or JPEG leaves around an edge stays below.
COUNTS = 0.1

_NOWHERE: tuple[Box, np.ndarray] = ((0, 0, 0, 0), np.zeros((0, 0), dtype=np.float32))


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


def widen(pixels: np.ndarray, margin: float) -> np.ndarray:
    """Pixels bool `[S, S]` and what is beside them, at most `margin` sides of the picture away along rows and columns."""
    side = 2 * round(margin * len(pixels)) + 1
    return np.asarray(Image.fromarray(pixels).convert("L").filter(ImageFilter.MaxFilter(side))) > 0


@lru_cache
def _kernel(side: int, reach: float) -> np.ndarray:
    """Weights [side, side] of the pixels of a row around each of them: a Gaussian of so many sides."""
    distance = np.subtract.outer(np.arange(side), np.arange(side)) / (reach * side)
    return np.exp(-0.5 * distance**2).astype(np.float32)


def sum_around(picture: np.ndarray, reach: float) -> np.ndarray:
    """Sums [S, S, C] around each pixel of a picture [S, S, C], weighted by a Gaussian of `reach` sides of the distance."""
    kernel = _kernel(len(picture), reach)
    return np.einsum("ij,jkc,kl->ilc", kernel, picture, kernel, optimize=True)


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
    depth = _depth(mask[window] > 0, int(np.ceil(radius)) + 1)
    weight = np.clip(depth / min(radius + 1.0, float(depth.max())), 0.0, 1.0)
    result = np.zeros_like(mask)
    result[window] = mask[window] * (weight * weight * (3.0 - 2.0 * weight))  # Smoothstep: a ramp without creases.
    return result


def _depth(inside: np.ndarray, limit: int) -> np.ndarray:
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


def normalize_mask(mask: Any, size: tuple[int, int]) -> np.ndarray:
    """Bring a user's mask into one form.

    Args:
        mask: White or 1 marks what may change. A PIL image, path, URL, bytes or file as for `load_image`; or a numpy
            array or torch tensor `[H, W]`, `[H, W, 1]` or `[1, H, W]` of bool, integers (0/1 or 0…255) or float in
            [0, 1]. Of a colour picture the strongest channel counts: a mask painted in red works. Transparency is
            ignored, unless the colour is the same everywhere: then opacity is the mask.
        size: (width, height) of the picture that the mask belongs to; a mask of another size is resized, with a
            warning.

    Returns:
        float32 `[height, width]` in [0, 1].

    Raises:
        ValueError: An empty mask, another shape, values out of range, or an unreadable picture (`ImageInputError`).
    """
    if isinstance(mask, (Image.Image, str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(mask, "read"):
        mask = _mask_from_picture(load_image(mask, name="mask_image"))
    values = _mask_from_array(mask)
    if (values.shape[1], values.shape[0]) != tuple(size):
        warnings.warn(
            f"the mask has {values.shape[1]}×{values.shape[0]} pixels, the picture {size[0]}×{size[1]}: "
            "the mask is resized",
            stacklevel=2,
        )
        values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    if not values.any():
        raise ValueError("the mask is empty: mark what may change with white (1), the rest with black (0)")
    return values


def _mask_from_picture(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    colour = pixels[:, :, :3]
    if image.mode == "RGBA" and (colour == colour[0, 0]).all() and (pixels[:, :, 3] != 255).any():
        return pixels[:, :, 3]
    return colour.max(axis=2)


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


def composite_crop(
    original: ArrayLike,
    edited: ArrayLike,
    mask: ArrayLike,
    mode: CompositeMode = "adaptive",
    reconstruction: ArrayLike | None = None,
    kept: ArrayLike | None = None,
) -> np.ndarray:
    """Put the edit into the crop.

    Args:
        original: The crop before the edit, float `[H, W, 3]` in [0, 1].
        edited: Decoded edited codes, the same shape and range.
        mask: `[H, W]` in [0, 1].
        mode: `"residual"`: original + mask · (edited − reconstruction), which keeps detail that the image tokenizer
            cannot express. `"replace"`: mask · edited + (1 − mask) · original. `"adaptive"`: residual where the edit left
            the picture as it was, replace where it changed it, by degrees: detail of what is no longer there (the line
            of closed lips, teeth) would shine through.
        reconstruction: Decoded codes of the original; `"adaptive"` and `"residual"` need it.
        kept: `[H, W]` in [0, 1], the least share of the original's detail that stays, for `"adaptive"`.

    Returns:
        float32 `[H, W, 3]` in [0, 1], equal to `original` wherever `mask` is 0.
    """
    base = _crop_array(original, "original")
    layer, detail = _layer(edited, mode, reconstruction, kept)
    weight = _mask_array(mask, base.shape[:2], "mask")[:, :, None]
    return np.where(weight > 0, np.clip(base + weight * (layer - (1 - detail) * base), 0.0, 1.0), base)


def _layer(
    edited: ArrayLike, mode: str, reconstruction: ArrayLike | None, kept: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """
    What is laid into the picture `[H, W, 3]`, and the share of the picture that stays below it `[H, W, 1]`: the edited pixels
    on nothing (0), the difference that the edit made on the picture (1), or between them.
    """
    pixels = _crop_array(edited, "edited")
    if mode == "replace":
        return pixels, np.zeros_like(pixels[:, :, :1])
    if mode not in ("adaptive", "residual"):
        raise ValueError(f'composite mode must be "adaptive", "residual" or "replace", not {mode!r}')
    if reconstruction is None:
        raise ValueError(f'composite mode "{mode}" needs the reconstruction: the decoded codes before the edit')
    before = _crop_array(reconstruction, "reconstruction")
    detail = np.ones_like(pixels[:, :, :1]) if mode == "residual" else likeness(pixels, before, CHANGE_SCALE)
    if kept is not None:
        detail = np.maximum(detail, _mask_array(kept, detail.shape[:2], "kept")[:, :, None])
    return pixels - detail * before, detail


def likeness(edited: np.ndarray, reconstruction: np.ndarray, scale: float) -> np.ndarray:
    """
    Where two pictures `[H, W, 3]` are alike: `[H, W, 1]` in [0, 1], by their mean difference in squares of pixels; 1/e where
    it is `scale`.
    """
    height, width = edited.shape[:2]
    difference = Image.fromarray(np.abs(edited - reconstruction).mean(axis=2))
    coarse = difference.resize((max(1, width // CHANGE_CELL), max(1, height // CHANGE_CELL)), Image.Resampling.BOX)
    alike = Image.fromarray(np.exp(-((np.asarray(coarse) / scale) ** 2)))
    return np.asarray(alike.resize((width, height), Image.Resampling.BILINEAR))[:, :, None]


def _crop_array(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f":
        raise ValueError(f"{name} must be float [H, W, 3] in [0, 1], not {array.dtype} {array.shape}")
    # A decoder may overshoot a little; pixels in 0…255 and NaN are mistakes.
    if not (array.min() >= -1 and array.max() <= 2):
        raise ValueError(f"{name} must lie in [0, 1], but goes from {array.min():g} to {array.max():g}")
    return array.astype(np.float32)


def _mask_array(mask: ArrayLike, shape: tuple[int, ...], name: str) -> np.ndarray:
    array = np.asarray(mask, dtype=np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
    return array


def warp_mask(mask: ArrayLike, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The weight that every pixel of the photo gets from a mask of the crop.

    Args:
        mask: `[S, S]` in [0, 1].
        matrix: `[2, 3]` from photo to crop.
        size: (width, height) of the photo.

    Returns:
        float32 `[height, width]`, 0 outside the crop. Where the mask reaches an edge of the crop that lies inside the
        photo, it fades out over the last sixteenth of the crop, so that no seam shows.
    """
    result = np.zeros((size[1], size[0]), dtype=np.float32)
    box, weight = _weight_in_photo(np.asarray(mask, dtype=np.float32), matrix, size)
    result[box[1] : box[3], box[0] : box[2]] = weight
    return result


def paste_back(
    photo: Image.Image,
    edited: ArrayLike,
    mask: ArrayLike,
    matrix: np.ndarray,
    mode: CompositeMode = "adaptive",
    reconstruction: ArrayLike | None = None,
    photo_mask: ArrayLike | None = None,
    kept: ArrayLike | None = None,
) -> Image.Image:
    """Put the edited crop, or what the edit changed, into the photo at the photo's resolution.

    Args:
        photo: Mode RGB or RGBA, as `load_image` returns it.
        edited: Decoded edited codes, float `[S, S, 3]` in [0, 1].
        mask: `[S, S]` in [0, 1], best with a feathered edge.
        matrix: `[2, 3]` from photo to crop.
        mode, reconstruction, kept: As for `composite_crop`.
        photo_mask: `[height, width]` of the photo, in [0, 1]: an upper bound of the weight, for a mask that the user
            drew on the photo and that the crop's pixels are too coarse to follow.

    Returns:
        A new image of the photo's mode, size, transparency and ICC profile; where `warp_mask` or `photo_mask` is 0, its
        pixels are those of the photo.
    """
    if photo.mode not in ("RGB", "RGBA"):
        raise ValueError(f"photo must have mode RGB or RGBA, as load_image returns it, not {photo.mode}")
    layer, detail = _layer(edited, mode, reconstruction, kept)
    box, weight = _weight_in_photo(_mask_array(mask, layer.shape[:2], "mask"), matrix, photo.size)
    if photo_mask is not None:
        bound = _mask_array(photo_mask, (photo.height, photo.width), "photo_mask")
        weight = np.minimum(weight, bound[box[1] : box[3], box[0] : box[2]])
    result = photo.copy()
    if not weight.any():
        return result
    pixels = np.array(photo.crop(box))
    base = pixels[:, :, :3].astype(np.float32) / 255
    warped = _warp_channels(np.concatenate([layer, detail], axis=2), matrix, box)
    change = warped[:, :, :3] - (1 - warped[:, :, 3:]) * base
    blended = np.rint(np.clip(base + weight[:, :, None] * change, 0.0, 1.0) * 255)
    pixels[:, :, :3] = np.where(weight[:, :, None] > 0, blended, pixels[:, :, :3])
    result.paste(Image.fromarray(pixels), box[:2])
    return result


def _warp_channels(crop: np.ndarray, matrix: np.ndarray, box: Box) -> np.ndarray:
    """Resample `[S, S, C]` of the crop into the rectangle `box` of the photo."""
    to_box = compose(inverse(matrix), translation(-box[0], -box[1]))
    size = (box[2] - box[0], box[3] - box[1])
    channels = (Image.fromarray(channel) for channel in np.moveaxis(crop, 2, 0))
    return np.stack([np.asarray(warp(channel, to_box, size)) for channel in channels], axis=2)


def _weight_in_photo(mask: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[Box, np.ndarray]:
    """The rectangle of the photo that a mask can reach, and the weights float32 `[H, W]` in it."""
    height, width = mask.shape
    mask = mask * edge_fade(width, height, matrix, size)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return _NOWHERE
    # Bicubic interpolation reaches two pixels, of the crop or of the photo, whichever is coarser.
    reach = np.array([[x, y] for x in (columns[0] - 2, columns[-1] + 3) for y in (rows[0] - 2, rows[-1] + 3)])
    quad = apply(inverse(matrix), reach)
    low = np.maximum(np.floor(quad.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(quad.max(axis=0)).astype(int) + 2, size)
    if (high <= low).any():
        return _NOWHERE
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    weight = _warp_channels(mask[:, :, None], matrix, box)[:, :, 0].clip(0.0, 1.0)
    weight[weight < 1 / 512] = 0  # Dust of the interpolation: too little to see, but those pixels would not be exact.
    # `warp` repeats the outermost pixels, but beyond the crop nothing changes.
    x, y = np.arange(box[0], box[2]) + 0.5, (np.arange(box[1], box[3]) + 0.5)[:, None]
    for row, length in zip(matrix, (width, height), strict=True):
        position = row[0] * x + row[1] * y + row[2]
        weight[(position < 0) | (position > length)] = 0
    return box, weight


def edge_fade(width: int, height: int, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Weights `[height, width]` that fall to 0 at those edges of the crop that lie inside the photo."""
    quad = apply(inverse(matrix), corners(width, height))
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    fade = np.ones((height, width), dtype=np.float32)
    for index, distance in enumerate((y, 1 - x, 1 - y, x)):  # From the top, right, bottom and left edge.
        ends = quad[[index, (index + 1) % 4]]
        outside = (ends <= 0.5).all(axis=0) | (ends >= np.array(size) - 0.5).all(axis=0)
        if not outside.any():
            fade *= np.clip(distance * 16, 0.0, 1.0)
    return fade
