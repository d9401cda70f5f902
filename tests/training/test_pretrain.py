"""The pre-training loop on tiny models: what a user of `gptface pretrain` relies on."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import nn

from gptface import GPTFaceForPreTraining, GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig, GPTFaceTokenizer
from gptface.training.encode import FINGERPRINT_KEY
from gptface.training.muon import MuonWithAdamW, orthogonalize, parameter_groups
from gptface.training.pretrain import PreTrainingConfig, area_under_curve, pretrain


@pytest.fixture
def recipe(tmp_path, code_table):
    """A recipe file of a tiny model with its tokenizer and codes."""
    torch.manual_seed(0)
    config = GPTFaceImageTokenizerConfig(image_size=64, hidden_channels=4, latent_channels=4)
    tokenizer = GPTFaceImageTokenizer(config)
    tokenizer.save_pretrained(tmp_path / "image_tokenizer")
    (tmp_path / "codes").mkdir()
    columns = {name: [row[name] for row in code_table.labels[:40]] for name in code_table.labels[0]}
    for side, name in enumerate(("codes", "codes_flipped")):
        flat = pa.array(code_table.codes[:40, side].reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, 64)
    table = pa.table(columns).replace_schema_metadata({FINGERPRINT_KEY: tokenizer.fingerprint().encode()})
    pq.write_table(table, tmp_path / "codes" / "part-00000.parquet")
    values = {
        "output_dir": str(tmp_path / "run"),
        "train": [str(tmp_path / "codes")],
        "evaluation": [str(tmp_path / "codes")],
        "image_tokenizer": str(tmp_path / "image_tokenizer"),
        "vocab_size": 300,
        "model": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 20,
            "max_text_length": 24,
            "code_embedding": "levels",
            "grid_convolution": True,
        },
        "arguments": {
            "per_device_train_batch_size": 8,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_steps": 3,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "use_cpu": True,
            "disable_tqdm": True,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_run_reports_every_term_and_leaves_a_model_that_loads(recipe, tmp_path):
    target = pretrain(PreTrainingConfig.from_yaml(recipe))
    history = json.loads((tmp_path / "run/checkpoint-6/trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in history if "text_loss" in entry]
    assert len(steps) == 6
    assert all(
        np.isfinite([entry[name] for name in ("text_loss", "image_loss", "match_loss")]).all() for entry in steps
    )
    evaluation = [entry for entry in history if "eval_match_auc" in entry]
    assert len(evaluation) == 2 and 0 <= evaluation[0]["eval_match_auc"] <= 1
    # the first predictions are about as good as chance over 1,200 codes
    assert abs(evaluation[0]["eval_image_loss"] - np.log(1200)) < 0.5
    model = GPTFaceForPreTraining.from_pretrained(target)
    assert model.config.match_trained
    assert model.config.vocab_size == len(GPTFaceTokenizer.from_pretrained(target))
    trained = GPTFaceImageTokenizer.from_pretrained(tmp_path / "image_tokenizer").fingerprint()
    assert model.image_tokenizer.fingerprint() == trained


def test_resume_ends_in_the_same_parameters(recipe, tmp_path):
    whole = load_file(pretrain(PreTrainingConfig.from_yaml(recipe)) / "model.safetensors")
    shutil.rmtree(tmp_path / "run/checkpoint-6")
    shutil.rmtree(tmp_path / "run/final")
    resumed = load_file(pretrain(PreTrainingConfig.from_yaml(recipe)) / "model.safetensors")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_training_goes_on_from_a_model(recipe, tmp_path):
    first = pretrain(PreTrainingConfig.from_yaml(recipe))
    config = PreTrainingConfig.from_yaml(recipe, start_from=str(first), output_dir=str(tmp_path / "second"))
    config.arguments["max_steps"] = 1
    second = load_file(pretrain(config) / "model.safetensors")
    before = load_file(first / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], second[name])}
    assert moved and not any("image_tokenizer" in name for name in moved)


def test_a_loss_that_is_not_finite_stops_and_names_the_step(recipe, monkeypatch):
    original = GPTFaceForPreTraining.forward

    def broken(self, *args, **kwargs):
        outputs = original(self, *args, **kwargs)
        outputs.loss = outputs.loss * float("nan")
        return outputs

    monkeypatch.setattr(GPTFaceForPreTraining, "forward", broken)
    with pytest.raises(FloatingPointError, match="not finite in step 1"):
        pretrain(PreTrainingConfig.from_yaml(recipe))


def test_a_recipe_with_an_unknown_field_is_refused(recipe):
    with pytest.raises(ValueError, match="learning_rat"):
        PreTrainingConfig.from_yaml(recipe, learning_rat=1.0)


def test_a_recipe_without_a_tokenizer_says_what_is_missing(recipe):
    with pytest.raises(ValueError, match="image_tokenizer"):
        pretrain(PreTrainingConfig.from_yaml(recipe, image_tokenizer=None))


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8), (1, 6, 6)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.5 and values.max() < 1.35
    # the singular vectors stay: the product with the original is symmetric positive
    product = orthogonalize(matrices) @ matrices.mT
    assert (product - product.mT).abs().max() < 0.35 * product.abs().max()


def test_adamw_groups_step_as_torch_does():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    mine = MuonWithAdamW([{"params": ours.parameters(), "muon": False}], lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98))
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98))
    for step in range(5):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_every_trained_parameter_is_in_one_group(recipe):
    target = pretrain(PreTrainingConfig.from_yaml(recipe))
    model = GPTFaceForPreTraining.from_pretrained(target)
    groups = parameter_groups(model, 0.1)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert all(parameter.ndim == 2 for parameter in groups[0]["params"])
    assert groups[2]["weight_decay"] == 0


def test_area_under_curve_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    scores, labels = generator.integers(0, 9, 200) / 3, generator.integers(0, 2, 200)
    assert area_under_curve(scores[labels == 1], scores[labels == 0]) == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(area_under_curve(scores, scores[:0]))


def test_other_optimizers_of_the_trainer_still_work(recipe):
    config = PreTrainingConfig.from_yaml(recipe, optimizer="adamw_torch", evaluation=[])
    config.arguments |= {"max_steps": 1, "eval_strategy": "no"}
    assert pretrain(config).is_dir()


def test_attribute_labels_train_a_head_along(recipe, tmp_path):
    config = PreTrainingConfig.from_yaml(recipe, auxiliary_head="attributes")
    model = GPTFaceForPreTraining.from_pretrained(pretrain(config))
    head = model.config.heads["attributes"]
    assert head["trained"] and "Smiling" in head["labels"]
    history = json.loads((tmp_path / "run/checkpoint-6/trainer_state.json").read_text())["log_history"]
    assert all(entry["label_loss"] > 0 for entry in history if "text_loss" in entry)
    # an unknown label counts neither way: these rows know six of the labels
    assert torch.isfinite(model.classifiers["attributes"].output.weight).all()
    continued = PreTrainingConfig.from_yaml(
        recipe, start_from=str(tmp_path / "run/final"), auxiliary_head="attributes"
    )
    continued.output_dir = str(tmp_path / "second")
    assert GPTFaceForPreTraining.from_pretrained(pretrain(continued)).config.auxiliary_head == "attributes"
