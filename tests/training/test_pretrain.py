"""The pre-training loop on tiny models: what a user of `gptface pretrain` relies on."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import nn
from transformers import TrainingArguments

from gptface import GPTFaceForPreTraining, GPTFaceImageTokenizer, GPTFaceProcessor
from gptface.metrics.ranking import area_under_curve
from gptface.modeling_gptface.modeling_gptface import GPTFaceLayer
from gptface.training import pretraining as pretrain_module
from gptface.training.muon import MuonWithAdamW, orthogonalize, parameter_groups
from gptface.training.pretraining import (
    PreTrainingConfig,
    load_rows,
    place_stream,
    pretrain,
    training_arguments,
)
from gptface.training.pretraining_trainer import EVALUATED, PreTrainer


def test_a_run_reports_every_term_and_leaves_a_model_that_loads(finished_run):
    history = json.loads((finished_run / "checkpoint-6/trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in history if "text_loss" in entry]
    assert len(steps) == 6
    assert all(
        np.isfinite([entry[name] for name in ("text_loss", "image_loss", "match_loss")]).all() for entry in steps
    )
    evaluation = [entry for entry in history if "eval_match_auc" in entry]
    assert len(evaluation) == 2 and 0 <= evaluation[0]["eval_match_auc"] <= 1
    # the first predictions are about as good as chance over 1,200 codes
    assert abs(evaluation[0]["eval_image_loss"] - np.log(1200)) < 0.5
    for folder in ("final", "checkpoint-3"):
        model = GPTFaceForPreTraining.from_pretrained(finished_run / folder)
        assert model.config.match_trained
        processor = GPTFaceProcessor.from_pretrained(finished_run / folder)
        assert model.config.vocab_size == len(processor.tokenizer)
        assert processor.image_processor.size["height"] == 64
    trained = GPTFaceImageTokenizer.from_pretrained(finished_run.parent / "image_tokenizer").fingerprint()
    assert model.image_tokenizer.fingerprint() == trained


def test_terms_arrive_in_tensorboard(finished_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(finished_run.rglob("events.out.tfevents.*")).parent)).Reload()
    for name in ("train/text_loss", "train/image_loss", "train/match_loss", "eval/image_loss", "eval/match_auc"):
        assert events.Scalars(name), name


def same_weights(first, second, **tolerance):
    first, second = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], **tolerance), name


# MKL rounds by how memory happens to be aligned: equal bit for bit with MKL_CBWR=COMPATIBLE only.
# Biases of keys have no gradient but these roundings, which AdamW brings to the size of a step's ten-thousandth.
EXACT = {"rtol": 0, "atol": 1e-6}


def test_resume_ends_in_the_same_parameters(finished_run, recipe, tmp_path):
    shutil.copytree(finished_run / "checkpoint-3", tmp_path / "run/checkpoint-3")
    same_weights(finished_run / "final", pretrain(PreTrainingConfig.from_yaml(recipe)), **EXACT)


def test_a_stream_resumes_in_the_same_parameters(write_recipe, tmp_path):
    """With dropout, whose generators must go on too, and on into a second epoch."""
    model = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_dropout_prob": 0.1}
    arguments = {"max_steps": 7, "save_steps": 3, "eval_steps": 7}
    recipe = write_recipe(tmp_path, streaming=True, model=model, arguments=arguments)
    whole = pretrain(PreTrainingConfig.from_yaml(recipe))
    history = json.loads((tmp_path / "run/checkpoint-7/trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "eval_match_auc" in entry] == [7]
    second = tmp_path / "second"
    shutil.copytree(tmp_path / "run/checkpoint-3", second / "checkpoint-3")
    resumed = pretrain(PreTrainingConfig.from_yaml(recipe, output_dir=str(second)))
    same_weights(whole, resumed, **EXACT)


def test_steps_of_a_stream_follow_from_the_epochs(write_recipe, tmp_path):
    arguments = {"max_steps": -1, "num_train_epochs": 0.3, "eval_strategy": "no", "save_strategy": "no"}
    recipe = write_recipe(tmp_path, streaming=True, evaluation=[], arguments=arguments)
    config = PreTrainingConfig.from_yaml(recipe)
    arguments = training_arguments(config)
    place_stream(
        load_rows(config, GPTFaceImageTokenizer.from_pretrained(tmp_path / "image_tokenizer"), arguments),
        arguments,
        None,
    )
    assert arguments.max_steps == 2  # 12 of 40 faces, 8 a step


def test_a_killed_save_is_not_resumed_from(finished_run, recipe, tmp_path):
    """The process dies while it writes the second checkpoint."""

    def train_and_die():
        def die(self, output_dir):
            if self.state.global_step == 6:
                os.kill(os.getpid(), signal.SIGKILL)

        PreTrainer._save_optimizer_and_scheduler = die_after(PreTrainer._save_optimizer_and_scheduler, die)
        pretrain(PreTrainingConfig.from_yaml(recipe))

    process = multiprocessing.get_context("fork").Process(target=train_and_die)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint-3", "unfinished"]
    assert (tmp_path / "run/unfinished/checkpoint-6/model.safetensors").exists()
    same_weights(finished_run / "final", pretrain(PreTrainingConfig.from_yaml(recipe)), **EXACT)
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint-3", "checkpoint-6", "final"]


def die_after(method, die):
    def wrapped(self, output_dir):
        method(self, output_dir)
        die(self, output_dir)

    return wrapped


def test_terms_are_averaged_over_accumulation_steps(finished_run, write_recipe, tmp_path):
    """Two halves of a batch count different numbers of words: the mean of their means is another loss."""
    arguments = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "eval_strategy": "no"}
    halves = pretrain(PreTrainingConfig.from_yaml(write_recipe(tmp_path, arguments=arguments)))
    same_weights(finished_run / "final", halves, rtol=0, atol=2e-5)
    logs = [
        json.loads((run / "checkpoint-6/trainer_state.json").read_text())["log_history"]
        for run in (finished_run, halves.parent)
    ]
    first, second = ([{k: e[k] for k in (*EVALUATED, "loss")} for e in log if "text_loss" in e] for log in logs)
    assert len(first) == 6
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, abs=2e-3)


def test_training_goes_on_from_a_model(finished_run, recipe, tmp_path):
    config = PreTrainingConfig.from_yaml(recipe, start_from=str(finished_run / "final"))
    config.arguments |= {"max_steps": 1, "eval_strategy": "no"}
    after = load_file(pretrain(config) / "model.safetensors")
    before = load_file(finished_run / "final/model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any("image_tokenizer" in name for name in moved)


def test_a_loss_that_is_not_finite_stops_and_names_the_step(recipe, monkeypatch):
    original = GPTFaceForPreTraining.forward

    def broken(self, *args, **kwargs):
        outputs = original(self, *args, **kwargs)
        outputs.image_loss = outputs.loss = outputs.image_loss * float("nan")
        return outputs

    monkeypatch.setattr(GPTFaceForPreTraining, "forward", broken)
    with pytest.raises(FloatingPointError, match=r"not finite in step 1 \(image_loss\)"):
        pretrain(PreTrainingConfig.from_yaml(recipe))


def test_a_recipe_with_an_unknown_field_is_refused(recipe):
    with pytest.raises(ValueError, match="learning_rat"):
        PreTrainingConfig.from_yaml(recipe, learning_rat=1.0)


def test_a_recipe_with_an_unknown_field_of_the_model_is_refused(recipe):
    """A weight of the loss, which models had once, would do nothing there."""
    with pytest.raises(ValueError, match=r"\['image_loss_weight'\]"):
        PreTrainingConfig.from_yaml(recipe, model={"image_loss_weight": 3.0})


def test_every_recipe_of_the_package_is_one():
    for path in (Path(pretrain_module.__file__).parent / "recipes").glob("embedded*.yaml"):
        assert PreTrainingConfig.from_yaml(path).output_dir


def test_a_recipe_without_a_tokenizer_says_what_is_missing(recipe):
    with pytest.raises(ValueError, match="image_tokenizer"):
        pretrain(PreTrainingConfig.from_yaml(recipe, image_tokenizer=None))


def test_muon_refuses_sharded_matrices(finished_run, monkeypatch):
    def pretend(self):
        create(self)
        self.is_fsdp_enabled = True

    create = PreTrainer.create_accelerator_and_postprocess
    monkeypatch.setattr(PreTrainer, "create_accelerator_and_postprocess", pretend)
    model = GPTFaceForPreTraining.from_pretrained(finished_run / "final")
    with pytest.raises(ValueError, match="optimizer: adamw_torch"):
        PreTrainer(model, TrainingArguments("none", use_cpu=True))


@pytest.mark.parametrize("name", ["accelerate_ddp", "accelerate_fsdp"])
def test_accelerate_reads_the_configurations(name):
    from accelerate.commands.config.config_args import load_config_from_file

    path = Path(pretrain_module.__file__).parent / "recipes" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16" and config.num_processes == 8
    if name == "accelerate_fsdp":
        assert config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] == GPTFaceLayer.__name__


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8), (1, 6, 6)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.5 and values.max() < 1.35
    # the singular vectors stay: the product with the original is symmetric positive
    product = orthogonalize(matrices) @ matrices.mT
    assert (product - product.mT).abs().max() < 0.35 * product.abs().max()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_muon_groups_step_as_torch_does(monkeypatch, bfloat16):
    """Whether or not the machine has bfloat16, up to its rounding."""
    monkeypatch.setattr("gptface.training.muon._cpu_multiplies_bfloat16", lambda: bfloat16)
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((16, 8), (8, 16))]
    ours, theirs = ([nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    mine = MuonWithAdamW([{"params": ours, "muon": True}], lr=1e-2, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for own, other in zip(ours, theirs, strict=True):
            own.grad = torch.randn(own.shape, generator=generator)
            other.grad = own.grad.clone()
        mine.step()
        reference.step()
    for own, other, first in zip(ours, theirs, start, strict=True):
        assert (own - other).norm() < 0.02 * (own - first).norm()


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


def test_every_trained_parameter_is_in_one_group_and_only_matrices_decay(finished_run):
    model = GPTFaceForPreTraining.from_pretrained(finished_run / "final")
    groups = parameter_groups(model, 0.1)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert all(parameter.ndim == 2 for parameter in groups[0]["params"])
    assert groups[2]["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = {names[id(parameter)] for parameter in groups[2]["params"]}
    assert {"gptface.embeddings.word_embeddings.weight", "gptface.norm.weight", "match_head.output.bias"} <= free
    assert not any(name.endswith("dense.weight") for name in free)
    # the other optimizers of the Trainer decay the same
    trainer = PreTrainer(model, TrainingArguments("none", use_cpu=True), use_muon=False)
    decayed = {names[id(parameter)] for group in groups[:2] for parameter in group["params"]}
    assert {n for n in trainer.get_decay_parameter_names(model) if model.get_parameter(n).requires_grad} == decayed


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


def test_rare_faces_can_count_more_often(code_table):
    glasses = [labels.get("Eyeglasses") == 1 for labels in code_table.labels]
    repeated = code_table.repeat({"Eyeglasses": 3, "Smiling": 2})
    counts = [3 if row.get("Eyeglasses") == 1 else 2 if row.get("Smiling") == 1 else 1 for row in code_table.labels]
    assert len(repeated) == sum(counts) and 0 < sum(glasses) < len(glasses)
    assert sum(labels.get("Eyeglasses") == 1 for labels in repeated.labels) == 3 * sum(glasses)
    assert code_table.repeat({}) is code_table
    with pytest.raises(ValueError, match="no face of the training rows has 'Eyeglases'"):
        code_table.repeat({"Eyeglases": 2})


def test_a_stream_refuses_to_repeat_rows(tmp_path, write_recipe):
    config = PreTrainingConfig.from_yaml(write_recipe(tmp_path, repeat={"Smiling": 2}, streaming=True))
    with pytest.raises(ValueError, match="streaming"):
        pretrain(config)
