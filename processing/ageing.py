"""
Older and younger faces: what age does to the mean face and to each band of its detail is done to this one (Burt and
Perrett 1995; Tiddeman, Burt and Perrett 2001), at the photo's own resolution. What that is, `lab/measure_age.py`
measured on UTKFace.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import CROP_SIZE, apply, compose, inverse, scale_of
from .blending import Box, PhotoLayer, warp_channels
from .canvas import BEYOND, Canvas, blur, weighted_blur
from .face_parsing import FaceParsing, frame_to_crop
from .hair import refine_hair
from .part_colour import SURELY, Colour, ColourLayer, from_oklab, measure_colour, to_oklab
from .strands import hair_colour

#: What sixty years do to the lightness (of Oklab) of skin, relative to its mean: bells (x, y, deviation along and
#: across, angle, height) in pixels of the left half of the 128-pixel crop, mirrored to the right; and the mean.
AGED_SKIN = (
    (48.0, 83.0, 3.1, 6.1, 0.50, -0.052),
    (37.0, 68.0, 10.4, 7.6, -0.82, -0.300),
    (38.0, 66.0, 6.8, 17.1, 0.63, 0.225),
    (46.0, 96.0, 4.4, 3.9, 3.23, 0.152),
    (46.0, 97.0, 3.6, 5.1, -0.95, -0.193),
    (56.0, 111.0, 4.5, 13.3, 2.27, -0.074),
    (53.0, 51.0, 9.6, 25.0, -0.03, -0.100),
    (29.0, 85.0, 7.9, 20.8, -1.37, -0.079),
)
AGED_SKIN_MEAN = 0.0735
#: Standard deviations, in pixels of the 128-pixel crop, between which bands of detail lie.
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
#: Detail that is larger than that is form, the side of a nose or a shadow, and no line.
FORM = 0.07
#: How far the hues of young skin are evened out.
EVEN = 0.5
#: Lips relative to skin, in Oklab.
OLD_LIPS, YOUNG_LIPS, LIPS_SHARE = (-0.094, 0.015, -0.008), (-0.081, 0.023, -0.006), 0.6
#: Lightness of hair that is grey with age and of the young, how far it goes towards it, and what is left of the
#: chroma (green–red, blue–yellow) of grey hair; the chroma that young hair has at least.
GREY, YOUNG, TO_GREY, TO_YOUNG, FADED, PIGMENT = 0.60, 0.33, 0.55, 0.75, (0.35, 0.4), (0.018, 0.026)
#: Lightness from which on hair without chroma is grey and not black.
BLACK = (0.27, 0.37)


@dataclass(frozen=True)
class Ageing:
    """
    A change of age, a [`Transfer`].

    Args:
        mean_face: how much of the difference between the mean old and the mean young face is added.
        gains: of the bands of detail in skin, from fine to coarse.
        hair: share of the way to hair of that age.
        lips: colour of the lips relative to skin.
        wrinkles: depth of lines that are added, in lightness.
    """

    mean_face: float
    gains: tuple[float, float, float, float]
    hair: float
    lips: tuple[float, float, float]
    wrinkles: float

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether there is skin to be seen."""
        return bool((parsing.crop_mask("facial_skin", CROP_SIZE) > SURELY).mean() > 0.1)

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[PhotoLayer]:
        """Skin, hair and lips of another age, see [`Transfer.layers`]; what is left to chance are wrinkles."""
        skin = parsing.mask("facial_skin")
        away = parsing.mask(("eyes", "brows", "whole_mouth", "eyeglasses", "hair"))
        alpha = (skin - blur(away, 1.5)).clip(0, 1)
        canvas = Canvas.of(parsing)
        lines = _lines(canvas, generator) * self.wrinkles if self.wrinkles else None
        found: list[PhotoLayer] = [
            SkinLayer(self, alpha * share, parsing.matrix, lines, compose(inverse(parsing.matrix), canvas.matrix))
        ]
        found += self._hair(photo, parsing, share)
        frame = parsing.pixels(photo)
        lips, ground = (measure_colour(frame, parsing.mask(name)) for name in ("lips", "facial_skin"))
        if lips is not None and ground is not None:
            becomes = Colour(tuple(np.add(ground.mean, self.lips)), lips.deviation)
            found.append(ColourLayer(lips, becomes, LIPS_SHARE * share * parsing.mask("lips"), parsing.matrix))
        return found

    def _hair(self, photo: Image.Image, parsing: FaceParsing, share: float) -> list[PhotoLayer]:
        """Hair of that age."""
        now = hair_colour(photo, parsing)
        if now is None:
            return []
        light, chroma = now.mean[0], np.array(now.mean[1:])
        if self.mean_face > 0:
            light, chroma = light + TO_GREY * max(0.0, GREY - light), chroma * FADED
        else:
            grey = float(np.clip(1 - chroma[1] / PIGMENT[1], 0, 1) * np.clip((light - BLACK[0]) / np.ptp(BLACK), 0, 1))
            light -= grey * TO_YOUNG * max(0.0, light - YOUNG)
            chroma = chroma + grey * (np.maximum(chroma, PIGMENT) - chroma)
        wanted = Colour((light, float(chroma[0]), float(chroma[1])), now.deviation)
        weights = refine_hair(photo, parsing).mask("hair")
        return [ColourLayer(now, wanted, self.hair * share * weights, parsing.matrix)]


