"""Faces of other alignments come to the project's crop, and cells that their pictures do not show are absent, never
invented.
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig
from gptface.data import encode
from gptface.data.code_dataset import read_part
from gptface.data.detected_crops import crop_by_landmarks, find_landmarks
from gptface.processing.alignment import CROP_LANDMARKS, covered_cells, crop_matrix
from gptface.processing.detection import DetectedFace, FaceNotFoundError

#: Landmarks in a picture that shows the middle half of the crop.
TIGHT = CROP_LANDMARKS - 32


class Detector:
    """Sees a face at the given places, and only in pictures of at least a size."""

    def __init__(self, *landmarks, side=0):
        self.landmarks, self.side = landmarks, side

    def detect(self, image):
        if image.width < self.side:
            return []
        offset = (image.width - 64) / 2
        return [DetectedFace((0, 0, 1, 1), np.asarray(points) + offset, 0.9) for points in self.landmarks]


def test_cells_are_covered_that_lie_in_the_picture():
    covered = covered_cells(crop_matrix(TIGHT), (64, 64))
    assert covered[4:12, 4:12].all() and covered.sum() == 64
    assert covered_cells(crop_matrix(CROP_LANDMARKS), (128, 128)).all()
    half = covered_cells(crop_matrix(CROP_LANDMARKS), (128, 60), grid=8)
    assert half[:3].all() and not half[3:].any(), "the fourth row of cells ends at 64"


def test_a_crop_repeats_the_edge_where_nothing_is_covered():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    crop, covered = crop_by_landmarks(picture, TIGHT)
    assert np.array_equal(np.asarray(crop)[32:96, 32:96], np.asarray(picture))
    assert np.array_equal(np.asarray(crop)[50, :32], np.repeat(np.asarray(picture)[18, :1], 32, 0))
    assert covered.sum() == 64


def test_a_tight_picture_is_searched_again_with_a_margin():
    picture = Image.new("RGB", (64, 64))
    assert np.allclose(find_landmarks(picture, Detector(TIGHT)), TIGHT)
    assert np.allclose(find_landmarks(picture, Detector(TIGHT, side=80)), TIGHT)
    with pytest.raises(FaceNotFoundError):
        find_landmarks(picture, Detector(TIGHT, side=200))


def test_another_face_than_the_expected_one_is_passed_over():
    picture = Image.new("RGB", (64, 64))
    aside, small = TIGHT + np.array([30, 0]), (TIGHT - 32) * 0.4 + 32
    assert np.allclose(find_landmarks(picture, Detector(aside, small, TIGHT + 1), TIGHT), TIGHT + 1)
    with pytest.raises(FaceNotFoundError, match="where the set has"):
        find_landmarks(picture, Detector(aside, small), TIGHT)


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    config = GPTFaceImageTokenizerConfig(image_size=32, hidden_channels=8, latent_channels=4, fsq_levels=[4, 3])
    return GPTFaceImageTokenizer(config).eval()


def write(path, pictures, **columns):
    rows = []
    for picture in pictures:
        data = io.BytesIO()
        picture.save(data, "PNG")
        rows.append({"bytes": data.getvalue(), "path": None})
    pq.write_table(pa.table({"image": rows, **columns}), path)


class Labeller:
    names = ["Smiling", "Bald"]
    fingerprint = "of this test"

    def __call__(self, codes, covered):
        assert codes.max() < 12, "the head reads codes, not absent ones"
        return [{"Smiling": 1} for _ in codes]


def test_codes_of_cells_without_pixels_are_absent(tmp_path, tokenizer, monkeypatch):
    grid = tokenizer.config.grid_size
    monkeypatch.setattr(encode, "default_detector", lambda: Detector(TIGHT - np.array([8, 0])))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    grey = np.repeat(noise[:, :, :1], 3, 2)
    write(tmp_path / "faces.parquet", [Image.fromarray(noise), Image.fromarray(grey)], Smiling=[0, None])
    encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, "detected", labeller=Labeller())
    (part,) = encode.code_parts(tmp_path / "codes")
    table = read_part(part, tokenizer.fingerprint())
    present = table.codes != encode.ABSENT
    _, covered = crop_by_landmarks(Image.fromarray(noise), TIGHT - np.array([8, 0]), grid=grid)
    assert np.array_equal(present[0, 0].reshape(grid, grid), covered) and 0 < covered.sum() < grid**2
    assert np.array_equal(present[0, 1].reshape(grid, grid), covered[:, ::-1]), "the mirror image lacks the other side"
    assert [labels["grayscale"] for labels in table.labels] == [0, 1]
    assert [labels["Smiling"] for labels in table.labels] == [0, 1], "the data's own labels stay, others are added"


def test_changed_copies_lose_the_cells_at_the_edge(tmp_path, tokenizer, monkeypatch):
    """A copy is moved by up to a cell: what was repeated would enter the last row that is covered."""
    monkeypatch.setattr(encode, "default_detector", lambda: Detector(TIGHT))
    write(tmp_path / "faces.parquet", [Image.new("RGB", (64, 64), "red")])
    for name, change in (("plain", None), ("changed", lambda image, row: image)):
        encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / name, tokenizer, "detected", change=change)
    plain, changed = (
        read_part(tmp_path / name / "part-00000.parquet", tokenizer.fingerprint()).codes[0, 0] != encode.ABSENT
        for name in ("plain", "changed")
    )
    side = tokenizer.config.grid_size
    assert plain.sum() == (side // 2) ** 2 and changed.sum() == (side // 2 - 2) ** 2


def test_a_picture_without_a_face_is_left_out(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "default_detector", lambda: Detector())
    write(tmp_path / "faces.parquet", [Image.new("RGB", (64, 64))])
    assert encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, "detected") == 0
