"""What hides mouth and nose, painted on faces whose parts are known: masks that people wear (surgical ones, cups and
cloth), hands and scarves.

No set of photos says of each pixel what is mask, or shows what is below; painted ones teach the face parser to find
them and the refiner to take them off.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.alignment import CROP_LANDMARKS, CROP_SIZE

from .face_parsing_data import ParsedFaces

#: What a mask lies on, and what stays in front of it.
_UNDER = ("skin", "nose", "mouth", "upper_lip", "lower_lip", "eyeglasses")
_IN_FRONT = ("hair", "hat")
#: Mean colours, sRGB in [0, 1]: paper ones light blue, green, white and black, cloth ones of any colour.
_PAPER = ((0.62, 0.78, 0.88), (0.62, 0.82, 0.78), (0.92, 0.93, 0.93), (0.12, 0.12, 0.13), (0.86, 0.72, 0.76))
_KINDS = ("surgical", "cup", "cloth")


def wear_face_masks(faces: ParsedFaces, seed: int = 0) -> ParsedFaces:
    """
    The faces with a mask each, see [`paint_face_mask`], without those that show nothing where it would be.

    Args:
        faces: aligned ones, one at least that can wear a mask.
        seed: the same gives the same masks.

    Raises:
        ValueError: no face can wear a mask.
    """
    worn = [painted for _, *painted in faces_before_and_after(faces, seed)]
    if not worn:
        raise ValueError("no face shows skin where a mask would be")
    images, masks = (torch.from_numpy(np.stack(each)) for each in zip(*worn, strict=True))
    return replace(faces, images=images, masks=masks)


def faces_before_and_after(faces: ParsedFaces, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """
    Aligned faces, uint8 [S, S, 3], one after the other: bare, with a mask, and the classes of the latter, see
    [`paint_face_mask`]; without those that show nothing where it would be. The same seed gives the same masks.
    """
    points = CROP_LANDMARKS * (faces.images.shape[1] / CROP_SIZE)
    generator = np.random.default_rng(seed)
    for image, classes in zip(faces.images.numpy(), faces.masks.numpy(), strict=True):
        with suppress(ValueError):
            yield image, *paint_face_mask(image, classes, points, generator)


def paint_face_mask(
    image: np.ndarray, classes: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """
    A face with a mask over mouth and nose; its shape, colour, folds and pattern are drawn.

    Args:
        image: uint8 [S, S, 3], RGB, an aligned face.
        classes: uint8 [S, S], indices into `FACE_CLASSES`, 255 where nothing is known.
        landmarks: float [5, 2], (x, y) in pixels of the eyes, the nose and the corners of the mouth.

    Returns:
        The picture, uint8 [S, S, 3], and its classes, uint8 [S, S], in which the mask and its bands are `"face_mask"`.

    Raises:
        ValueError: a face that shows nothing where the mask would be.

    Example:

    ```python
    >>> import numpy as np
    >>> from gptface.data.face_masks import paint_face_mask
    >>> from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
    >>> classes = np.ones((64, 64), np.uint8)  # skin everywhere
    >>> points = np.array([[22, 28], [42, 28], [32, 40], [24, 48], [40, 48]])
    >>> worn, shown = paint_face_mask(np.zeros((64, 64, 3), np.uint8), classes, points, np.random.default_rng(0))
    >>> bool((shown == FACE_CLASSES.index("face_mask")).any())
    True

    ```
    """
    kind = str(generator.choice(_KINDS))
    u, v, unit = _axes(landmarks, len(image))
    face = np.isin(classes, [FACE_CLASSES.index(name) for name in _UNDER])
    lower = _lower_face(face, v)
    left, right = np.quantile(u[lower], (0.02, 0.98))
    chin = float(np.quantile(v[lower], 0.98))
    shape = _shape(kind, u, v, left, right, chin, _bridge(landmarks), generator)
    # a mask ends a little beyond the cheeks and the chin, where the face does
    around = ndimage.binary_dilation(face, iterations=max(1, round(unit * generator.uniform(0.02, 0.08))))
    below = v > chin - 0.25
    shape &= around | below
    shape &= ~np.isin(classes, [FACE_CLASSES.index(name) for name in _IN_FRONT])
    fabric = _fabric(kind, u, v, shape, image, unit, generator)
    picture = _shaded(image, shape, unit, generator)
    shown = classes.copy()
    bands = _bands(u, v, shape, left, right, generator) & around & ~shape
    picture = np.where(bands[..., None], fabric[shape].mean(0), picture)
    shown[shape | bands] = FACE_CLASSES.index("face_mask")
    return _laid_over(picture, fabric, shape, unit), shown


def paint_covering(
    image: np.ndarray, classes: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """
    A face with a hand or a scarf in front of its lower part: a random shape in the colour of the skin, or of cloth.

    Args:
        image, classes, landmarks: as for [`paint_face_mask`].

    Returns:
        The picture, uint8 [S, S, 3], and where it hides the face, bool [S, S].

    Raises:
        ValueError: a face that shows nothing there.
    """
    u, v, unit = _axes(landmarks, len(image))
    face = np.isin(classes, [FACE_CLASSES.index(name) for name in _UNDER])
    lower = _lower_face(face, v)
    edge = _noise(u.shape, generator.uniform(0.1, 0.4) * unit, generator)
    if generator.random() < 0.5:
        left, right = np.quantile(u[lower], (0.02, 0.98))
        across = np.abs(u - (left + right) / 2) / ((right - left) / 2)
        shape = (v + 0.06 * edge > generator.uniform(-0.5, 0.6)) & (across < generator.uniform(0.9, 1.4))
        fabric = _fabric("cloth", u, v, shape, image, unit, generator)
    else:
        x, y = u - generator.uniform(-0.7, 0.7), v - generator.uniform(-0.3, 0.7)
        angle = generator.uniform(0, math.pi)
        along, beside = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
        reach = (along / generator.uniform(0.4, 1.0)) ** 2 + (beside / generator.uniform(0.2, 0.5)) ** 2
        shape = reach + 0.15 * edge < 1
        skin = (image[lower] / 255).mean(0) * generator.uniform(0.85, 1.1) + generator.normal(0, 0.02, 3)
        fabric = _lit(np.broadcast_to(skin, image.shape).copy(), u, shape, image, unit, generator)
    if not (shape & face).any():
        raise ValueError("what is painted hides nothing of the face")
    return _laid_over(_shaded(image, shape, unit, generator), fabric, shape, unit), shape


def _axes(landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """
    Across and down along the face's own axes from the mouth on, [S, S] each, in distances from the eyes to the mouth;
    that distance in pixels.
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    unit = float(np.linalg.norm(mouth - eyes)) or 1.0
    y, x = np.mgrid[:size, :size] + 0.5
    down = (mouth - eyes) / unit
    v = ((x - mouth[0]) * down[0] + (y - mouth[1]) * down[1]) / unit
    u = ((x - mouth[0]) * down[1] - (y - mouth[1]) * down[0]) / unit
    return u, v, unit


