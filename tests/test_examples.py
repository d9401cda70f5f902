"""The examples run as they are, on tiny data."""

import io
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import pipeline

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "finetune_attributes.py"


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


def test_the_notebook_runs_without_a_network_and_shows_what_it_says(tmp_path, monkeypatch):
    """
    Who opens it first must not be who finds that it is broken. It is stored without results: pictures in a notebook
    are large, and grow old.
    """
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("cv2")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    for photo in EXAMPLES.glob("*.jpg"):
        shutil.copy(photo, tmp_path)
    for variable, value in {"HF_HUB_OFFLINE": "1", "IPYTHONDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(variable, value)
    path = os.pathsep.join([str(EXAMPLES.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    monkeypatch.setenv("PYTHONPATH", path.rstrip(os.pathsep))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 7
    printed = "".join(output.get("text", "") for output in outputs)
    assert "the photo: happy" in printed and "edited: neutral" in printed and "blond hair" in printed
    assert b"DigitalSourceType" in (tmp_path / "smiling.png").read_bytes()


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
