"""A square around the face in which things are drawn at about the photo's own resolution, and what is needed there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from .alignment import CROP_SIZE, align, compose, scale_of, scaling, translation
from .face_parsing import FaceParsing

#: What a canvas shows beyond each side of the crop, in pixels of the 128-pixel crop.
BEYOND = 16
#: Pixels of a canvas along one of the 128-pixel crop, at least and at most.
COARSEST, FINEST = 3.0, 8.0
#: Pixels that are drawn along one of a canvas, so that edges are smooth.
OVERSAMPLING = 2
#: Where sharp edges are looked for (left, top, right, bottom), the least step that counts, and the standard deviation
#: of the blur of such an edge in a sharp photo, in pixels of the 128-pixel crop.
AROUND_THE_EYES, LEAST_STEP, SHARP = (28, 38, 100, 68), 0.12, 0.6
#: The least softness of a photo that is seen, in pixels of the 128-pixel crop.
LEAST_SOFT = 0.15
#: How much colours from anywhere count where none are near, and the share of known pixels that rounding makes.
NOTHING_NEAR, ROUNDED = 1e-10, 1e-5
#: Half the width of an edge, in pixels of the 128-pixel crop.
SMOOTH = 0.4


@dataclass(frozen=True)
class Canvas:
    """
    A square as large as the face crop and a little more. Places are told in pixels of the 128-pixel crop.

    Args:
        scale: its pixels along one of the 128-pixel crop.
        matrix: [2, 3] from the photo to it.
        corner: (x, y) of its upper left corner.
    """

    scale: float
    matrix: np.ndarray
    corner: tuple[float, float] = (-BEYOND, -BEYOND)

    @classmethod
    def of(cls, parsing: FaceParsing, finest: float = FINEST, top: float = -BEYOND) -> "Canvas":
        """That of a face, as fine as its photo and no finer than asked for, from the row `top` on."""
        scale = float(np.clip(parsing.unit / scale_of(parsing.matrix), COARSEST, finest))
        to_corner = compose(compose(parsing.matrix, parsing.to_crop), translation(BEYOND, -top))
        return cls(scale, compose(to_corner, scaling(scale)), (-BEYOND, top))

    @property
    def size(self) -> int:
        return round((CROP_SIZE + 2 * BEYOND) * self.scale)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """x [S] and y [S, 1] of its pixels."""
        centres = ((np.arange(self.size) + 0.5) / self.scale).astype(np.float32)
        return centres + self.corner[0], (centres + self.corner[1])[:, None]

    def mask(self, parsing: FaceParsing, names: str | tuple[str, ...]) -> np.ndarray:
        """How much of each pixel [S, S] shows one of the classes."""
        start, end = (parsing.in_frame(np.add(self.corner, side)).tolist() for side in (0, CROP_SIZE + 2 * BEYOND))
        whole = Image.fromarray(parsing.mask(names))
        return np.asarray(whole.resize((self.size, self.size), Image.Resampling.BILINEAR, box=(*start, *end)))

    def pixels(self, photo: Image.Image) -> np.ndarray:
        """The photo there, sRGB float32 [S, S, 3] in [0, 1]."""
        return np.asarray(align(photo, self.matrix, self.size), np.float32) / 255

    def softness(self, photo: Image.Image) -> float:
        """
        By how much a photo is softer than a sharp one where eyes and brows are, where edges are sharpest: the standard
        deviation of a blur, in pixels of the 128-pixel crop; 0 where that is not seen.
        """
        left, top, right, bottom = (
            round((place - corner) * self.scale)
            for place, corner in zip(AROUND_THE_EYES, self.corner * 2, strict=True)
        )
        grey = self.pixels(photo)[max(top, 0) : bottom, max(left, 0) : right].mean(2)
        reach = round(4 * self.scale)
        step = -minimum_filter(-grey, reach) - minimum_filter(grey, reach)
        edges = step > LEAST_STEP
        if not edges.any():
            return 0.0
        slopes = np.hypot(*np.gradient(grey))[edges] * self.scale
        # a blurred step is as steep in its middle as the density of the normal distribution is high
        deviation = 1 / np.sqrt(2 * np.pi) / float(np.quantile(slopes / step[edges], 0.98))
        soft = float(np.sqrt(max(0.0, deviation**2 - SHARP**2)))
        return soft if soft > LEAST_SOFT else 0.0

    def blur(self, values: np.ndarray, deviation: float) -> np.ndarray:
        """See [`blur`], with a deviation in pixels of the 128-pixel crop."""
        return blur(values, deviation * self.scale)

    def shadow(self, covered: np.ndarray, below: float, deviation: float) -> np.ndarray:
        """
        The shadow [S, S] in [0, 1] of what covers so much of each pixel [S, S].

        Args:
            below: how far below it, in pixels of the 128-pixel crop.
            deviation: standard deviation of its soft edge, in the same.
        """
        return self.blur(np.roll(covered, round(below * self.scale), axis=0), deviation)

    def at(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Those of values [S, S, …] that lie at places [N, 2], the nearest ones beyond the edge."""
        columns, rows = ((places - self.corner) * self.scale).astype(int).clip(0, self.size - 1).T
        return values[rows, columns]

    def sown(
        self, generator: np.random.Generator, density: float, chances: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Places by chance, which stay the same on the face where the chances differ a little, as from frame to frame of
        a film.

        Args:
            density: places on a square pixel of the 128-pixel crop.
            chances: how many of them are kept, [S, S] in [0, 1].

        Returns:
            all places [N, 2], also those that are not kept: what else chance says of each is to be drawn for all; and
            which are kept, bool [N].
        """
        side = self.size / self.scale
        places = generator.random((round(density * (CROP_SIZE + 2 * BEYOND) ** 2), 2)) * side + self.corner
        return places, generator.random(len(places)) < self.at(chances, places)

    def noise(self, generator: np.random.Generator, size: float) -> np.ndarray:
        """Chance [S, S] of mean 0 and deviation 1, alike over so many pixels of the 128-pixel crop."""
        side = (CROP_SIZE + 2 * BEYOND) / size
        coarse = Image.fromarray(generator.normal(size=(int(side) + 4,) * 2).astype(np.float32))
        return np.asarray(coarse.resize((self.size,) * 2, Image.Resampling.BICUBIC, box=(1, 1, 1 + side, 1 + side)))

    def covered(self, inside: np.ndarray) -> np.ndarray:
        """How much of each pixel [S, S] something covers whose outline is so far away, positive inside."""
        return smoothstep(inside, -SMOOTH, SMOOTH)

    def polygons(self, outlines: Sequence[np.ndarray]) -> np.ndarray:
        """How much of each pixel [S, S] lies in one of the polygons, each [N, 2]."""
        large = Image.new("L", (self.size * OVERSAMPLING,) * 2)
        draw = ImageDraw.Draw(large)
        for outline in outlines:
            draw.polygon([tuple(point) for point in self._drawn(outline)], fill=255)
        return np.asarray(large.reduce(OVERSAMPLING), np.float32) / 255

    def hairs(
        self, lines: np.ndarray, colours: np.ndarray, ground: np.ndarray, width: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Hairs.

        Args:
            lines: [N, P, 2].
            colours: [N, 3], sRGB in [0, 1].
            ground: [3], colour between them.
            width: of a hair, in pixels of the 128-pixel crop.

        Returns:
            colours [S, S, 3] and how much of each pixel is hair [S, S].
        """
        sides = (self.size * OVERSAMPLING,) * 2
        picture = Image.new("RGB", sides, tuple(np.rint(ground.clip(0, 1) * 255).astype(int).tolist()))
        covered = Image.new("L", sides)
        on_picture, on_covered = ImageDraw.Draw(picture), ImageDraw.Draw(covered)
        thick = max(1, round(width * self.scale * OVERSAMPLING))
        tones = np.rint(colours.clip(0, 1) * 255).astype(int).tolist()
        for line, tone in zip(self._drawn(lines).reshape(len(lines), -1).tolist(), tones, strict=True):
            on_picture.line(line, tuple(tone), thick)
            on_covered.line(line, 255, thick)
        reduced = (np.asarray(each.reduce(OVERSAMPLING), np.float32) / 255 for each in (picture, covered))
        return next(reduced), next(reduced)

    def _drawn(self, points: np.ndarray) -> np.ndarray:
        """Places [..., 2] → where they are drawn; whole numbers are the middles of pixels."""
        return (points - self.corner) * (self.scale * OVERSAMPLING) - 0.5


def blur(values: np.ndarray, deviation: float) -> np.ndarray:
    """
    Means of neighbours by a normal distribution of so many pixels; the edge is repeated.

    Args:
        values: float [H, W] or [H, W, C].

    Returns:
        float32 of the same shape.
    """
    reach = max(1, round(3 * deviation))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float32) ** 2) / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    planes = torch.tensor(np.atleast_3d(values), dtype=torch.float32).permute(2, 0, 1)[:, None]
    for shape, padding in (((-1, 1), (0, 0, reach, reach)), ((1, -1), (reach, reach, 0, 0))):
        padded = torch.nn.functional.pad(planes, padding, mode="replicate")
        planes = torch.nn.functional.conv2d(padded, kernel.view(1, 1, *shape))
    return planes[:, 0].permute(1, 2, 0).numpy().reshape(values.shape)