def _lower_face(face: np.ndarray, v: np.ndarray) -> np.ndarray:
    """What of a face [S, S] lies below the eyes; raises `ValueError` where that is next to nothing."""
    lower = face & (v > -0.6)
    if lower.sum() < 0.01 * lower.size:
        raise ValueError("the face shows no skin below the eyes")
    return lower


def _noise(shape: tuple[int, ...], reach: float, generator: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit variance."""
    noise = ndimage.gaussian_filter(generator.normal(size=shape), reach)
    return noise / max(float(noise.std()), 1e-6)


def _shaded(image: np.ndarray, shape: np.ndarray, unit: float, generator: np.random.Generator) -> np.ndarray:
    """The picture in [0, 1], darker beside what is laid over it."""
    soft = ndimage.gaussian_filter(shape.astype(np.float32), 0.012 * unit)
    shadow = ndimage.shift(shape.astype(np.float32), (0.03 * unit, 0), order=1)
    shadow = ndimage.gaussian_filter(shadow, 0.04 * unit)
    return image / 255.0 * (1 - generator.uniform(0.1, 0.4) * shadow * (1 - soft))[..., None]


def _laid_over(picture: np.ndarray, fabric: np.ndarray, shape: np.ndarray, unit: float) -> np.ndarray:
    """uint8 [S, S, 3]"""
    soft = ndimage.gaussian_filter(shape.astype(np.float32), 0.012 * unit)
    picture = picture + soft[..., None] * (fabric - picture)
    return np.rint(picture.clip(0, 1) * 255).astype(np.uint8)


def _bridge(landmarks: np.ndarray) -> tuple[float, float]:
    """Tip of the nose, (across, down) in the units of the mask."""
    eyes, nose, mouth = landmarks[:2].mean(0), landmarks[2], landmarks[3:].mean(0)
    unit = float(np.linalg.norm(mouth - eyes)) or 1.0
    down, away = (mouth - eyes) / unit, (nose - mouth) / unit
    return float(away[0] * down[1] - away[1] * down[0]), float(away @ down)


def _shape(
    kind: str,
    u: np.ndarray,
    v: np.ndarray,
    left: float,
    right: float,
    chin: float,
    nose: tuple[float, float],
    generator: np.random.Generator,
) -> np.ndarray:
    """Where the mask is, bool [S, S]: below a brow over the nose, above an arc under the chin, between its sides."""
    middle, half = (left + right) / 2, (right - left) / 2
    # of 1 at the nose, 0 at the cheeks
    near = np.exp(-(((u - nose[0]) / (generator.uniform(0.25, 0.45) * half * 2)) ** 2))
    peak = nose[1] - generator.uniform(0.0, 0.45)
    sides = {"surgical": generator.uniform(-0.35, -0.05), "cup": generator.uniform(-0.2, 0.1)}.get(
        kind, generator.uniform(-0.4, 0.0)
    )
    top = sides + (peak - sides) * near
    across = np.abs(u - middle) / half
    end = chin + generator.uniform(-0.02, 0.18)
    rise = {"surgical": generator.uniform(0.1, 0.4), "cup": generator.uniform(0.5, 0.9)}.get(
        kind, generator.uniform(0.2, 0.7)
    )
    bottom = end - rise * across ** generator.uniform(1.5, 3)
    width = {"surgical": generator.uniform(0.75, 1.0), "cup": generator.uniform(0.7, 0.95)}.get(
        kind, generator.uniform(0.85, 1.1)
    )
    return (v > top) & (v < bottom) & (across < width)


def _fabric(
    kind: str,
    u: np.ndarray,
    v: np.ndarray,
    shape: np.ndarray,
    image: np.ndarray,
    unit: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Its colours, float [S, S, 3] in [0, 1]: folds, a pattern, and the light that lies on the face."""
    base = np.array(_PAPER[generator.integers(len(_PAPER))]) if kind != "cloth" else generator.uniform(0.05, 0.95, 3)
    base = (base * generator.uniform(0.8, 1.1) + generator.normal(0, 0.03, 3)).clip(0.03, 0.97)
    fabric = np.broadcast_to(base, image.shape).astype(np.float64).copy()
    if kind == "cloth" and generator.random() < 0.6:
        other = generator.uniform(0, 1, 3)
        angle, period = generator.uniform(0, math.pi), generator.uniform(0.06, 0.4)
        wave = np.sin(2 * math.pi * (u * math.cos(angle) + v * math.sin(angle)) / period)
        if generator.random() < 0.5:
            wave = wave * np.sin(2 * math.pi * (v * math.cos(angle) - u * math.sin(angle)) / period)
        else:
            noise = ndimage.gaussian_filter(generator.normal(size=u.shape), generator.uniform(0.03, 0.2) * unit)
            wave = wave + noise / max(float(noise.std()), 1e-6)
        fabric += (wave > generator.uniform(-0.5, 0.5))[..., None] * (other - base)
    # paper is pleated across, cups have a seam down the middle, cloth hangs in folds
    if kind == "surgical":
        pleats = np.sin(2 * math.pi * (v + 0.1 * u**2) / generator.uniform(0.15, 0.35))
        fabric *= 1 + generator.uniform(0.02, 0.12) * np.sign(pleats)[..., None] * np.abs(pleats)[..., None] ** 0.3
    elif kind == "cup":
        fabric *= 1 - generator.uniform(0.05, 0.3) * np.abs(u)[..., None]
    return _lit(fabric, u, shape, image, unit, generator)


def _lit(
    fabric: np.ndarray,
    u: np.ndarray,
    shape: np.ndarray,
    image: np.ndarray,
    unit: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Colours [S, S, 3] with folds, noise and a rim in the light of the face; what bears them is round."""
    folds = _noise(u.shape, 0.12 * unit, generator)
    fabric *= 1 + generator.uniform(0.02, 0.12) * folds[..., None]
    light = ndimage.gaussian_filter(image.mean(-1) / 255, 0.35 * unit)
    inside = light[shape] if shape.any() else light
    gain = (light / max(float(inside.mean()), 1e-3)).clip(0.5, 1.6) ** generator.uniform(0.3, 1)
    exposure = (max(float(inside.mean()), 0.05) / 0.55) ** generator.uniform(0.2, 0.8)
    fabric *= (gain * exposure * (1 - 0.15 * u**2))[..., None]
    rim = shape & ~ndimage.binary_erosion(shape, iterations=max(1, round(0.03 * unit)))
    fabric[rim] *= generator.uniform(0.8, 1.1)
    return fabric + generator.normal(0, generator.uniform(0, 0.03), fabric.shape)


def _bands(
    u: np.ndarray,
    v: np.ndarray,
    shape: np.ndarray,
    left: float,
    right: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Bands from its corners to the ears, bool [S, S]."""
    bands = np.zeros_like(shape)
    rows = v[shape]
    if not len(rows):
        return bands
    thickness = generator.uniform(0.015, 0.035)
    ear = -0.75 + generator.uniform(-0.1, 0.1)
    for side in (left, right):
        for start in (float(np.quantile(rows, 0.15)), float(np.quantile(rows, 0.7))):
            # a straight line from the side of the mask to the ear, a quarter further out
            share = ((u - 0.7 * side) / (0.6 * side)).clip(0, 1)
            line = start + share * (ear - start)
            beside = (u * np.sign(side) > 0.7 * abs(side)) & (u * np.sign(side) < 1.3 * abs(side))
            bands |= beside & (np.abs(v - line) < thickness)
    return bands
