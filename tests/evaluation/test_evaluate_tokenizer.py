"""`gptface evaluate tokenizer`: figures that a user compares across tokenizers must follow their definitions."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gptface import DEFAULT_CHECKPOINT
from gptface.cli import main
from gptface.data.encode import read_crop
from gptface.evaluation.tokenizer import evaluate_tokenizer
from gptface.processing.alignment import align, crop_matrix
from gptface.training.image_tokenizer_init import load_image_tokenizer

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
# A little under what it reaches; a change that falls below it has made every face worse.
FLOOR = 24.8


@pytest.fixture
def faces(tmp_path):
    """Five pictures with CelebA's alignment, one damaged."""
    rows = []
    for seed in range(5):
        values = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(values).resize((178, 218)).save(data, "PNG")
        rows.append({"bytes": data.getvalue()})
    rows.insert(2, {"bytes": b"no picture"})
    path = tmp_path / "faces.parquet"
    pq.write_table(pa.table({"image": rows}), path)
    return path


@pytest.fixture
def lpips_file(tmp_path):
    state, channels = {}, 3
    for layer, kernel in enumerate([11, 5, 3, 3, 3]):
        state[f"convs.{layer}.weight"] = torch.randn(
            4, channels, kernel, kernel, generator=torch.Generator().manual_seed(0)
        )
        state[f"convs.{layer}.bias"], state[f"lin.{layer}"] = torch.full((4,), 0.1), torch.ones(1, 4, 1, 1)
        channels = 4
    save_file(state, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


def report(arguments, capsys):
    assert main(["evaluate", "tokenizer", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_figures_of_a_whole_model_and_of_its_tokenizer_alone(faces, lpips_file, tiny_checkpoint, tmp_path, capsys):
    common = ["--data", faces, "--lpips-weights", lpips_file]
    whole = report([*common, "--model", tiny_checkpoint], capsys)
    tokenizer = load_image_tokenizer(tiny_checkpoint)
    tokenizer.save_pretrained(tmp_path / "alone")
    alone = report([*common, "--model", tmp_path / "alone"], capsys)
    assert whole.pop("milliseconds_per_face") > 0 and alone.pop("milliseconds_per_face") > 0
    assert whole == alone
    assert whole["images"] == 5 and whole["num_codes"] == 60
    # from the definitions, one picture at a time
    expected, codes = [], []
    for row in pq.read_table(faces)["image"].to_pylist():
        if row["bytes"] == b"no picture":
            continue
        crop = np.asarray(read_crop(row["bytes"], "celeba", 64)) / 255
        pixels = torch.tensor(crop * 2 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
        codes.append(tokenizer.encode(pixels))
        decoded = (tokenizer.decode(codes[-1])[0].permute(1, 2, 0).detach().numpy() + 1) / 2
        expected.append((10 * math.log10(1 / ((decoded - crop) ** 2).mean()), np.abs(decoded - crop).mean()))
    assert (whole["psnr"], whole["l1"]) == pytest.approx(tuple(np.mean(expected, 0)), rel=1e-4)
    assert whole["codes_used"] == torch.cat(codes).unique().numel()
    assert 1 <= whole["perplexity"] <= whole["codes_used"]


def test_limit_takes_the_first_faces(faces, lpips_file, tiny_checkpoint, capsys):
    arguments = ["--data", faces, "--lpips-weights", lpips_file, "--model", tiny_checkpoint, "--limit", "3"]
    assert report(arguments, capsys)["images"] == 3


def test_mistakes_are_one_line(faces, lpips_file, tiny_checkpoint, tmp_path, capsys):
    common = ["evaluate", "tokenizer", "--lpips-weights", str(lpips_file), "--data"]
    for arguments, message in [
        ([str(tmp_path / "missing.parquet"), "--model", str(tiny_checkpoint)], "missing.parquet"),
        ([str(faces), "--model", str(tiny_checkpoint), "--limit", "0"], "at least 1"),
        ([str(faces), "--model", str(tiny_checkpoint), "--layout", "fer48"], "faces.parquet holds no"),
    ]:
        assert main([*common, *arguments]) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_embedded_tokenizer_carries_a_portrait():
    """Everything that the model says in pixels goes through these codes."""
    detection = pytest.importorskip("gptface.processing.detection")
    pytest.importorskip("cv2")
    photo = Image.open(PORTRAIT).convert("RGB")
    face = detection.default_detector().detect(photo)[0]
    crop = align(photo, crop_matrix(face.landmarks))
    figures = evaluate_tokenizer(load_image_tokenizer(DEFAULT_CHECKPOINT), [crop], lambda a, b: torch.zeros(len(a)))
    assert figures["psnr"] > FLOOR
