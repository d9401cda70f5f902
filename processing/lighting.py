"""How light falls on a face, by the lightness of its skin."""

import numpy as np

from .alignment import CROP_SIZE
from .canvas import Canvas
from .face_parsing import PERSON, FaceParsing

#: Exponent from sRGB to light, nearly.
GAMMA = 2.2
#: The most by which light falls from a side: the tangent of its angle.
MOST_SLOPE = 0.7
#: The brightest pixels of people, as a share of them, how bright these are in a photo that is well exposed, sRGB in
#: [0, 1], and the least exposure.
HIGHLIGHTS, EXPOSED, LEAST_EXPOSURE = 0.03, 0.66, 0.08
#: How far light on a face may be from its mean, as factors.
DARKEST, BRIGHTEST = 0.55, 1.35


def light_on_face(canvas: Canvas, pixels: np.ndarray, parsing: FaceParsing) -> np.ndarray:
    """
    From where light falls on a face, by the lightness of its skin as if that were half an egg: a unit vector [3] to
    the right, down and towards the viewer.
    """
    x, y = canvas.places()
    right, down = np.broadcast_arrays((x - CROP_SIZE / 2) / 44, (y - 72) / 60)
    forward = (1 - right**2 - down**2).clip(0) ** 0.5
    known = (canvas.mask(parsing, "facial_skin") > 0.9) & (forward > 0.4)
    slopes = np.array([0.0, -0.4])
    if known.sum() > 100:
        normals = np.stack([right[known], down[known], forward[known]], 1)
        found, *_ = np.linalg.lstsq(normals, (pixels[known] ** GAMMA).mean(1), rcond=None)
        slopes = found[:2] / max(float(found[2]), 1e-3)
    light = np.array([*np.clip(slopes, [-MOST_SLOPE, -MOST_SLOPE], [MOST_SLOPE, -0.15]), 1.0])
    return light / np.linalg.norm(light)


def light_on_skin(canvas: Canvas, pixels: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """How much light falls on each place [S, S], of that on skin in the mean."""
    grey = pixels.mean(2)
    mean, little = float((grey * skin).sum() / skin.sum()), 1e-3
    near = (canvas.blur(grey * skin, 5.0) + little * mean) / (canvas.blur(skin, 5.0) + little)
    return (near / mean).clip(DARKEST, BRIGHTEST)


def exposure(canvas: Canvas, pixels: np.ndarray, parsing: FaceParsing) -> float:
    """
    How much light a photo has got, in (0, 1], of that which one has got that is well exposed: by what is brightest in
    a person, who has highlights, whites of eyes and teeth, however dark the skin is.
    """
    person = canvas.mask(parsing, PERSON) > 0.5
    if not person.any():
        return 1.0
    bright = float(np.quantile(pixels.mean(2)[person], 1 - HIGHLIGHTS))
    return float(np.clip((bright / EXPOSED) ** GAMMA, LEAST_EXPOSURE, 1))
