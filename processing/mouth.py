"""Lips of a photo that meet or part, and what is seen between those that part: upper teeth, the dark, the tongue."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .alignment import CROP_SIZE
from .canvas import blur, minimum_filter, smoothstep
from .face_parsing import FaceParsing
from .face_points import BETWEEN_PUPILS, FacePoints, Lips
from .part_colour import SURELY, from_oklab, to_oklab

#: Share of the way to each other that the upper lip goes, and what is hidden of each lip's edge, in pixels of the
#: 128-pixel crop: teeth shine through it.
MEET, HEM = 0.45, 0.35
#: Over how many times its movement what is beside a lip stretches, at least: from 1.5 on nothing folds.
STRETCH = 2.0
#: How far below the lower lip a chin goes with it at most, in widths of the mouth; and how near to the jaw, in pixels
#: of the 128-pixel crop.
CHIN, JAW = 0.45, 1.5
#: How bright the inside of a mouth is beside the lips, at its upper and at its lower end.
DARKEST, TONGUE = 0.14, 0.42

#: Where teeth end beside the middle of the upper row, as seen from before, and how much shorter each is than the
#: first, in millimetres.
TEETH_END, SHORTER = (8.3, 14.4, 19.8, 24.0, 27.0), (0.0, 0.9, 0.3, 1.2, 1.8)
#: Share of the length of teeth that differs at most: the lip hides the rest of it.
MOST_SHORTER = 0.3
#: How round the lower corners of teeth are, and how wide the line between two is, in millimetres; how dark that is.
ROUND, LINE, LINE_DEPTH = 0.9, 0.35, 0.22
#: Beside the middle, in millimetres, from where the row of teeth lies in the shadow of the cheeks and where it is lost
#: in it; and what is left of its light there.
CHEEK_SHADOW, IN_THE_DARK = (10.0, 28.0), 0.45
#: What is left of the light on teeth right below the upper lip, and how far down that goes, in millimetres.
LIP_SHADOW, LIP_SHADOW_DEPTH = 0.75, 2.0
#: The colour of teeth in Oklab by that of skin, as a slope and a height (`lab/measure_part_colours.py`).
BY_SKIN, AND_MORE = np.array((0.66, 0.77, 0.79)), np.array((0.37, -0.001, -0.004))
#: Teeth of its own has a mouth that is so far open, in distances of the eyes, and of which so large a share is darker
#: than teeth should be by no more than that.
OWN_GAP, OWN_SHARE, OWN_DARKER = 0.06, 0.3, 0.2
#: How far the middle of a face lies beside that of its mouth at most.
MOST_ASIDE = 0.45
#: How much of the gap between lips that part is left below the teeth, at least.
BELOW_TEETH = 0.07


@dataclass(frozen=True, eq=False)
class Teeth:
    """
    The upper row of teeth. Lengths are in pixels of the 128-pixel crop.

    Args:
        length: how far they are seen below the upper lip at most.
        middle: place in [-1, 1] between the corners where the face has its middle: not 0 of a head that is turned.
        half: half the width of the mouth, from before.
        millimetre: one.
        colour: sRGB [3] in [0, 1].
    """

    length: float
    middle: float
    half: float
    millimetre: float
    colour: np.ndarray

    @classmethod
    def of(
        cls, lips: Lips, length: float, points: FacePoints, parsing: FaceParsing, photo: Image.Image
    ) -> "Teeth | None":
        """Those that a face in a photo would show, so much of them at most; None where it shows its own."""
        frame = to_oklab(parsing.pixels(photo))
        skin, mouth = (parsing.mask(name) > SURELY for name in ("facial_skin", "mouth"))
        if not skin.any():
            return None
        colour = BY_SKIN * np.median(frame[skin], 0) + AND_MORE
        left, right = lips.ends
        upper, lower, _ = lips.edges(np.array((left + right) / 2))
        if mouth.any() and lower - upper > OWN_GAP * points.unit:
            own, lip = frame[mouth], frame[parsing.mask("lips") > SURELY]
            pale = own[:, 1] < (colour[1] + (np.median(lip[:, 1]) if len(lip) else np.inf)) / 2
            if (pale & (own[:, 0] > colour[0] - OWN_DARKER)).mean() > OWN_SHARE:
                return None
        middle = float(np.clip(points.sides[0] - 1, -MOST_ASIDE, MOST_ASIDE))
        half, millimetre = (right - left) / 2, points.unit / BETWEEN_PUPILS
        return cls(length, middle, half, millimetre, from_oklab(colour).clip(0, 1))

    def mixed(self, last: "Teeth", kept: float) -> "Teeth":
        """These with a share of others in them."""
        pairs = zip(vars(last).values(), vars(self).values(), strict=True)
        return Teeth(*(now + kept * (was - now) for was, now in pairs))

    def beside_the_middle(self, place: np.ndarray) -> np.ndarray:
        """
        How far from the middle of the row, in millimetres, what is at places in [-1, 1] between the corners lies
        as seen from before: the row is an arch, whose near half a turned head shows and whose far half it hides.
        """
        frontal = np.linspace(-1, 1, 201)
        seen = np.maximum.accumulate(frontal + self.middle * np.sqrt(1 - frontal**2))
        seen = seen + np.linspace(0, 1e-6, len(seen))
        return np.interp(place, seen, frontal) * self.half / self.millimetre

    def seen(
        self, place: np.ndarray, below: np.ndarray, room: np.ndarray, soft: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        The teeth.

        Args:
            place: between the corners, in [-1, 1].
            below: how far below the upper lip.
            room: how far apart the lips are there.
            soft: width of an edge.

        Returns:
            colours [..., 3] and how much of each pixel they cover.
        """
        aside = np.abs(self.beside_the_middle(place))
        ends = np.array((0.0, *TEETH_END))
        index = (np.searchsorted(ends, aside, side="right") - 1).clip(0, len(TEETH_END) - 1)
        width = np.diff(ends)[index]
        across = 2 * (aside - ends[index]) / width - 1
        shorter = np.array(SHORTER)[index] + ROUND * np.abs(across) ** 4
        length = np.minimum(self.length, (1 - BELOW_TEETH) * room)
        length = length - np.minimum(self.millimetre * shorter, MOST_SHORTER * self.length)
        covered = smoothstep(length - below, -soft, soft)
        line = max(LINE, 0.5 * soft / self.millimetre)
        between = np.minimum(np.abs(aside - ends[index]), np.abs(aside - ends[index + 1]))
        light = 1 - LINE_DEPTH * (LINE / line) * np.exp(-((between / line) ** 2))
        light = light * (1 - (1 - IN_THE_DARK) * smoothstep(aside, *CHEEK_SHADOW))
        light = light * (1 - (1 - LIP_SHADOW) * np.exp(-np.maximum(below, 0) / (LIP_SHADOW_DEPTH * self.millimetre)))
        covered = covered * (1 - smoothstep(aside, TEETH_END[-2], TEETH_END[-1]))
        return light[..., None] * self.colour, covered


