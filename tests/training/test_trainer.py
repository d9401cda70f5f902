"""The Trainer's own work, on a model of three numbers: what it hands to the model, what it reports, when it stops,
what it leaves on disk.
"""

import json
import logging
import shutil
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainingArguments
from transformers.modeling_outputs import ModelOutput

from gptface.processing.whole_files import publish
from gptface.training import pretraining_trainer as trainer_module
from gptface.training.checkpoints import last_whole_checkpoint, what_is_cut
from gptface.training.muon import MuonWithAdamW
from gptface.training.pretraining import PreTrainingConfig, pretrain
from gptface.training.pretraining_trainer import TERMS, PreTrainer


@dataclass
class Outputs(ModelOutput):
    loss: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    image_loss: torch.Tensor | None = None
    match_loss: torch.Tensor | None = None
    label_loss: torch.Tensor | None = None
    contrast_loss: torch.Tensor | None = None
    match_logits: torch.Tensor | None = None


class ThreeNumbers(nn.Module):
    """Each term is the mean of (a number − values)² over the values that are counted; the weighted sum is the loss."""

    def __init__(self):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.seen: list[torch.Tensor] = []

    def forward(self, values, match_labels, loss_weights):
        self.seen.append(loss_weights)
        # [batch, terms]: a negative value is not counted
        squares = torch.where(values >= 0, (self.numbers - values).square(), 0)
        terms = squares.sum(0) / (values >= 0).sum(0).clamp(min=1)
        loss = (loss_weights[:3] * terms).sum()
        logits = torch.stack([-values[:, 2], values[:, 2]], -1)
        return Outputs(loss, *terms, match_logits=logits)


def collate(samples):
    values = torch.tensor([sample["values"] for sample in samples])
    counts = torch.cat([(values >= 0).sum(0).float(), torch.zeros(2)])
    return {"values": values, "match_labels": torch.arange(len(values)) % 2, "label_counts": counts}


def collate_scales(samples):
    plan = [{"values": [10 * value for value in sample["values"]]} for sample in samples]
    return {"image": collate(samples), "plan": collate(plan)}


@pytest.fixture
def make_trainer(tmp_path):
    def make(collator=collate, loss_weights=None, average=None, **arguments):
        generator = np.random.default_rng(0)
        rows = [{"values": generator.choice([-1, 0.5, 1.5, 4], 3).tolist()} for _ in range(32)]
        options = {"per_device_train_batch_size": 4, "max_steps": 4, "logging_steps": 1, "save_strategy": "no"}
        options |= {"learning_rate": 0.01, "disable_tqdm": True, "report_to": "none", "logging_nan_inf_filter": False}
        return PreTrainer(
            ThreeNumbers(),
            TrainingArguments(
                str(tmp_path / "run"), use_cpu=True, remove_unused_columns=False, **{**options, **arguments}
            ),
            collator,
            train_dataset=rows,
            eval_dataset=rows[:12],
            loss_weights=loss_weights,
            weight_average=average,
        )

    return make


def logs_of(trainer):
    return [entry for entry in trainer.state.log_history if "image_loss" in entry]


def test_the_model_is_given_weights_in_the_order_of_the_terms(make_trainer):
    trainer = make_trainer(loss_weights={"image": 3, "match": 0.5})
    trainer.train()
    # of what no batch counts nothing is weighed
    assert all(weights.tolist() == [1, 3, 0.5, 0, 0] for weights in trainer.model.seen)
    first = logs_of(trainer)[0]
    expected = first["text_loss"] + 3 * first["image_loss"] + 0.5 * first["match_loss"]
    assert first["loss"] == pytest.approx(expected, abs=1e-3)
    assert "label_loss" not in first
    with pytest.raises(ValueError, match=r"\['images'\]; known: \['text', 'image', 'match', 'label', 'contrast'\]"):
        make_trainer(loss_weights={"images": 3})


