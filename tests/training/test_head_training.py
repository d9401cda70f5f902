"""Heads on the frozen backbone, and the folder that is released."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from gptface import (
    GPTFaceForFacialExpression,
    GPTFaceForGuidedGeneration,
    GPTFaceForPreTraining,
    GPTFaceProcessor,
)
from gptface.training.head_training import HeadTraining, head_scores, image_states, train_head
from gptface.training.release import save_release

SINGLE = {"labels": ["even", "odd"], "problem_type": "single_label_classification"}


@pytest.fixture
def model(tiny_checkpoint):
    return GPTFaceForPreTraining.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture
def codes(model):
    return np.random.default_rng(0).integers(0, model.config.num_codes, (48, model.config.num_image_tokens))


def test_states_are_those_of_the_empty_caption(model, codes):
    states = image_states(model, codes, batch_size=7)
    assert states.shape == (48, model.config.num_image_tokens, model.config.hidden_size)
    with torch.no_grad():
        outputs = model.gptface(image_codes=torch.from_numpy(codes[3:4]))
    expected = outputs.last_hidden_state[:, -model.config.num_image_tokens :]
    assert torch.allclose(states[3:4].float(), expected, atol=2e-2)


def test_a_head_learns_what_one_cell_says_and_leaves_the_rest(model, codes):
    labels = torch.from_numpy((codes[:, 5] % 2).astype(np.int64))
    # a state that carries the label, as a trained backbone would
    states = image_states(model, codes)
    states[:, 5, 0] += 4.0 * (labels.half() * 2 - 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "classifiers.parity" not in name}
    options = HeadTraining(epochs=30, batch_size=8, learning_rate=2e-2, dropout=0.0)
    history = train_head(model, "parity", states, codes, labels, SINGLE, options)
    assert history[-1] < 0.5 * history[0]
    assert (head_scores(model, "parity", states, codes).argmax(1) == labels).float().mean() > 0.9
    assert model.config.heads["parity"]["trained"]
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_convolutions_learn_what_only_the_code_of_a_cell_says(model, codes):
    labels = torch.from_numpy((codes[:, 5] % 2).astype(np.int64))
    states = torch.zeros(48, model.config.num_image_tokens, model.config.hidden_size)
    options = HeadTraining(epochs=60, batch_size=8, learning_rate=5e-3, dropout=0.0, weight_decay=0.0)
    train_head(model, "parity", states, codes, labels, {**SINGLE, "reader": "convolution"}, options)
    assert (head_scores(model, "parity", states, codes).argmax(1) == labels).float().mean() > 0.9
    assert model.config.heads["parity"]["reader"] == "convolution"


def test_several_labels_at_once_start_from_their_share(model, codes):
    labels = torch.zeros(48, 3)
    labels[:12, 1] = 1
    labels[:, 2] = 1
    states = image_states(model, codes)
    entry = {"labels": ["a", "b", "c"], "problem_type": "multi_label_classification"}
    train_head(model, "three", states, codes, labels, entry, HeadTraining(epochs=1))
    scores = head_scores(model, "three", states, codes)
    assert scores[:, 0].mean() < 0.1 < scores[:, 1].mean() < 0.5 < 0.9 < scores[:, 2].mean()


@pytest.mark.parametrize("reader", ["attention", "convolution"])
def test_the_same_seed_trains_the_same_head_and_leaves_torchs_generator(model, codes, reader):
    states, labels = image_states(model, codes), torch.from_numpy((codes[:, 0] % 2).astype(np.int64))
    weights = []
    for _ in range(2):
        torch.manual_seed(len(weights))  # what a user's program did before
        expected = torch.get_rng_state()
        train_head(model, "x", states, codes, labels, {**SINGLE, "reader": reader}, HeadTraining(epochs=2))
        assert torch.equal(torch.get_rng_state(), expected)
        weights.append(model.classifiers["x"].output.weight.clone())
    assert torch.equal(*weights)


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
