"""Where the parts of a face are: points by which it is moved, and its lips, by the masks of the face parser."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .canvas import smoothstep
from .face_parsing import FaceParsing
from .part_colour import SURELY

#: Pixels of the parser's masks that are looked at, along one of the 128-pixel crop.
FINENESS = 2
#: Share of the crop that a part must fill to be seen, each of two.
LEAST = {"brow": 1 / 1000, "eye": 1 / 2000, "whole_mouth": 1 / 300, "nose": 1 / 300}
#: Columns of the lips, in the masks' pixels, with which they are known.
LEAST_COLUMNS = 12
#: How far apart pupils are in the mean, in millimetres: by that the size of a face is known.
BETWEEN_PUPILS = 63.0
#: Place between the corners, in [-1, 1], up to which lips count in their thickness.
MIDDLE = 0.4
#: How wide a side of the mouth is seen on a turned head, at least and at most, of the mean of both.
FORESHORTENED = (0.5, 1.5)

#: Points of either side of a face, and those of its middle.
POINTS = (
    "brow_inner", "brow_middle", "brow_outer", "brow_upper", "brow_lower",
    "eye_inner", "eye_outer", "lid_upper", "lid_lower", "pupil",
    "nose_root", "nose_side", "nose_base", "cheek",
    "corner", "lip_upper", "lip_middle", "lip_lower", "lip_side_upper", "lip_side_lower", "chin", "forehead",
)  # fmt: skip


@dataclass(frozen=True)
class FacePoints:
    """
    Points of a face; (x, y) in pixels of the 128-pixel crop.

    Args:
        places: of `POINTS` those of the parts that are seen → [2, 2], that of the left side of the picture and that of
            the right; points in the middle are the same on both.
        along, across: unit vectors along the line of the eyes, and down from it.
        unit: distance between the eyes.
    """

    places: Mapping[str, np.ndarray]
    along: np.ndarray
    across: np.ndarray
    unit: float

    @classmethod
    def of(cls, parsing: FaceParsing) -> "FacePoints":
        """Those of a face; eyes that are not seen are where the crop has them."""
        brows, eyes = (_pair(parsing, name) for name in ("brow", "eye"))
        mouth, nose = (_Part.of(parsing, name) for name in ("whole_mouth", "nose"))
        pupils = CROP_LANDMARKS[:2] if eyes is None else np.array([eye.middle for eye in eyes])
        unit = float(np.linalg.norm(pupils[1] - pupils[0]))
        along = (pupils[1] - pupils[0]) / unit
        across = np.array([-along[1], along[0]])
        places = {
            "pupil": pupils,
            "nose_root": np.tile(pupils.mean(0) + 0.08 * unit * across, (2, 1)),
            "cheek": pupils + unit * (0.1 * np.outer([-1, 1], along) + 0.62 * across),
        }

        def beside(part: tuple[_Part, ...], share: float) -> np.ndarray:
            """Points of the spine, of the left part so far from its right end and of the right one from its left."""
            return np.array([part[0].spine(1 - share), part[-1].spine(share)])

        if brows is not None:
            for name, share in (("inner", 0.06), ("middle", 0.55), ("outer", 0.94)):
                places[f"brow_{name}"] = beside(brows, share)
            for name, end in (("upper", 0), ("lower", 1)):
                places[f"brow_{name}"] = np.array([brow.edge(0.5, end) for brow in brows])
            places["forehead"] = np.array([brow.middle for brow in brows]) - 0.5 * unit * across
        if eyes is not None:
            for name, share in (("inner", 0.02), ("outer", 0.98)):
                places[f"eye_{name}"] = beside(eyes, share)
            for name, end in (("upper", 0), ("lower", 1)):
                places[f"lid_{name}"] = np.array([eye.edge(0.5, end) for eye in eyes])
        if nose is not None:
            places["nose_side"] = beside((nose,), 0.97)
            places["nose_base"] = np.tile(nose.edge(0.5, 1), (2, 1))
        if mouth is not None:
            places["corner"] = beside((mouth,), 0.99)
            for name, end in (("upper", 0), ("lower", 1)):
                places[f"lip_{name}"] = np.tile(mouth.edge(0.5, end), (2, 1))
                places[f"lip_side_{name}"] = np.array([mouth.edge(0.25, end), mouth.edge(0.75, end)])
            places["lip_middle"] = (places["lip_upper"] + places["lip_lower"]) / 2
            places["chin"] = places["lip_lower"] + 0.42 * unit * across
        return cls({name: places[name] for name in POINTS if name in places}, along, across, unit)

    @property
    def sides(self) -> tuple[float, float]:
        """
        How wide either side of the mouth is seen, of the mean of both: they differ where the head is turned; 1 where
        no mouth or nose is seen.
        """
        if not {"corner", "nose_base"} <= self.places.keys():
            return 1.0, 1.0
        left, right = (self.places["corner"] - self.places["nose_base"]) @ self.along
        both = (right - left) / 2
        least, most = FORESHORTENED
        return float(np.clip(-left / both, least, most)), float(np.clip(right / both, least, most))

    @property
    def mouth(self) -> tuple[float, float]:
        """How far its corners are from its middle, and how far below that, in distances of the eyes."""
        corners, middle = self.places["corner"], self.places["lip_middle"]
        width = float((corners[1] - corners[0]) @ self.along) / 2
        return width / self.unit, float((corners - middle).mean(0) @ self.across) / self.unit


def _pair(parsing: FaceParsing, name: str) -> "tuple[_Part, _Part] | None":
    """What is seen of a part in both halves of the crop; None where it is not in both."""
    left, right = (_Part.of(parsing, name, half) for half in (0, 1))
    return None if left is None or right is None else (left, right)


@dataclass(frozen=True)
class _Part:
    """
    A part of a face by its mask, in pixels of the 128-pixel crop.

    Args:
        columns: [N], those that show it.
        upper, lower: [N], where it begins and ends in each.
        middle: (x, y).
    """

    columns: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    middle: np.ndarray

    @classmethod
    def of(cls, parsing: FaceParsing, name: str, half: int | None = None) -> "_Part | None":
        """That in the crop, or its left (0) or right half (1); None where it is hardly seen."""
        size = FINENESS * CROP_SIZE
        sure = parsing.crop_mask(name, size) > SURELY
        if half is not None:
            sure[:, slice(size // 2, None) if half == 0 else slice(size // 2)] = False
        if sure.mean() < LEAST[name]:
            return None
        columns = np.flatnonzero(sure.any(0))
        upper, lower = sure.argmax(0)[columns], size - sure[::-1].argmax(0)[columns]
        y, x = np.nonzero(sure)
        middle = np.array([x.mean() + 0.5, y.mean() + 0.5])
        return cls(*(each / FINENESS for each in (columns + 0.5, upper, lower, middle)))

    def _at(self, rows: np.ndarray, share: float) -> np.ndarray:
        """What rows [N] are at so much of its width from the left, of some columns the mean."""
        column = self.columns[0] + share * (self.columns[-1] - self.columns[0])
        weights = np.exp(-((self.columns - column) ** 2) / 2)
        return np.array([column, float(rows @ weights / weights.sum())])

    def spine(self, share: float) -> np.ndarray:
        """Its middle at so much of its width from the left."""
        return self._at((self.upper + self.lower) / 2, share)

    def edge(self, share: float, end: int) -> np.ndarray:
        """Its upper (0) or lower (1) edge at so much of its width from the left."""
        return self._at(self.lower if end else self.upper, share)


@dataclass(frozen=True, eq=False)
class Lips:
    """
    The line at which lips meet, or both lines where they are parted, in pixels of the 128-pixel crop.

    Args:
        ends: columns of both corners.
        upper, lower: [5] polynomials (the highest power first) of the place in [-1, 1] between the corners: the lower
            edge of the upper lip, and the upper edge of the lower one.
        thickness: of the upper lip and of the lower one, in their middle.
    """

    ends: tuple[float, float]
    upper: np.ndarray
    lower: np.ndarray
    thickness: tuple[float, float]

    @classmethod
    def of(cls, parsing: FaceParsing) -> "Lips | None":
        """Those of a face; None where it does not show both."""
        above, below, between = (
            parsing.crop_mask(name, FINENESS * CROP_SIZE) for name in ("upper_lip", "lower_lip", "mouth")
        )
        seen = above + below + between > SURELY
        columns = np.flatnonzero(seen.any(0))
        if len(columns) < LEAST_COLUMNS or any(
            (each > SURELY).mean() < LEAST["whole_mouth"] / 8 for each in (above, below)
        ):
            return None
        top, bottom = seen.argmax(0)[columns], len(seen) - seen[::-1].argmax(0)[columns]
        # by how much of a column each fills: edges of the classes are ragged
        total = (above + below + between)[:, columns].sum(0)
        thick = [each[:, columns].sum(0) / total * (bottom - top) / FINENESS for each in (above, below)]
        ends = columns[0] / FINENESS, (columns[-1] + 1) / FINENESS
        places = 2 * ((columns + 0.5) / FINENESS - ends[0]) / (ends[1] - ends[0]) - 1
        edges = (top / FINENESS + thick[0], bottom / FINENESS - thick[1])
        upper, lower = (np.polyfit(places, edge, 4, w=np.sqrt(total)) for edge in edges)
        in_the_middle = np.abs(places) < MIDDLE
        return cls(ends, upper, lower, (float(thick[0][in_the_middle].mean()), float(thick[1][in_the_middle].mean())))

    def mixed(self, last: "Lips", kept: float) -> "Lips":
        """These with a share of others in them."""
        pairs = zip(vars(last).values(), vars(self).values(), strict=True)
        ends, upper, lower, thickness = (np.add(now, kept * np.subtract(was, now)) for was, now in pairs)
        return Lips((float(ends[0]), float(ends[1])), upper, lower, (float(thickness[0]), float(thickness[1])))

    def edges(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Rows of the lower edge of the upper lip and of the upper edge of the lower one at columns `x`, and how far from
        the corners these are: 0 at them and beyond, 1 in the middle.
        """
        left, right = self.ends
        place = (2 * (x - left) / (right - left) - 1).clip(-1, 1)
        inside = 1 - place**2
        upper, lower = np.polyval(self.upper, place), np.polyval(self.lower, place)
        middle = (upper + lower) / 2
        half = np.maximum(lower - upper, 0) / 2 * smoothstep(inside, 0.0, 0.25)
        return middle - half, middle + half, inside
