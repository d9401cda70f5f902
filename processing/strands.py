"""Beards and fringes of single hairs, in the colour of the person's own hair, laid over the photo."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .blending import Layer
from .canvas import Canvas, minimum_filter, smoothstep
from .face_parsing import FaceParsing
from .lighting import light_on_skin
from .part_colour import SURELY, Colour, from_oklab, measure_colour, to_oklab

#: Share of the crop that hair or brows must fill for their colour to be known, how sure of them the parser must be,
#: and how far from their edge, in pixels of the 128-pixel crop: there they are mixed with what is behind.
LEAST_KNOWN, SURE, EDGE = 1 / 400, 0.8, {"hair": 1.2, "brow": 0.5}
#: Width of a hair that can be told from others, and how soft it is, in pixels of the 128-pixel crop.
HAIR, SOFT = 0.16, 0.16
#: Most deviation of lightness of hairs side by side, how bright light is on their bow and on all of them, which
#: face it more than those on the head, and how dark the skin below them.
MOST_CONTRAST, GLOSS, LIT, FRINGE_SHADOW = 0.09, 0.2, 1.1, 0.35
#: How many places of hair on a square pixel are looked at for colours of a fringe, how far away those are that count e
#: times less, and how many colours there are in a lock.
SAMPLED, NEAR, STRANDS = 0.15, 6.0, 5
#: Points of a hair; between which shares of one direction hair curls, and does not; how far a curl leads aside, and
#: how long it is.
POINTS, ONE_WAY, CURL, CURL_LENGTH = 16, (0.2, 0.5), 4.5, 10.0
#: Share of the rows beside the lower face and below, from one row to another, in which hair is seen that is not long,
#: and that is.
LOW, NOT_LONG, LONG = (74.0, 118.0), 0.02, 0.08
#: How long a fringe of short hair is: as that is high, and at least and at most so long.
SHORTEST, LONGEST = 12.0, 26.0
#: Rows of hair that there must be above a forehead, and over which share of it; its least width, in pixels of the
#: 128-pixel crop.
LEAST_ABOVE, LEAST_COVERED, LEAST_WIDTH = 5, 0.7, 26

(_, _EYE_Y), _, (_MIDDLE, _), (_, _MOUTH_Y), _ = CROP_LANDMARKS.tolist()


def hair_weights(parsing: FaceParsing) -> np.ndarray | None:
    """
    What surely is hair in the middle of a parser's frame or, where there is hardly any, brows: [T, T] in [0, 1]; None
    where neither is seen.
    """
    inside = parsing.window
    for name, edge in EDGE.items():
        weights = np.zeros(parsing.probabilities.shape[1:], np.float32)
        weights[inside] = minimum_filter(parsing.mask(name)[inside], round(edge * parsing.unit))
        weights[weights < SURE] = 0
        if (weights[inside] > 0).mean() > LEAST_KNOWN:
            return weights
    return None


def hair_colour(photo: Image.Image, parsing: FaceParsing) -> Colour | None:
    """Colour of the hair of a head or, where it has hardly any, of the brows; None where neither is seen."""
    weights = hair_weights(parsing)
    if weights is None:
        return None
    return measure_colour(parsing.pixels(photo), weights)


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
        """Whether a face is seen from the front, lips around which it grows, and hair or brows with its colour."""
        lips = parsing.crop_mask("whole_mouth", CROP_SIZE) > SURELY
        seen = lips.mean() > LEAST_KNOWN and parsing.frontal
        return bool(seen) and hair_weights(parsing) is not None

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """See [`Transfer.layers`]; what is left to chance is its cut and every hair."""
        canvas, colour = Canvas.of(parsing), hair_colour(photo, parsing)
        cut = Cut.by_chance(generator)
        grown = self.grown(canvas, parsing, cut) * (1 - cut.thin * smoothstep(canvas.noise(generator, 5.0), 0.2, 1.6))
        places, kept = canvas.sown(generator, self.density, grown)
        jitter = generator.normal(size=(len(places), 3))
        lines = self._hairs(places, canvas.at(grown, places), cut.length * self.length, generator)[kept]
        if colour is None or not len(lines):
            return []
        # beards are a little darker than the hair of the head
        colour = Colour((0.82 * colour.mean[0] + 0.02, *colour.mean[1:]), colour.deviation)
        light = light_on_skin(canvas, canvas.pixels(photo), canvas.mask(parsing, "facial_skin"))
        tones = from_oklab(np.array(colour.mean) + 0.5 * jitter[kept] * colour.deviation)
        tones *= canvas.at(light, places[kept])[:, None]
        ground = from_oklab(np.array(colour.mean))
        picture, covered = canvas.hairs(lines, tones, ground, HAIR)
        picture, covered = canvas.blur(picture, SOFT), 0.8 * canvas.blur(covered, SOFT)
        below = self.cover * canvas.blur(grown, 1.5)
        alpha = share * (1 - canvas.blur(canvas.mask(parsing, "whole_mouth"), 0.5))
        return [_laid(canvas, picture, covered, alpha, (ground * light[..., None], below))]

    def grown(self, canvas: Canvas, parsing: FaceParsing, cut: "Cut") -> np.ndarray:
        """How densely hair grows at each place [S, S], in [0, 1]; on cheeks up to a line that suits their width."""
        x, y = canvas.places()
        lips = canvas.mask(parsing, "whole_mouth")
        sure = lips > SURELY
        columns, rows = x[sure.any(0)], y[sure.any(1), 0]
        middle, height = float((sure.sum(0) @ x) / sure.sum()), float((sure.sum(1) @ y[:, 0]) / sure.sum())
        half, top, bottom = float(np.ptp(columns)) / 2, float(rows[0]), float(rows[-1])
        aside = np.abs(x - middle)[None, :]
        moustache = smoothstep(y - (top - 7.5 + 0.012 * cut.arch * aside**2), -1, 2.5)
        moustache *= 1 - smoothstep(aside, half + 1 + cut.wide, half + 5 + cut.wide)
        moustache = moustache * (y < height + 3)
        # beside the tuft below the lip little grows
        bare = np.exp(-(((aside - 0.55 * half) / (0.28 * half)) ** 2) - ((y - bottom - 2.5) / 2.2) ** 2)
        chin = smoothstep(y - bottom, 0.5, 4) * (1 - smoothstep(aside, half, half + 8)) * (1 - cut.bare * bare)
        skin = canvas.mask(parsing, "skin")
        if self.style == "full":
            # the line on the cheek falls from the ear to the corner of the mouth
            beside = (skin > SURELY)[np.abs(y[:, 0] - height) < 6].mean(0) > 0.5
            cheek = float(np.clip(aside[0, beside].max(initial=half + 24) - half, 16, 26))
            line = height - 2 - cut.high - cut.steep * ((aside - half - 1) / cheek).clip(0, 1) ** 1.4
            grown = np.maximum(moustache, chin)
            grown = np.maximum(grown, smoothstep(y - line, -4, 9) * smoothstep(aside, half - 3, half + 3))
        elif self.style == "goatee":
            ring = (
                smoothstep(aside, half - 1.5, half + 0.5)
                * (1 - smoothstep(aside, half + 1, half + 4))
                * (y > height - 3)
            )
            grown = np.maximum(moustache, chin * (1 - smoothstep(aside - cut.wide, 0.8 * half, 0.8 * half + 5)))
            grown = np.maximum(grown, ring)
        else:
            grown = moustache
        below_the_jaw = canvas.mask(parsing, "neck") * smoothstep(canvas.blur(skin, 3.0), 0.12, 0.45)
        ground = canvas.blur(np.maximum(skin, below_the_jaw), 0.7)
        other = canvas.blur(np.maximum(lips, canvas.mask(parsing, "nose")), 0.6)
        return grown * ground * (1 - smoothstep(other, 0.25, 0.6))

    @staticmethod
    def _hairs(roots: np.ndarray, dense: np.ndarray, longest: float, generator: np.random.Generator) -> np.ndarray:
        """
        Lines [N, 4, 2] of hairs from their roots [N, 2]: downwards, on the lip to the sides; short where few grow,
        `dense` [N] in [0, 1].
        """
        aside, count = roots[:, 0] - _MIDDLE, len(roots)
        on_lip = roots[:, 1] < _MOUTH_Y - 1
        sideways = np.sign(aside) * (0.35 + 0.035 * np.abs(aside))
        angle = np.where(on_lip & (np.abs(aside) < 20), sideways, -0.006 * aside) + generator.normal(0, 0.28, count)
        length = longest * generator.lognormal(0, 0.3, count) * np.where(on_lip, 0.75, 1.0) * (0.3 + 0.7 * dense)
        bend = generator.normal(0, 0.25, count)
        points = [roots]
        for step in range(3):
            direction = angle + bend * step
            points.append(points[-1] + np.stack([np.sin(direction), np.cos(direction)], 1) * length[:, None] / 3)
        return np.stack(points, 1)


@dataclass(frozen=True)
class Cut:
    """
    How one beard differs from others, in pixels of the 128-pixel crop or as factors.

    Args:
        length: of its hairs, a factor.
        thin: share of the hairs that are missing where it is patchy.
        high: how far its line on the cheeks is higher at the mouth.
        steep: how far that line rises from the mouth to the ears.
        bare: how bare the skin beside the tuft below the lip is, in [0, 1].
        arch: of the moustache, a factor.
        wide: how far moustache and goatee reach further to the sides.
    """

    length: float
    thin: float
    high: float
    steep: float
    bare: float
    arch: float
    wide: float

    @classmethod
    def by_chance(cls, generator: np.random.Generator) -> "Cut":
        """One of many."""
        low = (0.75, 0.0, -3.5, 14.0, 0.3, 0.7, -1.5)
        high = (1.3, 0.6, 3.5, 24.0, 0.9, 1.7, 1.5)
        return cls(*generator.uniform(low, high).tolist())


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
        """Whether a face is seen from the front, and hair above a forehead from which it can fall."""
        seen = parsing.frontal and Forehead.of(parsing) is not None
        return seen and hair_weights(parsing) is not None

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """See [`Transfer.layers`]; what is left to chance is every hair, and the side to which they fall."""
        canvas, forehead, colour = Canvas.of(parsing), Forehead.of(parsing), hair_colour(photo, parsing)
        if forehead is None or colour is None:
            return []
        lines, shades = self._hairs(forehead, curliness(canvas, photo, parsing), generator)
        tones = self._tones(canvas, photo, parsing, colour, lines[:, 0], generator)
        jitter = generator.normal(size=(len(lines), 3)) * [0.3, 0.2, 0.2]
        jitter[:, 0] += shades
        spread = np.minimum(colour.deviation, (MOST_CONTRAST, 1.0, 1.0))
        ground = from_oklab(tones.mean(0) * [0.85, 1, 1])
        tones = from_oklab(tones + jitter * spread)
        picture, covered = canvas.hairs(lines, tones, ground, HAIR)
        picture, covered = canvas.blur(picture, SOFT), canvas.blur(covered, SOFT)
        x, y = canvas.places()
        bow = 0.55 * forehead.line.min() + 0.45 * min(forehead.brows, forehead.line.min() + forehead.length)
        gloss = LIT + GLOSS * np.exp(-(((y - bow + 2 * canvas.noise(generator, 4.0)) / 5) ** 2))
        shadow = FRINGE_SHADOW * canvas.shadow(covered, 1.5, 1.3) * canvas.mask(parsing, "skin")
        top = np.interp(x, np.arange(CROP_SIZE) + 0.5, forehead.line)[None, :]
        beside = smoothstep(canvas.blur(canvas.mask(parsing, ("background", "ears")), 0.5), 0.2, 0.6)
        # it comes out of the hair that is there
        root = -4.0 + 1.5 * canvas.noise(generator, 2.0)
        alpha = share * smoothstep(y - top - root, -6.0, 3.0) * (1 - canvas.mask(parsing, "eyeglasses")) * (1 - beside)
        picture = (picture * gloss[..., None]).clip(0, 1)
        return [_laid(canvas, picture, covered, alpha, (np.zeros(3), shadow))]

    def _hairs(
        self, forehead: "Forehead", curls: float, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Lines [N, POINTS, 2] of hairs that curl so much, in [0, 1], and how light each is [N], in deviations; those of
        a lock beside each other.
        """
        left, right, line, brows = forehead.left, forehead.right, forehead.line, forehead.brows
        long = forehead.long
        starts = np.linspace(left - 3, right + 3, self.locks) + generator.normal(0, 1.2, self.locks)
        sweep = float(generator.choice([-1, 1])) * generator.uniform(3, 8)
        parted = generator.uniform(-0.5, 0.5)
        waves = generator.uniform(0, 2 * np.pi, 3)
        steps = np.linspace(0, 1, POINTS)[None, :, None]
        lines, shades = [], []
        for start in generator.permutation(starts):
            top = float(np.interp(start, np.arange(CROP_SIZE) + 0.5, line))
            side = (2 * start - left - right) / (right - left)
            full = brows - 3.5 + 3.0 * side**2 - 9 * generator.random() * (abs(side) > 0.85)
            cut = top + forehead.length * (1 - 0.25 * (side - parted) ** 2)
            uneven = 2.0 * float(np.sin(start / np.array([3.1, 5.3, 9.7]) + waves).sum()) + generator.normal(0, 0.8)
            end = max(min(full, cut) + min(uneven, 2.5), top + 3)
            tip = start + sweep * (1 - side**2) * (0.5 + 0.5 * long) + side + generator.normal(0, 1.8)
            width, together = generator.uniform(1.6, 3.6), generator.uniform(0.4, 1.1)
            spread = np.sort(generator.normal(0, 0.5, self.hairs).clip(-1, 1))
            # few hairs reach the tip of a lock, more of those in its middle: skin is seen between
            short = (end - top) * (0.45 * generator.random(self.hairs) ** 1.3 + 0.08 * np.abs(spread))
            short += generator.normal(0, 1.1, self.hairs)
            roots = np.stack([start + 1.3 * spread * width, top - generator.uniform(1, 12, self.hairs)], 1)
            tips = np.stack([tip + together * spread * width, np.maximum(end - short, top + 2)], 1)
            path = roots[:, None] * (1 - steps) + tips[:, None] * steps
            bow = (2 * side + 0.4 * sweep * (1 - side**2)) * generator.uniform(0.6, 1.4)
            path[..., 0] += bow * np.sin(np.pi * steps[..., 0])
            path[..., 0] += generator.normal(0, 0.35, (self.hairs, 1)) * steps[..., 0]
            path += curls * _curl(steps[..., 0] * (end - top), generator, self.hairs)
            lines.append(path)
            shades.append(np.full(self.hairs, generator.normal(0, 0.3)))
        return np.concatenate(lines), np.concatenate(shades)

    def _tones(
        self,
        canvas: Canvas,
        photo: Image.Image,
        parsing: FaceParsing,
        colour: Colour,
        roots: np.ndarray,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """Colours in Oklab [N, 3] of hairs with these roots [N, 2]: as varied as hair that is seen near by."""
        sure = (canvas.mask(parsing, "hair") > SURE).astype(np.float32)
        places, kept = canvas.sown(generator, SAMPLED, minimum_filter(sure, round(EDGE["hair"] * canvas.scale)))
        chances = generator.gumbel(size=(self.locks * STRANDS, len(places)))
        if not kept.any():
            return np.tile(np.array(colour.mean), (len(roots), 1))
        places = places[kept]
        seen = to_oklab(canvas.at(canvas.blur(canvas.pixels(photo), SOFT), places))
        locks = roots.reshape(self.locks, self.hairs, 2).mean(1)
        away = np.linalg.norm(locks[:, None] - places, axis=2)
        # hair is as light and dark as it is seen, but of the hue that it has nearest: another one is that of what is
        # behind; and its shadows have less of it
        near = np.argsort(away.min(0))[: len(places) // 3 + 1]
        light, *hue = np.median(seen[near], axis=0)
        shaded = np.array(hue) * (seen[:, :1] / light).clip(0, 1.3)
        seen[:, 1:] = shaded + 0.25 * (seen[:, 1:] - hue)
        nearest = (chances[:, kept] - np.repeat(away, STRANDS, 0) / NEAR).argmax(1).reshape(self.locks, STRANDS)
        return seen[nearest[:, np.arange(self.hairs) * STRANDS // self.hairs].ravel()]


def curliness(canvas: Canvas, photo: Image.Image, parsing: FaceParsing) -> float:
    """
    How far hair curls, in [0, 1]: how little its strands near by have one direction, by the structure tensor of its
    brightness.
    """
    sure = canvas.mask(parsing, "hair") > SURE
    if not sure.any():
        return 0.0
    down, right = np.gradient(canvas.blur(canvas.pixels(photo).mean(2), 0.5))
    xx, yy, xy = (canvas.blur(each * sure, 4.0) for each in (right**2, down**2, right * down))
    one_way = np.hypot(xx - yy, 2 * xy)[sure].sum() / max(float((xx + yy)[sure].sum()), 1e-9)
    return float(1 - smoothstep(np.array(one_way), *ONE_WAY))


def _curl(along: np.ndarray, generator: np.random.Generator, count: int) -> np.ndarray:
    """How far curls lead `count` hairs of a lock aside, [count, P, 2], at places `along` [1, P] it."""
    size, turn = CURL * generator.uniform(0.6, 1.4), 2 * np.pi / (CURL_LENGTH * generator.uniform(0.7, 1.3))
    phase = generator.uniform(0, 2 * np.pi) + generator.normal(0, 0.4, (count, 1))
    grown = 1 - np.exp(-along / CURL_LENGTH)
    wave = turn * along + phase
    return size * grown[..., None] * np.stack([np.sin(wave), 0.7 * np.cos(wave)], -1)


@dataclass(frozen=True)
class Forehead:
    """
    A forehead, in pixels of the 128-pixel crop.

    Args:
        left, right: where it ends.
        line: the row [128] in each column at which the hair above it ends.
        brows: the row of the brows.
        long: how far hair is long, in [0, 1].
        length: by which a fringe of that hair can fall below the line.
    """

    left: float
    right: float
    line: np.ndarray
    brows: float
    long: float
    length: float

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
        whole = parsing.mask("hair") > SURELY
        low = whole[slice(*(round(parsing.in_frame(row)) for row in LOW))]
        long = float(smoothstep(np.array(low.mean()), NOT_LONG, LONG))
        heights = [
            _height(whole, parsing.in_frame(each), parsing.in_frame(line[each]))
            for each in range(int(left), int(right))
        ]
        length = float(np.clip(np.median(heights) / parsing.unit, SHORTEST, LONGEST)) + long * CROP_SIZE
        return cls(left, right, line, level, long, length)


def _height(hair: np.ndarray, column: float, line: float) -> int:
    """Rows of hair [T, T] in a column right above a line."""
    above = hair[: max(1, round(line) - 2), round(column)][::-1]
    return len(above) if above.all() else int(above.argmin())


FULL_BEARD = Beard("full", 3.6, 2.7, 0.6)
STUBBLE = Beard("full", 0.9, 2.3, 0.2)
GOATEE = Beard("goatee", 3.6, 2.7, 0.6)
MUSTACHE = Beard("mustache", 3.6, 2.7, 0.6)
FRINGE = Fringe()
