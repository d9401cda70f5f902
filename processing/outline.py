"""The person in a face crop, told from what is behind them."""

import numpy as np
from PIL import Image

from .opencv import grab_cut, import_opencv
from .regions import Shape

# Where the search begins: what is face for certain, and what may be head or shoulders.
_FACE = Shape(0.5, 0.55, 0.26, 0.34, round=True)
_HEAD = Shape(0.5, 0.55, 0.5, 0.55, round=True)
_SHOULDERS = Shape(0.5, 0.775, 0.47, 0.225, round=False)


def person_outline(crop: Image.Image) -> np.ndarray:
    """
    The pixels of an aligned face crop that show the person: head, hair, shoulders; bool [S, S].

    GrabCut (Rother et al. 2004, by OpenCV) from where a face and its hair are in every crop. It errs where hair and background are
    of one colour.

    Raises:
        ImportError: where OpenCV is missing.
    """
    cv2 = import_opencv("finding the outline of a person")
    x, y = ((np.arange(length) + 0.5) / length for length in crop.size)
    x, y = x[None, :], y[:, None]
    labels = np.full((crop.height, crop.width), cv2.GC_PR_BGD, np.uint8)
    labels[_HEAD.contains(x, y) | _SHOULDERS.contains(x, y)] = cv2.GC_PR_FGD
    labels[_FACE.contains(x, y)] = cv2.GC_FGD
    return grab_cut(crop, labels)
