"""The tone of skin in an edit: redrawn cells come out lighter, darker or redder than the face around them."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from .composite import likeness, sum_around
from .regions import region_cells

#: The difference in [0, 1] at which 1/e of a pixel is still the same skin in another tone, and the standard deviations, in sides of the
#: crop, of what tone is averaged over and of what a pixel's own change is.
TONE_SCALE, TONE_REACH, OWN_REACH = 0.25, 20 / 128, 3 / 128


def match_tone(edited: ArrayLike, reconstruction: ArrayLike, mask: ArrayLike) -> np.ndarray:
    """Take out of an edit what it did to the tone of skin.

    What changed little is taken for the same surface in another tone. The mean of that change around a pixel is subtracted from it
    as far as it changed little itself, and never more than it changed: teeth and what was not there before stay as they were
    drawn, and what the edit left as it was stays so. The mean leaves out the region of the mouth, where lips are as like to skin
    as one skin to another.

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
    beside_the_mouth = ~_mouth(side)[:, :, None]
    change = skin * (after - before)
    tone = sum_around(change * beside_the_mouth, TONE_REACH) / (sum_around(skin * beside_the_mouth, TONE_REACH) + 1e-6)
    own = sum_around(change, OWN_REACH) / (sum_around(skin, OWN_REACH) + 1e-6)
    return after - skin * np.clip(tone, np.minimum(own, 0), np.maximum(own, 0))


@lru_cache
def _mouth(side: int) -> np.ndarray:
    """Pixels [side, side] bool of the region of the mouth."""
    return region_cells("mouth", side)
