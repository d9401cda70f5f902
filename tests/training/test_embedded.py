"""The script behind the embedded checkpoint: that its recipes fit together, and that it goes on where it stopped."""

import io
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import gptface
from gptface import GPTFaceForPreTraining, GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig
from gptface.training import embedded
from gptface.training.captions import EMOTION_PHRASES
from gptface.training.code_dataset import load_code_table
from gptface.training.phrases import PHRASES

ROWS = 8


def write_faces(path, size, **columns):
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(ROWS):
        data = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)).save(data, "PNG")
        pictures.append({"bytes": data.getvalue(), "path": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pictures, **columns}), path)


@pytest.fixture
def folders(tmp_path, lpips_file):
    """DATA_DIR of noise and WEIGHTS_DIR of random weights."""
    generator = np.random.default_rng(1)
    data, weights = tmp_path / "data", tmp_path / "weights"
    for name, size in (
        ("train/celeba178", (218, 178)),
        ("validation/celeba178", (218, 178)),
        ("train/celeba89", (109, 89)),
    ):
        write_faces(data / f"{name}.parquet", size, **{label: generator.integers(0, 2, ROWS) for label in PHRASES})
    for name in ("train/fer48", "validation/fer48"):
        write_faces(
            data / f"{name}.parquet", (48, 48), emotion=[sorted(EMOTION_PHRASES)[row % 7] for row in range(ROWS)]
        )
    write_faces(data / "train/utkface128.parquet", (128, 128), age=[30] * ROWS)
    weights.mkdir()
    shutil.copy(lpips_file, weights / "lpips_alex.safetensors")
    torch.manual_seed(0)
    state = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig()).state_dict()
    state = {key.replace("quantizer.", "fsq."): value.contiguous() for key, value in state.items()}
    save_file(state, weights / "tokenizer_prototype.safetensors")
    return data, weights


@pytest.fixture
def short_recipes(tmp_path, monkeypatch):
    """The real recipes, one step and one layer each."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for file in embedded.RECIPES.glob("*.yaml"):
        recipe = yaml.safe_load(file.read_text())
        if "arguments" in recipe:
            short = {"max_steps": 1, "save_steps": 1, "eval_strategy": "no", "per_device_train_batch_size": 2}
            recipe["arguments"] |= short | {"use_cpu": True}
            if "start_from" not in recipe and "model" in recipe and "hidden_size" in recipe["model"]:
                recipe["model"]["num_hidden_layers"] = 1  # the layers are all alike
            (folder / file.name).write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(embedded, "RECIPES", folder)


def test_a_file_that_only_a_late_stage_needs_is_missed_at_once(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folders[1] / "lpips_alex.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["embedded", *map(str, folders), str(tmp_path / "work")])
    with pytest.raises(FileNotFoundError, match=r"lpips_alex\.safetensors"):
        embedded.main()
    assert not (tmp_path / "work").exists()


def test_from_data_to_a_checkpoint_with_every_recipe(folders, short_recipes, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["embedded", *map(str, folders), str(tmp_path / "work")])
    embedded.main()
    model = GPTFaceForPreTraining.from_pretrained(tmp_path / "work/release")
    last = GPTFaceForPreTraining.from_pretrained(tmp_path / "work/copies/final")
    words, last_words = (each.get_input_embeddings().weight for each in (model, last))
    assert torch.equal(words, last_words.half().float()), "what is released is not the end of the last recipe"
    clear, all_ = (
        load_code_table([tmp_path / "work/recoded" / part / "celeba178"], model.image_tokenizer.fingerprint())
        for part in ("clear", "train")
    )
    assert np.array_equal(clear.codes, all_.codes)
    copies = [tmp_path / f"work/recoded/clear_copies/celeba178/{copy}" for copy in range(embedded.PRETRAINING_COPIES)]
    codes = [load_code_table([folder], model.image_tokenizer.fingerprint()).codes for folder in copies]
    assert np.array_equal(codes[0], all_.codes), "copy 0 is the face as it is"
    assert all((codes[0] != changed).mean() > 0.1 for changed in codes[1:])
    shipped = GPTFaceForPreTraining.from_pretrained(gptface.DEFAULT_CHECKPOINT)
    for field in ("hidden_size", "max_text_length", "caption_reader"):
        assert getattr(model.config, field) == getattr(shipped.config, field), (
            f"{field} is not what the repository ships"
        )
    assert model.image_tokenizer.config.fsq_levels == shipped.image_tokenizer.config.fsq_levels
    assert model.config.heads.keys() == shipped.config.heads.keys()
    assert all(head["trained"] for head in model.config.heads.values())

    caplog.set_level("INFO", logger="gptface.training.embedded")
    (tmp_path / "work/release/config.json").unlink()
    embedded.main()
    skipped = [record.getMessage() for record in caplog.records if "done before" in record.getMessage()]
    assert len(skipped) == 16, "only the last stage has something to do"
