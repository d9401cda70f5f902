"""OpenCV, an optional dependency that is imported where it is used, and what several modules do with it."""

from typing import Any

import numpy as np
from PIL import Image


def import_opencv(what: str) -> Any:
    """
    The module `cv2`.

    Args:
        what: what needs it, as the error says it: `"filling holes"`.

    Raises:
        ImportError: it is missing; says what to install.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f'{what} needs OpenCV: pip install "gptface[detect]"') from error
    return cv2


def grab_cut(picture: Image.Image, labels: np.ndarray) -> np.ndarray:
    """
    The foreground bool [H, W] of a picture by GrabCut (Rother et al. 2004), the same for the same picture.

    Args:
        labels: uint8 [H, W] of `cv2.GC_BGD`, `GC_FGD`, `GC_PR_BGD` and `GC_PR_FGD`: where it begins; overwritten.
    """
    cv2 = import_opencv("GrabCut")
    pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
    cv2.setRNGSeed(0)  # its colour clusters start at random
    cv2.grabCut(pixels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def joined_pixels(pixels: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Those of some pixels bool [H, W] that hang together with seeds bool [H, W], also by a corner."""
    _, pieces = import_opencv("finding pieces").connectedComponents(pixels.astype(np.uint8))
    return np.isin(pieces, pieces[seeds]) & pixels
