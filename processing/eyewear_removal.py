"""
Glasses that are taken off: where one sees through the lenses the eyes stay the person's, and only the frame goes.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .blending import Layer
from .canvas import BEYOND, COARSEST, Canvas, smoothstep, weighted_blur
from .eyewear import LEAST_EYE, count_eyes, wears_glasses
from .face_parsing import FaceParsing
from .hair import log_normal
from .masks import distance_inside, widen
from .part_colour import from_oklab, to_oklab
from .skin import fill_smoothly, skin_texture
from .strands import HAIR, hair_colour

#: Least deviations of colours (Oklab) of skin and of a frame, and that of frames of other colours.
SKIN_SPREAD, FRAME_SPREAD, ANY_SPREAD = 0.03, 0.05, 0.25
#: How far colours may speak for skin or for a frame, in nats.
FOR_SKIN, FOR_FRAME = 3.0, 3.0
#: In pixels of the 128-pixel crop: half axes of an eye and its lids, of the middle of the nose where a bridge is, and
#: how far from eyes glasses reach.
EYE, NOSE, REACH = (11.0, 6.5), 11.0, 32.0
#: How thick a rim is at most, in pixels of the 128-pixel crop, where nothing tells it; and thickest and thinnest.
THICK, THICKEST, THINNEST = 5.0, 8.0, 2.5
#: What goes beside a frame, its shine and its edge, and how soft that is.
BESIDE, SOFT = 1.2, 0.5
#: What there may be behind a frame, by classes of the parser: each is filled from what is seen of it.
BEHIND = (("facial_skin", "ears", "neck"), ("hair", "hat"), ("background", "cloth"))
#: How wide the shade of a frame is, in pixels of the 128-pixel crop; how much skin behind a lens counts beside bare
#: skin, and how wide the edge of a lens is; how much of the texture of bare skin there is.
SHADE, BEHIND_LENS, LENS_EDGE, TEXTURE = 1.0, 0.4, 1.5, 0.6
#: How sure the parser must be of what is seen there, and how decidedly what is behind is one of these.
SURE, DECIDED = 0.7, 4
#: Hairs on a square pixel of the 128-pixel crop in a brow that is drawn anew, and their length; how much of the skin
#: below them it hides.
BROW_DENSITY, BROW_LENGTH, BROW_COVER = 2.2, 4.0, 0.45

_EYES = CROP_LANDMARKS[:2]


@dataclass(frozen=True)
class EyewearRemoval:
    """Clear glasses to be taken off, a [`Transfer`]: all that is before the eyes is glass."""

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether glasses are worn through which an eye is seen: behind dark ones eyes must be drawn."""
        return wears_glasses(parsing) and count_eyes(parsing) > 0

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """Skin in place of the frame, see [`Transfer.layers`]; what is left to chance is its texture and brows."""
        coarse, canvas = Canvas.of(parsing, COARSEST), Canvas.of(parsing)
        gone = find_frame(coarse, photo, parsing)
        gone = np.asarray(Image.fromarray(gone).resize((canvas.size, canvas.size), Image.Resampling.BILINEAR))
        pixels, bare = canvas.pixels(photo), canvas.blur(gone, SHADE) < 0.04
        filled, skin = _behind(canvas, parsing, pixels, bare)
        known = canvas.mask(parsing, "facial_skin") * (canvas.blur(gone, BESIDE) < 0.02)
        texture = skin_texture(canvas, pixels, known, generator)
        if texture is not None:
            filled = filled + (TEXTURE * texture * skin)[:, :, None]
        filled = _with_brows(canvas, photo, parsing, filled, gone, generator)
        detail = np.zeros(gone.shape, np.float32)
        return [Layer(filled.astype(np.float32), detail, (share * gone).astype(np.float32), canvas.matrix)]


