"""The examples run as they are, on tiny data."""

import io
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import pipeline

EXAMPLE = Path(__file__).parents[1] / "examples" / "finetune_attributes.py"


@pytest.mark.parametrize("plain", [False, True])
def test_the_trainer_example_is_short_and_its_folder_opens(plain, tiny_checkpoint, tmp_path, monkeypatch):
    """
    With pictures as datasets writes them, and as plain bytes without its metadata, which any other program writes.
    """
    datasets = pytest.importorskip("datasets")
    assert len(EXAMPLE.read_text().splitlines()) < 60
    generator = np.random.default_rng(0)
    faces = [Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(12)]
    rows = [{"bytes": png(face), "path": None} for face in faces]
    columns = {"image": rows, "Hat": [0, 1] * 6, "Beard": [1, 0] * 6}
    features = datasets.Features(
        {"image": datasets.Image(), "Hat": datasets.Value("int64"), "Beard": datasets.Value("int64")}
    )
    if plain:
        table = pa.table({**columns, "image": [row["bytes"] for row in rows]})
        pq.write_table(table, tmp_path / "faces.parquet")
    else:
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
