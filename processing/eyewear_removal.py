"""
Glasses that are taken off: where one sees through the lenses the eyes stay the person's, and only the frame goes.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .blending import Layer
from .canvas import COARSEST, Canvas
from .face_parsing import FaceParsing
from .part_colour import from_oklab
from .signs import GLASSES
from .skin import borrowed_detail, fill_smoothly, skin_texture
from .strands import HAIR, hair_colour
from .worn_eyewear import BESIDE, SOFT, WornGlasses, count_eyes, find_frame

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
        return GLASSES.worn(parsing) and count_eyes(parsing) > 0

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """Skin in place of the frame, see [`Transfer.layers`]; what is left to chance is its texture and brows."""
        coarse, canvas = Canvas.of(parsing, COARSEST), Canvas.of(parsing)
        gone, _ = find_frame(coarse, photo, parsing, WornGlasses.of(coarse, parsing))
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
    gap, bare = ~bare, bare * (1 - canvas.mask(parsing, ("eye", "brow")))
    weights = np.stack([canvas.mask(parsing, names) for names in BEHIND], 2) * bare[:, :, None]
    # of a pixel that shows two things the colour is neither's
    weights *= weights > SURE
    lens = canvas.mask(parsing, "eyeglasses") * (canvas.blur(1 - bare, LENS_EDGE) < 0.05)
    weights[:, :, 0] = np.maximum(weights[:, :, 0], BEHIND_LENS * lens)
    total = weights.sum(2, keepdims=True)
    shares = fill_smoothly(weights / np.maximum(total, 1e-4), total[:, :, 0].clip(0, 1))
    shares = np.where(weights.max((0, 1)) > SURE, shares.clip(1e-4) ** DECIDED, 0)
    shares /= np.maximum(shares.sum(2, keepdims=True), 1e-8)
    filled = np.zeros_like(pixels)
    for index, (share, known) in enumerate(zip(np.moveaxis(shares, 2, 0), np.moveaxis(weights, 2, 0), strict=True)):
        if not share.any():
            continue
        there = fill_smoothly(pixels, known)
        if index and (share * gap > 0.5).any():  # skin has its own texture
            there = there + borrowed_detail(canvas, pixels, share * gap, known)
        filled += share[:, :, None] * there
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


NO_GLASSES = EyewearRemoval()
