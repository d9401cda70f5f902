"""Earrings that hang from the ears that are seen, laid over the photo."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import CROP_SIZE
from .blending import Layer
from .canvas import Canvas, smoothstep
from .face_parsing import FaceParsing
from .face_points import BETWEEN_PUPILS
from .headwear import Head
from .lighting import GAMMA, exposure, light_on_face
from .part_colour import SURELY

#: A millimetre in pixels of the 128-pixel crop.
MILLIMETRE = 39 / BETWEEN_PUPILS
#: Height of an ear that is seen, in pixels of the crop; share of the crop that its earring fills if one is worn.
LEAST_EAR, LEAST_WORN = 12.0, 1 / 4000
#: How much of an ear's end is lobe, and how far above its end and outwards of its middle an earring is fixed, in
#: millimetres.
LOBE, FIXED, OUTWARDS = 9.0, 4.0, 1.0
#: How far below an earring its shadow is, how soft, both in millimetres, and how dark.
SHADOW_BELOW, SHADOW_WIDTH, SHADOW = 1.6, 1.3, 0.45


@dataclass(frozen=True)
class Earring:
    """
    An earring.

    Args:
        width: of the ball, or of the hoop from outside to outside, in millimetres.
        tube: how thick the hoop is, in millimetres; 0 for a ball.
        colour: sRGB in [0, 1].
        gloss: how much of the light is mirrored, in [0, 1].
    """

    width: float
    tube: float
    colour: tuple[float, float, float]
    gloss: float


@dataclass(frozen=True)
class Earrings:
    """
    A pair of earrings, a [`Transfer`].

    Args:
        pairs: of which the seed takes one.
    """

    pairs: tuple[Earring, ...]

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether the lobe of an ear is seen that has no earring yet."""
        return any(lobe_of(parsing, side) is not None for side in (0, 1))

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """See [`Transfer.layers`]; what is left to chance is the pair."""
        earring = self.pairs[int(generator.integers(len(self.pairs)))]
        canvas, turned = Canvas.of(parsing), Head.of(parsing).turned
        pixels = canvas.pixels(photo)
        light = light_on_face(canvas, pixels, parsing)
        exposed = exposure(canvas, pixels, parsing) ** (1 / GAMMA)
        x, y = canvas.places()
        delta = np.zeros((canvas.size, canvas.size, 3), np.float32)
        detail = np.ones((canvas.size, canvas.size), np.float32)
        hidden = canvas.mask(parsing, "hair")
        for side in (0, 1):
            lobe = lobe_of(parsing, side)
            if lobe is None:
                continue
            # hoops hang along the head and are seen from the side
            narrow = np.clip(0.5 + (0.6 if side == 0 else -0.6) * turned, 0.2, 0.9) if earring.tube else 1.0
            inside, normal = _form(earring, (x - lobe[0]) / MILLIMETRE, (y - lobe[1]) / MILLIMETRE, narrow)
            covered = canvas.covered(inside * MILLIMETRE) * (1 - smoothstep(hidden, 0.3, 0.8))
            shadow = canvas.shadow(covered, SHADOW_BELOW * MILLIMETRE, SHADOW_WIDTH * MILLIMETRE)
            shadow = SHADOW * shadow * canvas.mask(parsing, ("face", "ears", "neck"))
            picture = exposed * _lit(earring, normal, light)
            delta = covered[..., None] * picture + (1 - covered)[..., None] * delta
            detail = detail * (1 - covered) * (1 - shadow)
        if soft := canvas.softness(photo):
            delta, detail = canvas.blur(delta, soft), canvas.blur(detail, soft)
        alpha = (share * (detail < 1 - 1 / 512)).astype(np.float32)
        return [Layer(delta.astype(np.float32), detail.astype(np.float32), alpha, canvas.matrix)]


