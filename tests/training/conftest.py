"""
Small encoded data sets, and a pre-training recipe for them.

- `code_table`: [`CodeTable`] of forty faces with attributes and eight with emotions, 8×8 cells.
- `write_part(path, table, fingerprint, **columns)`: a part as `gptface encode` writes it.
- `write_recipe(folder, **values)`: codes, image tokenizer and recipe of a tiny model; returns the recipe's file.
- `recipe`: file of a recipe that trains a tiny model on the forty in 6 steps, in its own `tmp_path`.
- `run_two_ranks(script, *arguments)`: runs a script's text in two processes (gloo); the finished process with its
  output.
- `finished_run`: folder of that recipe's run, with TensorBoard events; read only.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig
from gptface.data.captions import emotion_labels
from gptface.data.code_dataset import CodeTable
from gptface.data.encode import FINGERPRINT_KEY

LABELS = {"Smiling": 0, "Male": 1, "Eyeglasses": 0, "Blond_Hair": 1, "Young": 1, "No_Beard": 1}


def make_code_table() -> CodeTable:
    generator = np.random.default_rng(0)
    labels = [{name: int(generator.integers(2)) for name in LABELS} for _ in range(40)]
    emotions = [None] * 40 + ["happy", "sad"] * 4
    labels += [emotion_labels(emotion) for emotion in emotions[40:]]
    return CodeTable(generator.integers(0, 1200, (48, 2, 64)).astype(np.uint16), labels, emotions)


def make_part(path: Path, table: CodeTable, fingerprint: str, **columns) -> None:
    """Rows of a table as `gptface encode` would write them, with further columns."""
    names = sorted({name for row in table.labels for name in row})
    columns |= {name: [row.get(name) for row in table.labels] for name in names}
    for side, name in enumerate(("codes", "codes_flipped")):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(table.codes[:, side].reshape(-1)), 64)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({FINGERPRINT_KEY: fingerprint.encode()}), path)


def make_recipe(folder: Path, **values) -> Path:
    """
    The forty faces in four parts, an image tokenizer and a recipe for them; `values` replace the recipe's fields.
    """
    torch.manual_seed(0)
    config = GPTFaceImageTokenizerConfig(image_size=64, hidden_channels=4, latent_channels=4)
    tokenizer = GPTFaceImageTokenizer(config)
    tokenizer.save_pretrained(folder / "image_tokenizer")
    table = make_code_table()
    for part in range(4):
        rows = np.arange(part * 10, part * 10 + 10)
        make_part(folder / f"codes/part-{part:05d}.parquet", table.take(rows), tokenizer.fingerprint())
    recipe = {
        "output_dir": str(folder / "run"),
        "train": [str(folder / "codes")],
        "evaluation": [str(folder / "codes")],
        "image_tokenizer": str(folder / "image_tokenizer"),
        "vocab_size": 300,
        "model": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 20,
            "max_text_length": 24,
            "code_embedding": "levels",
            "grid_convolution": True,
        },
        "shuffle_window": 2,
        "collator": {"seed": 1},
        # so that every step has a masked word to report
        "text_law": {"unmasked": 0.0},
        "arguments": {
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 40,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_steps": 3,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "use_cpu": True,
            "disable_tqdm": True,
        },
    }
    arguments = {**recipe["arguments"], **values.pop("arguments", {})}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, **values, "arguments": arguments}))
    return path


@pytest.fixture(scope="session")
def run_two_ranks(tmp_path_factory):
    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = tmp_path_factory.mktemp("script") / "train.py"
        path.write_text(textwrap.dedent(script))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)]
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        return subprocess.run(
            [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture
def code_table():
    return make_code_table()


@pytest.fixture(scope="session")
def write_recipe():
    return make_recipe


@pytest.fixture(scope="session")
def write_part():
    return make_part


@pytest.fixture
def recipe(tmp_path):
    return make_recipe(tmp_path)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    from gptface.training.pretraining import PreTrainingConfig, pretrain

    path = make_recipe(tmp_path_factory.mktemp("finished"), arguments={"report_to": "tensorboard"})
    return pretrain(PreTrainingConfig.from_yaml(path)).parent
