"""The tone of skin in an edit: redrawn cells come out lighter, darker or redder than the face around them."""

import numpy as np
from numpy.typing import ArrayLike

from .composite import likeness
from .regions import region_cells

#: The difference in [0, 1] at which 1/e of a pixel is still the same skin in another tone, and the standard deviation, in sides of the
#: crop, of what tone is averaged over.
TONE_SCALE, TONE_REACH = 0.25, 20 / 128


def match_tone(edited: ArrayLike, reconstruction: ArrayLike, mask: ArrayLike) -> np.ndarray:
    """Take out of an edit what it did to the tone of skin.

    What changed little is taken for the same skin in another tone. The mean of that change around a pixel is subtracted from it
    as far as it is such skin: teeth and what was not there before stay as they were drawn. The mean leaves out the region of
    the mouth, where lips are as like to skin as one skin to another.

    Args:
        edited: Decoded edited codes, float `[S, S, 3]` in [0, 1].
        reconstruction: Decoded codes before the edit, the same shape and range.
        mask: `[S, S]` in [0, 1]; what the edit changed is where it is above 0.

    Returns:
        float32 `[S, S, 3]`; it may overshoot [0, 1] a little, as a decoder does.
    """
    after, before = np.asarray(edited, dtype=np.float32), np.asarray(reconstruction, dtype=np.float32)
    side = len(after)
    skin = likeness(after, before, TONE_SCALE) * (np.asarray(mask)[:, :, None] > 0)
    beside_the_mouth = skin * ~region_cells("mouth", side)[:, :, None]
    distance = np.subtract.outer(np.arange(side), np.arange(side)) / (TONE_REACH * side)
    kernel = np.exp(-0.5 * distance**2).astype(np.float32)

    def around(picture: np.ndarray) -> np.ndarray:
        return np.einsum("ij,jkc,kl->ilc", kernel, picture, kernel, optimize=True)

    # where such skin is less than a hundredth of what is near, little is known of its tone
    least = 0.01 * kernel[side // 2].sum() ** 2
    tone = around(beside_the_mouth * (after - before)) / (around(beside_the_mouth) + least)
    return after - skin * tone
