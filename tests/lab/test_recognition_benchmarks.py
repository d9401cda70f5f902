"""The recognition benchmarks run to their tables, and few-shot cells that are done are not done again."""

import io
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gptface import GPTFaceConfig, GPTFaceForPreTraining

pytest.importorskip("sklearn")
LAB = Path(__file__).parents[2] / "lab"


@pytest.fixture
def run(monkeypatch, capsys, tiny_checkpoint, tmp_path):
    generator = np.random.default_rng(0)
    images = []
    for _ in range(12):
        data = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(data, "PNG")
        images.append({"bytes": data.getvalue(), "path": None})
    emotions = ["happy", "sad", "neutral"] * 4
    path = str(tmp_path / "faces.parquet")
    pq.write_table(
        pa.table({"image": images, "emotion": emotions, "Smiling": [0, 1] * 6, "Male": [0, 0, 1] * 4}), path
    )

    def call(name, head, *options, model=tiny_checkpoint):
        common = [head, "--train", path, "--data", path, "--model", str(model)]
        monkeypatch.setattr(sys, "argv", [name, *common, *options])
        runpy.run_path(str(LAB / name), run_name="__main__")
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize(("head", "figure"), [("expression", "accuracy"), ("attributes", "ap")])
def test_representations(run, head, figure):
    table = json.loads(run("representation.py", head, "--seconds", "0.05", "--train-rows", "8", "--json"))["table"]
    assert [row["representation"] for row in table][::7] == ["[CLS]", "states + codes, convolutions"] and len(
        table
    ) == 8
    assert all(0 <= row[figure] <= 1 and row["epochs"] > 0 for row in table)


def test_few_shot_cells_are_done_once(run, tmp_path):
    results = tmp_path / "results.json"
    options = ["--results", str(results), "--minutes", "0.0005", "--shares", "0.25"]
    first = run("few_shot.py", "expression", *options, "--seeds", "1")
    cells = json.loads(results.read_text())["cells"]
    assert set(cells) == {f"{method}/0.25/0" for method in ("pretrained", "scratch", "vit")}
    assert cells["vit/0.25/0"]["rows"] >= 3 and "±" in first
    second = run("few_shot.py", "expression", *options, "--seeds", "2")
    after = json.loads(results.read_text())["cells"]
    assert len(after) == 6 and cells.items() <= after.items() and "vit/0.25/0" not in second
    with pytest.raises(SystemExit, match="another protocol"):
        run("few_shot.py", "attributes", *options)


def test_few_shot_settings_are_chosen_once_a_method(run, tmp_path):
    results = tmp_path / "r.json"
    options = ["--results", str(results), "--minutes", "0.0005", "--shares", "1", "--seeds", "1"]
    options += ["--methods", "pretrained", "vit", "--learning-rates", "1e-3", "--layer-decays", "1", "0.5", "0"]
    assert "pretrained" in run("few_shot.py", "attributes", *options)
    choices = json.loads(results.read_text())["choices"]
    assert len(choices["pretrained"]["reached"]) == 3  # 0 trains the head alone, the others every layer
    assert choices["vit"] == {"setting": {"learning_rate": 1e-3, "layer_decay": 1.0}, "reached": {}}
    assert '"setting"' not in run("few_shot.py", "attributes", *options)


def test_few_shot_of_a_checkpoint_that_has_no_head_yet(run, tmp_path, tiny_checkpoint):
    folder = tmp_path / "pretrained"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"heads": {}}))
    options = ["--results", str(tmp_path / "r.json"), "--minutes", "0.0005", "--shares", "1", "--seeds", "1"]
    assert "scratch" in run("few_shot.py", "attributes", *options, model=folder)


def test_few_shot_with_the_pixel_reader(run, tmp_path, tiny_checkpoint):
    """The reader is a part of what is compared: `scratch` starts it at random, and no codes are made."""
    folder = tmp_path / "pixels"
    shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("model*"))
    config = GPTFaceConfig.from_pretrained(tiny_checkpoint, image_reader={"channels": [8, 8, 8], "adapter_rank": 2})
    GPTFaceForPreTraining(config).save_pretrained(folder)
    results = tmp_path / "r.json"
    options = ["--results", str(results), "--minutes", "0.0005", "--shares", "1", "--seeds", "1"]
    assert "scratch" in run("few_shot.py", "expression", *options, model=folder)
    found = json.loads(results.read_text())
    assert found["protocol"]["input"] == "pixels" and not list(tmp_path.glob("*.npz"))
    read_codes = tmp_path / "codes.json"
    options[1] = str(read_codes)
    run("few_shot.py", "expression", *options, "--input", "codes", "--methods", "pretrained", model=folder)
    found, other = (json.loads(path.read_text())["cells"]["pretrained/1/0"] for path in (results, read_codes))
    assert list(tmp_path.glob("codes_*.npz")) and found["parameters"] > other["parameters"]
    with pytest.raises(SystemExit):
        run("few_shot.py", "expression", *options, "--input", "pixels")
