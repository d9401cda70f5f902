"""Weak labels are used where they are sure: a wrong word in thousands of captions is learned like a true one."""

import numpy as np
import pytest
import torch

from gptface import GPTFaceConfig, GPTFaceForFaceAttributeClassification, GPTFaceImageTokenizerConfig
from gptface.data.confident_labels import (
    ConfidentLabeller,
    confident_labels,
    seen_labels,
    trusted_values,
)
from gptface.data.lenses import glasses_labels
from gptface.data.phrases import PHRASES

TRUSTED = {"Smiling": frozenset({0, 1}), "Bald": frozenset({0})}


def test_only_what_is_sure_and_trusted_becomes_a_label():
    probabilities = np.array([[0.99, 0.99, 0.99], [0.5, 0.01, 0.01], [0.05, np.nan, 0.5]])
    labels = confident_labels(probabilities, ["Smiling", "Bald", "Unknown"], TRUSTED)
    assert labels == [{"Smiling": 1}, {"Bald": 0}, {"Smiling": 0}]


def test_probabilities_of_other_labels_are_refused():
    with pytest.raises(ValueError, match=r"\[faces, 1\]"):
        confident_labels(np.zeros((2, 3)), ["Smiling"], TRUSTED)


def test_the_measured_table_names_attributes_and_trusts_some():
    trusted = trusted_values()
    assert trusted.keys() == PHRASES.keys()
    assert trusted["Smiling"] == {0, 1} and 1 not in trusted["Goatee"], "never sure of a goatee"


def test_hair_beyond_the_edge_of_a_tight_picture_is_not_spoken_of():
    covered = np.zeros((16, 16), bool)
    covered[4:15, 3:13] = True
    labels = {"Smiling": 1, "Bald": 0, "Wearing_Hat": 0, "Male": 1}
    assert seen_labels(labels, covered) == {"Smiling": 1}, "nor is the gender, which the head tells by the hair"
    covered[4:] = True
    assert seen_labels(labels, covered) == {"Smiling": 1, "Male": 1}
    assert seen_labels(labels, np.ones((16, 16), bool)) == labels


def test_glasses_are_sunglasses_where_the_lenses_are_dark():
    labels = [glasses_labels({"Eyeglasses": 1}, brightness) for brightness in (0.2, 0.6, 1.0)]
    assert labels == [{"sunglasses": 1}, {}, {"Eyeglasses": 1, "sunglasses": 0}]


@pytest.fixture
def model():
    torch.manual_seed(0)
    image = GPTFaceImageTokenizerConfig(image_size=32, hidden_channels=8, latent_channels=4, fsq_levels=[4, 3])
    heads = {"attributes": {"labels": ["Smiling", "Goatee"], "problem_type": "multi_label_classification"}}
    config = GPTFaceConfig(
        vocab_size=200,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        image_tokenizer_config=image,
        heads=heads,
    )
    return GPTFaceForFaceAttributeClassification(config).eval()


def test_a_head_that_was_never_trained_labels_nothing(model):
    with pytest.raises(ValueError, match="no trained head"):
        ConfidentLabeller(model)


def test_the_head_labels_codes(model):
    model.config.heads["attributes"]["trained"] = True
    with torch.no_grad():
        model.classifiers["attributes"].output.bias.copy_(torch.tensor([50.0, 50.0]))
    labeller = ConfidentLabeller(model)
    side = model.config.image_tokenizer_config.grid_size
    codes = np.zeros((2, side**2), np.uint16)
    assert labeller.names == [name for name in ("Smiling", "Goatee") if trusted_values()[name]]
    assert labeller(codes, [np.ones((side, side), bool)] * 2) == [{"Smiling": 1}] * 2
    assert labeller(codes[:0], []) == []
