"""The mean of checkpoints of one training."""

import pytest
import torch

from gptface import GPTFaceForPreTraining
from gptface.training.weight_average import mean_of_models


def test_every_weight_is_the_mean_and_tied_ones_stay_tied(tiny_model, tiny_config):
    first, second = tiny_model(), GPTFaceForPreTraining(tiny_config())
    expected = {name: (first.state_dict()[name] + tensor) / 2 for name, tensor in second.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    mean = mean_of_models([first, second])
    assert any(not torch.equal(expected[name], tensor) for name, tensor in before.items())
    for name, tensor in mean.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert mean.lm_head.text_decoder.weight is mean.gptface.embeddings.word_embeddings.weight
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.state_dict().items())


def test_models_of_two_configurations_have_none(tiny_model):
    with pytest.raises(ValueError, match="one configuration"):
        mean_of_models([tiny_model(), tiny_model(num_hidden_layers=1)])
