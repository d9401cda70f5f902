"""Glasses that are put on a face: frames and lenses are laid out around the eyes and laid over the photo."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .blending import Layer
from .canvas import COARSEST, Canvas
from .face_parsing import FaceParsing
from .face_points import BETWEEN_PUPILS
from .part_colour import SURELY
from .signs import GLASSES
from .worn_eyewear import LEAST_EYE, WornGlasses, count_eyes, likely_frame

#: Of the distance by which the nose is off the middle of the eyes, how far the bridge is, and at most; and how much
#: narrower the lens at that side is seen, a unit of it.
BRIDGE, MOST_TURNED, NARROWER = 0.55, 0.18, 1.6
#: What of its light skin below a frame loses at most, how far below it that is, and how soft, in millimetres.
SHADOW, SHADOW_BELOW, SHADOW_WIDTH = 0.45, 3.5, 2.5
#: How sure of hair or background a parser is before frames begin to be hidden, and are.
HIDDEN = (0.35, 0.75)
#: How thick a rim is at most of half the height of a lens.
MOST_RIM = 0.3


@dataclass(frozen=True)
class Frame:
    """
    The frame of a pair of glasses, in millimetres.

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


@dataclass(frozen=True)
class Eyewear:
    """
    Glasses to be put on, a [`Transfer`].

    Args:
        frames: of which the seed takes one.
        lens: share of light that lenses let through at their upper and at their lower edge.
        tints: whether clear glasses that are worn stay and get these lenses.
    """

    frames: tuple[Frame, ...]
    lens: tuple[float, float]
    tints: bool = False

    def fits(self, parsing: FaceParsing) -> bool:
        """
        Whether an eye is seen, the other one, too, or a face from the front, and no glasses before it, or clear ones
        that are to be tinted.
        """
        eyes = count_eyes(parsing)
        if GLASSES.worn(parsing):
            return self.tints and eyes > 0
        return eyes == 2 or (eyes == 1 and parsing.frontal)

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """The glasses and their shadow, see [`Transfer.layers`]; what is left to chance is the frame."""
        frame = self.frames[int(generator.integers(len(self.frames)))]
        canvas = Canvas.of(parsing)
        if GLASSES.worn(parsing):
            return [self._tinted(canvas, photo, parsing, share)]
        seat = Seat.of(parsing)
        seen = 1 - ((canvas.mask(parsing, ("hair", "hat", "background")) - HIDDEN[0]) / np.ptp(HIDDEN)).clip(0, 1)
        lens = np.maximum(*(canvas.polygons([seat.outline(frame, side)]) for side in (0, 1)))
        whole = [seat.outline(frame, side, frame.rim) for side in (0, 1)]
        bars = [seat.bridge(frame), *(seat.arm(frame, side) for side in (0, 1))]
        rim = np.maximum(canvas.polygons(whole), canvas.polygons(bars)) * (1 - lens) * seen
        lens = lens * seen
        shadow = SHADOW * canvas.shadow(rim, SHADOW_BELOW * seat.unit, SHADOW_WIDTH * seat.unit) * seen
        x, y = canvas.places()
        middle = seat.lenses.mean(0)
        down = (x - middle[0]) * seat.across[0] + (y - middle[1]) * seat.across[1]
        down = (down / (frame.height * seat.unit) + 0.5).clip(0, 1)
        through, glass = self._glass(lens, down)
        # a rim is lit from above
        light = _lit_from_above(canvas, rim)[..., None]
        material = np.array(frame.colour) * (0.75 + 0.5 * light) + 0.22 * (light - 0.55).clip(0)
        delta = rim[..., None] * material + (1 - rim)[..., None] * glass
        detail = (1 - shadow) * through * (1 - rim)
        touched = np.maximum.reduce([rim, lens, shadow]) > 1 / 512
        return [Layer(delta.astype(np.float32), detail, (share * touched).astype(np.float32), canvas.matrix)]

    def _glass(self, lens: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        What a lens, of which so much is in each pixel [S, S], lets through of the light, [S, S], and what it adds of
        its own [S, S, 3], so far `down` from its upper edge.
        """
        through = 1 - lens * (1 - (self.lens[0] + (self.lens[1] - self.lens[0]) * down))
        # glass shows a little of the sky
        sky = lens[..., None] * (1 - down[..., None]) ** 2 * np.array([0.045, 0.0475, 0.05])
        return through, (1 - through)[..., None] * np.array([0.035, 0.035, 0.045]) + sky

    def _tinted(self, canvas: Canvas, photo: Image.Image, parsing: FaceParsing, share: float) -> Layer:
        """The lenses of glasses that are worn, as dark as these; their frame stays as it is."""
        coarse = Canvas.of(parsing, COARSEST)
        worn = WornGlasses.of(coarse, parsing)
        rim = likely_frame(coarse, photo, parsing, worn)[1]
        inside = Image.fromarray(worn.inside).resize((canvas.size, canvas.size), Image.Resampling.BILINEAR)
        lens = canvas.covered(np.asarray(inside) - min(rim, MOST_RIM * float(worn.inside.max())))
        y = canvas.places()[1]
        rows = y[(lens > 0.5).any(1), 0]
        upper, lower = (rows[0], rows[-1] + 1) if len(rows) else (0, CROP_SIZE)
        down = np.broadcast_to(((y - upper) / (lower - upper)).clip(0, 1), lens.shape)
        through, glass = self._glass(lens, down)
        alpha = (share * (lens > 1 / 512)).astype(np.float32)
        return Layer(glass.astype(np.float32), through, alpha, canvas.matrix)


def _lit_from_above(canvas: Canvas, rim: np.ndarray) -> np.ndarray:
    """How bright a rounded rim is by light from above, [S, S] in [0, 1]."""
    slope = np.gradient(canvas.blur(rim, 0.5), axis=0)
    return (0.4 + 1.8 * canvas.scale * slope).clip(0, 1)


@dataclass(frozen=True)
class Seat:
    """
    Where glasses sit on a face, in pixels of the 128-pixel crop.

    Args:
        lenses: the middle of each lens [2, 2], the left one of the picture first.
        widths: factor of the width of each: the one that is turned away is seen from the side.
        along, across: unit vectors along the line of the eyes, and down from it.
        unit: a millimetre.
    """

    lenses: np.ndarray
    widths: tuple[float, float]
    along: np.ndarray
    across: np.ndarray
    unit: float

    @classmethod
    def of(cls, parsing: FaceParsing) -> "Seat":
        """That of a face; where an eye is not seen, it is taken to be where the crop was aligned to have it."""
        eyes, nose = (parsing.crop_mask(name, CROP_SIZE) for name in ("eye", "nose"))
        half = CROP_SIZE // 2
        centres = CROP_LANDMARKS[:2].copy()
        for side, part in enumerate((np.s_[:, :half], np.s_[:, half:])):
            if (eyes[part] > SURELY).sum() > LEAST_EYE * eyes.size:
                centres[side] = _middle(eyes, side * half, (side + 1) * half)
        between, apart = centres.mean(0), float(np.linalg.norm(centres[1] - centres[0]))
        along = (centres[1] - centres[0]) / apart
        across = np.array([-along[1], along[0]])
        turned = 0.0
        if (nose > SURELY).any():
            turned = BRIDGE * float((_middle(nose, 0, CROP_SIZE) - between) @ along) / apart
            turned = float(np.clip(turned, -MOST_TURNED, MOST_TURNED))
        unit = apart / BETWEEN_PUPILS
        widths = (1 + NARROWER * turned, 1 - NARROWER * turned)
        bridge = between + turned * apart * along + 4.4 * unit * across
        beside = (BETWEEN_PUPILS / 2 + 3) * unit * along
        return cls(np.array([bridge - widths[0] * beside, bridge + widths[1] * beside]), widths, along, across, unit)

    def _at(self, side: int, millimetres: np.ndarray) -> np.ndarray:
        """Places [..., 2] so far to the right of the middle of a lens, and below it."""
        millimetres = np.asarray(millimetres) * self.unit
        return self.lenses[side] + millimetres[..., :1] * self.along + millimetres[..., 1:] * self.across

    def outline(self, frame: Frame, side: int, rim: float = 0.0) -> np.ndarray:
        """Edge [N, 2] of a lens or, with `rim`, of the rim around it."""
        angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
        x, y = (np.sign(turn) * np.abs(turn) ** (2 / frame.roundness) for turn in (np.cos(angle), np.sin(angle)))
        half = frame.width / 2 * self.widths[side]
        nasal = 1 if side == 0 else -1
        across = half * x * (1 - frame.taper * (y + 1) / 2) + rim * x
        across -= nasal * 0.12 * half * y.clip(0) * (nasal * x).clip(0)  # room for the nose
        down = frame.height / 2 * y + rim * y * np.where(y < 0, frame.brow, 1.0)
        return self._at(side, np.stack([across, down], 1))

    def bridge(self, frame: Frame) -> np.ndarray:
        """The arch [N, 2] between both lenses."""
        ends = [
            self._at(side, np.array([nasal * 0.485 * frame.width * self.widths[side], -0.16 * frame.height]))
            for side, nasal in ((0, 1), (1, -1))
        ]
        steps = np.linspace(0, 1, 24)[:, None]
        arch = ends[0] + steps * (ends[1] - ends[0]) - 7.2 * self.unit * steps * (1 - steps) * self.across
        half = 0.55 * max(frame.rim, 1.6) * self.unit * self.across
        return np.concatenate([arch - half, (arch + half)[::-1]])

    def arm(self, frame: Frame, side: int) -> np.ndarray:
        """The arm [N, 2] at one side, as it is seen from before: to the ear, getting thinner."""
        outwards = 1 if side else -1
        hinge, height = frame.width / 2 * self.widths[side] + 0.4 * frame.rim, -0.22 * frame.height
        thick, thin = 0.95 * max(frame.rim, 1.6), 0.5 * max(frame.rim, 1.4)
        upper = [(hinge - frame.rim, height - thick), (hinge, height - thick), (hinge + 16, height + 0.5 - thin)]
        lower = [(hinge + 16, height + 0.5 + thin), (hinge, height + thick), (hinge - frame.rim, height + thick)]
        return self._at(side, np.array(upper + lower) * [outwards, 1])


def _middle(weights: np.ndarray, left: int, right: int) -> np.ndarray:
    """Middle (x, y) of what is surely seen of weights [S, S] in some of their columns."""
    part = np.where(weights > SURELY, weights, 0)[:, left:right]
    x, y = np.arange(left, right) + 0.5, np.arange(len(weights)) + 0.5
    return np.array([part.sum(0) @ x, part.sum(1) @ y]) / part.sum()


_BLACK, _BROWN, _STEEL = (0.07, 0.07, 0.08), (0.20, 0.12, 0.08), (0.30, 0.30, 0.32)
CLEAR_GLASSES = Eyewear(
    (
        Frame(53, 38, 3.2, 0.10, 2.3, 1.5, _BLACK),
        Frame(50, 43, 2.2, 0.02, 2.0, 1.1, _BROWN),
        Frame(54, 34, 3.6, 0.06, 1.3, 1.1, _STEEL),
        Frame(52, 41, 2.7, 0.08, 2.2, 1.4, _BROWN),
    ),
    (0.97, 1.0),
)
SUNGLASSES = Eyewear(
    (
        Frame(54, 43, 3.0, 0.13, 3.0, 1.4, _BLACK),
        Frame(56, 48, 2.5, 0.20, 1.4, 1.2, _STEEL),
        Frame(53, 46, 2.3, 0.05, 2.4, 1.2, _BROWN),
    ),
    (0.04, 0.2),
    tints=True,
)
