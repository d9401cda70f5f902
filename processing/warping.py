"""
Expressions and shapes that move what a photo shows: brows that rise, corners of the mouth that sink, lips that meet.

Points of the face move by what a shape says, all between them follows smoothly (radial basis functions), and what is
no face stays. The movement is the flow of a steady field (Arsigny et al. 2006): however far it goes, nothing folds.
Lips part along the line between them, and meet by what is between them being hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from .ageing import Ageing, SkinLayer
from .alignment import CROP_SIZE, apply, compose, inverse, scale_of, translation
from .blending import Box, PhotoLayer, warp_channels
from .canvas import BEYOND, Canvas, blur, minimum_filter, smoothstep
from .face_parsing import FaceParsing
from .face_points import POINTS, FacePoints, Lips
from .part_colour import SURELY

#: Pixels of the grid that movement is computed on, along one of the 128-pixel crop, and steps of its flow.
FINENESS, STEPS = 2.0, 12
#: How far a point takes its surroundings along, as a deviation in distances of the eyes.
REACH = 0.2
#: What of the points' own movement may be missed, so that near ones do not push each other.
SLACK = 0.02
#: What does not move, over how many pixels of the 128-pixel crop movement fades beside it and beside glasses, whose
#: frames would bend, and to the edge of the crop.
STILL = ("background", "ear", "earring", "hair", "hat", "eyeglasses", "neck", "necklace", "cloth")
FADE, FRAMES_FADE, EDGE_FADE = 2.5, 3.0, 14.0
#: Movements, in pixels of the 128-pixel crop, below which nothing is changed and from which on all is.
LEAST, SEEN = 0.02, 0.08
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

#: Where folds between cheeks and mouth are: how far outwards of its corners, how wide and how high around the middle
#: between them and the nose, in distances of the eyes; and what is left of their detail, from fine to coarse.
FOLD_OUT, FOLD_WIDTH, FOLD_HEIGHT = 0.08, 0.3, 0.42
EVEN = Ageing(0.0, (0.9, 0.45, 0.3, 0.45), 0.0, (0.0, 0.0, 0.0), 0.0)


@dataclass(frozen=True)
class Warp:
    """
    An expression or shape that a face takes, a [`Transfer`]. Lengths are in distances of the eyes.

    Args:
        moves: of `POINTS`, how far they move (outwards, down); all others stay.
        corners: how far from the middle of the mouth its corners are at most, and how far below the middle of the
            lips at least; None where they stay.
        close: share of the way to lips that meet.
        part: by how much the lower lip sinks.
        smooth: share of the folds between cheeks and mouth that is evened out.

    Raises:
        ValueError: a point that there is not, or lips that both close and part.
    """

    moves: Mapping[str, tuple[float, float]]
    corners: tuple[float, float] | None = None
    close: float = 0.0
    part: float = 0.0
    smooth: float = 0.0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.moves) - set(POINTS)):
            raise ValueError(f"a face has no {', '.join(unknown)}; it has {', '.join(POINTS)}")
        if self.close and self.part:
            raise ValueError("lips close or part, not both")

    @property
    def moves_the_mouth(self) -> bool:
        """Whether the mouth is told what to do, by more than moved points."""
        return bool(self.corners or self.close or self.part)

    def fits(self, parsing: FaceParsing) -> bool:
        """
        Whether the mouth is seen, of an expression that speaks of it, else whether all that moves is seen. What lies
        behind glasses stays.
        """
        points = FacePoints.of(parsing)
        if self.moves_the_mouth:
            return "corner" in points.places and Lips.of(parsing) is not None
        return self.moves.keys() <= points.places.keys()

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[PhotoLayer]:
        """The face, moved, see [`Transfer.layers`]; nothing is left to chance."""
        points, grid = FacePoints.of(parsing), _grid(Canvas.of(parsing))
        speed = _freedom(grid, parsing)[..., None] * self._field(points, grid)
        movement = flow(np.float32(share) * speed, FINENESS)
        moving = np.hypot(*np.moveaxis(movement, 2, 0))
        lips = Lips.of(parsing) if self.close or self.part else None
        cut = None
        if lips is not None:
            cut = MouthCut.of(lips, share * self.close, share * self.part * points.unit, points, parsing, photo)
            x, y = grid.places()
            moving = np.maximum(moving, cut.movement(x + movement[..., 0], y + movement[..., 1]))
        moved = MovedLayer(movement, smoothstep(moving, LEAST, SEEN).astype(np.float32), grid.matrix, cut)
        return [*self._evened(points, parsing, share), moved]

    def _evened(self, points: FacePoints, parsing: FaceParsing, share: float) -> list[PhotoLayer]:
        """Skin beside the mouth with weaker folds."""
        if not self.smooth or not {"corner", "nose_side"} <= points.places.keys():
            return []
        skin = parsing.mask("facial_skin")
        axis = (np.arange(len(skin)) + 0.5 - len(skin) / 2) / parsing.unit + CROP_SIZE / 2
        beside = points.places["corner"] + FOLD_OUT * points.unit * np.outer([-1, 1], points.along)
        rows = (beside[:, 1] + points.places["nose_side"][:, 1]) / 2
        around = np.zeros_like(skin)
        for column, row in zip(beside[:, 0], rows, strict=True):
            across, down = (axis - column) / FOLD_WIDTH, (axis - row) / FOLD_HEIGHT
            distance = (across**2 + down[:, None] ** 2) / points.unit**2
            around = np.maximum(around, np.exp(-(distance**2)))
        away = blur(parsing.mask(("whole_mouth", "nose", "eyes", "hair")), 2.0)
        alpha = share * self.smooth * around * (skin - away).clip(0, 1)
        return [SkinLayer(EVEN, alpha.astype(np.float32), parsing.matrix, None, np.eye(2, 3))]

    def _field(self, points: FacePoints, grid: Canvas) -> np.ndarray:
        """How all of the grid moves, float32 [S, S, 2] in pixels of the 128-pixel crop, so that the points do."""
        moves = dict(self.moves)
        if self.corners is not None:
            width, height = points.mouth
            moves["corner"] = out, down = min(0.0, self.corners[0] - width), max(0.0, self.corners[1] - height)
            for name in ("lip_side_upper", "lip_side_lower"):
                own = moves.get(name, (0.0, 0.0))
                moves[name] = (own[0] + out / 2, own[1] + down / 3)
        places, shifts = [], []
        for name, pair in points.places.items():
            out, down = moves.get(name, (0.0, 0.0))
            in_the_middle = np.allclose(*pair)
            for outwards, place in zip((0.0,) if in_the_middle else (-out, out), pair, strict=False):
                places.append(place)
                shifts.append(points.unit * (outwards * points.along + down * points.across))
        at, reach = np.array(places), REACH * points.unit
        distances = np.linalg.norm(at[:, None] - at[None], axis=-1)
        heights = np.linalg.solve(np.exp(-((distances / reach) ** 2) / 2) + SLACK * np.eye(len(at)), np.array(shifts))
        bells = [
            np.exp(-(((axis.ravel() - middle[:, None]) / reach) ** 2) / 2)
            for axis, middle in zip(grid.places(), at.T, strict=True)
        ]
        return np.einsum("px,py,pc->yxc", *bells, heights).astype(np.float32)


def _grid(canvas: Canvas) -> Canvas:
    """The canvas as coarse as movement is computed."""
    factor = FINENESS / canvas.scale
    return Canvas(FINENESS, compose(canvas.matrix, np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]])))


def _freedom(grid: Canvas, parsing: FaceParsing) -> np.ndarray:
    """How freely each place of the grid [S, S] moves: not beside what is no face, nor at the edge of the crop."""
    still = grid.blur(grid.mask(parsing, tuple(name for name in STILL if name in parsing.labels)), FADE)
    frames = grid.blur(grid.mask(parsing, "eyeglasses"), FRAMES_FADE)
    x, y = grid.places()
    inside = np.minimum(np.minimum(x, CROP_SIZE - x), np.minimum(y, CROP_SIZE - y))
    return smoothstep(1 - still, 0.3, 1.0) * (1 - smoothstep(frames, 0.02, 0.2)) * smoothstep(inside, 0.0, EDGE_FADE)


def flow(field: np.ndarray, fineness: float) -> np.ndarray:
    """
    Where what is seen after a movement comes from.

    Args:
        field: float32 [S, S, 2], how fast each place of a grid moves, (x, y) in units of `fineness` pixels of it.
        fineness: pixels of the grid in one of these units.

    Returns:
        [S, S, 2], by how much the origin of each place lies beside it; a map without folds.

    Example:

    ```python
    >>> import numpy as np
    >>> from gptface.processing.warping import flow
    >>> field = np.zeros((32, 32, 2), np.float32)
    >>> field[12:20, 12:20, 0] = 1  # to the right
    >>> flow(field, 2.0)[16, 16].round(1)
    array([-1.,  0.], dtype=float32)

    ```
    """
    size = len(field)
    speed = torch.from_numpy(np.ascontiguousarray(np.moveaxis(field, 2, 0)))[None]
    axis = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    start = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None]
    unit = 2 * fineness / size
    places = start
    for _ in range(STEPS):
        there = torch.nn.functional.grid_sample(speed, places, padding_mode="zeros", align_corners=False)
        places = places - there.permute(0, 2, 3, 1) * (unit / STEPS)
    moved: np.ndarray = ((places - start)[0] / unit).numpy()
    return moved


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
    """

    lips: Lips
    close: float
    part: float
    nose: float
    jaw: np.ndarray
    colour: np.ndarray

    @classmethod
    def of(
        cls, lips: Lips, close: float, part: float, points: FacePoints, parsing: FaceParsing, photo: Image.Image
    ) -> "MouthCut":
        """That of a face in a photo."""
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
        return cls(lips, close, part, 0.0 if nose is None else float(nose[0, 1]), jaw, colour)

    def rows(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """
        Of pixels at `x` and `y`: the rows that they show where they are of the upper part of the face, and of the
        lower one; the rows at which the upper part ends there, and the lower one begins.
        """
        upper, lower, inside = self.lips.edges(x)
        if self.part:
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
        return replace(
            self, lips=self.lips.mixed(last.lips, kept), colour=self.colour + kept * (last.colour - self.colour)
        )

    def movement(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far what pixels show has moved; between lips that part it is new."""
        above, below, end, start = self.rows(x, y)
        moved: np.ndarray = np.where(y <= end, np.abs(above - y), np.where(y >= start, np.abs(below - y), 1.0))
        return moved

    def inside(self, row: np.ndarray, end: np.ndarray, start: np.ndarray) -> np.ndarray:
        """What is seen [..., 3] between lips that part: dark, and further down the tongue."""
        depth = ((row - end) / np.maximum(start - end, 1e-3)).clip(0, 1)
        brightness = DARKEST + (TONGUE - DARKEST) * smoothstep(depth, 0.3, 1.1)
        pixels: np.ndarray = brightness[..., None] * self.colour
        return pixels


@dataclass(frozen=True, eq=False)
class MovedLayer:
    """
    The photo's own pixels in another place, see [`PhotoLayer`].

    Args:
        movement: [S, S, 2], where each pixel of a square frame is taken from, less its own place: (x, y) in pixels of
            the 128-pixel crop.
        alpha: [S, S] in [0, 1], 0 where nothing moves.
        matrix: [2, 3] from the photo to the frame, a [`Canvas`].
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
        to_base = compose(inverse(to_crop), translation(-box[0], -box[1]))
        y, x = np.mgrid[box[1] : box[3], box[0] : box[2]] + 0.5
        places = apply(to_crop, np.stack([x, y], -1)) + warp_channels(self.movement, self.matrix, box)

        def shown(column: np.ndarray, row: np.ndarray) -> np.ndarray:
            """What the photo shows [h, w, 3] at places of the 128-pixel crop."""
            return sample(base, apply(to_base, np.stack([column, row], -1)))

        column, row = np.moveaxis(places, 2, 0)
        if self.cut is None:
            return shown(column, row) - base
        above, below, end, start = self.cut.rows(column, row)
        pixel = scale_of(to_crop)  # edges are as soft as one
        upper, lower = ((0.5 + past / pixel).clip(0, 1)[..., None] for past in (end - row, row - start))
        between = (1 - upper - lower).clip(0) if self.cut.part else np.zeros_like(upper)
        after = upper * shown(column, above) + (1 - upper - between) * shown(column, below)
        return (after + between * self.cut.inside(row, end, start) - base).astype(np.float32)


def sample(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A picture float32 [H, W, C] in [0, 1] at places [..., 2] of it (bicubic): [..., C]. Its edge is repeated."""
    height, width = pixels.shape[:2]
    at = (places * (2 / np.array([width, height])) - 1).astype(np.float32)
    found = torch.nn.functional.grid_sample(
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)))[None],
        torch.from_numpy(at)[None],
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    sampled: np.ndarray = found[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return sampled
