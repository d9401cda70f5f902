"""Black-and-white and toned photos (sepia, cyanotype): edits keep to the colours that the photo has."""

import numpy as np
from PIL import Image

# ITU-R 601, as JPEG and Pillow weigh red, green and blue.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BINS = 32
# Longest side, roughly, of the picture that is looked at: grain and stains average out.
_SIDE = 256
# Levels of 255, root mean square, by which colours may stray from those of their brightness. Of 812 portraits the
# toned ones, yellowed paper among them, stay below 4.6, and the colour ones, and 1,500 photos of CelebA, above 5.4.
_MOST_STRAY = 5.0


def find_toning(photo: Image.Image) -> np.ndarray | None:
    """What red, green and blue of a photo without colours are.

    Args:
        photo: Mode RGB or RGBA; what is transparent does not count.

    Returns:
        What red, green and blue have more or less than the luma, float32 `[256, 3]` by luma: zeros for black and
        white.
        None where the colour does not follow from the brightness: a colour photo.
    """
    shrunk = photo.reduce(max(1, max(photo.size) // _SIDE))
    pixels = np.asarray(shrunk.convert("RGB"), np.float32).reshape(-1, 3)
    if photo.mode == "RGBA":
        pixels = pixels[np.asarray(shrunk)[:, :, 3].ravel() > 127]
    if not len(pixels):
        return None
    luma = pixels @ _LUMA
    offsets = pixels - luma[:, None]
    bins = np.minimum((luma * (_BINS / 256)).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    seen = counts > 0
    centres = (np.flatnonzero(seen) + 0.5) * (256 / _BINS)
    means = [np.bincount(bins, channel, _BINS)[seen] / counts[seen] for channel in offsets.T]
    table = np.stack([np.interp(np.arange(256), centres, mean) for mean in means], axis=1).astype(np.float32)
    if np.abs(table).max() < 0.5:
        table[:] = (
            0  # or a grey value between two whole ones would be rounded otherwise in one channel than in another
        )
    stray = np.abs(offsets - _look_up(table, luma)).max(axis=1)
    # Black and white have no room for colour: they say little.
    room = np.minimum(luma, 255 - luma) + 1
    return table if np.sqrt(np.average(stray**2, weights=room)) <= _MOST_STRAY else None


def keep_toning(before: Image.Image, after: Image.Image, toning: np.ndarray) -> Image.Image:
    """An edit of a toned photo with its change of brightness alone, in the colours that the photo has for it.

    Args:
        before, after: Mode RGB or RGBA, of one size.
        toning: Of the photo, as `find_toning` gives it.

    Returns:
        A new picture of the mode, transparency and `info` of `after`; where that is as `before`, it stays so bit for
        bit.

    Example:
        ```python
        toning = find_toning(photo)
        edited = edited if toning is None else keep_toning(photo, edited, toning)
        ```
    """
    pixels, old = np.array(after), np.asarray(before)[:, :, :3]
    changed = (pixels[:, :, :3] != old).any(axis=2)
    was, becomes = (values[changed].astype(np.float32) for values in (old, pixels[:, :, :3]))
    toned = [luma[:, None] + _look_up(toning, luma) for luma in (was @ _LUMA, becomes @ _LUMA)]
    pixels[changed, :3] = np.rint(was + toned[1] - toned[0]).clip(0, 255)
    result = after.copy()
    result.paste(Image.fromarray(pixels))
    return result


def _look_up(toning: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Offsets `[N, 3]` at lumas `[N]` in 0…255."""
    return np.stack([np.interp(luma, np.arange(256), channel) for channel in toning.T], axis=1)
