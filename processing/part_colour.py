"""Parts of a face in another colour, hair, lips: transfer of means and deviations (Reinhard et al. 2001) in Oklab."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .blending import LUMA, Box, find_toning, warp_channels
from .canvas import blur, minimum_filter, nearest_colours, smoothstep
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
#: and what its hue varies by is mostly what JPEG made of it.
LEAST_CONTRAST, MOST_CONTRAST = np.array([0.5, 0.4, 0.4]), np.array([1.6, 0.7, 0.7])
#: Noise of a photo, in levels of [0, 1]: at least and at most, which share of it is flat, over how many pixels it is
#: looked at (a block of JPEG is 8 wide), and how many of its deviations a strand must differ by.
NOISE_RANGE, FLATTEST, NOISE_REACH, NOISE = (1 / 255, 3 / 255), 0.1, 4.0, 2.0
#: Of hair, in pixels of the 128-pixel crop: how far from its edge it is not mixed with what is behind, how far beyond
#: it strands are looked for, and how near the edge is where a pixel may be a mixture; how sure of it one must be; by
#: how much it and what is behind must differ in [0, 1] to be told apart, and between which places on the way from one
#: to the other a pixel is a mixture; and what hides hair and is none.
INSIDE, REACH, NEAR, SURE, ALIKE, BETWEEN = 2.0, 2.2, 3.0, 0.8, 0.1, (0.08, 0.9)
COVERS = ("eyeglasses", "hat", "jewellery", "cloth", "face_mask")
#: How far what is lighter than the part in the mean is so by a gloss, and from how many times its lightness on, for
#: its hue.
GLOSS, GLOSSY = 0.3, 1.2
#: Green–red and blue–yellow of skin for each of its lightness: the median of photos, how far people differ by
#: themselves, and how much of the rest is taken for light.
SKIN, PEOPLE, TINTED = np.array([0.066, 0.071]), 0.02, 0.7
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
        hair = self.part == "hair"
        layer = colour_layer(photo, refine_hair(photo, parsing) if hair else parsing, self, share)
        if layer is not None and hair:
            layer = with_strands(layer, photo, parsing, share)
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


def in_light(colour: Colour, skin: Colour) -> Colour:
    """A colour in the light of a photo, as far as that tints skin more than people differ: grey looks blue beside
    skin under a yellow lamp."""
    tint = np.array(skin.mean[1:]) / max(skin.mean[0], 1e-3) - SKIN
    tint = TINTED * np.sign(tint) * (np.abs(tint) - PEOPLE).clip(0)
    return Colour((colour.mean[0], *(colour.mean[1:] + colour.mean[0] * tint)), colour.deviation)


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
    colours = to_oklab(pixels)
    offset = (colours[..., :1] - now.mean[0]) * contrast[0]
    light = becomes.mean[0] + offset
    # a gloss is light on top of that of the part itself, and no lighter where that is
    gloss = np.cbrt(becomes.mean[0] ** 3 + (now.mean[0] + offset.clip(0)) ** 3 - now.mean[0] ** 3)
    light = np.where(offset > 0, GLOSS * gloss + (1 - GLOSS) * light, light)
    own = colours[..., 1:] - _shaded(now, colours[..., :1])
    return from_oklab(np.concatenate([light, _shaded(becomes, light) + contrast[1:] * own], -1))


def _shaded(colour: Colour, light: np.ndarray) -> np.ndarray:
    """
    Green–red and blue–yellow [..., 2] of a part of one colour where it is so light [..., 1]: in shadow Oklab shrinks
    as a whole, but a gloss has the light's own hue.
    """
    return np.array(colour.mean[1:]) * (light / max(colour.mean[0], 1e-3)).clip(0, GLOSSY)


@dataclass(frozen=True, eq=False)
class ColourLayer:
    """
    A part of the face in another colour, at the photo's own resolution: its structure stays.

    Args:
        now: what the part is like in the photo.
        becomes: what it becomes.
        alpha: how much of each pixel of a square frame is the part, [T, T] in [0, 1].
        matrix: [2, 3] from the photo to the frame.
        edge: [T, T, 7], see [`unmixed`], of a part that lies before something; None where all of it is taken as it is.
    """

    now: Colour
    becomes: Colour
    alpha: np.ndarray
    matrix: np.ndarray
    edge: np.ndarray | None = None

    def change(self, base: np.ndarray, box: Box) -> np.ndarray:
        """
        See [`PhotoLayer.change`]; of pixels that have another hue than the part less: they show what is behind. Noise
        stays as it is, and is not made stronger where the part becomes lighter.
        """
        clean = without_noise(base)
        if self.edge is not None:
            own, share = unmixed(clean, warp_channels(self.edge, self.matrix, box))
        else:
            own, share = clean, np.ones((*clean.shape[:2], 1))
        reach = FOREIGN * np.array(self.now.deviation[1:]) + LEAST_FOREIGN
        hues = (to_oklab(own)[..., 1:] - self.now.mean[1:]) / reach
        share = share * np.exp(-((hues**2).sum(-1, keepdims=True) ** 2))
        return (share * (recolour(own, self.now, self.becomes) - own)).astype(np.float32)


def noise_of(pixels: np.ndarray) -> float:
    """
    Standard deviation of the noise of a picture [H, W, 3] in [0, 1], what compression leaves of it included: that of
    the brightness of its flattest parts, for texture is none.
    """
    grey = pixels @ LUMA
    mean = blur(grey, NOISE_REACH / 2)
    deviation = np.sqrt(np.maximum(blur(grey**2, NOISE_REACH / 2) - mean**2, 0))
    known = (mean > 0.04) & (mean < 0.96)
    return float(np.quantile(deviation[known], FLATTEST)) if known.any() else 0.0


def without_noise(pixels: np.ndarray) -> np.ndarray:
    """
    A picture [H, W, 3] in [0, 1] without what cannot be told from its noise: a guided filter (He et al. 2010) by its
    brightness, so that colours follow that: what they do by themselves from pixel to pixel is noise of a JPEG.
    """
    noise = NOISE * float(np.clip(noise_of(pixels), *NOISE_RANGE))
    guide = (pixels @ LUMA)[..., None]
    mean, centre = blur(pixels, NOISE_REACH), blur(guide, NOISE_REACH)
    variance = blur(guide**2, NOISE_REACH) - centre**2
    slope = (blur(guide * pixels, NOISE_REACH) - centre * mean) / (variance.clip(0) + noise**2)
    offset = mean - slope * centre
    return (blur(slope, NOISE_REACH) * guide + blur(offset, NOISE_REACH)).clip(0, 1)


def unmixed(pixels: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Pixels at the edge of a part, which show both that and what is behind it, as if it were the part alone.

    Args:
        pixels: sRGB [H, W, 3] in [0, 1].
        edge: [H, W, 7]: the colours of the part and of what is behind near by, and how near the edge is.

    Returns:
        those of the part [H, W, 3], and how much of each pixel it is [H, W, 1]: where the two colours differ, and
        near their edge, that is told by the pixel's place between them; elsewhere it is all.
    """
    part, behind, near = edge[..., :3], edge[..., 3:6], edge[..., 6:].clip(0, 1)
    apart = part - behind
    distance = (apart**2).sum(-1, keepdims=True)
    place = ((pixels - behind) * apart).sum(-1, keepdims=True) / np.maximum(distance, 1e-4)
    known = near * distance / (distance + ALIKE**2)
    share = 1 - known * (1 - smoothstep(place, *BETWEEN))
    return share * pixels + (1 - share) * part, share


