"""Parts of a face in another colour, hair, lips: transfer of means and deviations (Reinhard et al. 2001) in Oklab."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .blending import Box
from .face_parsing import FaceParsing
from .hair import refine_hair

#: Oklab (Ottosson 2020): linear sRGB → responses of the cones, and their cube roots → lightness, green–red,
#: blue–yellow.
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
#: How much the deviation of lightness, and of the other two, may change: strands of black hair have little contrast,
#: and pulled to that of blond hair their noise would show.
LEAST_CONTRAST, MOST_CONTRAST = np.array([0.5, 0.4, 0.4]), np.array([1.4, 1.5, 1.5])
#: Share of the surroundings that a part must fill to have a colour of its own.
LEAST_PART = 1 / 1000
#: Deviations of hue from which on a pixel is hardly of the part, and more than these, as a deviation.
FOREIGN, LEAST_FOREIGN = 3.0, 0.02
#: Probability from which on a pixel counts in the mean.
SURELY = 0.5


@dataclass(frozen=True)
class Colour:
    """
    Colour of some pixels in Oklab: lightness in [0, 1], green–red and blue–yellow around 0.

    Args:
        mean: over the pixels.
        deviation: standard deviation over the pixels.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(frozen=True)
class PartColour:
    """
    What a part of the face becomes by an edit of its colour.

    Args:
        part: what the face parser calls it.
        colour: what that part is like on faces that have this colour: the means over people of mean and deviation.
        beside: the part to which the mean is relative; lips are told by how they differ from skin. None: by
            themselves.
    """

    part: str
    colour: Colour
    beside: str | None = None

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether the face shows the part, and the one that its colour is told by."""
        shown = (parsing.mask(self.part) > SURELY).mean() >= LEAST_PART
        return bool(shown and (self.beside is None or (parsing.mask(self.beside) > SURELY).any()))

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> "list[ColourLayer]":
        """See [`Transfer.layers`]; nothing is left to chance."""
        layer = colour_layer(photo, refine_hair(photo, parsing) if self.part == "hair" else parsing, self, share)
        return [] if layer is None else [layer]


def to_oklab(pixels: np.ndarray) -> np.ndarray:
    """sRGB [..., 3] in [0, 1] → Oklab [..., 3], float64."""
    pixels = np.asarray(pixels, np.float64)
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_CONES.T) @ TO_OKLAB.T


def from_oklab(colours: np.ndarray) -> np.ndarray:
    """Oklab [..., 3] → sRGB [..., 3], clipped to [0, 1], float64."""
    cones = (colours @ np.linalg.inv(TO_OKLAB).T) ** 3
    linear = (cones @ np.linalg.inv(TO_CONES).T).clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def measure_colour(pixels: np.ndarray, weights: np.ndarray) -> Colour | None:
    """
    Colour of a part of a picture.

    Args:
        pixels: sRGB [H, W, 3] in [0, 1].
        weights: probability [H, W] of the part.

    Returns:
        its mean and deviation, each pixel weighted by its probability; None where no pixel surely shows it.
    """
    sure = weights > SURELY
    if not sure.any():
        return None
    colours, shares = to_oklab(pixels[sure]), weights[sure, None]
    mean = (colours * shares).sum(0) / shares.sum()
    deviation = np.sqrt(((colours - mean) ** 2 * shares).sum(0) / shares.sum())
    return Colour(tuple(map(float, mean)), tuple(map(float, deviation)))  # type: ignore[arg-type]


def recolour(pixels: np.ndarray, now: Colour, becomes: Colour) -> np.ndarray:
    """
    Pixels of a part in another colour: the mean becomes that of the colour, the structure stays, with the contrast
    that such a part has in this colour.

    Args:
        pixels: sRGB [..., 3] in [0, 1].
        now: what the part is like.
        becomes: what it becomes.

    Returns:
        sRGB [..., 3] in [0, 1].

    Example:

    ```python
    >>> import numpy as np
    >>> from gptface.processing.part_colour import Colour, recolour
    >>> dark, blond = Colour((0.3, 0.0, 0.0), (0.1, 0.01, 0.01)), Colour((0.66, 0.03, 0.07), (0.1, 0.01, 0.02))
    >>> recolour(np.full((1, 3), 0.18), dark, blond).round(2)
    array([[0.66, 0.49, 0.33]])

    ```
    """
    contrast = np.divide(becomes.deviation, np.maximum(now.deviation, 1e-4)).clip(LEAST_CONTRAST, MOST_CONTRAST)
    return from_oklab((to_oklab(pixels) - now.mean) * contrast + becomes.mean)


@dataclass(frozen=True, eq=False)
class ColourLayer:
    """
    A part of the face in another colour, at the photo's own resolution: its structure stays.

    Args:
        now: what the part is like in the photo.
        becomes: what it becomes.
        alpha: how much of each pixel of a square frame is the part, [T, T] in [0, 1].
        matrix: [2, 3] from the photo to the frame.
    """

    now: Colour
    becomes: Colour
    alpha: np.ndarray
    matrix: np.ndarray

    def change(self, base: np.ndarray, box: Box) -> np.ndarray:
        """See [`PhotoLayer.change`]; of pixels that have another hue than the part less: they show what is behind."""
        reach = FOREIGN * np.array(self.now.deviation[1:]) + LEAST_FOREIGN
        hues = (to_oklab(base)[..., 1:] - self.now.mean[1:]) / reach
        own = np.exp(-((hues**2).sum(-1, keepdims=True) ** 2))
        return (own * (recolour(base, self.now, self.becomes) - base)).astype(np.float32)


def colour_layer(
    photo: Image.Image, parsing: FaceParsing, wanted: PartColour, share: float = 1.0
) -> ColourLayer | None:
    """
    A part of a face in another colour, wherever in its surroundings it is seen.

    Args:
        photo: what is to be changed.
        parsing: what the face and its surroundings show.
        wanted: the part, and its colour.
        share: of the way to that colour, in (0, 1].

    Returns:
        None where the face shows nothing of the part, or of the one that its colour is told by.
    """
    weights = parsing.mask(wanted.part)
    frame = parsing.pixels(photo)
    if (weights > SURELY).mean() < LEAST_PART:
        return None
    now, becomes = measure_colour(frame, weights), wanted.colour
    if wanted.beside is not None:
        beside = measure_colour(frame, parsing.mask(wanted.beside))
        if beside is None:
            return None
        becomes = Colour(tuple(np.add(beside.mean, becomes.mean)), becomes.deviation)
    return None if now is None else ColourLayer(now, becomes, share * weights, parsing.matrix)