@dataclass(frozen=True, eq=False)
class SkinLayer:
    """
    Skin of another age, see [`Layer`].

    Args:
        ageing: what is done to it.
        alpha: how much of each pixel of the parser's frame is skin, [T, T] in [0, 1].
        matrix: [2, 3] from the photo to that frame.
        lines: lightness [S, S] that lines add; None without.
        to_lines: [2, 3] from the parser's frame to them.
    """

    ageing: Ageing
    alpha: np.ndarray
    matrix: np.ndarray
    lines: np.ndarray | None
    to_lines: np.ndarray

    def change(self, base: np.ndarray, box: Box) -> np.ndarray:
        """What full weight would do to the pixels [h, w, 3] of the photo in the rectangle `box`, [h, w, 3]."""
        lab = to_oklab(base).astype(np.float32)
        skin = warp_channels(self.alpha[:, :, None], self.matrix, box)[:, :, 0].clip(0, 1)
        to_crop = compose(self.matrix, frame_to_crop(len(self.alpha)))
        unit = 1 / scale_of(to_crop)  # pixels of the photo along one of the 128-pixel crop
        light = lab[..., 0]
        smooth = [light, *(weighted_blur(light, skin, scale * unit) for scale in SCALES[1:])]
        added = np.zeros_like(light)
        for fine, coarse, gain in zip(smooth[:-1], smooth[1:], self.ageing.gains, strict=True):
            band = fine - coarse
            added += (gain - 1) * band * np.exp(-((band / FORM) ** 2))
        centres = np.meshgrid(np.arange(box[0], box[2]) + 0.5, np.arange(box[1], box[3]) + 0.5)
        x, y = np.moveaxis(apply(to_crop, np.stack(centres, -1)).astype(np.float32), 2, 0)
        added += self.ageing.mean_face * _aged_skin(x, y)
        if self.lines is not None:
            added += warp_channels(self.lines[:, :, None], compose(self.matrix, self.to_lines), box)[:, :, 0]
        lab[..., 0] += added
        if self.ageing.mean_face < 0:
            for channel in (1, 2):  # the young have fewer spots
                lab[..., channel] += EVEN * (weighted_blur(lab[..., channel], skin, 3 * unit) - lab[..., channel])
        return (from_oklab(lab) - base).astype(np.float32)