def test_a_recipe_with_an_unknown_loss_weight_is_refused(recipe):
    with pytest.raises(ValueError, match="known"):
        PreTrainingConfig.from_yaml(recipe, loss_weights={"image_loss": 1})


def test_accumulated_batches_count_as_one(make_trainer):
    """The shares of a step's batches weigh them by what they count: other weights would train to other numbers."""
    whole = make_trainer()
    whole.train()
    parts = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    parts.train()
    assert torch.allclose(whole.model.numbers, parts.model.numbers, atol=1e-6)
    for one, other in zip(logs_of(whole), logs_of(parts), strict=True):
        assert other["image_loss"] == pytest.approx(one["image_loss"], abs=2e-4)
        assert other["loss"] == pytest.approx(one["loss"], abs=2e-4)


def test_a_batch_of_two_scales_sums_its_losses_and_names_the_terms(make_trainer):
    trainer = make_trainer(collate_scales, eval_strategy="steps", eval_steps=4)
    trainer.train()
    assert len(trainer.model.seen) == 2 * (4 + 2)  # 12 faces in batches of 8
    for entry in logs_of(trainer):
        terms = [entry[prefix + name] for prefix in ("", "plan_") for name in TERMS[:3]]
        assert entry["loss"] == pytest.approx(sum(terms), abs=1e-3)
        assert entry["plan_image_loss"] > entry["image_loss"]
    evaluation = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert evaluation["eval_plan_image_loss"] > evaluation["eval_image_loss"]
    assert {"eval_match_auc", "eval_plan_match_auc"} <= evaluation.keys()
    # one scale after another: as many forwards, the same gradient as that of the sum
    model, batch = ThreeNumbers(), collate_scales(trainer.train_dataset[:4])
    ones = torch.ones(5)
    losses = [model(part["values"], part["match_labels"], ones).loss for part in batch.values()]
    (expected,) = torch.autograd.grad(sum(losses), model.numbers)
    fresh = make_trainer(collate_scales)
    fresh.create_optimizer()
    (batch,), counts = fresh.get_batch_samples(iter([batch]), 1, fresh.args.device)
    fresh.training_step(fresh.model, batch, counts)
    assert torch.allclose(fresh.model.numbers.grad, expected)


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for an accelerator: numbers that are read, shapes that depend on values."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal")

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        if name in self.NAMES:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("collator", [collate, collate_scales])
def test_steps_that_are_not_logged_wait_for_nothing(make_trainer, collator):
    def reads(steps):
        trainer = make_trainer(collator, average=0.9, max_steps=steps, logging_steps=100)
        with Reads() as reads:
            trainer.train()
        return reads.counts

    assert reads(2) == reads(6)


def test_a_loss_that_breaks_is_noticed_when_it_is_logged_and_not_saved(make_trainer, tmp_path):
    def breaking(samples):
        batch = collate(samples)
        if len(trainer.model.seen) == 2:  # the next batch is collated ahead
            batch["values"][:, 1] = torch.inf
        return batch

    trainer = make_trainer(breaking, max_steps=12, logging_steps=6, save_strategy="steps", save_steps=2)
    with pytest.raises(FloatingPointError, match=r"not finite in step 4 \(image_loss\)"):
        trainer.train()
    assert len(trainer.model.seen) == 4
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-2"]


def test_the_average_of_the_weights_is_evaluated_and_kept(make_trainer, tmp_path):
    plain, averaged = make_trainer(), make_trainer(average=0.5)
    steps = []
    for trainer in (plain, averaged):
        trainer.create_optimizer()
        trainer.optimizer.register_step_post_hook(
            lambda *_, trainer=trainer: steps.append(trainer.model.numbers.detach().clone())
        )
        trainer.train()
    assert all(torch.equal(one, other) for one, other in zip(steps[:4], steps[4:], strict=True))
    expected = steps[0]
    for numbers in steps[1:4]:
        expected = 0.5 * expected + 0.5 * numbers
    averaged.save_final(tmp_path / "final")
    assert torch.allclose(load_file(tmp_path / "final/model.safetensors")["numbers"], expected)
    assert torch.equal(averaged.model.numbers, steps[3])
    assert averaged.evaluate()["eval_image_loss"] != plain.evaluate()["eval_image_loss"]
    with pytest.raises(ValueError, match="load_best_model_at_end"):
        make_trainer(
            average=0.5, load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps", save_steps=500
        )