@dataclass(frozen=True, eq=False)
class MouthCut:
    """
    Lips that meet or part. Lengths are in pixels of the 128-pixel crop.

    Args:
        lips: as the photo has them.
        close: share of the way to lips that meet.
        part: how far the lower lip sinks in its middle.
        nose: row of its lower end.
        jaw: [128], row at which the face ends in each column of the crop.
        colour: sRGB [3] in [0, 1] of the lips.
        teeth: that are seen between lips that part; None where the photo has them, or none are to be seen.
    """

    lips: Lips
    close: float
    part: float
    nose: float
    jaw: np.ndarray
    colour: np.ndarray
    teeth: Teeth | None = None

    @classmethod
    def of(
        cls,
        lips: Lips,
        close: float,
        part: float,
        teeth: float,
        points: FacePoints,
        parsing: FaceParsing,
        photo: Image.Image,
    ) -> "MouthCut":
        """That of a face in a photo, which shows so much of its upper teeth at most."""
        middle = np.array(sum(lips.ends) / 2)
        _, lower, _ = (float(each) for each in lips.edges(middle))
        nose = points.places.get("nose_base")
        # the first row below the lips in which a column of the crop shows no face
        face = parsing.crop_mask(("facial_skin", "whole_mouth"), CROP_SIZE) > SURELY
        start = int(np.clip(lower, 0, CROP_SIZE - 1))
        jaw = start + np.argmin(np.pad(face[start:], ((0, 1), (0, 0))), axis=0)
        jaw = blur(minimum_filter(np.minimum(jaw, CROP_SIZE - JAW)[None].astype(np.float32), 1), JAW)[0] - JAW
        shown = parsing.mask("lips")
        colour = (parsing.pixels(photo) * shown[..., None]).sum((0, 1)) / max(float(shown.sum()), 1e-6)
        base = 0.0 if nose is None else float(nose[0, 1])
        row = Teeth.of(lips, teeth, points, parsing, photo) if part and teeth else None
        return cls(lips, close, part, base, jaw, colour, row)

    def rows(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """
        Of pixels at `x` and `y`: the rows that they show where they are of the upper part of the face, and of the
        lower one; the rows at which the upper part ends there, and the lower one begins.
        """
        upper, lower, inside = self.lips.edges(x)
        if self.teeth is not None:
            up, low = upper, lower
        elif self.part:
            up = low = lower  # teeth stay where they are
        else:
            hem = HEM * smoothstep(inside, 0.0, 0.3)
            up, low = upper - hem, lower + hem
        above, below = self.lips.thickness
        chin = np.interp(x, np.arange(len(self.jaw)) + 0.5, self.jaw) - low - below
        chin = np.minimum(chin, CHIN * (self.lips.ends[1] - self.lips.ends[0])).clip(1e-3)
        seam = up + MEET * (low - up)
        down = self.close * (seam - up)
        sink = self.close * (seam - low) + self.part * inside**0.75
        sink = np.clip(sink, -chin / STRETCH, chin / STRETCH)
        fade_up = np.maximum(up - above - self.nose, STRETCH * down).clip(1.0, CROP_SIZE)
        near_up = 1 - smoothstep(up + down - above - y, 0.0, fade_up)
        # it ends where it began, however far the lip goes
        near_low = 1 - smoothstep(y - low - sink - below, 0.0, chin - sink)
        return y - down * near_up, y - sink * near_low, up + down, low + sink

    def mixed(self, last: "MouthCut | None", kept: float) -> "MouthCut":
        """That of a film's next frame, with a share of the last one's lips in it."""
        if last is None:
            return self
        teeth = self.teeth if self.teeth is None or last.teeth is None else self.teeth.mixed(last.teeth, kept)
        colour = self.colour + kept * (last.colour - self.colour)
        part = self.part + kept * (last.part - self.part)  # what it adds to the gap between the lips, which are mixed
        return replace(self, lips=self.lips.mixed(last.lips, kept), part=part, colour=colour, teeth=teeth)

    def movement(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far what pixels show has moved; between lips that part it is new."""
        above, below, end, start = self.rows(x, y)
        moved: np.ndarray = np.where(y <= end, np.abs(above - y), np.where(y >= start, np.abs(below - y), 1.0))
        return moved

    def inside(self, x: np.ndarray, y: np.ndarray, end: np.ndarray, start: np.ndarray, soft: float) -> np.ndarray:
        """
        What is seen [..., 3] between lips that part: upper teeth, the dark, and further down the tongue.

        Args:
            x, y: places.
            end, start: rows at which the upper lip ends there and the lower one begins.
            soft: width of an edge.
        """
        room = np.maximum(start - end, 1e-3)
        depth = ((y - end) / room).clip(0, 1)
        brightness = DARKEST + (TONGUE - DARKEST) * smoothstep(depth, 0.3, 1.1)
        pixels: np.ndarray = brightness[..., None] * self.colour
        if self.teeth is not None:
            left, right = self.lips.ends
            colours, covered = self.teeth.seen(2 * (x - left) / (right - left) - 1, y - end, room, soft)
            pixels = pixels + covered[..., None] * (colours - pixels)
        return pixels
