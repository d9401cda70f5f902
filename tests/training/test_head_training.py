"""Fresh heads, and their fit."""

import pytest
import torch

from gptface.training.head_training import HeadTraining, fit_classifier, fresh_classifier, torch_seed

HEADS = {
    "parity": {"labels": ["even", "odd"], "problem_type": "single_label_classification"},
    "grid": {"labels": ["even", "odd"], "problem_type": "single_label_classification", "reader": "convolution"},
    "three": {"labels": ["a", "b", "c"], "problem_type": "multi_label_classification"},
}
ROWS = 48


@pytest.fixture
def config(tiny_config):
    return tiny_config(heads=HEADS)


@pytest.fixture
def states(config):
    return torch.randn(ROWS, config.num_image_tokens, config.hidden_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["parity", "grid"])
def test_a_head_learns_what_one_cell_says_the_same_for_a_seed_and_leaves_torchs_generator(config, states, name):
    labels = (states[:, 5, 0] > 0).long()
    states[:, 5, 0] *= 5
    options = HeadTraining(epochs=40, batch_size=8, learning_rate=2e-2, weight_decay=0.0)
    weights = []
    for run in range(2):
        torch.manual_seed(run)  # what a user's program did before
        expected, generator = torch.get_rng_state(), torch.Generator().manual_seed(3)
        head = fresh_classifier(config, name, labels, generator)
        with torch_seed(generator):
            history = fit_classifier(
                lambda batch, head=head: head(batch, batch), head.parameters(), states, labels, generator, options
            )
        assert torch.equal(torch.get_rng_state(), expected)
        weights.append(head.output.weight.detach().clone())
    assert torch.equal(*weights) and len(history) == 40 and history[-1] < 0.5 * history[0]
    with torch.no_grad():
        assert (head.eval()(states, states).argmax(1) == labels).float().mean() > 0.9


def test_several_labels_at_once_start_from_their_share(config, states):
    labels = torch.zeros(ROWS, 3)
    labels[:12, 1] = 1
    labels[:, 2] = 1
    head = fresh_classifier(config, "three", labels, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        scores = head(states).sigmoid()
    assert scores[:, 0].mean() < 0.1 < scores[:, 1].mean() < 0.5 < 0.9 < scores[:, 2].mean()