def test_a_resumed_run_goes_on_with_its_average(write_recipe, tmp_path):
    recipe = write_recipe(tmp_path, weight_average=0.9)
    whole = load_file(pretrain(PreTrainingConfig.from_yaml(recipe)) / "model.safetensors")
    trained = load_file(tmp_path / "run/checkpoint-6/model.safetensors")
    second = tmp_path / "second"
    shutil.copytree(tmp_path / "run/checkpoint-3", second / "checkpoint-3")
    resumed = load_file(pretrain(PreTrainingConfig.from_yaml(recipe, output_dir=str(second))) / "model.safetensors")
    assert all(torch.allclose(tensor, resumed[name], rtol=0, atol=1e-6) for name, tensor in whole.items())
    assert any(not torch.allclose(tensor, trained[name], rtol=0, atol=1e-6) for name, tensor in whole.items())


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(make_trainer, tmp_path, monkeypatch, caplog):
    save = PreTrainer._save_optimizer_and_scheduler

    def full(self, output_dir):
        save(self, output_dir)
        if self.state.global_step == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainer, "_save_optimizer_and_scheduler", full)
    trainer = make_trainer(max_steps=6, save_strategy="steps", save_steps=2)
    with caplog.at_level(logging.WARNING, trainer_module.__name__):
        trainer.train()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-2", "checkpoint-6"]
    (line,) = [record.message for record in caplog.records if record.name == trainer_module.__name__]
    assert "step 4 could not be written" in line and "No space left on device" in line


def test_a_final_model_that_cannot_be_written_leaves_the_one_before(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer()
    trainer.save_final(tmp_path / "final")
    before = (tmp_path / "final/model.safetensors").read_bytes()

    def full(self, output_dir=None, state_dict=None):
        trainer_module.Path(output_dir).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainer, "_save", full)
    with pytest.raises(OSError, match="No space"):
        trainer.save_final(tmp_path / "final")
    assert (tmp_path / "final/model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("unfinished*"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
def test_a_cut_checkpoint_falls_back_on_the_one_before(finished_run, tmp_path, caplog, name):
    for step in (3, 6):
        shutil.copytree(finished_run / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    newest = tmp_path / "checkpoint-6"
    assert last_whole_checkpoint(tmp_path) == str(newest) and what_is_cut(newest) is None
    content = (newest / name).read_bytes()
    (newest / name).write_bytes(content[: len(content) * 2 // 3])
    with caplog.at_level(logging.WARNING):
        assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    assert len(caplog.records) == 1 and name in caplog.records[0].message
    shutil.rmtree(tmp_path / "checkpoint-3")
    assert last_whole_checkpoint(tmp_path) is None and last_whole_checkpoint(tmp_path / "nowhere") is None


def test_checkpoints_are_counted_not_spelled(tmp_path):
    for step in (90, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({}))
    (tmp_path / "checkpoint-old").mkdir()
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    publish(tmp_path / "checkpoint-90", tmp_path / "checkpoint-100")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-old"]


def test_a_loaded_optimizer_counts_on_where_its_weights_are():
    """
    AdamW's fused kernel wants its step beside the weights: loaded to the CPU, it would stop a resumed run on a GPU.
    """
    weight = nn.Parameter(torch.ones(3))
    optimizer = MuonWithAdamW([{"params": [weight], "muon": False}])
    weight.grad = torch.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    moved = nn.Parameter(torch.ones(3, device="meta"))
    other = MuonWithAdamW([{"params": [moved], "muon": False}])
    other.load_state_dict(state)
    assert other.state[moved]["step"].device.type == "meta"