def _form(earring: Earring, right: np.ndarray, down: np.ndarray, narrow: float) -> tuple[np.ndarray, np.ndarray]:
    """How far inside of its outline [S, S] an earring is, in millimetres from where it is fixed, and its normals."""
    half = earring.width / 2
    if not earring.tube:
        away = np.hypot(right, down)
        across = np.stack(np.broadcast_arrays(right, down), -1) / half
        inside = half - away
    else:
        down = down - half + earring.tube / 2
        # the nearest place of the middle of the tube, an ellipse, by its angle
        middle = half - earring.tube / 2
        angle = np.arctan2(down, right / narrow)
        away = np.stack(
            np.broadcast_arrays(right - middle * narrow * np.cos(angle), down - middle * np.sin(angle)), -1
        )
        across = away / (earring.tube / 2)
        inside = earring.tube / 2 - np.linalg.norm(away, axis=-1)
    forward = (1 - (across**2).sum(-1)).clip(0.02) ** 0.5
    normal = np.concatenate([across, forward[..., None]], -1)
    return inside, normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def _lit(earring: Earring, normal: np.ndarray, light: np.ndarray) -> np.ndarray:
    """sRGB [S, S, 3] of an earring: metal mirrors a bright room above and a dark one below, pearls are matt."""
    towards = np.array([0.0, 0.0, 1.0])
    mirrored = 2 * normal * normal[..., 2:] - towards
    room = 0.26 + 0.68 / (1 + np.exp(6 * (mirrored[..., 1] + 0.15)))
    glint = (mirrored @ light).clip(0) ** 24
    matt = 0.3 + 0.7 * (normal @ light).clip(0)
    tone = earring.gloss * room + (1 - earring.gloss) * matt
    colour = np.array(earring.colour)
    return (tone[..., None] * colour + 0.75 * glint[..., None] * (0.4 + 0.6 * colour)).clip(0, 1)


def lobe_of(parsing: FaceParsing, side: int) -> np.ndarray | None:
    """
    Where an earring is fixed to the ear at the left (0) or right (1) of the picture, (x, y) in pixels of the
    128-pixel crop; None where its lobe is not seen, or has an earring.
    """
    size, unit = parsing.probabilities.shape[1], parsing.unit
    half = np.s_[:, : size // 2] if side == 0 else np.s_[:, size // 2 :]
    start = 0 if side == 0 else size // 2

    def seen(name: str) -> np.ndarray:
        mask = parsing.mask(name)
        inside = np.zeros_like(mask)
        crop = np.s_[size // 2 - round(80 * unit) : size // 2 + round(80 * unit)]
        inside[crop, crop] = mask[crop, crop]
        return inside[half] > SURELY

    ear, earring, hair = seen("ear"), seen("earring"), seen("hair")
    if not ear.any() or earring.sum() > LEAST_WORN * (CROP_SIZE * unit) ** 2:
        return None
    rows = np.flatnonzero(ear.any(1))
    if len(rows) < LEAST_EAR * unit:
        return None
    lobe = ear[rows[-1] - round(LOBE * MILLIMETRE * unit) : rows[-1] + 1]
    column = np.nonzero(lobe)[1].mean()
    below = hair[rows[-1] + 1 : rows[-1] + 1 + round(4 * unit), round(column) - 1 : round(column) + 2]
    if below.size and below.mean() > SURELY:
        return None
    place = parsing.in_crop(np.array([start + column + 0.5, rows[-1] + 1]))
    return place - np.array([OUTWARDS if side == 0 else -OUTWARDS, FIXED]) * MILLIMETRE


_GOLD, _SILVER, _PEARL = (0.92, 0.71, 0.36), (0.80, 0.80, 0.82), (0.93, 0.90, 0.86)
EARRINGS = Earrings(
    (
        Earring(17, 2.2, _GOLD, 1.0),
        Earring(8, 0, _PEARL, 0.15),
        Earring(14, 2.4, _SILVER, 1.0),
        Earring(6, 0, _GOLD, 0.9),
    )
)
