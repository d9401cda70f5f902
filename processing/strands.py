"""Beards and fringes of single hairs, in the colour of the person's own hair, laid over the photo."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE, align
from .blending import Layer
from .canvas import BEYOND, Canvas, rise, smallest
from .face_parsing import SURROUNDINGS, FaceParsing
from .part_colour import SURELY, Colour, from_oklab, measure_colour, to_oklab

#: Share of the crop that hair or brows must fill for their colour to be known, how sure of them the parser must be,
#: and how far from their edge, in pixels of the 128-pixel crop: there they are mixed with what is behind.
LEAST_KNOWN, SURE, EDGE = 1 / 400, 0.8, {"hair": 1.2, "brow": 0.5}
#: Width of a hair that can be told from others, and how soft it is, in pixels of the 128-pixel crop.
HAIR, SOFT = 0.16, 0.16
#: Most deviation of lightness of hairs that lie side by side, how bright light on their bow is, and how dark the skin
#: below them.
MOST_CONTRAST, GLOSS, FRINGE_SHADOW = 0.09, 0.12, 0.3
#: Rows of hair that there must be above a forehead, and over which share of it; its least width, in pixels of the
#: 128-pixel crop.
LEAST_ABOVE, LEAST_COVERED, LEAST_WIDTH = 5, 0.7, 26
#: How far light on a face may be from its mean.
DARKEST, BRIGHTEST = 0.55, 1.35

(_, _EYE_Y), _, (_MIDDLE, _), (_, _MOUTH_Y), _ = CROP_LANDMARKS.tolist()


def hair_weights(parsing: FaceParsing) -> np.ndarray | None:
    """
    What surely is hair in the middle of a parser's frame or, where there is hardly any, brows: [T, T] in [0, 1]; None
    where neither is seen.
    """
    total = parsing.probabilities.shape[1]
    side = total // SURROUNDINGS
    start = (total - side) // 2
    for name, edge in EDGE.items():
        weights = np.zeros((total, total), np.float32)
        inside = np.s_[start : start + side, start : start + side]
        weights[inside] = smallest(parsing.mask(name)[inside], round(edge * side / CROP_SIZE))
        weights[weights < SURE] = 0
        if (weights > 0).sum() > LEAST_KNOWN * side**2:
            return weights
    return None


def hair_colour(photo: Image.Image, parsing: FaceParsing) -> Colour | None:
    """Colour of the hair of a head or, where it has hardly any, of the brows; None where neither is seen."""
    weights = hair_weights(parsing)
    if weights is None:
        return None
    return measure_colour(np.asarray(align(photo, parsing.matrix, len(weights)), np.float32) / 255, weights)


def _laid(
    canvas: Canvas, picture: np.ndarray, covered: np.ndarray, alpha: np.ndarray, ground: tuple[np.ndarray, np.ndarray]
) -> Layer:
    """Hairs, `covered` of each pixel, on a `ground` of (colour [..., 3], share of it)."""
    colour, share = ground
    delta = covered[..., None] * picture + ((1 - covered) * share)[..., None] * colour
    detail = (1 - covered) * (1 - share)
    touched = np.maximum(covered, share) > 1 / 512
    return Layer(
        delta.astype(np.float32), detail.astype(np.float32), (alpha * touched).astype(np.float32), canvas.matrix
    )


Style = Literal["full", "goatee", "mustache"]


@dataclass(frozen=True)
class Beard:
    """
    A beard to be added, a [`Transfer`].

    Args:
        style: where it grows.
        length: of its hairs, in pixels of the 128-pixel crop.
        density: hairs on a square pixel of that crop.
        cover: how much of the skin below is hidden, in [0, 1].
    """

    style: Style
    length: float
    density: float
    cover: float

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether there are lips around which it grows, and hair or brows that tell its colour."""
        lips = parsing.crop_mask("whole_mouth", CROP_SIZE) > SURELY
        return bool(lips.mean() > LEAST_KNOWN) and hair_weights(parsing) is not None

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """See [`Transfer.layers`]; what is left to chance is every hair."""
        canvas, colour = Canvas.of(parsing), hair_colour(photo, parsing)
        grown = self.grown(canvas, parsing)
        rows, columns = np.nonzero(grown > 0.02)
        if colour is None or not len(rows):
            return []
        # beards are a little darker than the hair of the head
        colour = Colour((0.82 * colour.mean[0] + 0.02, *colour.mean[1:]), colour.deviation)
        chances = grown[rows, columns]
        count = max(1, round(self.density * float(chances.sum()) / canvas.scale**2))
        chosen = generator.choice(len(rows), size=count, p=chances / chances.sum())
        jitter = generator.normal(size=(count, 3)) * np.array(colour.deviation) * 0.5
        light = _light(canvas, canvas.pixels(photo), canvas.mask(parsing, "facial_skin"))
        tones = from_oklab(np.array(colour.mean) + jitter) * light[rows[chosen], columns[chosen], None]
        roots = (np.stack([columns, rows], 1)[chosen] + generator.random((count, 2))) / canvas.scale - BEYOND
        ground = from_oklab(np.array(colour.mean))
        picture, covered = canvas.hairs(self._hairs(roots, chances[chosen], generator), tones, ground, HAIR)
        picture, covered = canvas.blur(picture, SOFT), 0.8 * canvas.blur(covered, SOFT)
        below = self.cover * canvas.blur(grown, 1.5)
        alpha = share * (1 - canvas.blur(canvas.mask(parsing, "whole_mouth"), 0.5))
        return [_laid(canvas, picture, covered, alpha, (ground * light[..., None], below))]

    def grown(self, canvas: Canvas, parsing: FaceParsing) -> np.ndarray:
        """How densely hair grows at each place [S, S], in [0, 1]."""
        x, y = canvas.places()
        lips = canvas.mask(parsing, "whole_mouth")
        sure = lips > SURELY
        columns, rows = x[sure.any(0)], y[sure.any(1), 0]
        middle, height = float((sure.sum(0) @ x) / sure.sum()), float((sure.sum(1) @ y[:, 0]) / sure.sum())
        half, top, bottom = float(np.ptp(columns)) / 2, float(rows[0]), float(rows[-1])
        aside = np.abs(x - middle)[None, :]
        moustache = rise(y - (top - 7.5 + 0.012 * aside**2), -1, 2.5) * (1 - rise(aside, half + 1, half + 5))
        moustache = moustache * (y < height + 3)
        # beside the tuft below the lip little grows
        bare = np.exp(-(((aside - 0.55 * half) / (0.28 * half)) ** 2) - ((y - bottom - 2.5) / 2.2) ** 2)
        chin = rise(y - bottom, 0.5, 4) * (1 - rise(aside, half, half + 8)) * (1 - 0.7 * bare)
        if self.style == "full":
            # the line on the cheek falls from the ear to the corner of the mouth
            line = height - 2 - 20 * ((aside - half - 1) / 24).clip(0, 1) ** 1.4
            grown = np.maximum(moustache, chin)
            grown = np.maximum(grown, rise(y - line, -4, 9) * rise(aside, half - 3, half + 3))
        elif self.style == "goatee":
            ring = rise(aside, half - 1.5, half + 0.5) * (1 - rise(aside, half + 1, half + 4)) * (y > height - 3)
            grown = np.maximum(moustache, chin * (1 - rise(aside, 0.8 * half, 0.8 * half + 5)))
            grown = np.maximum(grown, ring)
        else:
            grown = moustache
        skin = canvas.mask(parsing, "skin")
        below_the_jaw = canvas.mask(parsing, "neck") * rise(canvas.blur(skin, 3.0), 0.12, 0.45)
        ground = canvas.blur(np.maximum(skin, below_the_jaw), 0.7)
        other = canvas.blur(np.maximum(lips, canvas.mask(parsing, "nose")), 0.6)
        return grown * ground * (1 - rise(other, 0.25, 0.6))

    def _hairs(self, roots: np.ndarray, dense: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """
        Lines [N, 4, 2] of hairs from their roots [N, 2]: downwards, on the lip to the sides; short where few grow,
        `dense` [N] in [0, 1].
        """
        aside, count = roots[:, 0] - _MIDDLE, len(roots)
        on_lip = roots[:, 1] < _MOUTH_Y - 1
        sideways = np.sign(aside) * (0.35 + 0.035 * np.abs(aside))
        angle = np.where(on_lip & (np.abs(aside) < 20), sideways, -0.006 * aside) + generator.normal(0, 0.28, count)
        length = self.length * generator.lognormal(0, 0.3, count) * np.where(on_lip, 0.75, 1.0) * (0.3 + 0.7 * dense)
        bend = generator.normal(0, 0.25, count)
        points = [roots]
        for step in range(3):
            direction = angle + bend * step
            points.append(points[-1] + np.stack([np.sin(direction), np.cos(direction)], 1) * length[:, None] / 3)
        return np.stack(points, 1)


def _light(canvas: Canvas, pixels: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """How much light falls on each place [S, S], of that on skin in the mean."""
    grey = pixels.mean(2)
    mean, little = float((grey * skin).sum() / skin.sum()), 1e-3
    near = (canvas.blur(grey * skin, 5.0) + little * mean) / (canvas.blur(skin, 5.0) + little)
    return (near / mean).clip(DARKEST, BRIGHTEST)


@dataclass(frozen=True)
class Fringe:
    """
    Hair that falls over the forehead, a [`Transfer`].

    Args:
        locks: how many strands.
        hairs: of a strand.
    """

    locks: int = 84
    hairs: int = 40

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether there is hair above a forehead from which it can fall."""
        return Forehead.of(parsing) is not None and hair_weights(parsing) is not None

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """See [`Transfer.layers`]; what is left to chance is every hair, and the side to which they fall."""
        canvas, forehead, colour = Canvas.of(parsing), Forehead.of(parsing), hair_colour(photo, parsing)
        if forehead is None or colour is None:
            return []
        lines, shades = self._hairs(forehead, generator)
        near = self._colours_near(canvas, photo, parsing, colour)
        roots = ((lines[:, 0] + BEYOND) * canvas.scale).astype(int).clip(0, canvas.size - 1)
        jitter = generator.normal(size=(len(lines), 3)) * [0.5, 0.3, 0.3]
        jitter[:, 0] += shades
        spread = np.minimum(colour.deviation, (MOST_CONTRAST, 1.0, 1.0))
        tones = from_oklab(to_oklab(near[roots[:, 1], roots[:, 0]]) + jitter * spread)
        ground = from_oklab(np.array(colour.mean) * [0.85, 1, 1])
        picture, covered = canvas.hairs(lines, tones, ground, HAIR)
        picture, covered = canvas.blur(picture, SOFT), canvas.blur(covered, SOFT)
        x, y = canvas.places()
        gloss = 1 + GLOSS * np.exp(-(((y - 0.45 * forehead.line.min() - 0.55 * forehead.brows) / 6) ** 2))
        shadow = FRINGE_SHADOW * canvas.blur(np.roll(covered, round(1.5 * canvas.scale), axis=0), 1.3)
        shadow = shadow * canvas.mask(parsing, "skin")
        top = np.interp(x, np.arange(CROP_SIZE) + 0.5, forehead.line)[None, :]
        beside = rise(canvas.blur(canvas.mask(parsing, ("background", "ears")), 0.5), 0.2, 0.6)
        # it comes out of the hair that is there
        alpha = share * rise(y - top, -7.0, -1.0) * (1 - canvas.mask(parsing, "eyeglasses")) * (1 - beside)
        picture = (picture * gloss[..., None]).clip(0, 1)
        return [_laid(canvas, picture, covered, alpha, (np.zeros(3), shadow))]

    def _hairs(self, forehead: "Forehead", generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Lines [N, 8, 2] of hairs, and how light each is [N], in deviations."""
        left, right, line, brows = forehead.left, forehead.right, forehead.line, forehead.brows
        starts = np.linspace(left - 3, right + 3, self.locks) + generator.normal(0, 1.2, self.locks)
        sweep = float(generator.choice([-1, 1])) * generator.uniform(2, 6)
        steps = np.linspace(0, 1, 8)[None, :, None]
        lines, shades = [], []
        for start in generator.permutation(starts):
            top = float(np.interp(start, np.arange(CROP_SIZE) + 0.5, line))
            side = (2 * start - left - right) / (right - left)
            end = brows - 3.5 + 3.0 * side**2 + generator.normal(0, 2.2) - 9 * generator.random() * (abs(side) > 0.85)
            end = max(end, top + 4)
            tip = start + sweep * (1 - side**2) + side + generator.normal(0, 1.5)
            width, spread = generator.uniform(2.0, 3.6), generator.normal(0, 0.5, self.hairs).clip(-1, 1)
            short = np.abs(generator.normal(0, 4.0, self.hairs)) + 2.0 * np.abs(spread)
            roots = np.stack([start + 1.3 * spread * width, top - generator.uniform(1, 8, self.hairs)], 1)
            tips = np.stack([tip + 0.4 * spread * width, np.maximum(end - short, top + 2)], 1)
            path = roots[:, None] * (1 - steps) + tips[:, None] * steps
            bow = (2 * side + 0.4 * sweep * (1 - side**2)) * generator.uniform(0.6, 1.4)
            path[..., 0] += bow * np.sin(np.pi * steps[..., 0])
            path[..., 0] += generator.normal(0, 0.25, (self.hairs, 1)) * steps[..., 0]
            lines.append(path)
            shades.append(np.full(self.hairs, generator.normal(0, 0.35)))
        return np.concatenate(lines), np.concatenate(shades)

    @staticmethod
    def _colours_near(canvas: Canvas, photo: Image.Image, parsing: FaceParsing, colour: Colour) -> np.ndarray:
        """The colour of the hair that is nearest to each place, sRGB [S, S, 3]."""
        sure = (canvas.mask(parsing, "hair") > SURE).astype(np.float32)
        inner, little = smallest(sure, round(EDGE["hair"] * canvas.scale)), 0.02
        total = canvas.blur(canvas.pixels(photo) * inner[..., None], 5.0) + little * from_oklab(np.array(colour.mean))
        return total / (canvas.blur(inner, 5.0) + little)[..., None]


@dataclass(frozen=True)
class Forehead:
    """
    A forehead, in pixels of the 128-pixel crop.

    Args:
        left, right: where it ends.
        line: the row [128] in each column at which the hair above it ends.
        brows: the row of the brows.
    """

    left: float
    right: float
    line: np.ndarray
    brows: float

    @classmethod
    def of(cls, parsing: FaceParsing) -> "Forehead | None":
        """That of a face; None where there is no hair above it."""
        hair, skin, brows = (parsing.crop_mask(name, CROP_SIZE) > SURELY for name in ("hair", "facial_skin", "brow"))
        rows = np.nonzero(brows)[0]
        level = max(float(rows.mean()) if len(rows) > 20 else _EYE_Y - 12, 20.0)
        columns = np.flatnonzero(skin[int(level) - 10 : int(level) - 3].mean(0) > 0.5)
        above = hair[: int(level)]
        known = np.flatnonzero(above.sum(0) >= LEAST_ABOVE)
        if len(columns) < LEAST_WIDTH or not len(known):
            return None
        left, right = float(columns[0]) - 1, float(columns[-1]) + 2
        if ((known >= left) & (known < right)).sum() < LEAST_COVERED * (right - left):
            return None
        ends = len(above) - above[::-1, known].argmax(0)
        line = np.interp(np.arange(CROP_SIZE), known, ends)
        line = np.convolve(np.pad(line, 4, mode="edge"), np.ones(9) / 9, mode="valid")
        return cls(left, right, line, level)


FULL_BEARD = Beard("full", 3.6, 2.7, 0.6)
STUBBLE = Beard("full", 0.9, 2.3, 0.2)
GOATEE = Beard("goatee", 3.6, 2.7, 0.6)
MUSTACHE = Beard("mustache", 3.6, 2.7, 0.6)
FRINGE = Fringe()
