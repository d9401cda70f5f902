"""Pipelines on the tiny checkpoint, and the face that they are shown."""

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
def face(face_picture) -> Image.Image:
    return face_picture.copy()
