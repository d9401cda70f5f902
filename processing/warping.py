"""
Expressions and shapes that move what a photo shows: brows that rise, corners of the mouth that sink, lips that meet.

Points of the face move by what a shape says, all between them follows smoothly (radial basis functions), and what is
no face stays. The movement is the flow of a steady field (Arsigny et al. 2006): however far it goes, nothing folds.
Lips part along the line between them, and meet by what is between them being hidden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .ageing import Ageing, SkinLayer
from .alignment import CROP_SIZE, apply, compose, inverse, scale_of, translation
from .blending import Box, PhotoLayer, warp_channels
from .canvas import BEYOND, Canvas, blur, smoothstep
from .face_parsing import FaceParsing
from .face_points import POINTS, FacePoints, Lips
from .mouth import MEET, MouthCut
from .signs import FACE_MASK

#: Pixels of the grid that movement is computed on, along one of the 128-pixel crop, and steps of its flow.
FINENESS, STEPS = 2.0, 12
#: How far a point takes its surroundings along, as a deviation in distances of the eyes.
REACH = 0.2
#: What of the points' own movement may be missed, so that near ones do not push each other.
SLACK = 0.02
#: What does not move, over how many pixels of the 128-pixel crop movement fades beside it and beside glasses, whose
#: frames would bend, and to the edge of the crop.
STILL = ("background", "ear", "earring", "hair", "hat", "eyeglasses", "neck", "necklace", "cloth", "face_mask")
FADE, FRAMES_FADE, EDGE_FADE = 2.5, 3.0, 14.0
#: Movements, in pixels of the 128-pixel crop, below which nothing is changed and from which on all is.
LEAST, SEEN = 0.02, 0.08
#: Where folds between cheeks and mouth are: how far outwards of its corners, how wide and how high around the middle
#: between them and the nose, in distances of the eyes; and what is left of their detail, from fine to coarse.
FOLD_OUT, FOLD_WIDTH, FOLD_HEIGHT = 0.08, 0.3, 0.42
EVEN = Ageing(0.0, (0.9, 0.45, 0.3, 0.45), 0.0, (0.0, 0.0, 0.0), 0.0)
#: What becomes of that detail where folds are deepened; and how dark the line of a new one is, how bright the cheek
#: beside it (lightness in Oklab), how wide both are and how far apart, in distances of the eyes.
DEEPER = Ageing(0.0, (1.0, 1.3, 1.5, 1.3), 0.0, (0.0, 0.0, 0.0), 0.0)
FOLD_DARK, FOLD_BRIGHT, FOLD_LINE, CHEEK_WIDE, CHEEK_OUT = 0.1, 0.045, 0.035, 0.1, 0.16
#: By how much corners of a mouth at rest move inwards at most: those of a laugh would pinch it.
NARROWER = 0.07
#: By how much corners of a smile move outwards and up, at least and at most, in distances of the eyes.
LEAST_SMILE, MOST_SMILE = (0.07, 0.11), (0.11, 0.14)
#: How far below the corners of a smile the upper lip ends in its middle, how far lips that meet do so, in distances of
#: the eyes: it rises with them, or the mouth is a deep U; and which share of the skin below the nose it may take.
SAG, CLOSED_SAG, INTO_THE_SKIN = 0.03, 0.08, 0.45
#: Share of the way that corners of a mouth at rest go down to the line of the lips, by which that line goes down, too.
WITH_CORNERS = 0.4
#: Points of the lips: how far they are from the middle, squared, as a share of that of the corners, for the line of
#: the lips bends as a parabola; and whether they are an edge of the upper lip (0) or of the lower one (1).
ON_LIPS: dict[str, tuple[float, list[int]]] = {
    "corner": (1.0, []),
    "lip_upper": (0.0, [0]),
    "lip_middle": (0.0, [0, 1]),
    "lip_lower": (0.0, [1]),
    "lip_side_upper": (1 / 4, [0]),
    "lip_side_lower": (1 / 4, [1]),
}
#: How far the sides of lips take part in what their middle does.
BESIDE = 0.65
#: Most pixels of a photo that move at once, for each takes some 160 bytes; and how far the filters reach by which they
#: are found, in rows, or more.
AT_ONCE, FILTERS = 2**22, 6
#: How steep a mouth may be to the line of the eyes: what is steeper is a profile, or no mouth.
MOST_TILTED = 0.5


@dataclass(frozen=True)
class Warp:
    """
    An expression or shape that a face takes, a [`Transfer`]. Lengths are in distances of the eyes.

    Args:
        moves: of `POINTS`, how far they move (outwards, down); all others stay.
        corners: how far from the middle of the mouth its corners are at most, and how far below the line at which the
            lips meet at least; None where they stay.
        smile: how far from the middle of the mouth its corners are at least, and how far above where lips met; None
            where they do not smile. The upper lip rises with them.
        close: share of the way to lips that meet.
        part: by how much the lower lip sinks.
        apart: how far apart lips are then at least, in place of `part`.
        thin: share of their thickness that lips lose.
        teeth: how much of the upper teeth is seen between lips that part, at most.
        smooth: share of the folds between cheeks and mouth that is evened out.
        fold: how far such folds become those of a smile; beyond 1 they do so all the way over more of their width.

    Raises:
        ValueError: a point that there is not, or lips that both close and part.
    """

    moves: Mapping[str, tuple[float, float]]
    corners: tuple[float, float] | None = None
    smile: tuple[float, float] | None = None
    close: float = 0.0
    part: float = 0.0
    apart: float = 0.0
    thin: float = 0.0
    teeth: float = 0.0
    smooth: float = 0.0
    fold: float = 0.0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.moves) - set(POINTS)):
            raise ValueError(f"a face has no {', '.join(unknown)}; it has {', '.join(POINTS)}")
        if sum(map(bool, (self.close, self.part, self.apart))) > 1:
            raise ValueError("lips close or part, not both")

    def __add__(self, other: "Warp") -> "Warp":
        """
        Both movements at once. Where both speak of lips that close or part, the one that moves nothing else is right:
        lips are all that it is about.

        Example:

        ```python
        >>> from gptface.processing.expressions import ANGRY, MOUTH_OPEN
        >>> both = MOUTH_OPEN + ANGRY
        >>> both.moves == ANGRY.moves, both.close, both.part == MOUTH_OPEN.part
        (True, 0.0, True)

        ```
        """
        stays = (0.0, 0.0)
        pairs = {name: (self.moves.get(name, stays), other.moves.get(name, stays)) for name in POINTS}
        moves = {
            name: (first[0] + second[0], first[1] + second[1])
            for name, (first, second) in pairs.items()
            if (first, second) != (stays, stays)
        }
        lips = other if other._opens_or_closes and not (self._opens_or_closes and other.moves) else self
        return Warp(
            moves,
            self.corners or other.corners,
            self.smile or other.smile,
            lips.close,
            lips.part,
            lips.apart,
            *(max(getattr(each, name) for each in (self, other)) for name in ("thin", "teeth", "smooth", "fold")),
        )

    @property
    def _opens_or_closes(self) -> bool:
        return bool(self.close or self.part or self.apart)

    @property
    def moves_the_mouth(self) -> bool:
        """Whether the mouth is told what to do, by more than moved points."""
        return bool(self.corners or self.smile) or self._opens_or_closes

    def fits(self, parsing: FaceParsing) -> bool:
        """
        Whether the mouth is seen, of an expression that speaks of it, all of it and where a mouth may be; else whether
        all that moves is seen. What lies behind glasses stays.
        """
        points = FacePoints.of(parsing)
        if self.moves_the_mouth:
            return "corner" in points.places and Lips.of(parsing) is not None and whole_mouth(parsing)
        return self.moves.keys() <= points.places.keys()

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[PhotoLayer]:
        """The face, moved, see [`Transfer.layers`]; nothing is left to chance."""
        points, grid, lips = FacePoints.of(parsing), _grid(Canvas.of(parsing)), Lips.of(parsing)
        close, part = (0.0, 0.0) if lips is None else self._lips(lips, points.unit)
        speed = _freedom(grid, parsing)[..., None] * self._field(points, lips, share, share * part, grid)
        movement = flow(np.float32(share) * speed, FINENESS)
        moving = np.hypot(*np.moveaxis(movement, 2, 0))
        cut = None
        if lips is not None and (close or part):
            teeth = self.teeth * points.unit
            cut = MouthCut.of(lips, share * close, share * part, teeth, points, parsing, photo)
            x, y = grid.places()
            moving = np.maximum(moving, cut.movement(x + movement[..., 0], y + movement[..., 1]))
        moved = MovedLayer(movement, smoothstep(moving, LEAST, SEEN).astype(np.float32), grid.matrix, cut)
        return [*self._folds(points, parsing, share), moved]

    def _lips(self, lips: Lips, unit: float) -> tuple[float, float]:
        """Share of the way to each other that lips go, and how far the lower one sinks, in pixels of the crop."""
        if not self.apart:
            return self.close, self.part * unit
        upper, lower, _ = (float(each) for each in lips.edges(np.array(sum(lips.ends) / 2)))
        gap, wanted = lower - upper, self.apart * unit
        return 0.0, max(0.0, wanted - gap)

    def _folds(self, points: FacePoints, parsing: FaceParsing, share: float) -> list[PhotoLayer]:
        """Skin beside the mouth with weaker or deeper folds."""
        if not (self.smooth or self.fold) or not {"corner", "nose_side"} <= points.places.keys():
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
        alpha = (share * max(self.smooth, self.fold) * around * (skin - away).clip(0, 1)).astype(np.float32)
        if self.smooth:
            return [SkinLayer(EVEN, alpha, parsing.matrix, None, np.eye(2, 3))]
        canvas = _grid(Canvas.of(parsing))
        to_lines = compose(inverse(parsing.matrix), canvas.matrix)
        return [SkinLayer(DEEPER, alpha, parsing.matrix, _fold_lines(points, canvas), to_lines)]

    @staticmethod
    def _heights(points: FacePoints, lips: Lips, share: float) -> np.ndarray:
        """
        How far below the middle of the lips, at a share of the way from the upper one to the lower one, their corners
        are [2], in distances of the eyes.
        """
        middle = sum(lips.ends) / 2
        upper, lower, _ = (float(each) for each in lips.edges(np.array(middle)))
        line = np.array([middle, upper + share * (lower - upper)])
        heights: np.ndarray = (points.places["corner"] - line) @ points.across / points.unit
        return heights

    def _resting(self, points: FacePoints, lips: Lips) -> tuple[np.ndarray, float]:
        """
        How far both corners [2, 2] go (outwards, down) to be no wider and no higher than they are at rest, and how far
        the middle of the lips goes down.
        """
        assert self.corners is not None
        out = float(np.clip(self.corners[0] - points.mouth[0], -NARROWER, 0.0))
        down = np.maximum(0.0, self.corners[1] - self._heights(points, lips, MEET if self.close else 0.5))
        middle = WITH_CORNERS * float(down.mean())
        return np.array([(out * side, middle + each) for side, each in zip(points.sides, down, strict=True)]), middle

    def _smiling(self, points: FacePoints, lips: Lips) -> tuple[np.ndarray, float]:
        """How far both corners [2, 2] go (outwards, down) to smile, and how far the middle of the lips goes down."""
        assert self.smile is not None
        height = float(self._heights(points, lips, MEET * self.close).mean())
        out, up = np.clip([self.smile[0] - points.mouth[0], self.smile[1] + height], LEAST_SMILE, MOST_SMILE)
        rise = up - height - (CLOSED_SAG if self.close else SAG)
        if "nose_base" in points.places:
            skin = (points.places["lip_upper"] - points.places["nose_base"])[0] @ points.across
            rise = min(rise, (INTO_THE_SKIN * skin + self.thin * lips.thickness[0]) / points.unit)
        return np.array([(out * side, -up) for side in points.sides]), -max(0.0, float(rise))

    def _field(self, points: FacePoints, lips: Lips | None, share: float, part: float, grid: Canvas) -> np.ndarray:
        """
        How all of the grid moves, float32 [S, S, 2] in pixels of the 128-pixel crop, so that the points do, after the
        lips closed by a share of what they do, or parted by `part` pixels.
        """
        corners, middle = np.zeros((2, 2)), 0.0
        sunk, thinner = np.zeros((3, 2)), np.zeros(2)
        places: list[np.ndarray] = []
        shifts: list[np.ndarray] = []

        def follow(side: int, squared: float) -> np.ndarray:
            """How far (outwards, down) the line of the lips goes there."""
            move: np.ndarray = corners[side] * (np.sqrt(squared), squared) + (0.0, (1 - squared) * middle)
            return move

        def add(place: np.ndarray, outwards: int, move: np.ndarray) -> None:
            """A place that moves so far (outwards, down), where `outwards` is -1 to the left and 1 to the right."""
            places.append(place)
            shifts.append(points.unit * (outwards * move[0] * points.along + move[1] * points.across))

        if lips is not None:
            thinner = self.thin * np.array(lips.thickness) * (1, -1) / points.unit
            if self.corners is not None:
                corners, middle = self._resting(points, lips)
            elif self.smile is not None:
                corners, middle = self._smiling(points, lips)
            columns = lips.ends[0] + (lips.ends[1] - lips.ends[0]) * np.array((1 / 4, 1 / 2, 3 / 4))
            upper, lower, _ = lips.edges(columns)
            sunk = share * self.close * np.outer(lower - upper, (MEET, MEET - 1))
            sunk[:, 1] += part * np.array((BESIDE, 1, BESIDE))
            for edge, down in zip((upper, lower), sunk.T, strict=True):
                for index, place in enumerate(np.column_stack([columns, edge + down])):
                    add(place, index - 1, follow(index // 2, (index - 1) ** 2 / 4))
        for name, pair in points.places.items():
            in_the_middle = np.allclose(*pair)
            for side, place in enumerate(pair[:1] if in_the_middle else pair):
                move = np.array(self.moves.get(name, (0.0, 0.0)))
                if name in ON_LIPS:
                    squared, edges = ON_LIPS[name]
                    move = move + follow(side, squared)
                    if edges:
                        move[1] += thinner[edges].mean()
                        place = place + sunk[1 if in_the_middle else 2 * side, edges].mean() * points.across
                add(place, 0 if in_the_middle else (-1, 1)[side], move)
        return _spread(np.array(places), np.array(shifts), REACH * points.unit, grid)


def _spread(places: np.ndarray, shifts: np.ndarray, reach: float, grid: Canvas) -> np.ndarray:
    """A smooth movement float32 [S, S, 2] of a grid by which places [N, 2] are shifted about so far [N, 2]."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    heights = np.linalg.solve(np.exp(-((distances / reach) ** 2) / 2) + SLACK * np.eye(len(places)), shifts)
    bells = [
        np.exp(-(((axis.ravel() - centre[:, None]) / reach) ** 2) / 2)
        for axis, centre in zip(grid.places(), places.T, strict=True)
    ]
    return np.einsum("px,py,pc->yxc", *bells, heights).astype(np.float32)