def with_strands(layer: ColourLayer, photo: Image.Image, parsing: FaceParsing, share: float) -> ColourLayer:
    """
    A layer of hair that reaches to the strands beyond its edge and knows what they lie before, see [`unmixed`].
    """
    pixels, unit = parsing.pixels(photo), parsing.unit
    hair = layer.alpha / share
    inside = minimum_filter(hair, round(INSIDE * unit)) > SURE
    reaches = blur(hair, REACH * unit)
    outside = (reaches < 0.03) | ((reaches < 0.35) & (minimum_filter(1 - hair, round(unit)) > SURE))
    now = measure_colour(pixels, hair * inside)
    if now is None or not outside.any():
        return layer
    planes = [nearest_colours(pixels, mask, unit) for mask in (inside, outside)]
    near = smoothstep(blur((hair < 0.5).astype(np.float32), NEAR * unit), 0.02, 0.2)
    edge = np.dstack([*planes, near]).astype(np.float32)
    wide = smoothstep(blur(hair, REACH * unit), 0.08, 0.4) * (1 - parsing.mask(parsing.known(COVERS)))
    return replace(layer, now=now, alpha=share * np.maximum(hair, wide), edge=edge)


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
    elif find_toning(photo) is None and (skin := measure_colour(frame, parsing.mask("facial_skin"))) is not None:
        becomes = in_light(becomes, skin)  # of a photo without colours skin does not tell the light's
    return None if now is None else ColourLayer(now, becomes, share * weights, parsing.matrix)
