"""
Expressions and shapes that move what a photo shows: brows that rise, corners of the mouth that sink.

Points of the face move by what a shape says, all between them follows smoothly (radial basis functions), and what is
no face stays. The movement is the flow of a steady field (Arsigny et al. 2006): however far it goes, nothing folds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .alignment import CROP_SIZE, apply, compose, inverse, scale_of, translation
from .blending import Box, PhotoLayer, warp_channels
from .canvas import BEYOND, Canvas, blur, rise
from .face_parsing import FaceParsing
from .face_points import POINTS, FacePoints, Lips

#: Pixels of the grid that movement is computed on, along one of the 128-pixel crop, and steps of its flow.
FINENESS, STEPS = 2.0, 12
#: How far a point takes its surroundings along, as a deviation in distances of the eyes.
REACH = 0.2
#: What of the points' own movement may be missed, so that near ones do not push each other.
SLACK = 0.02
#: What does not move, and over how many pixels of the 128-pixel crop movement fades beside it and to the crop's edge.
STILL = ("background", "ear", "earring", "hair", "hat", "eyeglasses", "neck", "necklace", "cloth")
FADE, EDGE_FADE = 2.5, 14.0
#: Movements, in pixels of the 128-pixel crop, below which nothing is changed and from which on all is.
LEAST, SEEN = 0.02, 0.08
#: How far below the lower lip a chin goes with it, in distances of the eyes.
CHIN = 0.45
#: Share of the mouth that may lie between the lips of one that is closed.
CLOSED = 0.12

@dataclass(frozen=True)
class Warp:
    """
    A shape or expression that a face takes, a [`Transfer`].

    Args:
        moves: point → how far it moves (outwards, down), in distances of the eyes; all other points stay.
        closed: whether it is one of a closed mouth: parted lips are no face for it.
    """

    moves: Mapping[str, tuple[float, float]]
    mouth: tuple[float, float] | None = None
    close: float = 0.0
    part: float = 0.0
    closed: bool = False

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether brows, eyes and the mouth are seen, and the mouth is closed where it has to be."""
        points = FacePoints.of(parsing)
        return points is not None and not (self.closed and points.parted > CLOSED)

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[PhotoLayer]:
        """The face, moved, see [`Transfer.layers`]; nothing is left to chance."""
        points = FacePoints.of(parsing)
        if points is None:
            return []
        canvas = Canvas.of(parsing)
        grid = Canvas(FINENESS, _rescaled(canvas.matrix, FINENESS / canvas.scale))
        movement = flow(share * _envelope(grid, parsing)[..., None] * self._field(points, grid), FINENESS)
        alpha = rise(np.hypot(*np.moveaxis(movement, 2, 0)), LEAST, SEEN)
        cut = None
        lips = Lips.of(parsing)
        if lips is not None and (self.close or self.part):
            nose = float(points.places["nose_base"].mean(0)[1])
            cut = MouthCut(lips, share * self.close, share * self.part * points.unit, nose, CHIN * points.unit)
            x, y = grid.places()
            column, row = np.broadcast_arrays(x + movement[..., 0], y + movement[..., 1])
            above, below, past, before = cut.sources(column, row)
            most = np.where(past < 0, np.abs(above - row), np.where(before < 0, np.abs(below - row), 1.0))
            alpha = np.maximum(alpha, rise(most, LEAST, SEEN)).astype(np.float32)
        return [MovedLayer(movement, alpha, grid.matrix, cut)]

    def _field(self, points: FacePoints, grid: Canvas) -> np.ndarray:
        """How all of the grid moves, [S, S, 2] in pixels of the 128-pixel crop, so that the points do."""
        places, shifts = [], []
        moves = dict(self.moves)
        if self.mouth is not None:
            corners, line = points.places["corner"], points.places["lip_line"]
            width = float((corners[1] - corners[0]) @ points.along) / 2 / points.unit
            height = float((corners - line).mean(0) @ points.across) / points.unit
            out, down = min(0, self.mouth[0] - width), max(0, self.mouth[1] - height)
            moves["corner"] = (out, down)
            for n in ("lip_side_upper", "lip_side_lower"):
                a,b = moves.get(n,(0,0)); moves[n]= (a+out/2, b+down/3)
        for name in POINTS:
            out, down = moves.get(name, (0.0, 0.0))
            pair = points.places[name]
            same = bool(np.allclose(*pair))
            for side, place in enumerate(pair[:1] if same else pair):
                outwards = 0.0 if same else out if side else -out
                places.append(place)
                shifts.append(points.unit * (outwards * points.along + down * points.across))
        at, reach = np.array(places), REACH * points.unit
        distances = np.linalg.norm(at[:, None] - at[None], axis=-1)
        kernel = np.exp(-((distances / reach) ** 2) / 2) + SLACK * np.eye(len(at))
        heights = np.linalg.solve(kernel, np.array(shifts))
        x, y = grid.places()
        total = np.zeros((grid.size, grid.size, 2), np.float32)
        for place, height in zip(at, heights, strict=True):
            bell_x, bell_y = (np.exp(-(((axis - middle) / reach) ** 2) / 2) for axis, middle in zip((x, y), place))
            total += (bell_x * bell_y)[..., None] * height.astype(np.float32)
        return total


def _rescaled(matrix: np.ndarray, factor: float) -> np.ndarray:
    return compose(matrix, np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))


