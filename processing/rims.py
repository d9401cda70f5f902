"""The lines of a pair of glasses: rims, which are closed, bridge and arms, each unlike what is on both sides of it."""

from dataclasses import dataclass

import numpy as np

from .alignment import CROP_SIZE
from .canvas import Canvas

#: Directions from the middle of a lens in which its rim is looked for, and steps on the way, in pixels of the
#: 128-pixel crop.
DIRECTIONS, STEP = 160, 1 / 3
#: How far inside of the outline that a parser tells, and outside, a rim may be, and how thick, in the same pixels.
INSIDE, OUTSIDE, THICKNESSES = 12.0, 4.0, (1.6, 2.8, 4.5, 7.0)
#: How far above the middles of lenses bridge and arms are expected, how far above and below that they may be, and how
#: long an arm may be, in the same pixels.
HIGHER, ASIDE, LONGEST = 3.0, 7.0, 30.0
#: What lies between a line and what it is compared with, for edges are soft, and how wide that is.
EDGE, BESIDE = 0.8, 1.6
#: Of the difference (Oklab) of a line and what is beside it: the most that counts, what is lost a step aside from one
#: place to the next, by another thickness, by a pixel off the place where it is expected, and by a pixel of thickness.
MOST, BENT, UNEVEN, ELSEWHERE, THICK = 0.2, 0.012, 0.08, 0.009, 0.008
#: The least difference of an arm, and of how many places the mean counts.
LEAST_ARM, ARM_SEEN = 0.03, 15
#: Most steps aside from one place to the next.
STEEPEST = 2


