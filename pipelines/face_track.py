"""One face through a film: where it is in each frame, which frames show it alike, and which of these shows it best."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageFilter

from gptface.processing.alignment import (
    CROP_SIZE,
    LARGEST_MISFIT,
    align,
    apply,
    crop_matrix,
    face_width,
    misfit,
)
from gptface.processing.detection import FaceNotFoundError, YuNetDetector, select_faces
from gptface.processing.image_loading import to_rgb

#: Mean difference in [0, 1] of small pictures of two frames from which on they are of two scenes, and their size. In a
#: scene, also in one where much moves, it is hardly over 0.05.
CUT, THUMBNAIL = 0.12, (32, 18)
#: Frames for which a face may be lost and is taken to have moved on; and the share of its width by which it may move
#: in each.
LONGEST_GAP, LARGEST_STEP = 6, 0.25
#: Frames on each side over which landmarks are smoothed: the detector's tremble goes, nods and turns stay.
SMOOTHED = 5
#: How far landmarks may move within the face, in pixels of the 128-pixel crop, before an edit is decided anew; the
#: detector's own tremble is about 1. And how often that may be in one scene.
LARGEST_MOVE, MOST_KEYS = 5.0, 4
#: Frames over which an edit fades in and out where a face comes or goes within a scene.
FADE = 4


@dataclass(frozen=True)
class Sight:
    """
    What one frame shows of the face.

    Args:
        landmarks: [5, 2] in pixels of the frame; None where no face is seen.
        sharpness: variance of the Laplacian of the crop.
        cut: whether another scene begins here.
    """

    landmarks: np.ndarray | None
    sharpness: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class Place:
    """
    Where the face of one frame is.

    Args:
        landmarks: [5, 2] in pixels of the frame, smoothed in time.
        key: index of the frame that the edit is decided on.
        weight: how far the edit counts, in (0, 1].
    """

    landmarks: np.ndarray
    key: int
    weight: float


class FaceFollower:
    """
    Sees a film frame by frame.

    Args:
        detector: finds the face.
        face: `"largest"` or an index, the largest first, among those of the first frame of a scene that shows any.
    """

    def __init__(self, detector: YuNetDetector, face: str | int = "largest"):
        self.detector, self.face = detector, face
        self._small: np.ndarray | None = None
        self._last: np.ndarray | None = None

    def see(self, image: Image.Image) -> Sight:
        """The next frame."""
        image = to_rgb(image)
        small = np.asarray(image.resize(THUMBNAIL, Image.Resampling.BOX), np.float32) / 255
        cut = self._small is not None and float(np.abs(small - self._small).mean()) > CUT
        self._small = small
        found = None if self._last is None or cut else self.detector.follow(image, self._last)
        if found is not None and self._last is not None and _step(self._last, found) > LARGEST_STEP:
            found = None
        if found is None:
            try:
                found = select_faces(self.detector.detect(image), self.face)[0].landmarks
            except FaceNotFoundError:
                found = None
        self._last = found
        if found is None:
            return Sight(None, cut=cut)
        crop = align(image, crop_matrix(found), CROP_SIZE).convert("L")
        edges = np.asarray(crop.filter(ImageFilter.FIND_EDGES), np.float32)[1:-1, 1:-1]
        return Sight(found, float(edges.var()), cut)


def locate(sights: Sequence[Sight]) -> list[Place | None]:
    """What all frames show → where the face is in each; None where it is not."""
    places: list[Place | None] = [None] * len(sights)
    starts = [0, *(index for index, sight in enumerate(sights) if sight.cut and index), len(sights)]
    for start, end in pairwise(starts):
        scene = range(start, end)
        runs = _runs(sights, scene)
        landmarks = {
            index: points
            for run in runs
            for index, points in zip(run, smooth(np.stack(list(run.values()))), strict=True)
        }
        keys = _choose_keys(sights, landmarks)
        for run in runs:
            first, last = min(run), max(run)
            for index in run:
                into = FADE if first == start else index - first
                out = FADE if last == end - 1 else last - index
                places[index] = Place(landmarks[index], keys[index], min(FADE, into + 1, out + 1) / FADE)
    return places


def smooth(points: np.ndarray, half_width: int = SMOOTHED) -> np.ndarray:
    """
    Tracks of points [T, N, 2] without their tremble: at each time the value of the parabola that fits the times around
    it best, near ones more (local regression, Cleveland 1979; no lag, and what moves evenly moves on).
    """
    count = len(points)
    result = np.empty_like(points, dtype=np.float64)
    for time in range(count):
        low, high = max(0, time - half_width), min(count, time + half_width + 1)
        offsets = np.arange(low, high) - time
        weights = (1 - (np.abs(offsets) / (half_width + 1)) ** 3) ** 1.5
        degree = min(2, len(offsets) - 1)
        terms = np.vander(offsets, degree + 1, increasing=True) * weights[:, None]
        values = points[low:high].reshape(len(offsets), -1) * weights[:, None]
        result[time] = np.linalg.lstsq(terms, values, rcond=None)[0][0].reshape(points.shape[1:])
    return result


def _runs(sights: Sequence[Sight], scene: range) -> list[dict[int, np.ndarray]]:
    """Frames of a scene in which the face is seen or, for a moment, was lost: landmarks by frame, without holes."""
    runs: list[dict[int, np.ndarray]] = []
    for index in scene:
        points = sights[index].landmarks
        if points is None:
            continue
        last = max(runs[-1]) if runs else None
        gap = None if last is None else index - last
        if gap is None or gap - 1 > LONGEST_GAP or _step(runs[-1][last], points) > LARGEST_STEP * gap:  # type: ignore[index]
            runs.append({})
        elif last is not None:
            for missing in range(1, gap):
                runs[-1][last + missing] = runs[-1][last] + (points - runs[-1][last]) * missing / gap
        runs[-1][index] = points
    return runs


def _step(before: np.ndarray, after: np.ndarray) -> float:
    """How far a face moved, in its widths."""
    return float(np.linalg.norm(after.mean(0) - before.mean(0))) / face_width(before)


def _choose_keys(sights: Sequence[Sight], landmarks: dict[int, np.ndarray]) -> dict[int, int]:
    """
    Which frame decides each frame's edit: the best one of those that show the face alike, and stayed with as long as
    they do.
    """
    if not landmarks:
        return {}
    shapes = {index: apply(crop_matrix(points), points) for index, points in landmarks.items()}
    worth = {index: _worth(sights[index]) for index in landmarks}
    keys: list[int] = []
    waiting = set(landmarks)
    while waiting and len(keys) < MOST_KEYS:
        keys.append(max(waiting, key=lambda index: (worth[index], -index)))
        waiting = {index for index in waiting if _move(shapes[index], shapes[keys[-1]]) > LARGEST_MOVE}
    chosen: dict[int, int] = {}
    current: int | None = None
    for index in sorted(shapes):
        if current is None or _move(shapes[index], shapes[current]) > LARGEST_MOVE:
            current = min(keys, key=lambda key: _move(shapes[index], shapes[key]))
        chosen[index] = current
    return chosen


def _move(shape: np.ndarray, other: np.ndarray) -> float:
    """Root mean square distance of aligned landmarks, in pixels of the crop."""
    return float(np.sqrt(((shape - other) ** 2).sum(1).mean()))


def _worth(sight: Sight) -> float:
    """How well a frame suits to decide on: sharp, from the front, large; 0 where the face was lost."""
    if sight.landmarks is None:
        return 0.0
    frontal = 1 - misfit(sight.landmarks) / (2 * LARGEST_MISFIT)
    return sight.sharpness * frontal * min(1.0, face_width(sight.landmarks) / CROP_SIZE)
