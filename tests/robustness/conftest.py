"""Pipelines on the tiny checkpoint, a copy of it to be damaged, and the face that they are shown."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from transformers import pipeline


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
