"""Every epoch must draw anew, in all workers and after a resume: a face that is masked alike each time teaches what it
taught.
"""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from gptface.data.epochs import EpochDataset
from gptface.data.pictures import CropDataset
from gptface.training.finetuning import FineTuningCollator, FineTuningConfig, finetune
from gptface.training.image_tokenizer_training import ImageTokenizerTrainingConfig, train_image_tokenizer
from gptface.training.pretraining import PreTrainingConfig, pretrain
from gptface.training.pretraining_collator import PreTrainingCollator

ROWS = 12


class Numbers(EpochDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.epoch


def test_workers_that_live_on_are_told_the_epoch():
    dataset = Numbers()
    loader = DataLoader(dataset, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        seen += torch.cat(list(loader)).tolist()
    assert seen == [0, 0, 3, 3]


@pytest.fixture
def faces(tmp_path):
    generator, rows = np.random.default_rng(0), []
    for _ in range(ROWS):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    labels = [row % 2 for row in range(ROWS)]
    pq.write_table(pa.table({"image": rows, "Bright": labels}), tmp_path / "faces.parquet")
    return tmp_path / "faces.parquet"


@pytest.fixture
def start(write_recipe, faces, tmp_path, lpips_file, tiny_checkpoint, monkeypatch):
    """
    (task, folder, steps that are saved) → runs five steps, three an epoch; returns what was drawn and the folder of
    the weights.
    """
    seen: list[tuple[int, int]] = []
    for collator in (PreTrainingCollator, FineTuningCollator):

        def recording(self, samples, collate=collator.__call__):
            seen.extend((sample["epoch"], sample["row"]) for sample in samples)
            return collate(self, samples)

        monkeypatch.setattr(collator, "__call__", recording)
    take = CropDataset.__getitem__

    def taking(self, index):
        seen.append((self.epoch, index))
        return take(self, index)

    monkeypatch.setattr(CropDataset, "__getitem__", taking)
    quiet = {"max_steps": 5, "save_steps": 4, "eval_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    quiet |= {"learning_rate": 1e-3, "per_device_train_batch_size": 4}

    def run(task, folder):
        seen.clear()
        output = str(tmp_path / folder)
        if task == "pretrain":
            arguments = {**quiet, "per_device_train_batch_size": 16}  # 40 faces
            recipe = write_recipe(tmp_path, evaluation=[], arguments=arguments)
            weights = pretrain(PreTrainingConfig.from_yaml(recipe, output_dir=output))
        elif task == "finetune":
            config = FineTuningConfig(
                output, [str(faces)], start_from=str(tiny_checkpoint), augmentation={}, arguments=dict(quiet)
            )
            weights = finetune("attributes", config)
        else:
            values = {"output_dir": output, "train": [{"path": str(faces)}], "crop_size": 32, "arguments": quiet}
            values |= {"model": {"image_size": 64, "hidden_channels": 4, "latent_channels": 4, "fsq_levels": [3, 4]}}
            recipe = tmp_path / "tokenizer.yaml"
            recipe.write_text(yaml.safe_dump({**values, "lpips_weights": str(lpips_file)}))
            weights = train_image_tokenizer(ImageTokenizerTrainingConfig.from_yaml(recipe))
        return list(seen), weights

    return run


@pytest.mark.parametrize("task", ["pretrain", "finetune", "train-tokenizer"])
def test_a_run_resumed_in_its_second_epoch_sees_what_one_that_was_not_stopped_sees(start, task, tmp_path):
    drawn, whole = start(task, "whole")
    assert {epoch for epoch, _ in drawn} == {0, 1}
    shutil.copytree(tmp_path / "whole/checkpoint-4", tmp_path / "stopped/checkpoint-4")
    again, resumed = start(task, "stopped")
    # the loader looks a batch ahead
    last = [(epoch, row) for epoch, row in again if epoch >= 0]
    assert last and last == drawn[-len(last) :]
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    for name, tensor in first.items():
        # MKL rounds by how memory happens to be aligned
        assert torch.allclose(tensor, second[name], rtol=0, atol=1e-6), name
    states = [tmp_path / run / "checkpoint-5/trainer_state.json" for run in ("whole", "stopped")]
    losses = [json.loads(path.read_text())["global_step"] for path in states]
    assert losses == [5, 5]