def whole_mouth(parsing: FaceParsing) -> bool:
    """Whether the mouth that is seen of a face, if any, is all in the photo, not in profile and not behind a mask."""
    if FACE_MASK.worn(parsing):
        return False
    points = FacePoints.of(parsing)
    if "corner" not in points.places:
        return True
    left, right = points.places["corner"]
    tilted = abs((right - left) @ points.across) > MOST_TILTED * ((right - left) @ points.along)
    mouth = np.concatenate([points.places[name] for name in ("corner", "lip_upper", "lip_lower")])
    return not tilted and parsing.shows(mouth)


def _fold_lines(points: FacePoints, canvas: Canvas) -> np.ndarray:
    """What folds from the nose to beside the mouth, and cheeks that rise above them, add to the lightness [S, S]."""
    unit, lines = points.unit, np.zeros((canvas.size, canvas.size), np.float32)
    x, y = canvas.places()
    steps = np.linspace(0, 1, 24)[:, None]
    for side, outwards in enumerate((-1, 1)):
        wide = outwards * points.sides[side] * unit * points.along
        start = points.places["nose_side"][side] - 0.05 * unit * points.across + 0.03 * wide
        end = points.places["corner"][side] + 0.13 * wide + 0.02 * unit * points.across
        bend = (start + end) / 2 + 0.06 * wide - 0.02 * unit * points.across
        path = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        fade = np.sin(np.pi * (0.1 + 0.85 * steps[:, 0]))
        for away, height, width in ((0.0, -FOLD_DARK, FOLD_LINE), (CHEEK_OUT, FOLD_BRIGHT, CHEEK_WIDE)):
            line = path + away * wide - away / 2 * unit * points.across
            low, high = line.min(0) - 3 * width * unit, line.max(0) + 3 * width * unit
            near = np.ix_((y[:, 0] > low[1]) & (y[:, 0] < high[1]), (x > low[0]) & (x < high[0]))
            columns, rows = x[near[1]], y[near[0][:, 0]]
            distance = np.hypot(columns[..., None] - line[:, 0], rows[..., None] - line[:, 1])
            bell = np.exp(-((distance.min(-1) / (width * unit)) ** 2) / 2)
            lines[near] += height * fade[distance.argmin(-1)] * bell
    return lines


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
        left, top, right, bottom = box
        rows = max(1, AT_ONCE // max(1, right - left))
        bands = [(left, start, right, min(start + rows, bottom)) for start in range(top, bottom, rows)]
        return np.concatenate([self._change(base, box, band) for band in bands])

    def _change(self, base: np.ndarray, box: Box, band: Box) -> np.ndarray:
        """That of the rows `band` of the rectangle `box`."""
        scale = len(self.movement) / (CROP_SIZE + 2 * BEYOND)
        to_crop = compose(self.matrix, np.array([[1 / scale, 0.0, -BEYOND], [0.0, 1 / scale, -BEYOND]]))
        to_base = compose(inverse(to_crop), translation(-box[0], -box[1]))
        y, x = np.mgrid[band[1] : band[3], band[0] : band[2]] + 0.5
        places = apply(to_crop, np.stack([x, y], -1)) + warp_channels(self.movement, self.matrix, band)
        before = base[band[1] - box[1] : band[3] - box[1]]
        column, row = np.moveaxis(places, 2, 0)
        if self.cut is None:
            (moved,) = _shown(base, [apply(to_base, places)], band == box)
            return moved - before
        above, below, end, start = self.cut.rows(column, row)
        pixel = scale_of(to_crop)  # edges are as soft as one
        upper, lower = ((0.5 + past / pixel).clip(0, 1)[..., None] for past in (end - row, row - start))
        between = (1 - upper - lower).clip(0) if self.cut.part else np.zeros_like(upper)
        sources = [apply(to_base, np.stack([column, rows], -1)) for rows in (above, below)]
        moved, sunk = _shown(base, sources, band == box)
        after = upper * moved + (1 - upper - between) * sunk
        return (after + between * self.cut.inside(column, row, end, start, pixel) - before).astype(np.float32)


def _shown(base: np.ndarray, sources: Sequence[np.ndarray], whole: bool) -> list[np.ndarray]:
    """
    What a picture [H, W, 3] shows at several sets of places [h, w, 2] of it, [h, w, 3] each; unless the `whole` of it
    is asked for, no more of its rows are made finer than these need.
    """
    low, high = 0, len(base)
    if not whole:
        rows = [limit for each in sources for limit in (each[..., 1].min(), each[..., 1].max())]
        low = int(np.clip(np.floor(min(rows)) - FILTERS, 0, high - 1))
        high = int(np.clip(np.ceil(max(rows)) + FILTERS, low + 1, high))
    finer = twice_as_fine(base[low:high])
    return [sample(finer, 2 * (places - (0, low))) for places in sources]


def twice_as_fine(pixels: np.ndarray) -> np.ndarray:
    """
    A picture float32 [H, W, C] at twice its size (Lanczos): sampled from that, it keeps nine tenths of its grain where
    its own pixels would keep three quarters, by the variance of the Laplacian.
    """
    height, width = pixels.shape[:2]
    channels = (Image.fromarray(channel) for channel in np.moveaxis(pixels, 2, 0))
    return np.stack(
        [np.asarray(each.resize((2 * width, 2 * height), Image.Resampling.LANCZOS)) for each in channels], -1
    )


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
