"""Skin that is made up where something was before it: the tone of the skin around, with its texture."""

import numpy as np
import torch

from gptface.modeling_gptface.refiner_gptface import push_pull_fill

from .canvas import Canvas, deviation_of, weighted_blur

#: Standard deviation below which detail is texture, and side of the sample of it, in pixels of the 128-pixel crop.
TEXTURE, SAMPLE = 1.6, 16.0
#: Deviations of a sample's detail that count: what is beyond is no texture but a hair, a mole, an edge.
OUTLIERS = 2.5
#: Standard deviation below which detail of other things is moved, and how far it is moved where all of it is found
#: there, in pixels of the 128-pixel crop.
DETAIL, FARTHEST = 4.0, 64.0
#: Pixels of a tile of texture along a side.
TILE = 512


def fill_smoothly(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Colours of what is known, which stay, spread to where nothing is: blends of what is known on all sides.

    Args:
        pixels: float [H, W, C].
        known: how far each pixel counts, [H, W] in [0, 1].

    Returns:
        float32 [H, W, C].

    Example:

    ```python
    >>> import numpy as np
    >>> from gptface.processing.skin import fill_smoothly
    >>> known = np.ones((8, 8))
    >>> known[3:5, 3:5] = 0
    >>> fill_smoothly(np.where(known[:, :, None] > 0, 0.5, 0.0), known).round(3).min()
    np.float32(0.5)

    ```
    """
    height, width = known.shape
    side = 1 << (max(height, width) - 1).bit_length()
    values = np.concatenate([pixels, known[:, :, None]], 2).astype(np.float32)
    planes = torch.from_numpy(np.pad(values, ((0, side - height), (0, side - width), (0, 0)))).permute(2, 0, 1)[None]
    filled = push_pull_fill(planes[:, :-1], planes[:, -1:])
    return filled[0, :, :height, :width].permute(1, 2, 0).numpy()


def skin_texture(
    canvas: Canvas, pixels: np.ndarray, skin: np.ndarray, generator: np.random.Generator
) -> np.ndarray | None:
    """
    Noise with the spectrum of skin's detail: pores and the grain of the photo, wherever they are wanted (a random
    phase texture, Galerne, Gousseau and Morel 2011).

    Args:
        pixels: sRGB [S, S, 3] of the canvas.
        skin: how surely each is skin [S, S].
        generator: of the phases.

    Returns:
        Grey values [S, S] around 0; None where no square of skin is large enough to tell.
    """
    side = round(SAMPLE * canvas.scale)
    sure = (skin > 0.9).astype(np.float32)
    sums = np.pad(sure, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    filled = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(filled.argmax(), filled.shape)
    if filled[top, left] < 0.75 * side**2:
        return None
    window = np.s_[top : top + side, left : left + side]
    grey, inside = pixels[window].mean(2), sure[window]
    detail = grey - weighted_blur(grey, inside, TEXTURE * canvas.scale)
    deviation = deviation_of(detail[inside > 0])
    taper = np.hanning(side + 2)[1:-1]
    detail = detail.clip(-OUTLIERS * deviation, OUTLIERS * deviation) * inside * np.sqrt(np.outer(taper, taper))
    tile = max(TILE, side)
    noise = np.fft.irfft2(
        np.fft.rfft2(detail, (tile, tile)) * np.fft.rfft2(generator.standard_normal((tile, tile))), (tile, tile)
    )
    repeats = -(-canvas.size // tile)
    spread = float(noise.std())
    found = np.tile(noise * (deviation / spread if spread > 0 else 0.0), (repeats, repeats))
    return found[: canvas.size, : canvas.size].astype(np.float32)


def borrowed_detail(canvas: Canvas, pixels: np.ndarray, gap: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Detail of what is seen near a gap, moved into it: strands of hair beside a frame continue where that was.

    Args:
        pixels: sRGB [S, S, 3] of the canvas.
        gap: what is to be filled, [S, S] in [0, 1].
        known: how far each pixel shows what is behind the gap, [S, S] in [0, 1].

    Returns:
        float32 [S, S, 3] around 0; 0 where nothing is known at the place that it comes from.
    """
    step = max(1, round(canvas.scale))
    coarse = [plane[::step, ::step] for plane in ((gap > 0.5).astype(np.float32), (known > 0.9).astype(np.float32))]
    sides = [2 * length for length in coarse[0].shape]
    transforms = [np.fft.rfft2(plane, sides) for plane in coarse]
    # how much of the gap finds what is known at each shift: the nearest one at which nearly all of it does
    found = np.fft.irfft2(transforms[0].conj() * transforms[1], sides)
    shifts = [np.fft.fftfreq(length, 1 / length) for length in sides]
    away = np.hypot(shifts[0][:, None], shifts[1])
    row, column = np.unravel_index(np.argmax(found / max(float(found.max()), 1.0) - away / FARTHEST), found.shape)
    shift = (-round(shifts[0][row]) * step, -round(shifts[1][column]) * step)
    detail = (pixels - weighted_blur(pixels, known, DETAIL * canvas.scale)) * known[:, :, None]
    return np.roll(detail, shift, (0, 1)).astype(np.float32)
