"""Where the parts of a face are: points by which it is moved, and the lips, by the masks of the face parser."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .alignment import CROP_SIZE
from .canvas import rise
from .face_parsing import FaceParsing
from .part_colour import SURELY

#: Share of the crop that each brow, each eye and the lips must fill to be known.
LEAST_BROW, LEAST_EYE, LEAST_LIPS = 1 / 1000, 1 / 2000, 1 / 300

#: The points of either side of a face, see [`FacePoints`].
POINTS = (
    "brow_inner", "brow_middle", "brow_outer", "brow_upper", "brow_lower", "eye_inner", "eye_outer", "lid_upper", "lid_lower", "pupil",
    "nose_root", "nose_side", "nose_base", "corner", "lip_upper", "lip_line", "lip_lower", "lip_side_upper",
    "lip_side_lower", "cheek", "chin", "forehead",
)  # fmt: skip


@dataclass(frozen=True)
class FacePoints:
    """
    Where the parts of a face are, by its parser.

    Args:
        places: name → [2, 2], (x, y) in pixels of the 128-pixel crop, of the left side of the picture and the right;
            points in the middle are the same on both.
        along, across: unit vectors along the line of the eyes, and down from it.
        unit: distance between the eyes in these pixels.
        parted: share of the mouth that lies between the lips.
    """

    places: Mapping[str, np.ndarray]
    along: np.ndarray
    across: np.ndarray
    unit: float
    parted: float

    @classmethod
    def of(cls, parsing: FaceParsing) -> "FacePoints | None":
        """Those of a face; None where it does not show both brows, both eyes and the mouth."""
        size = 2 * CROP_SIZE
        brows, eyes, lips, noses, between = (
            parsing.crop_mask(name, size) for name in ("brow", "eye", "whole_mouth", "nose", "mouth")
        )
        half = size // 2
        sides = [(np.s_[:, :half], 0), (np.s_[:, half:], half)]
        found = [[_Part.of(mask[window], left) for window, left in sides] for mask in (brows, eyes)]
        mouth, nose = _Part.of(lips, 0), _Part.of(noses, 0)
        if mouth is None or nose is None or mouth.share < LEAST_LIPS:
            return None
        for pair, least in zip(found, (LEAST_BROW, LEAST_EYE), strict=True):
            if any(part is None or part.share * 0.5 < least for part in pair):
                return None
        (brow_pair, eye_pair) = found
        pupils = np.array([part.middle for part in eye_pair if part is not None])
        apart = float(np.linalg.norm(pupils[1] - pupils[0]))
        along = (pupils[1] - pupils[0]) / apart
        across = np.array([-along[1], along[0]])
        centre = pupils.mean(0)
        places: dict[str, list[np.ndarray]] = {name: [] for name in POINTS}
        for side, (brow, eye) in enumerate(zip(brow_pair, eye_pair, strict=True)):
            assert brow is not None and eye is not None
            outwards = 1.0 if side else -1.0
            for name, share in (("brow_inner", 0.06), ("brow_middle", 0.55), ("brow_outer", 0.94)):
                places[name].append(brow.spine(share if side else 1 - share))
            places["eye_inner"].append(eye.spine(0.02 if side else 0.98))
            places["eye_outer"].append(eye.spine(0.98 if side else 0.02))
            places["brow_upper"].append(brow.edge(0.5, 0))
            places["brow_lower"].append(brow.edge(0.5, 1))
            places["lid_upper"].append(eye.edge(0.5, 0))
            places["lid_lower"].append(eye.edge(0.5, 1))
            places["pupil"].append(eye.middle)
            corner = mouth.spine(0.99 if side else 0.01)
            places["corner"].append(corner)
            for name, end in (("upper", 0), ("lower", 1)):
                places[f"lip_{name}"].append(mouth.edge(0.5, end))
                places[f"lip_side_{name}"].append(mouth.edge(0.75 if side else 0.25, end))
            places["lip_line"].append((mouth.edge(0.5, 0) + mouth.edge(0.5, 1)) / 2)
            places["nose_root"].append(centre + 0.08 * apart * across)
            places["nose_side"].append(nose.spine(0.97 if side else 0.03))
            places["nose_base"].append(nose.edge(0.5, 1))
            places["cheek"].append(pupils[side] + apart * (0.1 * outwards * along + 0.62 * across))
            places["chin"].append(mouth.edge(0.5, 1) + 0.42 * apart * across)
            places["forehead"].append(brow.middle - 0.5 * apart * across)
        parted = float((between > SURELY).sum() / max(1, (lips > SURELY).sum()))
        arrays = {name: np.array(pair) for name, pair in places.items()}
        return cls(arrays, along, across, apart, parted)


@dataclass(frozen=True)
class _Part:
    """
    A part of a face by its mask.

    Args:
        columns: [N] those that show it, in pixels of the 128-pixel crop.
        upper, lower: [N] where it begins and ends in each.
        middle: (x, y).
        share: of the picture that it fills.
    """

    columns: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    middle: np.ndarray
    share: float

    @classmethod
    def of(cls, mask: np.ndarray, left: int) -> "_Part | None":
        """That in a mask [S, s] whose first column is `left` of a crop of S pixels; None where there is none."""
        sure = mask > SURELY
        columns = np.flatnonzero(sure.any(0))
        if not len(columns):
            return None
        factor = CROP_SIZE / len(mask)
        upper = sure.argmax(0)[columns].astype(float)
        lower = len(mask) - sure[::-1].argmax(0)[columns].astype(float)
        y, x = np.nonzero(sure)
        middle = np.array([x.mean() + left + 0.5, y.mean() + 0.5]) * factor
        return cls((columns + left + 0.5) * factor, upper * factor, lower * factor, middle, float(sure.mean()))

    def _near(self, share: float) -> tuple[float, np.ndarray]:
        """The column at so much of the width, and weights of those beside it."""
        column = float(self.columns[0] + share * (self.columns[-1] - self.columns[0]))
        weights = np.exp(-(((self.columns - column) / 1.0) ** 2) / 2)
        return column, weights / weights.sum()

    def spine(self, share: float) -> np.ndarray:
        """Its middle at so much of its width from the left."""
        column, weights = self._near(share)
        return np.array([column, float(((self.upper + self.lower) / 2) @ weights)])

    def edge(self, share: float, end: int) -> np.ndarray:
        """Its upper (0) or lower (1) edge at so much of its width from the left."""
        column, weights = self._near(share)
        return np.array([column, float((self.lower if end else self.upper) @ weights)])


@dataclass(frozen=True)
class Lips:
    """
    The line at which lips meet, or both lines where they are parted, in pixels of the 128-pixel crop.

    Args:
        ends: columns of both corners.
        upper, lower: [5] polynomials (the highest power first) of the place in [-1, 1] between the corners: lower edge
            of the upper lip, and upper edge of the lower one.
        thickness: of the upper lip and of the lower one, in their middle.
    """

    ends: tuple[float, float]
    upper: np.ndarray
    lower: np.ndarray
    thickness: tuple[float, float]

    @classmethod
    def of(cls, parsing: FaceParsing) -> "Lips | None":
        """Those of a face; None where it does not show both."""
        size = 2 * CROP_SIZE
        unit = CROP_SIZE / size
        up, low, between = (parsing.crop_mask(name, size) for name in ("upper_lip", "lower_lip", "mouth"))
        whole = up + low + between
        seen = whole > SURELY
        columns = np.flatnonzero(seen.any(0))
        if len(columns) < 8 or not (up > SURELY).any() or not (low > SURELY).any():
            return None
        rows = (np.arange(size) + 0.5)[:, None]
        top = seen.argmax(0)[columns].astype(float)
        bottom = size - seen[::-1].argmax(0)[columns].astype(float)
        # what of a column each class fills, from above: its own edges may be ragged
        total = np.maximum(whole[:, columns].sum(0), 1e-6)
        heights = (bottom - top) / total
        upper = top + up[:, columns].sum(0) * heights
        lower = bottom - low[:, columns].sum(0) * heights
        del rows
        ends = (float(columns[0]), float(columns[-1] + 1))
        places = 2 * (columns + 0.5 - ends[0]) / (ends[1] - ends[0]) - 1
        weights = np.sqrt(np.maximum(total, 1))
        fitted = [np.polyfit(places, edge * unit, 4, w=weights) for edge in (upper, lower)]
        middle = np.abs(places) < 0.4
        thick = [float((each[:, columns].sum(0) * heights)[middle].mean() * unit) for each in (up, low)]
        return cls((ends[0] * unit, ends[1] * unit), *fitted, (thick[0], thick[1]))

    def edges(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of both edges at columns `x`, and how far between the corners these are: 0 at and beyond them, 1 between."""
        left, right = self.ends
        place = (2 * (x - left) / (right - left) - 1)
        inside = (1 - place.clip(-1, 1) ** 2)
        place = place.clip(-1, 1)
        upper, lower = np.polyval(self.upper, place), np.polyval(self.lower, place)
        gap = np.maximum(lower - upper, 0) * rise(inside, 0, 0.25)
        middle = (upper + lower) / 2
        return middle - gap / 2, middle + gap / 2, inside
