"""Glasses that are put on a face: their frames and lenses are laid out around the eyes and laid over the photo."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from .alignment import CROP_SIZE, compose, inverse, scale_of, translation
from .blending import Layer
from .face_parsing import SURROUNDINGS, FaceParsing

#: Millimetres of an adult's face that are a pixel of the 128-pixel crop: pupils are 63 mm apart, and 39 such pixels.
MILLIMETRE = 39 / 63
#: Pixels of the rendered frame along a pixel of the 128-pixel crop, at least and at most: it is rendered at the photo's
#: own resolution.
FINEST, COARSEST = 8.0, 4.0
#: Along a pixel of the rendered frame, so that its edges are smooth.
OVERSAMPLING = 3
#: Share of the crop that eyes must fill to be known.
LEAST_EYES = 1 / 1000
#: What of the light that falls on skin below a frame is lost, at most.
SHADOW = 0.45


@dataclass(frozen=True)
class Frame:
    """
    A pair of glasses, in millimetres.

    Args:
        width, height: of a lens.
        roundness: exponent of the superellipse that a lens is: 2 is round, 4 nearly a box.
        taper: share by which a lens is narrower below than above.
        rim: thickness of its rim; that above is `brow` times as thick.
        colour: sRGB in [0, 1].
    """

    width: float
    height: float
    roundness: float
    taper: float
    rim: float
    brow: float
    colour: tuple[float, float, float]


_BLACK, _BROWN, _STEEL = (0.07, 0.07, 0.08), (0.20, 0.12, 0.08), (0.30, 0.30, 0.32)
_CLEAR_FRAMES = (
    Frame(53, 38, 3.2, 0.10, 2.3, 1.5, _BLACK),
    Frame(50, 43, 2.2, 0.02, 2.0, 1.1, _BROWN),
    Frame(54, 34, 3.6, 0.06, 1.3, 1.1, _STEEL),
    Frame(52, 41, 2.7, 0.08, 2.2, 1.4, _BROWN),
)
_DARK_FRAMES = (
    Frame(54, 43, 3.0, 0.13, 3.0, 1.4, _BLACK),
    Frame(56, 48, 2.5, 0.20, 1.4, 1.2, _STEEL),
    Frame(53, 46, 2.3, 0.05, 2.4, 1.2, _BROWN),
)


@dataclass(frozen=True)
class Eyewear:
    """
    Glasses to be put on.

    Args:
        frames: of which the seed takes one.
        lens: transmittance of the lenses at their upper and lower edge, in [0, 1].
    """

    frames: tuple[Frame, ...]
    lens: tuple[float, float]

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether both eyes are seen, and no glasses before them."""
        crop = CROP_SIZE
        eyes = parsing.crop_mask("eye", crop) > 0.5
        halves = (eyes[:, : crop // 2], eyes[:, crop // 2 :])
        worn = (parsing.crop_mask("eyeglasses", crop) > 0.5).mean()
        return all(half.mean() > LEAST_EYES for half in halves) and worn < 4 * LEAST_EYES

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """
        The glasses, and their shadow, as a layer of the photo.

        Args:
            share: how opaque they are, in (0, 1].
            generator: chooses the frame.
        """
        frame = self.frames[int(generator.integers(len(self.frames)))]
        total = parsing.probabilities.shape[1]
        unit = total / SURROUNDINGS / CROP_SIZE  # pixels of the parser's frame along one of the 128-pixel crop
        scale = float(np.clip(1 / scale_of(parsing.matrix) * unit, COARSEST, FINEST))
        place = _Place.of(parsing, scale)
        covered = _covered(parsing, place)
        rim, lens, height = _shapes(frame, place)
        rim *= 1 - covered
        lens *= 1 - covered
        shadow = np.zeros_like(rim)
        down = max(1, round(2.2 * scale))
        shadow[down:] = rim[:-down]
        shadow = cv2.GaussianBlur(shadow, (0, 0), 1.6 * scale) * SHADOW * (1 - covered)
        shade = _shading(rim, scale)
        colour = np.asarray(frame.colour, np.float32) * (0.75 + 0.5 * shade[..., None]) + 0.22 * np.maximum(
            shade[..., None] - 0.55, 0
        )
        top, bottom = self.lens
        through = 1 - lens * (1 - (top + (bottom - top) * height))
        glint = lens * (0.05 + 0.05 * (top < 0.5)) * (1 - height) ** 2
        detail = (1 - shadow) * through * (1 - rim)
        tint = (1 - through)[..., None] * np.array([0.035, 0.035, 0.045], np.float32)
        delta = rim[..., None] * colour + (1 - rim)[..., None] * (tint + glint[..., None] * np.array([0.9, 0.95, 1.0], np.float32))
        touched = np.maximum.reduce([rim, lens, shadow]) > 1 / 512
        alpha = share * cv2.blur(touched.astype(np.float32), (3, 3))
        return [Layer(delta.astype(np.float32), detail.astype(np.float32), alpha.astype(np.float32), place.matrix)]


@dataclass(frozen=True)
class _Place:
    """
    Where glasses sit.

    Args:
        size: side in pixels of the square that they are rendered in.
        matrix: [2, 3] from the photo to it.
        lenses: middle of each lens, [2, 2], left one first.
        widths: factor of each lens' width: the one that is turned away is seen from the side.
        along, across: unit vectors of the line of the eyes, and down from it.
        unit: pixels of the square along a millimetre.
    """

    size: int
    matrix: np.ndarray
    lenses: np.ndarray
    widths: tuple[float, float]
    along: np.ndarray
    across: np.ndarray
    unit: float

    @classmethod
    def of(cls, parsing: FaceParsing, scale: float) -> "_Place":
        total = parsing.probabilities.shape[1]
        crop = CROP_SIZE
        side = total // SURROUNDINGS
        start = (total - side) / 2
        eyes, nose = parsing.crop_mask("eye", crop), parsing.crop_mask("nose", crop)
        centres = np.array([_centre(eyes, 0, crop // 2), _centre(eyes, crop // 2, crop)])
        middle, gap = centres.mean(0), float(np.linalg.norm(centres[1] - centres[0]))
        along = (centres[1] - centres[0]) / gap
        across = np.array([-along[1], along[0]])
        # The bridge of the nose lies before the eyes: seen from the side it moves away from their middle.
        turned = float(((_centre(nose, 0, crop) - middle) @ along) / gap) if (nose > 0.5).any() else 0.0
        turned = float(np.clip(0.55 * turned, -0.18, 0.18))
        bridge = middle + turned * gap * along + 0.03 * gap * across
        widths = (1 + 1.6 * turned, 1 - 1.6 * turned)
        unit = gap / 63
        apart = 34.5 * unit  # a little wider than the pupils
        lenses = np.array([bridge - widths[0] * apart * along, bridge + widths[1] * apart * along]) + 2.5 * unit * across
        to_crop = compose(parsing.matrix, translation(-start, -start))
        factor = scale * crop / side
        matrix = compose(to_crop, np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))
        return cls(round(crop * scale), matrix, lenses * scale, widths, along, across, unit * scale)


def _centre(weights: np.ndarray, left: int, right: int) -> np.ndarray:
    """Middle (x, y) of what is surely seen in some columns of weights [S, S]."""
    part = weights[:, left:right] * (weights[:, left:right] > 0.5)
    total = part.sum()
    x, y = np.arange(left, right) + 0.5, np.arange(len(weights)) + 0.5
    return np.array([(part.sum(0) @ x) / total, (part.sum(1) @ y) / total])


def _covered(parsing: FaceParsing, place: _Place) -> np.ndarray:
    """How much of each pixel [S, S] lies before glasses or beside the head: hair, a hat, the background."""
    before = parsing.crop_mask(("hair", "hat", "background"), CROP_SIZE * 2)
    wide = cv2.resize(before, (place.size, place.size), interpolation=cv2.INTER_LINEAR)
    return ((wide - 0.35) / 0.4).clip(0, 1)


def _outline(frame: Frame, place: _Place, which: int, beyond: float, above: float) -> np.ndarray:
    """Outline [N, 2] of a lens, `beyond` millimetres outside of its edge, and `above` times that above it."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    power = 2 / frame.roundness
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    half = np.array([frame.width / 2 * place.widths[which], frame.height / 2])
    inwards = 1 if which == 0 else -1
    x_mm = x * half[0] * (1 - frame.taper * (y + 1) / 2) + x * beyond
    # the lower inner corner makes room for the nose
    x_mm -= inwards * 0.06 * half[0] * np.maximum(y, 0) * np.maximum(inwards * x, 0) * 2
    y_mm = y * half[1] + y * beyond * np.where(y < 0, above, 1.0)
    points = np.stack([x_mm, y_mm], 1) * place.unit
    return place.lenses[which] + points[:, :1] * place.along + points[:, 1:] * place.across


def _shapes(frame: Frame, place: _Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rim and lens, each how much of a pixel [S, S] it fills, and how far down a lens a pixel lies, in [0, 1]."""
    side = place.size * OVERSAMPLING

    def filled(polygons: list[np.ndarray]) -> np.ndarray:
        canvas = np.zeros((side, side), np.uint8)
        for points in polygons:
            cv2.fillPoly(canvas, [np.rint(points * OVERSAMPLING * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
        return canvas

    inner = [_outline(frame, place, which, 0.0, 1.0) for which in (0, 1)]
    outer = [_outline(frame, place, which, frame.rim, frame.brow) for which in (0, 1)]
    lens = filled(inner)
    bars = [_bridge(frame, place), *(_temple(frame, place, which) for which in (0, 1))]
    rim = np.maximum(np.where(lens > 0, 0, filled(outer)), np.where(lens > 0, 0, filled(bars))).astype(np.uint8)
    small = (place.size, place.size)
    rim_share, lens_share = (
        cv2.resize(each, small, interpolation=cv2.INTER_AREA).astype(np.float32) / 255 for each in (rim, lens)
    )
    places = np.stack(np.meshgrid(np.arange(place.size) + 0.5, np.arange(place.size) + 0.5), -1)
    down = (places - place.lenses.mean(0)) @ place.across / (frame.height * place.unit) + 0.5
    return rim_share, lens_share, down.clip(0, 1).astype(np.float32)


def _bridge(frame: Frame, place: _Place) -> np.ndarray:
    """An arch between both lenses."""
    left, right = (
        place.lenses[which] + sign * place.along * (frame.width / 2 * place.widths[which] * place.unit * 0.97)
        for which, sign in ((0, 1), (1, -1))
    )
    thick = max(frame.rim, 1.6) * place.unit * 0.55
    base = -0.16 * frame.height * place.unit * place.across
    steps = np.linspace(0, 1, 24)[:, None]
    arch = left + steps * (right - left) + base - 1.8 * place.unit * (4 * steps * (1 - steps)) * place.across
    return np.concatenate([arch - thick * place.across, (arch + thick * place.across)[::-1]])


def _temple(frame: Frame, place: _Place, which: int) -> np.ndarray:
    """The arm at one side, seen from before: from the outer corner to the ear, getting thinner."""
    outwards = place.along if which else -place.along
    start = place.lenses[which] + outwards * (frame.width / 2 * place.widths[which] + frame.rim * 0.4) * place.unit
    start = start - 0.22 * frame.height * place.unit * place.across
    end = start + outwards * 16 * place.unit + 0.5 * place.unit * place.across
    thick, thin = max(frame.rim, 1.6) * 0.95 * place.unit, max(frame.rim, 1.4) * 0.5 * place.unit
    back = start - outwards * frame.rim * place.unit
    return np.array(
        [
            back - thick * place.across,
            start - thick * place.across,
            end - thin * place.across,
            end + thin * place.across,
            start + thick * place.across,
            back + thick * place.across,
        ]
    )


def _shading(rim: np.ndarray, scale: float) -> np.ndarray:
    """Light from above on a rounded rim, [S, S] in [0, 1]."""
    body = cv2.GaussianBlur(rim, (0, 0), 0.5 * scale)
    slope = cv2.Sobel(body, cv2.CV_32F, 0, 1, ksize=3) / 4
    return (0.4 + slope * scale * 0.9).clip(0, 1)


CLEAR_GLASSES = Eyewear(_CLEAR_FRAMES, (0.97, 1.0))
SUNGLASSES = Eyewear(_DARK_FRAMES, (0.04, 0.2))
