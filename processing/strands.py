"""Beards and fringes of single hairs, in the colour of the person's own hair, laid over the photo."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE, align, compose, inverse, scale_of, translation
from .blending import Layer
from .face_parsing import SURROUNDINGS, FaceParsing
from .part_colour import SURELY, Colour, from_oklab, measure_colour, to_oklab

#: What is drawn on reaches so many pixels beyond the 128-pixel crop.
BEYOND = 16
#: Pixels of it along one of the 128-pixel crop, at least and at most.
COARSEST, FINEST = 3.0, 8.0
#: Share of the crop that hair or brows must fill for their colour to be known.
LEAST_KNOWN = 1 / 400
#: Rows of hair, in pixels of the crop, that there must be above a forehead for a fringe to fall from them.
LEAST_ABOVE = 5
#: How sure of hair a parser must be for its colour to count, and how far from its edge, in pixels of the parser.
SURE_COLOUR, EDGE = 0.8, 3

(_LEFT_EYE_X, _EYE_Y), (_RIGHT_EYE_X, _), (_MIDDLE, _NOSE_Y), (_, _MOUTH_Y), _ = CROP_LANDMARKS.tolist()


@dataclass(frozen=True)
class Canvas:
    """
    A square that covers the face crop and a little more, at about the photo's resolution.

    Args:
        scale: its pixels along one of the 128-pixel crop.
        matrix: [2, 3] from the photo to it.
    """

    scale: float
    matrix: np.ndarray

    @classmethod
    def of(cls, parsing: FaceParsing) -> "Canvas":
        total = parsing.probabilities.shape[1]
        side = total / SURROUNDINGS
        unit = side / CROP_SIZE
        scale = float(np.clip(unit / scale_of(parsing.matrix), COARSEST, FINEST))
        corner = (total - side) / 2 - BEYOND * unit
        factor = scale / unit
        to_corner = compose(parsing.matrix, translation(-corner, -corner))
        return cls(scale, compose(to_corner, np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]])))

    @property
    def size(self) -> int:
        return round((CROP_SIZE + 2 * BEYOND) * self.scale)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """x [S] and y [S, 1] of its pixels, in those of the 128-pixel crop."""
        centres = ((np.arange(self.size) + 0.5) / self.scale - BEYOND).astype(np.float32)
        return centres, centres[:, None]

    def mask(self, parsing: FaceParsing, names: str | tuple[str, ...]) -> np.ndarray:
        """How much of each pixel [S, S] shows one of the classes."""
        whole = parsing.mask(names)
        total, side = len(whole), len(whole) / SURROUNDINGS
        low = round((total - side) / 2 - BEYOND * side / CROP_SIZE)
        part = np.ascontiguousarray(whole[low : total - low, low : total - low])
        return cv2.resize(part, (self.size, self.size), interpolation=cv2.INTER_LINEAR)

    def pixels(self, photo: Image.Image) -> np.ndarray:
        """The photo there, sRGB float32 [S, S, 3] in [0, 1]."""
        return np.asarray(align(photo, self.matrix, self.size), np.float32) / 255

    def draw(self, lines: np.ndarray, colours: np.ndarray, ground: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
        """
        Hairs.

        Args:
            lines: [N, P, 2], points of the crop.
            colours: [N, 3], sRGB in [0, 1].
            ground: [3], colour between them.
            width: of a hair, in pixels of the crop.

        Returns:
            colours [S, S, 3] and how much of each pixel is hair [S, S].
        """
        picture = np.empty((self.size, self.size, 3), np.uint8)
        picture[:] = np.rint(ground.clip(0, 1) * 255)
        covered = np.zeros((self.size, self.size), np.uint8)
        points = np.rint(((lines + BEYOND) * self.scale - 0.5) * 16).astype(np.int32)
        thick = max(1, round(width * self.scale))
        for line, colour in zip(points, np.rint(colours.clip(0, 1) * 255).tolist(), strict=True):
            cv2.polylines(picture, [line], False, colour, thick, cv2.LINE_AA, 4)
            cv2.polylines(covered, [line], False, 255, thick, cv2.LINE_AA, 4)
        return picture.astype(np.float32) / 255, covered.astype(np.float32) / 255


def hair_colour(photo: Image.Image, parsing: FaceParsing) -> Colour | None:
    """
    Colour of the hair of a head or, where it has hardly any, of the brows; None where neither is seen. What lies at an
    edge does not count: it is a mixture with what is behind.
    """
    total = len(parsing.probabilities[0])
    frame = np.asarray(align(photo, parsing.matrix, total), np.float32) / 255
    start, end = total * (SURROUNDINGS - 1) // (2 * SURROUNDINGS), total * (SURROUNDINGS + 1) // (2 * SURROUNDINGS)
    inside = np.s_[start:end, start:end]
    for name, edge in (("hair", EDGE), ("brow", 1)):
        weights = parsing.mask(name)[inside]
        inner = cv2.erode(weights, np.ones((2 * edge + 1, 2 * edge + 1), np.uint8))
        if (inner > SURE_COLOUR).mean() > LEAST_KNOWN:
            return measure_colour(frame[inside], np.where(inner > SURE_COLOUR, inner, 0))
    return None


def _rise(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 below `start`, 1 above `end`, smooth between."""
    share = ((values - start) / (end - start)).clip(0, 1)
    return share * share * (3 - 2 * share)


