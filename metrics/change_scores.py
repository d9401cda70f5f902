"""What an edit did to a photo, in figures: how sharp it is, how its edge fits, and what it changed besides.

Pictures are uint8 [H, W, 3]; areas are bool [H, W].
"""

import numpy as np
from PIL import Image, ImageFilter

#: Luminance of red, green and blue.
GREY = np.array([0.299, 0.587, 0.114])
#: sRGB, linear, → XYZ, each of the three as a share of that of white (D65).
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_TO_XYZ /= _TO_XYZ.sum(1, keepdims=True)


def sharpness_ratio(photo: np.ndarray, edited: np.ndarray, area: np.ndarray) -> float | None:
    """
    Variance of the Laplacian over an area of the edited picture, as a share of that of the photo: below 1 the edit is
    more blurred than what was there, above 1 it is sharper. None where the area is empty or the photo is flat there.

    ```python
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert sharpness_ratio(photo, photo, np.ones((32, 32), bool)) == 1
    ```
    """
    before, after = (_laplacian(picture)[area] for picture in (photo, edited))
    return float(after.var() / before.var()) if before.size and before.var() > 0 else None


def _laplacian(picture: np.ndarray) -> np.ndarray:
    """
    Sum of the four neighbours' grey values less four times a pixel's own, [H, W]; the outermost pixels are repeated.
    """
    grey = np.pad(picture.astype(np.float64) @ GREY, 1, mode="edge")
    return grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]


def inner_ring(area: np.ndarray, width: int = 8) -> np.ndarray:
    """
    The pixels of an area that have a pixel outside of it at most `width` rows and columns away; the border of the
    picture is no edge.
    """
    outside = (
        Image.fromarray(~np.pad(area, width, mode="edge")).convert("L").filter(ImageFilter.MaxFilter(2 * width + 1))
    )
    return area & (np.asarray(outside)[width:-width, width:-width] > 0)


def colour_difference(photo: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """
    ΔE (CIE 1976) of each pixel, [H, W]: the distance in CIELAB, about 2 where an eye begins to tell two colours apart.
    """
    return np.linalg.norm(_lab(photo) - _lab(edited), axis=2)


def _lab(picture: np.ndarray) -> np.ndarray:
    """sRGB → CIELAB, float64 [H, W, 3]."""
    value = picture / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, 2, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2)


def change_share(photo: np.ndarray, edited: np.ndarray, area: np.ndarray) -> float | None:
    """
    Share of all change, by the sum of absolute differences, that lies in an area, bool or [H, W] in [0, 1]; None where
    nothing changed.
    """
    change = np.abs(photo.astype(np.float64) - edited).sum(2)
    return float((change * area).sum() / change.sum()) if change.any() else None


def overlap(area: np.ndarray, other: np.ndarray) -> float | None:
    """Intersection over union of two areas; None where both are empty."""
    union = (area | other).sum()
    return float((area & other).sum() / union) if union else None