def _behind(
    canvas: Canvas, parsing: FaceParsing, pixels: np.ndarray, bare: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    What is behind a frame, from what is `bare` of it [S, S]: pixels [S, S, 3], and how far each is skin [S, S].
    """
    bare = bare * (1 - canvas.mask(parsing, ("eye", "brow")))
    weights = np.stack([canvas.mask(parsing, names) for names in BEHIND], 2) * bare[:, :, None]
    # of a pixel that shows two things the colour is neither's
    weights *= weights > SURE
    lens = canvas.mask(parsing, "eyeglasses") * (canvas.blur(1 - bare, LENS_EDGE) < 0.05)
    weights[:, :, 0] = np.maximum(weights[:, :, 0], BEHIND_LENS * lens)
    total = weights.sum(2, keepdims=True)
    shares = fill_smoothly(weights / np.maximum(total, 1e-4), total[:, :, 0].clip(0, 1))
    shares = np.where(weights.max((0, 1)) > SURE, shares.clip(1e-4) ** DECIDED, 0)
    shares /= np.maximum(shares.sum(2, keepdims=True), 1e-8)
    filled = sum(
        share[:, :, None] * fill_smoothly(pixels, known)
        for share, known in zip(np.moveaxis(shares, 2, 0), np.moveaxis(weights, 2, 0), strict=True)
        if share.any()
    )
    return filled, shares[:, :, 0]


def _with_brows(
    canvas: Canvas,
    photo: Image.Image,
    parsing: FaceParsing,
    filled: np.ndarray,
    gone: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Pixels [S, S, 3] with hairs where a frame that is `gone` [S, S] hid a part of a brow."""
    brow, colour = canvas.mask(parsing, "brow"), hair_colour(photo, parsing)
    chances = brow * (brow > 0.25) * gone
    if colour is None or chances.sum() < canvas.scale**2:
        return filled
    roots, kept = canvas.sown(generator, BROW_DENSITY, chances)
    if not kept.any():
        return filled
    count = len(roots)
    outwards = np.sign(roots[:, 0] - CROP_SIZE / 2)
    # upwards at the nose, then outwards and down
    aside = np.abs(roots[:, 0] - CROP_SIZE / 2)
    angle = np.interp(aside, (8, 18, 42), (-1.1, -0.35, 0.35)) + generator.normal(0, 0.15, count)
    length = BROW_LENGTH * generator.lognormal(0, 0.25, count)
    step = np.stack([outwards * np.cos(angle), np.sin(angle)], 1) * length[:, None]
    lines = (roots[:, None] + step[:, None] * np.linspace(-0.5, 0.5, 4)[None, :, None])[kept]
    jitter = generator.normal(size=(count, 3))[kept]
    tones = from_oklab(np.array(colour.mean) + 0.4 * jitter * colour.deviation)
    picture, covered = canvas.hairs(lines, tones, from_oklab(np.array(colour.mean)), HAIR)
    hidden = (0.6 * canvas.blur(covered, SOFT / 2) + BROW_COVER * canvas.blur(brow, 0.8)).clip(0, 0.85)
    hidden = (hidden * canvas.blur(brow > 0.25, 0.8))[:, :, None]
    return filled + hidden * (canvas.blur(picture, SOFT / 2) - filled)


def find_frame(canvas: Canvas, photo: Image.Image, parsing: FaceParsing) -> np.ndarray:
    """
    How far each pixel [S, S] of a canvas shows the frame of clear glasses: near the outline of what the parser takes
    for glasses, lenses included, and unlike skin.
    """
    x, y = canvas.places()
    glasses, skin, eye = (canvas.mask(parsing, name) for name in ("eyeglasses", "facial_skin", "eye"))
    glasses = glasses * (np.abs(y - _EYES[:, 1].mean()) < REACH)  # what is elsewhere are none
    kept = _eyes(canvas, eye)
    colours = to_oklab(canvas.pixels(photo)).astype(np.float32)
    bare = skin * ((skin > 0.8) & (glasses < 0.1))
    # relative to the skin around, so that light and shadow on a face are none of the frame's
    far = (canvas.blur(bare, 4.0) > 0.1).astype(np.float32)
    near = fill_smoothly(weighted_blur(colours, bare, 4.0 * canvas.scale), far)
    # brows and hair are as dark as frames
    worn_there = glasses * (1 - canvas.mask(parsing, ("brow", "hair")))
    found = _likely(colours - near, worn_there, bare * (canvas.blur(glasses, 6.0) > 0.03), (eye < 0.2) & (kept < 0.5))
    worn = (glasses + kept * (canvas.blur(glasses, 3.0) > 0.1)) > 0.4
    lenses = _lenses(canvas, worn)
    depth = distance_inside(lenses, round(12 * canvas.scale)) / canvas.scale
    beside = np.abs(x - CROP_SIZE / 2)
    thick = _thickness(found, depth, (y > _EYES[:, 1].mean() + EYE[1]) & (beside > NOSE + 2) & (beside < 46))
    rim = 1 - smoothstep(depth, thick, thick + 1.5) * (beside > NOSE)
    frame = found * rim * (1 - kept) * (canvas.blur(lenses, 1.5) > 0.05) > 0.4
    return canvas.blur(widen(frame, BESIDE * canvas.scale / canvas.size) * (1 - kept), SOFT)


def _eyes(canvas: Canvas, eye: np.ndarray) -> np.ndarray:
    """How far each place [S, S] is the eyes' and their lids'."""
    x, y = canvas.places()
    kept = np.zeros_like(eye)
    for place in _EYES:
        seen = eye * (eye > 0.3) * (np.hypot(x - place[0], y - place[1]) < 16)
        if seen.sum() > LEAST_EYE * (CROP_SIZE * canvas.scale) ** 2:
            place = ((seen.sum(0) @ x) / seen.sum(), (seen.sum(1) @ y[:, 0]) / seen.sum())
        kept = np.maximum(kept, 1 - smoothstep(np.hypot((x - place[0]) / EYE[0], (y - place[1]) / EYE[1]), 0.85, 1.15))
    return kept


def _likely(relative: np.ndarray, glasses: np.ndarray, bare: np.ndarray, free: np.ndarray) -> np.ndarray:
    """
    Probability [S, S] of the frame by Bayes' rule, from what the parser thinks and from colours relative to skin
    [S, S, 3]: those of what is surely glasses, `free` of eyes, against those of skin beside them.
    """
    sure = free & (glasses > min(0.85, float(np.quantile(glasses[free], 0.995))))
    of_skin = _log_normal(relative, relative[bare > 0], SKIN_SPREAD)
    of_frame = np.maximum(
        _log_normal(relative, relative[sure], FRAME_SPREAD), _log_normal(relative, np.zeros((2, 3)), ANY_SPREAD)
    )
    prior = (0.98 * glasses).clip(1e-3)
    evidence = np.log(prior / (1 - prior)) + (of_frame - of_skin).clip(-FOR_SKIN, FOR_FRAME)
    return (glasses > 0.08) / (1 + np.exp(-evidence))


def _log_normal(colours: np.ndarray, sample: np.ndarray, spread: float) -> np.ndarray:
    """Log density but for a constant of colours [S, S, 3] under a normal distribution of a sample [N, 3]."""
    mean = sample.mean(0) if len(sample) else np.zeros(3)
    covariance = (np.cov(sample.T) if len(sample) > 3 else 0) + np.eye(3) * spread**2
    return log_normal(colours, mean, covariance)


def _lenses(canvas: Canvas, worn: np.ndarray) -> np.ndarray:
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
    """How deep rims reach into what is worn, told where neither eyes nor brows are."""
    steps = np.arange(0, THICKEST, 0.5)
    bands = [found[below & (depth > step) & (depth <= step + 0.5)] for step in steps]
    profile = np.array([band.mean() if len(band) else 0.0 for band in bands])
    peak = int(profile.argmax())
    thin = np.flatnonzero(profile[peak:] < 0.5 * profile[peak])
    thick = steps[peak + thin[0]] if len(thin) and profile[peak] > 0.2 else THICK
    return float(np.clip(1.3 * thick + 0.7, THINNEST, THICKEST))


NO_GLASSES = EyewearRemoval()
