"""`gptface evaluate critic`: figures of a checkpoint's critic on samples of its own."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gptface import GPTFaceForGuidedGeneration, GPTFaceProcessor
from gptface.cli import main


@pytest.fixture
def faces(tmp_path):
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(4):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "png")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "Smiling": int(generator.integers(2))})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "faces.parquet")
    return str(tmp_path / "faces.parquet")


def test_it_reports_how_well_drawn_tokens_are_told(tiny_checkpoint, faces, tmp_path, capsys):
    model = GPTFaceForGuidedGeneration.from_pretrained(tiny_checkpoint, critic_channels=8)
    model.config.critic_trained = True
    model.save_pretrained(tmp_path / "model")
    GPTFaceProcessor.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "model")
    arguments = ["evaluate", "critic", "--data", faces, "--layout", "aligned", "--batches", "3", "--json"]
    assert main([*arguments, "--model", str(tmp_path / "model")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 4 and report["grids"] >= 3 * 32
    assert 0 < report["auc"] < 1
    assert {name for name in report if name.startswith("auc_")} <= {"auc_guided", "auc_free", "auc_foreign"}


def test_a_checkpoint_without_one_is_told_how_to_get_one(tiny_checkpoint, faces, capsys):
    assert main(["evaluate", "critic", "--data", faces, "--model", str(tiny_checkpoint)]) == 2
    assert "gptface train-critic" in capsys.readouterr().err
