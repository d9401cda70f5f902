"""Glasses that a face wears: whether one sees through them, where their frame is and where their lenses are."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .canvas import BEYOND, Canvas, smoothstep, weighted_blur
from .face_parsing import FaceParsing
from .hair import log_normal
from .masks import distance_inside, widen
from .part_colour import SURELY, to_oklab
from .rims import Rims
from .skin import fill_smoothly

#: Share of the crop that each eye must fill to be known.
LEAST_EYE = 1 / 2000
#: Least deviations of colours (Oklab) of skin and of a frame, and that of frames of other colours.
SKIN_SPREAD, FRAME_SPREAD, ANY_SPREAD = 0.02, 0.05, 0.25
#: How far colours may speak for skin or for a frame, in nats.
FOR_SKIN, FOR_FRAME = 4.0, 4.0
#: How probable a frame is at the outline of glasses and on a lens, before colours are seen, and how wide an outline
#: is, outside of it and inside, in pixels of the 128-pixel crop.
AT_OUTLINE, ON_LENS, OUTSIDE, INSIDE = 0.65, 0.2, 2.0, 3.0
#: Deviations of skin's colours from which on a pixel tells the colour of the frame.
UNLIKE_SKIN = 3.0
#: In pixels of the 128-pixel crop: half axes of an eye and its lids, of the middle of the nose where a bridge is, and
#: how far from eyes glasses reach.
EYE, NOSE, REACH = (10.5, 6.2), 11.0, 32.0
#: How thick a rim is at most, in pixels of the 128-pixel crop.
THICKEST = 8.0
#: How far a rim may go on beside its line, what goes beside a frame, its shine and its edge, and how soft that is, in
#: pixels of the 128-pixel crop; how far beside a lens on a wall none of it is; and how far brows and hair are no rim,
#: which look like one.
THICKER, MARGIN, SOFT, OFF_THE_HEAD, LIKE_A_RIM = 4, 1.0, 0.5, 5.0, 0.8
#: Directions by which the outline of a lens is told, how high a bar may be that is no lens, half axes of the least
#: lens, and how far below an eye its middle is, in pixels of the 128-pixel crop.
DIRECTIONS, BAR, LEAST_LENS, BELOW_EYES = 32, 7.0, (12.5, 8.5), 1.5

_EYES = CROP_LANDMARKS[:2]


def count_eyes(parsing: FaceParsing) -> int:
    """How many eyes a face shows, one in each half of the crop."""
    eyes = parsing.crop_mask("eye", CROP_SIZE) > SURELY
    return sum(bool(half.sum() > LEAST_EYE * eyes.size) for half in np.split(eyes, 2, axis=1))


def likely_frame(
    canvas: Canvas, photo: Image.Image, parsing: FaceParsing, worn: "WornGlasses"
) -> tuple[np.ndarray, float]:
    """
    How probably each pixel of a canvas shows the frame of clear glasses, by its colour and by how near it is to the
    outline of what the parser takes for glasses, lenses included, [S, S] in [0, 1]; and how thick rims are, in pixels
    of the 128-pixel crop, 0 where none are seen.
    """
    x, y = canvas.places()
    skin = canvas.mask(parsing, "facial_skin")
    whole = (worn.inside > 0) | (worn.glasses > 0.4)
    depth = distance_inside(whole, round((THICKEST + 2) * canvas.scale)) / canvas.scale
    outside = distance_inside(~whole, round((OUTSIDE + 1) * canvas.scale)) / canvas.scale
    colours = to_oklab(canvas.pixels(photo)).astype(np.float32)
    # brows and hair are as dark as frames
    taken = canvas.mask(parsing, ("brow", "hair"))
    near_outline = np.where(depth > 0, smoothstep(depth, 2 * INSIDE, INSIDE), skin * (outside < OUTSIDE))
    prior = np.maximum(ON_LENS * (worn.inside > 0), AT_OUTLINE * near_outline) * (1 - taken).clip(0, 1) ** 2
    free = (worn.eyes < 0.5) & (taken < 0.2)
    bare = skin * ((skin > 0.8) & (worn.glasses < 0.1) & (outside > OUTSIDE))
    likely = np.full(prior.shape, 0.5)
    for _ in range(2):
        # relative to the skin around, so that light and shadow on a face are none of the frame's
        known = np.maximum(bare, (worn.inside > 0) * free * (likely < 0.1))
        far = (canvas.blur(known, 2.0) > 0.1).astype(np.float32)
        near = fill_smoothly(weighted_blur(colours, known, 2.0 * canvas.scale), far)
        beside = (known > 0.5) & (canvas.blur(whole, 6.0) > 0.03)
        likely = _likely(colours - near, prior, beside, free & (near_outline > 0.9))
    beside = np.abs(x - CROP_SIZE / 2)
    thick = _thickness(likely, depth, (y > _EYES[:, 1].mean() + EYE[1]) & (beside > NOSE + 2) & (beside < 46))
    return likely, thick


def find_frame(
    canvas: Canvas, photo: Image.Image, parsing: FaceParsing, worn: "WornGlasses"
) -> tuple[np.ndarray, np.ndarray]:
    """
    How far each pixel of a canvas shows the frame of clear glasses, and how far it is seen through a lens, both
    [S, S] in [0, 1]: rims are closed lines, bridge and arms lines, and what the parser takes for glasses beside them
    and is unlike skin.
    """
    likely, _ = likely_frame(canvas, photo, parsing, worn)
    eye, like_rims = canvas.mask(parsing, "eye"), canvas.mask(parsing, ("brow", "hair"))
    # arms lie on the head
    wall = canvas.mask(parsing, ("background", "cloth")) * (worn.inside < -OFF_THE_HEAD)
    unlike = np.maximum.reduce([eye, worn.eyes, LIKE_A_RIM * like_rims, wall])
    rims = Rims.of(canvas, to_oklab(canvas.pixels(photo)).astype(np.float32), worn.inside, unlike)
    lens = canvas.covered(rims.within)
    beside_lenses = (rims.within < 0) & (canvas.blur(worn.glasses, 1.0) > 0.2)
    frame = (rims.beyond < 0) | ((likely > 0.4) & beside_lenses)
    step = canvas.scale / canvas.size
    for _ in range(THICKER):
        frame |= widen(frame, step) & (likely > 0.5)
    kept = np.maximum(eye > 0.3, worn.eyes * (rims.beyond > 0))
    frame = canvas.blur(widen(frame, MARGIN * step) * (1 - kept), SOFT)
    return frame, lens * (1 - frame)


@dataclass(frozen=True)
class WornGlasses:
    """
    Glasses on a canvas.

    Args:
        glasses: what the parser takes for them, [S, S] in [0, 1]: frames, mostly with what is seen through the lenses
            but for eyes.
        eyes: the eyes and their lids, [S, S] in [0, 1].
        inside: how far inside of the outline of a lens each pixel is, its rim included, [S, S] in pixels of the
            128-pixel crop, negative outside: lenses are convex, whatever the parser takes for eyes and brows there.
    """

    glasses: np.ndarray
    eyes: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(cls, canvas: Canvas, parsing: FaceParsing) -> "WornGlasses":
        """Those of a face that wears some."""
        y = canvas.places()[1]
        # what is elsewhere are none
        glasses = canvas.mask(parsing, "eyeglasses") * (np.abs(y - _EYES[:, 1].mean()) < REACH)
        eyes = _eyes(canvas, canvas.mask(parsing, "eye"))
        worn = (glasses + eyes * (canvas.blur(glasses, 3.0) > 0.1)) > 0.4
        # arms and bridges are less high than lenses
        high = worn & (_heights(_filled(canvas, worn)) > BAR * canvas.scale)
        least = _eyes(canvas, canvas.mask(parsing, "eye"), LEAST_LENS, BELOW_EYES) > 0.5
        least &= canvas.blur(glasses, 6.0) > 0.05
        inside = _inside_hulls(canvas, high | least)
        rows = y[(inside > 0).any(1), 0]
        if len(rows):
            glasses = glasses * ((y > rows[0] - BAR) & (y < rows[-1] + BAR / 2))
        return cls(glasses, eyes, inside)


def _inside_hulls(canvas: Canvas, part: np.ndarray) -> np.ndarray:
    """
    How far inside [S, S] of the convex hulls of a part, bool [S, S], on both sides of the face, in pixels of the
    128-pixel crop; negative outside.
    """
    x, y = canvas.places()
    found = np.full(part.shape, -float(CROP_SIZE), np.float32)
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    for half in (x < CROP_SIZE / 2, x >= CROP_SIZE / 2):
        rows, columns = np.nonzero(part & half)
        if not len(rows):
            continue
        inside = np.full(part.shape, np.inf, np.float32)
        for across, down in zip(np.cos(angles), np.sin(angles), strict=True):
            edge = np.quantile(across * x[columns] + down * y[rows, 0], 0.995)
            inside = np.minimum(inside, edge - across * x - down * y)
        found = np.maximum(found, inside)
    return found


def _heights(inside: np.ndarray) -> np.ndarray:
    """How many pixels inside hang together above and below each pixel that is, [S, S]; 0 outside."""
    row = np.arange(len(inside))[:, None]
    above = np.maximum.accumulate(np.where(inside, -1, row), axis=0)
    below = np.minimum.accumulate(np.where(inside, len(inside), row)[::-1], axis=0)[::-1]
    return (below - above - 1) * inside


def _eyes(canvas: Canvas, eye: np.ndarray, half_axes: tuple[float, float] = EYE, below: float = 0.0) -> np.ndarray:
    """How far each place [S, S] is the eyes' and their lids', or in other ellipses so far below them."""
    x, y = canvas.places()
    kept = np.zeros_like(eye)
    for place in _EYES:
        seen = eye * (eye > 0.3) * (np.hypot(x - place[0], y - place[1]) < 16)
        if seen.sum() > LEAST_EYE * (CROP_SIZE * canvas.scale) ** 2:
            place = ((seen.sum(0) @ x) / seen.sum(), (seen.sum(1) @ y[:, 0]) / seen.sum())
        away = np.hypot((x - place[0]) / half_axes[0], (y - place[1] - below) / half_axes[1])
        kept = np.maximum(kept, 1 - smoothstep(away, 0.9, 1.1))
    return kept


def _likely(relative: np.ndarray, prior: np.ndarray, bare: np.ndarray, free: np.ndarray) -> np.ndarray:
    """
    Probability [S, S] of the frame by Bayes' rule, from where it may be and from colours relative to skin [S, S, 3]:
    those of skin beside it against those which, `free` of eyes and hair, are unlike skin.
    """
    of_skin, distance = _log_normal(relative, relative[bare > 0.5], SKIN_SPREAD)
    sure = free & (distance > UNLIKE_SKIN)
    of_frame = _log_normal(relative, np.zeros((2, 3)), ANY_SPREAD)[0]
    if sure.sum() > 32:
        of_frame = np.maximum(of_frame, _log_normal(relative, relative[sure], FRAME_SPREAD)[0])
    prior = prior.clip(1e-4)
    evidence = np.log(prior / (1 - prior)) + (of_frame - of_skin).clip(-FOR_SKIN, FOR_FRAME)
    return (prior > 0.03) / (1 + np.exp(-evidence))


def _log_normal(colours: np.ndarray, sample: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Log density but for a constant of colours [S, S, 3] under a normal distribution of a sample [N, 3], and how many
    deviations they are off its mean.
    """
    mean = sample.mean(0) if len(sample) else np.zeros(3)
    covariance = (np.cov(sample.T) if len(sample) > 3 else 0) + np.eye(3) * spread**2
    density = log_normal(colours, mean, covariance)
    return density, np.sqrt((-2 * density - np.linalg.slogdet(covariance)[1]).clip(0))


