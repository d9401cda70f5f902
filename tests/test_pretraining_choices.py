"""The arms of the pre-training table: one that changes nothing, or something else than its name says, would fill an hour with a wrong row."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from gptface import DEFAULT_CHECKPOINT, GPTFaceConfig
from gptface.training.batch_masking import MaskLaw
from gptface.training.pretrain import PreTrainingConfig


@pytest.fixture
def choices(checkout_on_path):
    return importlib.import_module("benchmarks.pretraining_choices")


def test_every_arm_is_a_recipe_of_its_own(choices, tmp_path):
    for kind, arms in choices.ARMS.items():
        recipes = [choices.settings(kind, changes, Path("codes"), tmp_path) for changes in arms.values()]
        assert len({json.dumps(recipe, sort_keys=True) for recipe in recipes}) == len(arms)
        for recipe in recipes:
            config = PreTrainingConfig(**recipe)
            GPTFaceConfig(**config.model)
            assert [MaskLaw(**law) for law in config.image_laws]
            assert config.train and all(name.startswith("codes/") for name in config.train)


def test_an_arm_changes_what_it_names_alone(choices, tmp_path):
    def changed(kind, name):
        plain, arm = (choices.settings(kind, choices.ARMS[kind][n], Path("codes"), tmp_path) for n in ("", name))
        return {field for field in plain if plain[field] != arm[field]}, arm

    fields, arm = changed("continued", "half-size faces left out")
    assert fields == {"train"} and not any("celeba89" in name for name in arm["train"])
    fields, arm = changed("continued", "no repeats of rare attributes")
    assert fields == {"repeat"} and arm["repeat"] == {}
    fields, arm = changed("start", "256 × 4")
    assert fields == {"model"} and arm["model"]["hidden_size"] == 256 and arm["model"]["num_hidden_layers"] == 4


def test_random_weights_begin_with_the_shape_of_the_embedded_checkpoint(choices):
    embedded = GPTFaceConfig.from_pretrained(DEFAULT_CHECKPOINT)
    for name, value in choices.embedded_model().items():
        # it has grown deeper since
        assert getattr(embedded, name) == value or (name == "num_hidden_layers" and embedded.num_hidden_layers > value)


def test_what_was_measured_is_not_measured_again(choices, monkeypatch, tmp_path):
    trained = []

    def train(settings, minutes, start):
        trained.append((settings["output_dir"], start))
        return {"steps": 1, "seconds": 60 * minutes}

    monkeypatch.setattr(choices, "train", train)
    monkeypatch.setattr(choices, "figures", lambda folder, codes: {"auc": 0.5})
    monkeypatch.setattr(choices, "edits", lambda folder, data, names, count: {"smiling": {"faces": count}})
    results = tmp_path / "choices.json"
    results.write_text(json.dumps({"start: as it is": {"auc": 0.9}}))
    command = ["choices", "--codes", "codes", "--data", "data", "--work", str(tmp_path), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", [*command, "--arms", "", "no contrasts", "batch 8"])
    choices.main()
    report = json.loads(results.read_text())
    assert report["start: as it is"] == {"auc": 0.9} and report["start: batch 8"] == {
        "steps": 1,
        "seconds": 360,
        "auc": 0.5,
    }
    assert report["continued: no contrasts"]["edits"] == {"smiling": {"faces": 24}}
    # random weights, or the embedded checkpoint
    assert [start is None for _, start in trained] == [True, False, False]
    assert len({folder for folder, _ in trained}) == 3
