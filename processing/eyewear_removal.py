"""
Glasses that are taken off: where one sees through the lenses the eyes stay the person's, and only the frame goes.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .blending import Layer
from .canvas import COARSEST, Canvas, resized
from .face_parsing import FaceParsing
from .signs import GLASSES
from .skin import borrowed_detail, fill_smoothly, skin_texture
from .worn_eyewear import MARGIN, WornGlasses, count_eyes, find_frame

#: What there may be behind a frame, by classes of the parser: each is filled from what is seen of it.
BEHIND = (("facial_skin", "ears", "neck"), ("hair", "hat"), ("background", "cloth"), ("brow",))
#: How wide the shade of a frame is, in pixels of the 128-pixel crop; how much of the texture of bare skin there is.
SHADE, TEXTURE = 0.5, 0.6
#: How sure the parser must be of what is seen there, and how decidedly what is behind is one of these.
SURE, DECIDED = 0.7, 4
#: How much nearer what is above and below counts than what is beside.
UPRIGHT = 4.0


@dataclass(frozen=True)
class EyewearRemoval:
    """Clear glasses to be taken off, a [`Transfer`]: all that is before the eyes is glass."""

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether glasses are worn through which an eye is seen: behind dark ones eyes must be drawn."""
        return GLASSES.worn(parsing) and count_eyes(parsing) > 0

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """Skin in place of the frame, see [`Transfer.layers`]; what is left to chance is its texture."""
        coarse, canvas = Canvas.of(parsing, COARSEST), Canvas.of(parsing)
        worn = WornGlasses.of(coarse, parsing)
        found = np.stack([*find_frame(coarse, photo, parsing, worn), worn.eyes], 2)
        gone, lens, eyes = np.moveaxis(resized(found, (canvas.size, canvas.size)), 2, 0)
        pixels, bare = canvas.pixels(photo), canvas.blur(gone, SHADE) < 0.04
        through = canvas.mask(parsing, "eyeglasses") * lens * (1 - eyes) * bare
        known = canvas.mask(parsing, "facial_skin") * (canvas.blur(gone, MARGIN) < 0.02)
        filled, skin = _behind(canvas, parsing, pixels, bare, through)
        texture = skin_texture(canvas, pixels, known, generator)
        if texture is not None:
            filled = filled + (TEXTURE * texture * skin)[:, :, None]
        detail = np.zeros(gone.shape, np.float32)
        return [Layer(filled.astype(np.float32), detail, (share * gone).astype(np.float32), canvas.matrix)]


def _behind(
    canvas: Canvas, parsing: FaceParsing, pixels: np.ndarray, bare: np.ndarray, through: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    What is behind a frame, from what is `bare` of it and from skin that is seen `through` a lens, both [S, S]:
    pixels [S, S, 3], and how far each is skin [S, S].
    """
    gap, bare = ~bare, bare * (1 - canvas.mask(parsing, "eye"))
    weights = np.stack([canvas.mask(parsing, names) for names in BEHIND], 2) * bare[:, :, None]
    # of a pixel that shows two things the colour is neither's
    weights *= weights > SURE
    weights[:, :, 0] = np.maximum(weights[:, :, 0], through)
    shares = _shares(weights)
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


def _shares(weights: np.ndarray) -> np.ndarray:
    """
    How far each thing is to be expected where none is known, from what is known of them [S, S, C]: the outline of a
    head goes on, downwards rather than across.
    """
    rows, columns = weights.shape[:2]
    low = resized(weights, (columns, round(rows / UPRIGHT)))
    total = low.sum(2)
    filled = fill_smoothly(low / np.maximum(total, 1e-4)[:, :, None], total.clip(0, 1))
    return resized(filled, (columns, rows))


NO_GLASSES = EyewearRemoval()