def _tones(colour: Colour, count: int, generator: np.random.Generator, spread: float) -> np.ndarray:
    """Colours [count, 3] in sRGB of single hairs."""
    jitter = generator.normal(size=(count, 3)) * np.array(colour.deviation) * [spread, 0.5, 0.5]
    return from_oklab(np.array(colour.mean) + jitter).astype(np.float32)


def _light(pixels: np.ndarray, skin: np.ndarray, blur: float) -> np.ndarray:
    """How much light falls on each place, relative to skin in the mean [S, S]."""
    grey = pixels.mean(2)
    weights = cv2.GaussianBlur(skin, (0, 0), blur) + 1e-3
    smooth = (cv2.GaussianBlur(grey * skin, (0, 0), blur) + 1e-3 * float((grey * skin).sum() / skin.sum())) / weights
    return (smooth / (float((grey * skin).sum() / skin.sum()) + 1e-6)).clip(0.55, 1.35)


Style = Literal["full", "stubble", "goatee", "mustache"]


@dataclass(frozen=True)
class Beard:
    """
    A beard to be added.

    Args:
        style: where it grows.
        length: of its hairs, in pixels of the 128-pixel crop.
        count: of hairs on a face that has them everywhere.
        cover: how far the skin below is dark, in [0, 1].
    """

    style: Style
    length: float
    count: int
    cover: float

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether there are lips around which it grows, and hair or brows to tell its colour."""
        lips = parsing.crop_mask(("whole_mouth",), CROP_SIZE) > SURELY
        return lips.mean() > LEAST_KNOWN and any(
            (parsing.mask(name) > SURELY).mean() * SURROUNDINGS**2 > LEAST_KNOWN for name in ("hair", "brow")
        )

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """The beard as a layer of the photo, `share` of it in (0, 1]."""
        canvas = Canvas.of(parsing)
        pixels = canvas.pixels(photo)
        skin = canvas.mask(parsing, "facial_skin")
        density = self.density(canvas, parsing)
        colour = hair_colour(photo, parsing)
        assert colour is not None  # as `fits` saw
        L, a, b = colour.mean
        colour = Colour((0.82 * L + 0.02, a, b), colour.deviation)
        rows, columns = np.nonzero(density > 0.02)
        chances = density[rows, columns]
        count = round(self.count * float(chances.sum()) / canvas.scale**2 / 2600)
        chosen = generator.choice(len(rows), size=max(count, 1), p=chances / chances.sum())
        roots = np.stack([columns[chosen], rows[chosen]], 1).astype(np.float32) + generator.random((len(chosen), 2))
        light = _light(pixels, skin, 5 * canvas.scale)
        tones = _tones(colour, len(chosen), generator, 0.5)
        tones *= light[rows[chosen], columns[chosen], None]
        roots = roots / canvas.scale - BEYOND
        lines = self._hairs(roots, chances[chosen], generator)
        ground = from_oklab(np.array(colour.mean)).astype(np.float32)
        picture, covered = canvas.draw(lines, tones, ground, 0.16)
        soft = 0.16 * canvas.scale
        picture, covered = cv2.GaussianBlur(picture, (0, 0), soft), 0.8 * cv2.GaussianBlur(covered, (0, 0), soft)
        under = self.cover * cv2.GaussianBlur(density, (0, 0), 1.5 * canvas.scale)
        under_colour = ground * light[..., None]
        mouth = canvas.mask(parsing, ("whole_mouth",))
        alpha = share * (1 - cv2.GaussianBlur(mouth, (0, 0), 0.5 * canvas.scale))
        delta = covered[..., None] * picture + ((1 - covered) * under)[..., None] * under_colour
        detail = (1 - covered) * (1 - under)
        touched = np.maximum(covered, under) > 1 / 512
        return [Layer(delta.astype(np.float32), detail.astype(np.float32), (alpha * touched).astype(np.float32), canvas.matrix)]

    def density(self, canvas: Canvas, parsing: FaceParsing) -> np.ndarray:
        """How densely hair grows at each place [S, S], in [0, 1]."""
        x, y = canvas.places()
        lips = canvas.mask(parsing, ("whole_mouth",))
        sure = lips * (lips > SURELY)
        middle = float((sure.sum(0) @ x) / sure.sum())
        height = float((sure.sum(1) @ y[:, 0]) / sure.sum())
        wide = np.flatnonzero((lips > SURELY).any(0))
        half = float(x[wide[-1]] - x[wide[0]]) / 2
        top = float(y[np.flatnonzero((lips > SURELY).any(1))[0], 0])
        bottom = float(y[np.flatnonzero((lips > SURELY).any(1))[-1], 0])
        aside = np.abs(x - middle)[None, :]
        # The line on the cheek falls from the ear to the corner of the mouth.
        cheek = height - 2 - 20 * ((aside - half - 1) / 24).clip(0, 1) ** 1.4
        cheeks = _rise(y - cheek, -4, 9) * _rise(aside, half - 3, half + 3)
        moustache = _rise(y - (top - 7.5 + 0.012 * aside**2), -1, 2.5) * (1 - _rise(aside, half + 1, half + 5)) * (y < height + 3)
        chin = _rise(y - bottom, 0.5, 4) * (1 - _rise(aside, half, half + 8))
        # beside the tuft below the lip little grows
        bare = np.exp(-(((aside - half * 0.55) / (half * 0.28)) ** 2) - ((y - bottom - 2.5) / 2.2) ** 2)
        chin = chin * (1 - 0.7 * bare)
        if self.style in ("full", "stubble"):
            grown = np.maximum.reduce([cheeks, moustache, chin])
        elif self.style == "goatee":
            ring = (1 - _rise(aside, half + 1, half + 4)) * (y > height - 3)
            grown = np.maximum(moustache, chin * (1 - _rise(aside, half * 0.8, half * 0.8 + 5)))
            grown = np.maximum(grown, ring * _rise(aside, half - 1.5, half + 0.5))
        else:
            grown = moustache
        ground = canvas.mask(parsing, "skin")
        neck = canvas.mask(parsing, "neck")
        jaw = cv2.GaussianBlur(ground, (0, 0), 3 * canvas.scale)
        ground = np.maximum(ground, neck * _rise(jaw, 0.12, 0.45))
        away = cv2.GaussianBlur(np.maximum.reduce([lips, canvas.mask(parsing, "nose")]), (0, 0), 0.6 * canvas.scale)
        allowed = cv2.GaussianBlur(ground, (0, 0), 0.7 * canvas.scale) * (1 - _rise(away, 0.25, 0.6))
        return (grown * allowed).astype(np.float32)

    def _hairs(self, roots: np.ndarray, density: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """
        Lines [N, 4, 2] of hairs from their roots [N, 2]: downwards, on the lip to the sides; short where few grow
        [N].
        """
        aside = roots[:, 0] - _MIDDLE
        on_lip = roots[:, 1] < _MOUTH_Y - 1
        angle = np.where(on_lip & (np.abs(aside) < 20), np.sign(aside) * (0.35 + 0.035 * np.abs(aside)), -0.006 * aside)
        angle = angle + generator.normal(0, 0.28, len(roots))
        length = self.length * generator.lognormal(0, 0.3, len(roots)) * np.where(on_lip, 0.75, 1.0) * (0.3 + 0.7 * density)
        bend = generator.normal(0, 0.25, len(roots))
        points = [roots]
        for step in range(3):
            direction = angle + bend * step
            move = np.stack([np.sin(direction), np.cos(direction)], 1) * (length / 3)[:, None]
            points.append(points[-1] + move)
        return np.stack(points, 1)


@dataclass(frozen=True)
class Fringe:
    """
    Hair over the forehead.

    Args:
        locks: how many strands of hairs.
        hairs: of a lock.
    """

    locks: int = 84
    hairs: int = 40

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether there is hair above a forehead from which it can fall."""
        return _hairline(parsing) is not None

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """The fringe as a layer of the photo, `share` of it in (0, 1]."""
        canvas = Canvas.of(parsing)
        found = _hairline(parsing)
        colour = hair_colour(photo, parsing)
        assert found is not None and colour is not None  # as `fits` saw
        left, right, line, brow = found
        starts = np.linspace(left - 1, right + 1, self.locks) + generator.normal(0, 1.0, self.locks)
        sweep = float(generator.choice([-1, 1])) * generator.uniform(2, 6)
        middle = (left + right) / 2
        lines, shades = [], []
        for lock in generator.permutation(self.locks):
            x0 = starts[lock]
            y0 = float(np.interp(x0, np.arange(len(line)) + 0.5, line))
            side = (x0 - middle) / (right - left) * 2
            x1 = x0 + sweep * (1 - 0.3 * abs(side)) + 2.0 * side + generator.normal(0, 1.5)
            y1 = brow - 4.0 + 4.0 * side**2 + generator.normal(0, 2.0)
            y1 = max(y1, y0 + 4)
            width = generator.uniform(2.0, 3.6)
            count = self.hairs
            spread = generator.normal(0, 0.5, count).clip(-1, 1)
            roots = np.stack([x0 + 1.3 * spread * width, y0 - generator.uniform(1, 8, count)], 1)
            short = np.abs(generator.normal(0, 2.6, count)) + 2.0 * np.abs(spread)
            tips = np.stack([x1 + spread * width * 0.4, np.maximum(y1 - short, y0 + 2)], 1)
            steps = np.linspace(0, 1, 8)[None, :, None]
            bow = (side * 2.5 + sweep * 0.4) * np.sin(np.pi * steps[..., 0]) * generator.uniform(0.6, 1.4)
            path = roots[:, None] * (1 - steps) + tips[:, None] * steps
            path[..., 0] += bow + generator.normal(0, 0.25, (count, 1)) * steps[..., 0]
            lines.append(path)
            shades.append(np.full(count, generator.normal(0, 0.35)))
        lines_all = np.concatenate(lines)
        shade = np.concatenate(shades)
        tones_lab = np.array(colour.mean) + np.stack(
            [
                (shade + generator.normal(0, 0.5, len(shade))) * min(colour.deviation[0], 0.09),
                generator.normal(0, 0.3, len(shade)) * colour.deviation[1],
                generator.normal(0, 0.3, len(shade)) * colour.deviation[2],
            ],
            1,
        )
        tones = from_oklab(tones_lab).astype(np.float32)
        ground = from_oklab(np.array(colour.mean) * [0.85, 1, 1]).astype(np.float32)
        picture, covered = canvas.draw(lines_all, tones, ground, 0.2)
        soft = 0.16 * canvas.scale
        picture, covered = (cv2.GaussianBlur(each, (0, 0), soft) for each in (picture, covered))
        # light on the bow of the hair
        x, y = canvas.places()
        gloss = 1 + 0.22 * np.exp(-(((y - (line.min() * 0.45 + brow * 0.55)) / 6) ** 2))
        picture = (picture * gloss[..., None]).clip(0, 1)
        hair = canvas.mask(parsing, "hair")
        shadow = np.zeros_like(covered)
        down = max(1, round(1.5 * canvas.scale))
        shadow[down:] = covered[:-down]
        shadow = 0.3 * cv2.GaussianBlur(shadow, (0, 0), 1.3 * canvas.scale) * canvas.mask(parsing, "skin")
        top = np.interp(x, np.arange(len(line)) + 0.5, line)[None, :]
        fade = _rise(y - top, -7.0, -1.0)  # comes out of the hair that is there
        glasses = canvas.mask(parsing, "eyeglasses")
        alpha = share * fade * (1 - glasses)
        delta = covered[..., None] * picture
        detail = (1 - covered) * (1 - shadow)
        touched = np.maximum(covered, shadow) > 1 / 512
        return [Layer(delta.astype(np.float32), detail.astype(np.float32), (alpha * touched).astype(np.float32), canvas.matrix)]