def _aged_skin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What age adds to the lightness of skin at places of the 128-pixel crop."""
    found = np.full_like(x, AGED_SKIN_MEAN)
    for middle, height, along, across, angle, value in AGED_SKIN:
        cosine, sine = np.cos(angle), np.sin(angle)
        for places in (x, CROP_SIZE - x):
            u = (cosine * (places - middle) + sine * (y - height)) / along
            v = (cosine * (y - height) - sine * (places - middle)) / across
            found += value * np.exp(-(u * u + v * v) / 2)
    inside = ((y - 30) / 12).clip(0, 1) * ((118 - y) / 8).clip(0, 1)  # what was measured
    return found * inside


#: Wrinkles at either side: points (distance from the middle, row) of the 128-pixel crop, depth and width.
_BESIDE: tuple[tuple[tuple[tuple[float, float], ...], float, float], ...] = (
    (((31, 53.7), (34.5, 53), (37.5, 52)), 0.5, 0.45),  # crow's feet
    (((31, 55.5), (34.5, 56), (37.5, 56.5)), 0.8, 0.45),
    (((31, 57.3), (34.5, 59), (37.5, 61)), 0.7, 0.45),
    (((31, 59.1), (34.5, 62), (37.5, 65.5)), 0.5, 0.45),
    (((12.5, 61), (18, 64.5), (25, 64), (29.5, 60.5)), 0.9, 0.6),  # below the eye
    (((11, 63.5), (16, 68), (24, 68.5), (31, 65)), 0.6, 0.6),
    (((2.2, 43), (2.6, 48), (2.4, 52)), 0.6, 0.55),  # between the brows
    (((11.5, 79), (16, 84.5), (19.5, 91), (20.5, 97)), 1.2, 0.8),  # from the nose to the mouth, and down from it
    (((17.5, 100), (18.5, 105), (17.5, 110)), 0.8, 0.65),
    *(((((column, 86.5), (1.05 * column, 89.5)), 0.35, 0.35)) for column in (4.0, 8.0, 12.0)),  # above the lip
)


def _lines(canvas: Canvas, generator: np.random.Generator) -> np.ndarray:
    """Wrinkles where faces have them: dark with a light edge, lightness [S, S] of about 1 at most."""
    strokes: list[tuple[np.ndarray, float, float]] = []

    def stroke(points: list[tuple[float, float]], depth: float, width: float) -> None:
        """A smooth line near these points."""
        path = np.array(points, float) + generator.normal(0, 0.35, (len(points), 2))
        steps = np.linspace(0, 1, 24)
        spots = np.linspace(0, 1, len(points))
        degree = min(3, len(points) - 1)
        smooth = np.stack([np.polyval(np.polyfit(spots, path[:, axis], degree), steps) for axis in (0, 1)], 1)
        strokes.append((smooth, depth * generator.uniform(0.75, 1.2), width))

    for row, depth in ((26.0, 0.5), (31.0, 0.8), (36.0, 0.6)):
        left, right = generator.uniform(36, 44), generator.uniform(84, 92)
        lift = generator.uniform(-1.5, 1.5)
        wave = [(left, row + 1), (54, row - 1 + lift), (64, row + 0.6), (74, row - 1 - lift), (right, row + 1)]
        stroke(wave, depth, 0.7)
    for sign in (-1, 1):
        for points, depth, width in _BESIDE:
            stroke([(CROP_SIZE / 2 + sign * x, y) for x, y in points], depth, width)
    size = canvas.size
    total = np.zeros((size, size), np.float32)
    for path, depth, width in strokes:
        places = (path + BEYOND) * canvas.scale
        low = np.floor(places.min(0) - 5 * canvas.scale).astype(int).clip(0, size)
        high = np.ceil(places.max(0) + 5 * canvas.scale).astype(int).clip(0, size)
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        away = np.hypot(x[..., None] - places[:, 0], y[..., None] - places[:, 1])
        nearest = away.argmin(-1)
        distance = away.min(-1) / canvas.scale / width
        fade = np.sin(np.pi * (0.08 + 0.84 * nearest / (len(places) - 1)))
        fold = -np.exp(-(distance**2) / 2) + 0.45 * np.exp(-((distance - 2.2) ** 2) / 2)
        part = total[low[1] : high[1], low[0] : high[0]]
        part += (depth * fade * fold).astype(np.float32)
    return total


OLDER = Ageing(0.9, (1.7, 1.75, 1.3, 1.1), 0.75, OLD_LIPS, 0.035)
YOUNGER = Ageing(-0.8, (0.75, 0.4, 0.45, 0.7), 0.8, YOUNG_LIPS, 0.0)