def _envelope(grid: Canvas, parsing: FaceParsing) -> np.ndarray:
    """How freely each place of the grid [S, S] moves: 0 beside what is no face and at the edge of the crop."""
    still = grid.mask(parsing, tuple(name for name in STILL if name in parsing.labels))
    frames = grid.blur(grid.mask(parsing, "eyeglasses"), 3.0)
    still = np.maximum(still, rise(frames, 0.02, 0.2))
    free = rise(1 - grid.blur(still, FADE), 0.3, 1.0)
    x, y = grid.places()
    inside = np.minimum(np.minimum(x, CROP_SIZE - x), np.minimum(y, CROP_SIZE - y))
    return free * rise(inside, 0.0, EDGE_FADE)


def flow(field: np.ndarray, fineness: float) -> np.ndarray:
    """
    Where what is seen after a movement comes from.

    Args:
        field: [S, S, 2], how fast each place of a grid moves, (x, y) in units of `fineness` pixels of the grid.
        fineness: pixels of the grid in one of these units.

    Returns:
        [S, S, 2], by how much the origin of each place lies beside it; a map without folds.
    """
    size = len(field)
    speed = torch.from_numpy(np.ascontiguousarray(np.moveaxis(field, 2, 0)))[None]
    axis = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    start = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None]
    units = 2 * fineness / size
    places = start
    for _ in range(STEPS):
        there = torch.nn.functional.grid_sample(speed, places, padding_mode="zeros", align_corners=False)
        places = places - there.permute(0, 2, 3, 1) * (units / STEPS)
    return ((places - start)[0] / units).numpy()


@dataclass(frozen=True)
class MouthCut:
    """
    Lips that close or part: a mouth is cut open, and what is between the lips hides or comes to light.

    Args:
        lips: as the photo has them.
        close: share of the way to lips that meet.
        part: by how many pixels of the 128-pixel crop the lower lip sinks in its middle.
        nose: row in the 128-pixel crop, above which nothing moves.
        chin: how far below the lower lip nothing moves any more.
    """

    lips: Lips
    close: float
    part: float
    nose: float
    chin: float

    def sources(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """
        Rows that the pixels at (x, y) are taken from where the upper part of the face shows, and where the lower one
        does; how far `y` lies below the end of the upper part, and above the beginning of the lower one.
        """
        upper, lower, inside = self.lips.edges(x)
        span = rise(inside, 0, 0.3)
        up, low = upper - HEM * span * (self.close > 0), lower + HEM * span * (self.close > 0)
        seam = up + MEET * (low - up)
        down = self.close * (seam - up)
        sink = self.close * (seam - low) + self.part * np.sqrt(inside)
        end_up, end_low = up + down, low + sink
        if self.part > 0:
            end_up = low
        lip_up, lip_low = self.lips.thickness
        reach_up = np.maximum(up - lip_up - self.nose, 3.0)
        near_up = 1 - rise(end_up - lip_up - y, 0.0, 1.0 * reach_up)
        near_low = 1 - rise(y - (end_low + lip_low), 0.0, self.chin)
        return y - down * near_up, y - sink * near_low, y - end_up, end_low - y


#: Share of the way to each other that the upper lip goes, and what is hidden of each lip's edge, in pixels of the
#: 128-pixel crop.
MEET, HEM = 0.45, 0.35
#: What is seen between lips that part.
INSIDE = (0.13, 0.055, 0.05)


@dataclass(frozen=True, eq=False)
class MovedLayer:
    """
    The photo's own pixels in another place, see [`PhotoLayer`].

    Args:
        movement: [S, S, 2], where each pixel of a square frame is taken from, less its own place: (x, y) in pixels of
            the 128-pixel crop.
        alpha: [S, S] in [0, 1], 0 where nothing moves.
        matrix: [2, 3] from the photo to the frame.
        cut: what the lips do before that.
    """

    movement: np.ndarray
    alpha: np.ndarray
    matrix: np.ndarray
    cut: MouthCut | None = None

    def change(self, base: np.ndarray, box: Box) -> np.ndarray:
        """See [`PhotoLayer.change`]."""
        scale = len(self.movement) / (CROP_SIZE + 2 * BEYOND)
        to_crop = compose(self.matrix, np.array([[1 / scale, 0.0, -BEYOND], [0.0, 1 / scale, -BEYOND]]))
        moved = warp_channels(np.asarray(self.movement, np.float32), self.matrix, box)
        height, width = base.shape[:2]
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        places = apply(to_crop, np.stack([x + box[0], y + box[1]], -1)) + moved
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(base, 2, 0)))[None]
        back = compose(inverse(to_crop), translation(-box[0], -box[1]))

        def taken(column: np.ndarray, row: np.ndarray) -> np.ndarray:
            """The photo [h, w, 3] at places of the 128-pixel crop."""
            at = apply(back, np.stack([column, row], -1)) * (2 / np.array([width, height])) - 1
            found = torch.nn.functional.grid_sample(
                pixels,
                torch.from_numpy(at.astype(np.float32))[None],
                mode="bicubic",
                padding_mode="border",
                align_corners=False,
            )
            return found[0].permute(1, 2, 0).clamp(0, 1).numpy()

        column, row = np.moveaxis(places, 2, 0)
        if self.cut is None:
            return taken(column, row) - base
        above, below, past, before = self.cut.sources(column, row)
        # edges as soft as a pixel of the photo
        soft = scale_of(to_crop)
        show_above, show_below = (0.5 - past / soft).clip(0, 1), (0.5 - before / soft).clip(0, 1)
        show_below = np.minimum(show_below, 1 - show_above)
        hidden = 1 - show_above - show_below
        if self.cut.part == 0:
            show_below = show_below + hidden
            hidden = 0 * hidden
        shown = show_above[..., None] * taken(column, above) + show_below[..., None] * taken(column, below)
        return shown + hidden[..., None] * np.array(INSIDE, np.float32) - base
