"""The folder that is released."""

import json

import pytest
import torch
from safetensors import safe_open

from gptface import (
    GPTFaceForFacialExpression,
    GPTFaceForGuidedGeneration,
    GPTFaceForPreTraining,
    GPTFaceProcessor,
)
from gptface.training.release import save_release


@pytest.fixture
def model(tiny_checkpoint):
    return GPTFaceForPreTraining.from_pretrained(tiny_checkpoint).eval()


def test_a_release_is_small_opens_as_float32_and_serves_every_class(model, tiny_checkpoint, tmp_path):
    processor = GPTFaceProcessor.from_pretrained(tiny_checkpoint)
    folder = save_release(model, processor, tmp_path / "release")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == config["image_tokenizer_config"]["dtype"] == "float32"
    for model_class in (GPTFaceForPreTraining, GPTFaceForGuidedGeneration, GPTFaceForFacialExpression):
        loaded = model_class.from_pretrained(folder)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert GPTFaceProcessor.from_pretrained(folder).tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_weights_that_overflow_fp16_are_not_released(model, tiny_checkpoint, tmp_path):
    with torch.no_grad():
        model.lm_head.dense.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"lm_head\.dense\.weight"):
        save_release(model, GPTFaceProcessor.from_pretrained(tiny_checkpoint), tmp_path / "release")
    assert not (tmp_path / "release").exists()
