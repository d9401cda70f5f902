"""The examples run as they are, on tiny data."""

import io
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

EXAMPLE = Path(__file__).parents[1] / "examples" / "finetune_attributes.py"


def test_the_trainer_example_is_short_and_its_folder_opens(tiny_checkpoint, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    assert len(EXAMPLE.read_text().splitlines()) < 60
    generator = np.random.default_rng(0)
    faces = [Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(12)]
    rows = [{"bytes": png(face), "path": None} for face in faces]
    columns = {"image": rows, "Hat": [0, 1] * 6, "Beard": [1, 0] * 6}
    features = datasets.Features(
        {"image": datasets.Image(), "Hat": datasets.Value("int64"), "Beard": datasets.Value("int64")}
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "faces.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    arguments = [str(tmp_path / "faces.parquet"), str(tmp_path / "output"), "Hat", "Beard"]
    monkeypatch.setattr(sys, "argv", ["finetune", *arguments, "--model", str(tiny_checkpoint), "--epochs", "1"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    classify = pipeline("face-attribute-classification", model=str(tmp_path / "output"))
    assert {entry["label"] for entry in classify(faces[0], aligned=True)} == {"Hat", "Beard"}


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
