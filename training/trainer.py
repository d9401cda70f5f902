"""The Trainer of pre-training: exact averages of every loss term, streams, checkpoints that appear whole."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTrainingOutput

from .code_stream import CodeStream
from .muon import MuonWithAdamW, is_decayed, parameter_groups
from .scores import area_under_curve

TRAINER_STATE = "trainer_state.json"
UNFINISHED = "unfinished"

# Each term of the loss and the labels that it counts.
COUNTED = {
    "text_loss": "text_labels",
    "image_loss": "image_labels",
    "match_loss": "match_labels",
    "label_loss": "labels",
    "contrast_loss": "contrast_labels",
}
TERMS = tuple(COUNTED)
EVALUATED = TERMS[:3]


def term_counts(inputs: Mapping[str, torch.Tensor], terms: tuple[str, ...] = TERMS) -> torch.Tensor:
    """How many labels of a batch each term counts, float64 [terms]; negative labels are ignored or unknown."""
    labels = (inputs.get(COUNTED[term]) for term in terms)
    return torch.stack([torch.zeros(()) if label is None else (label >= 0).sum().cpu() for label in labels]).double()


class PreTrainer(Trainer):
    """
    Trainer whose loss is Σ weight · (sum of a term / its count), sums and counts over all ranks and accumulation steps.

    It reports every term, stops at a loss that is not finite, reads a [`CodeStream`] as it is, and can use Muon.

    Args:
        use_muon: instead of the optimizer that `args.optim` names.
        resumed_from: checkpoint that `train` will be told to resume from.

    Raises:
        ValueError: Muon with FSDP, or several GPUs in one process.
    """

    def __init__(self, *args, use_muon: bool = True, resumed_from: str | None = None, **kwargs):
        self.use_muon, self.resumed_from = use_muon, resumed_from
        # Σ term · count and Σ count since the last log
        self._totals = torch.zeros(2, len(TERMS), dtype=torch.float64)
        super().__init__(*args, **kwargs)
        self.loss_is_scaled_for_ga = True
        if self.args.n_gpu > 1:
            raise ValueError(
                "one process sees several GPUs: start one each with `torchrun --nproc-per-node gpu -m gptface pretrain …`, "
                "or show one by CUDA_VISIBLE_DEVICES=0"
            )
        if use_muon and self.is_fsdp_enabled:
            raise ValueError("Muon needs whole matrices, FSDP cuts them: set `optimizer: adamw_torch` in the recipe")

    def get_train_dataloader(self) -> DataLoader:
        if not isinstance(self.train_dataset, CodeStream):
            return super().get_train_dataloader()
        # Not prepared by accelerate: the stream takes this rank's samples by itself.
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if self.resumed_from and isinstance(self.train_dataset, CodeStream):
            # The stream begins at its position, so the Trainer has nothing to skip and leaves the generators alone.
            self._load_rng_state(self.resumed_from)
            self.resumed_from = None
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.stack([term_counts(batch) for batch in batches]).sum(0) if batches else None
        if counts is not None and self.args.world_size > 1:
            counts = self.accelerator.reduce(counts.float().to(device), "sum").double().cpu()
        return batches, counts

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """`num_items_in_batch`: [`term_counts`] of the whole step over all ranks."""
        outputs: GPTFaceForPreTrainingOutput = model(**inputs)
        local = term_counts(inputs)
        total = local if num_items_in_batch is None else num_items_in_batch
        # gradients are averaged over ranks, so that the sum over ranks needs their number as a factor
        shares = (local / total.clamp(min=1) * self.accelerator.num_processes).tolist()
        values = {name: getattr(outputs, name) for name in TERMS if getattr(outputs, name) is not None}
        config = self.accelerator.unwrap_model(model).config
        loss = sum(
            value * getattr(config, f"{name}_weight") * shares[TERMS.index(name)] for name, value in values.items()
        )
        if not self._all_finite(loss):
            terms = {name: float(value.detach()) for name, value in values.items()}
            raise FloatingPointError(
                f"the loss is not finite in step {self.state.global_step + 1} (rank {self.args.process_index}: {terms})"
            )
        detached = [float(values[name].detach()) if name in values else 0.0 for name in TERMS]
        self._totals += torch.stack([torch.tensor(detached, dtype=torch.float64) * local, local])
        return (loss, outputs) if return_outputs else loss

    def _all_finite(self, loss: torch.Tensor) -> bool:
        """Whether a loss is finite on every rank: they stop together, for one that goes on alone waits for the others."""
        broken = (~torch.isfinite(loss.detach())).float()
        return not (self.accelerator.reduce(broken, "sum") if self.args.world_size > 1 else broken)

    def log(self, logs, start_time=None):
        if "loss" in logs:
            totals = self._totals.float().to(self.args.device)
            sums, counts = (self.accelerator.reduce(totals, "sum") if self.args.world_size > 1 else totals).tolist()
            means = {name: sums[i] / counts[i] for i, name in enumerate(TERMS) if counts[i]}
            logs = {**logs, **{name: round(mean, 4) for name, mean in means.items()}}
            self._totals.zero_()
        super().log(logs, start_time)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Sums and counts instead of logits: those of all masked positions would not fit."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            outputs = model(**inputs)
        odds = outputs.match_logits[..., 1] - outputs.match_logits[..., 0]
        labels = inputs["match_labels"]
        batch, sides = len(odds), [odds[labels == side].float().cpu().numpy() for side in (1, 0)]
        # of the pairs within the batch: a batch of several captions has too many to keep
        known = float(min(map(len, sides)) > 0)
        auc = torch.tensor([area_under_curve(*sides) if known else 0.0, known], device=odds.device).expand(batch, -1)
        losses = torch.stack([getattr(outputs, name) for name in EVALUATED]).expand(batch, -1)
        counts = term_counts(inputs, EVALUATED).to(losses).expand(batch, -1) / batch
        rows = torch.cat([losses.float(), counts.float(), auc], 1)
        return outputs.loss.detach(), rows, labels[:, :1] if labels.ndim > 1 else labels

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if is_decayed(name, parameter)]

    def create_optimizer(self, model=None):
        if not self.use_muon:
            return super().create_optimizer(model)
        if self.optimizer is None:
            assert self.model is not None
            groups = parameter_groups(self.model, self.args.weight_decay)
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            self.optimizer = MuonWithAdamW(groups, lr=self.args.learning_rate, betas=betas)
        return self.optimizer

    def _save_checkpoint(self, model, trial):
        """Written beside the checkpoints and renamed when every rank is done: a killed save leaves nothing to resume from."""
        run = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(run / UNFINISHED, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._is_saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_saving = False
        self.accelerator.wait_for_everyone()
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}")
        if self.args.should_save:
            self.state.save_to_json(str(run / UNFINISHED / name / TRAINER_STATE))
            replace_folder(run / UNFINISHED / name, run / name)
            shutil.rmtree(run / UNFINISHED)
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()

    _is_saving = False

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._is_saving else folder

    def save_final(self, target: Path) -> None:
        """The model and its tokenizer as a folder that appears whole."""
        unfinished = target.with_name(f"{UNFINISHED}_{target.name}")
        self.save_model(str(unfinished))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            replace_folder(unfinished, target)
        self.accelerator.wait_for_everyone()


def replace_folder(source: Path, target: Path) -> None:
    """Renames a folder, in the place of one that is there."""
    if target.exists():
        shutil.rmtree(target)
    os.replace(source, target)


def pretraining_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Each term weighted by what it counts, and the AUC of matching, the mean over the batches."""
    rows = np.asarray(prediction.predictions)
    terms = len(EVALUATED)
    metrics = {}
    for index, name in enumerate(EVALUATED):
        counts = rows[:, terms + index]
        metrics[name] = float((rows[:, index] * counts).sum() / max(counts.sum(), 1))
    auc, known = rows[:, -2], rows[:, -1]
    metrics["match_auc"] = float((auc * known).sum() / known.sum()) if known.any() else float("nan")
    return metrics