def _hairline(parsing: FaceParsing) -> tuple[float, float, np.ndarray, float] | None:
    """
    Left and right end of the forehead, the row [128] at which hair ends above it in each column, and the row of the
    brows, in pixels of the crop; None where there is no hair above.
    """
    crop = CROP_SIZE
    hair, skin, brow = (parsing.crop_mask(name, crop) for name in ("hair", "facial_skin", "brow"))
    sure = brow * (brow > SURELY)
    rows = np.arange(crop) + 0.5
    level = float((sure.sum(1) @ rows) / sure.sum()) if sure.sum() > 20 else _EYE_Y - 12
    level = max(level, 20.0)
    band = skin[max(0, int(level) - 10) : int(level) - 3]
    columns = np.flatnonzero((band > SURELY).mean(0) > 0.5)
    if len(columns) < crop // 5:
        return None
    left, right = float(columns[0]) - 1, float(columns[-1]) + 2
    above = hair[: int(level)] > SURELY
    line = np.full(crop, np.nan)
    for column in range(crop):
        found = np.flatnonzero(above[:, column])
        if len(found) >= LEAST_ABOVE:
            line[column] = found[-1] + 1
    inside = line[int(left) : int(right)]
    if np.isfinite(inside).mean() < 0.7:
        return None
    known = np.flatnonzero(np.isfinite(line))
    smooth = np.interp(np.arange(crop), known, line[known])
    smooth = np.convolve(np.pad(smooth, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    return left, right, smooth, level


FULL_BEARD = Beard("full", 3.6, 7000, 0.6)
STUBBLE = Beard("stubble", 0.9, 6000, 0.2)
GOATEE = Beard("goatee", 3.6, 7000, 0.6)
MUSTACHE = Beard("mustache", 3.6, 7000, 0.6)
FRINGE = Fringe()