def deviation_of(detail: np.ndarray) -> float:
    """
    Standard deviation of what is mostly noise or texture around 0, by the median of its size: the few lines, edges and
    spots in it do not count.
    """
    return 1.4826 * float(np.median(np.abs(detail)))


def nearest_colours(pixels: np.ndarray, known: np.ndarray, scale: float) -> np.ndarray:
    """
    Colours [H, W, 3] of a picture that are known at some pixels, elsewhere those of near by: smooth everywhere, and
    never a blend with those of farther away, as [`fill_smoothly`] makes it.

    Args:
        pixels: [H, W, 3].
        known: how far each is known, [H, W] in [0, 1]; somewhere not 0.
        scale: pixels along one of the 128-pixel crop: nothing finer than that is told.
    """
    planes = np.dstack([pixels * known[..., None], known]).astype(np.float32)
    height, width = known.shape
    small = resized(planes, (max(1, round(width / scale)), max(1, round(height / scale))))
    # rounding errors of a blur are no colours, where nothing is near
    total = NOTHING_NEAR * np.append(planes[..., :3].sum((0, 1)) / planes[..., 3].sum(), 1)
    for power, deviation in enumerate((1.2, 3.0, 8.0, 24.0)):
        found = blur(small, deviation)
        total = total + 50.0**-power * found * (found[..., 3:] > ROUNDED)
    return resized((total[..., :3] / total[..., 3:]).astype(np.float32), (width, height))


def resized(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Channels [H, W, C] at another (width, height)."""
    images = (Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR) for plane in np.moveaxis(planes, 2, 0))
    return np.stack([np.asarray(each) for each in images], -1)


def weighted_blur(values: np.ndarray, weights: np.ndarray, deviation: float) -> np.ndarray:
    """
    See [`blur`], of those neighbours that count by their weights [H, W]; where none does the values stay.
    """
    weights = weights.reshape(weights.shape + (1,) * (values.ndim - 2))
    total = blur(weights, deviation)
    mean = blur(values * weights, deviation) / np.maximum(total, 1e-4)
    return np.where(total > 1e-3, mean, values)


def smoothstep(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 below `start`, 1 above `end`, smooth between."""
    share = ((values - start) / (end - start)).clip(0, 1)
    return share * share * (3 - 2 * share)


def minimum_filter(values: np.ndarray, reach: int) -> np.ndarray:
    """The least [H, W] of the values [H, W] at most `reach` rows and columns away."""
    found = values
    for axis in (0, 1):
        padded = np.pad(found, [(reach, reach) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        found = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis).min(-1)
    return found
