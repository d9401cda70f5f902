"""
Pipelines on the tiny checkpoint, a copy of it to be damaged, one with all parts that a checkpoint can have, and the
face that they are shown.
"""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface import GPTFaceConfig, GPTFaceForPreTraining


@pytest.fixture(scope="session")
def edit(tiny_checkpoint):
    options = {"aligned": True, "seed": 0, "num_inference_steps": 2, "force": True}
    return pipeline("guided-face-editing", model=str(tiny_checkpoint), **options)


@pytest.fixture(scope="session")
def classify(tiny_checkpoint):
    return pipeline("face-attribute-classification", model=str(tiny_checkpoint), aligned=True)


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "damaged"))


@pytest.fixture
def face(face_picture) -> Image.Image:
    return face_picture.copy()


@pytest.fixture(scope="session")
def full_checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """The tiny checkpoint with a plan, a refiner, and a pixel reader with a head for age. Read only."""
    folder = tmp_path_factory.mktemp("full")
    shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model*"))
    parts = {
        "plan_levels": [4, 3],
        "plan_channels": 16,
        "refiner_config": {"image_size": 64, "hidden_channels": [8, 8], "dilations": [1]},
    }
    values = GPTFaceConfig.from_pretrained(tiny_checkpoint).to_dict()
    age = {"labels": ["age"], "problem_type": "regression", "input": "pixels", "trained": True}
    config = GPTFaceConfig.from_dict(
        {
            **values,
            "image_tokenizer_config": {**values["image_tokenizer_config"], **parts},
            "image_reader": {"channels": [8, 8, 8], "blocks": [1, 1, 1], "adapter_rank": 2},
            "heads": {**values["heads"], "age": age},
            "plan_trained": True,
        }
    )
    torch.manual_seed(0)
    GPTFaceForPreTraining(config).save_pretrained(folder)
    return folder