@dataclass(frozen=True, eq=False)
class Rims:
    """
    The lines of glasses on a canvas, in pixels of the 128-pixel crop.

    Args:
        beyond: how far each pixel is from the nearest rim, bridge or arm, [S, S], negative in it.
        within: how far each is inside of the inner edge of a rim, [S, S], negative elsewhere.
    """

    beyond: np.ndarray
    within: np.ndarray

    @classmethod
    def of(cls, canvas: Canvas, colours: np.ndarray, inside: np.ndarray, unlike: np.ndarray) -> "Rims":
        """
        Those that fit best to what is seen.

        Args:
            colours: Oklab [S, S, 3].
            inside: how far inside of the outline of a lens each pixel is by the parser, [S, S], negative outside.
            unlike: how little each pixel may be of a line, [S, S] in [0, 1]: eyes, and brows in part.
        """
        x, y = canvas.places()
        beyond = np.full(inside.shape, float(CROP_SIZE), np.float32)
        within = -beyond
        planes = np.concatenate([canvas.blur(colours, 0.4), unlike[:, :, None]], 2)
        angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
        rays = np.stack([np.cos(angles), np.sin(angles)], 1)
        sides = []
        for half in (x < CROP_SIZE / 2, x >= CROP_SIZE / 2):
            rows, columns = np.nonzero((inside > 0) & half)
            if not len(rows):
                continue
            middle = np.array([x[columns].mean(), y[rows, 0].mean()])
            lengths = np.arange(0, CROP_SIZE / 2, STEP)
            seen = _along(canvas, inside * half, np.broadcast_to(middle, rays.shape), rays, lengths) > 0
            edge = STEP * (len(lengths) - seen[:, ::-1].argmax(1))
            offset, width, _ = _line(
                canvas, planes, middle + rays * edge[:, None], rays, -INSIDE, OUTSIDE, closed=True
            )
            radius, width = (_around(each) for each in (edge + offset, width))
            across, down = x - middle[0], y - middle[1]
            turn, directions = np.arctan2(down, across) % (2 * np.pi), np.append(angles, 2 * np.pi)
            there, half_width = (np.interp(turn, directions, np.append(each, each[0])) for each in (radius, width / 2))
            inwards = there - np.hypot(across, down)
            beyond = np.minimum(beyond, np.abs(inwards) - half_width)
            within = np.maximum(within, inwards - half_width)
            sides.append((middle, middle[0] - radius[DIRECTIONS // 2], middle[0] + radius[0]))
        if len(sides) == 2:
            (left, outer_left, inner_left), (right, inner_right, outer_right) = sides
            bars = [
                np.arange(inner_left, inner_right, STEP),
                np.arange(outer_left, outer_left - LONGEST, -STEP),
                np.arange(outer_right, outer_right + LONGEST, STEP),
            ]
            for columns, ends in zip(bars, ((left, right), (left, left), (right, right)), strict=True):
                if len(columns) > ARM_SEEN:
                    share = np.linspace(0, 1, len(columns))
                    heights = (1 - share) * ends[0][1] + share * ends[1][1] - HIGHER
                    least = LEAST_ARM if ends[0] is ends[1] else 0.0
                    beyond = np.minimum(beyond, _from_bar(canvas, planes, columns, heights, least))
        return cls(beyond.astype(np.float32), within.astype(np.float32))


def _from_bar(
    canvas: Canvas, planes: np.ndarray, columns: np.ndarray, heights: np.ndarray, least: float
) -> np.ndarray:
    """
    How far each pixel [S, S] is from a bar that is expected at places (columns, heights) [D]; it ends where it is less
    unlike what is beside it.
    """
    x, y = canvas.places()
    down = np.broadcast_to([0.0, 1.0], (len(columns), 2))
    offset, width, unlike = _line(canvas, planes, np.stack([columns, heights], 1), down, -ASIDE, ASIDE, closed=False)
    near = np.convolve(np.pad(unlike, ARM_SEEN // 2, mode="edge"), np.ones(ARM_SEEN) / ARM_SEEN, mode="valid")
    seen = np.minimum.accumulate(near >= least)
    if not seen.any():
        return np.full(planes.shape[:2], float(CROP_SIZE))
    order = np.argsort(columns[seen])
    bar = (each[seen][order] for each in (columns, heights + offset, width / 2))
    columns, rows, half_width = bar
    away = np.abs(y - np.interp(x, columns, rows)) - np.interp(x, columns, half_width)
    return np.where((x >= columns[0]) & (x <= columns[-1]), away, CROP_SIZE)


def _line(
    canvas: Canvas, planes: np.ndarray, places: np.ndarray, normals: np.ndarray, low: float, high: float, closed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    A line that passes places [D, 2] along their normals [D, 2], at most `low` before and `high` beyond them: its
    offsets, how thick it is and how unlike what is beside it, [D] each.

    Args:
        planes: Oklab, and how little each pixel may be of a line, [S, S, 4].
    """
    offsets = np.arange(low, high + STEP / 2, STEP)
    reach = max(THICKNESSES) / 2 + EDGE + BESIDE
    around = np.arange(low - reach, high + reach + STEP, STEP)
    sums = np.pad(_along(canvas, planes, places, normals, around), ((0, 0), (1, 0), (0, 0))).cumsum(1)
    start = round(reach / STEP) + np.arange(len(offsets))

    def mean(first: float, last: float) -> np.ndarray:
        """Of the planes between two distances from each offset, [D, O, 4]."""
        begin, end = start + round(first / STEP), start + round(last / STEP) + 1
        return (sums[:, end] - sums[:, begin]) / (end - begin)[:, None]

    unlike = []
    for thick in THICKNESSES:
        half = thick / 2
        there = mean(-half + STEP / 2, half - STEP / 2)
        sides = mean(-half - EDGE - BESIDE, -half - EDGE), mean(half + EDGE, half + EDGE + BESIDE)
        found = ((there - sides[0]) * (there - sides[1]))[:, :, :3].sum(2)
        unlike.append(np.sqrt(found.clip(0)).clip(0, MOST) * (1 - there[:, :, 3]))
    scores = np.stack(unlike, 2)
    row, kind = _best_line(
        scores - ELSEWHERE * np.abs(offsets)[:, None] - THICK * np.array(THICKNESSES), turns=2 if closed else 1
    )
    return offsets[row], np.array(THICKNESSES)[kind], scores[np.arange(len(row)), row, kind]


def _along(
    canvas: Canvas, values: np.ndarray, places: np.ndarray, normals: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Values [S, S, …] at lengths [L] from places [D, 2] along their normals [D, 2], [D, L, …]."""
    there = places[:, None] + normals[:, None] * lengths[:, None]
    return canvas.at(values, there.reshape(-1, 2)).reshape(*there.shape[:2], *values.shape[2:])


def _around(values: np.ndarray) -> np.ndarray:
    """Values [D] of all directions, smooth from one to the next."""
    rolled = [share * np.roll(values, shift) for shift, share in enumerate((0.1, 0.2, 0.4, 0.2, 0.1), -2)]
    return np.sum(rolled, axis=0)


def _best_line(scores: np.ndarray, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """
    The line of the best scores [D, O, T] that is nowhere steep, by dynamic programming: its offset and thickness, int
    [D] each. With two turns its ends meet.
    """
    length, offsets, kinds = scores.shape
    best = np.zeros((offsets, kinds))
    moves = [(aside, kind) for aside in range(-STEEPEST, STEEPEST + 1) for kind in (-1, 0, 1)]
    loss = np.array([BENT * abs(aside) + UNEVEN * abs(kind) for aside, kind in moves])
    came = []
    for place in range(turns * length):
        padded = np.pad(best, ((STEEPEST, STEEPEST), (1, 1)), constant_values=-np.inf)
        options = np.stack(
            [
                padded[STEEPEST + aside : STEEPEST + aside + offsets, 1 + kind : 1 + kind + kinds]
                for aside, kind in moves
            ]
        )
        options -= loss[:, None, None]
        choice = options.argmax(0)
        best = np.take_along_axis(options, choice[None], 0)[0] + scores[place % length]
        came.append(choice)
    offset, kind = np.unravel_index(best.argmax(), best.shape)
    line = []
    for choice in reversed(came):
        line.append((int(offset), int(kind)))
        aside, other = moves[choice[offset, kind]]
        offset, kind = offset + aside, kind + other
    # the middle of both turns, where neither end is free
    begin = (turns - 1) * length // 2
    found = np.roll(np.array(line[::-1])[begin : begin + length], begin, axis=0)
    return found[:, 0], found[:, 1]