def _filled(canvas: Canvas, worn: np.ndarray) -> np.ndarray:
    """
    Glasses bool [S, S] with their lenses: what has some of them at all four sides, in the half of its lens.
    """
    whole = worn.copy()
    middle = round((CROP_SIZE / 2 + BEYOND) * canvas.scale)
    for half in (np.s_[:, :middle], np.s_[:, middle:]):
        part = worn[half]
        sides = [np.maximum.accumulate(part, axis) for axis in (0, 1)]
        sides += [np.flip(np.maximum.accumulate(np.flip(part, axis), axis), axis) for axis in (0, 1)]
        whole[half] |= np.logical_and.reduce(sides)
    return whole


def _thickness(found: np.ndarray, depth: np.ndarray, below: np.ndarray) -> float:
    """How deep rims reach into what is worn, told where neither eyes nor brows are; 0 where that is not seen."""
    steps = np.arange(0, THICKEST, 0.5)
    bands = [found[below & (depth > step) & (depth <= step + 0.5)] for step in steps]
    profile = np.array([band.mean() if len(band) else 0.0 for band in bands])
    peak = int(profile.argmax())
    thin = np.flatnonzero(profile[peak:] < 0.5 * profile[peak])
    return float(steps[peak + thin[0]]) if len(thin) and profile[peak] > 0.2 else 0.0
