"""Glasses through which the eyes are seen, and dark ones: told apart by the pixels, for data sets call both
eyeglasses.
"""

from collections.abc import Mapping

import torch

from gptface.processing.alignment import CROP_LANDMARKS
from gptface.processing.regions import Region, area_pixels, ellipse

from .phrases import SUNGLASSES

GLASSES = "Eyeglasses"
#: Lenses are dark whose brightness is less than this share of that of the cheeks; 7 % of CelebA's glasses lie
#: between 0.5 and 0.65, where both kinds occur.
DARK = 0.55
#: From this share on they are clear; between the two lie tinted lenses, too.
CLEAR = 0.7

(_LEFT_EYE_X, _EYE_Y), (_RIGHT_EYE_X, _), (_, _NOSE_Y), *_ = CROP_LANDMARKS.tolist()
LENSES = Region((ellipse(_LEFT_EYE_X, _EYE_Y + 2, 12, 8), ellipse(_RIGHT_EYE_X, _EYE_Y + 2, 12, 8)))
CHEEKS = Region((ellipse(_LEFT_EYE_X - 4, _NOSE_Y + 4, 10, 8), ellipse(_RIGHT_EYE_X + 4, _NOSE_Y + 4, 10, 8)))


def lens_brightness(faces: torch.Tensor) -> torch.Tensor:
    """
    Crops [B, 3, S, S] in [-1, 1] → brightness [B] of the area of the lenses (its upper quartile: frames are dark, too)
    as a share of that of the cheeks.
    """
    grey = faces.float().mean(1).add(1).div(2)
    lenses, cheeks = (grey[:, torch.from_numpy(area_pixels(area, faces.shape[-1]))] for area in (LENSES, CHEEKS))
    return lenses.quantile(0.75, dim=1) / cheeks.median(dim=1).values.clamp(min=0.02)


def glasses_labels(labels: Mapping[str, int], brightness: float) -> dict[str, int]:
    """
    Labels in which `Eyeglasses` = 1 may be glasses of any kind → labels in which it means that the eyes are seen, and
    `sunglasses` that they are not; of lenses that might be either nothing is said. Faces without a label of glasses
    stay as they are.

    Args:
        labels: attribute → 0/1.
        brightness: of the lenses, see [`lens_brightness`].
    """
    told = dict(labels)
    if GLASSES not in labels:
        return told
    if labels[GLASSES] == 0:
        # dark eye sockets are more frequent than glasses that were overlooked, but these are dark, too
        return told | ({SUNGLASSES: 0} if brightness >= DARK else {})
    if brightness < CLEAR:
        del told[GLASSES]
    if not DARK <= brightness < CLEAR:
        told[SUNGLASSES] = int(brightness < DARK)
    return told
