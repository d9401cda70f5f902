"""The Trainer of pre-training: exact averages of every loss term, streams, time budgets, checkpoints that appear
whole.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from gptface.data.code_stream import CodeStream
from gptface.data.epochs import EpochSetter
from gptface.metrics.ranking import area_under_curve
from gptface.modeling_gptface.heads_gptface import LOSS_TERMS, GPTFaceForPreTrainingOutput
from gptface.processing.whole_files import publish, sync

from .checkpoints import UNFINISHED
from .muon import MuonWithAdamW, is_decayed, parameter_groups
from .time_budget import TimeBudget
from .weight_average import WeightAverage

logger = logging.getLogger(__name__)

#: Terms of the loss, in the order of `label_counts` and `loss_weights`.
TERMS = LOSS_TERMS
EVALUATED = TERMS[:3]
#: The part of a batch of several scales whose terms are reported by their plain names.
MAIN_PART = "image"
COUNTS = "label_counts"
AVERAGE_FILE = "weight_average.safetensors"
BUDGET_STATE = "time_budget"


def batch_parts(inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of a batch by name: those of a nested one, or the one of a flat batch."""
    if all(isinstance(value, Mapping) for value in inputs.values()):
        return {name: dict(part) for name, part in inputs.items()}
    return {MAIN_PART: dict(inputs)}


def term_prefix(part: str) -> str:
    """What stands before the names of a part's terms where they are reported."""
    return "" if part == MAIN_PART else f"{part}_"


class PreTrainer(Trainer):
    """
    Trainer whose loss is Σ weight · (sum of a term / its count), sums and counts over all ranks and accumulation
    steps.

    It reports every term, stops at a loss that is not finite, reads a [`CodeStream`] as it is, and can use Muon. No
    step waits for the device: terms are summed and losses are checked there, and read when they are logged or
    something is saved.

    A batch holds the model's inputs and `label_counts`, float [5]: how many labels each of `TERMS` counts. It may be
    nested, `{"image": {…}, "plan": {…}}`: the same faces at several scales, whose losses are added.

    Args:
        loss_weights: of the terms by name without `_loss`, 1 where not given.
        use_muon: instead of the optimizer that `args.optim` names.
        resumed_from: checkpoint that `train` will be told to resume from.
        budget: ends training by the clock; learning rates follow it.
        weight_average: decay of the average of the weights that is evaluated and kept as the final model, none = the
            weights.

    Raises:
        ValueError: an unknown loss weight; Muon or a weight average with FSDP, an average with
            `load_best_model_at_end`, or several GPUs in one process.
    """

    def __init__(
        self,
        *args: Any,
        loss_weights: Mapping[str, float] | None = None,
        use_muon: bool = True,
        resumed_from: str | None = None,
        budget: TimeBudget | None = None,
        weight_average: float | None = None,
        **kwargs: Any,
    ):
        self.use_muon, self.resumed_from, self.budget = use_muon, resumed_from, budget
        weights = term_weights(loss_weights or {})
        # part → Σ term · count and Σ count since the last log
        self._totals: dict[str, torch.Tensor] = {}
        self._evaluated_parts: list[str] = []
        self._last_log: tuple[float, int] | None = None
        super().__init__(*args, **{"compute_metrics": self._metrics, **kwargs})
        # `compute_loss` divides by the counts of the whole step: nothing is left to divide by accumulation steps
        self.model_accepts_loss_kwargs = True
        self._weights = weights.to(self.args.device)
        self._first_broken = torch.full((), torch.inf, device=self.args.device)
        if self.args.n_gpu > 1:
            raise ValueError(
                "one process sees several GPUs: start one each with "
                "`torchrun --nproc-per-node gpu -m gptface pretrain …`, or show one by CUDA_VISIBLE_DEVICES=0"
            )
        if use_muon and self.is_fsdp_enabled:
            raise ValueError("Muon needs whole matrices, FSDP cuts them: set `optimizer: adamw_torch` in the recipe")
        self.add_callback(EpochSetter())
        if budget is not None:
            self.add_callback(budget)
        self.average: WeightAverage | None = None
        if weight_average is not None:
            if self.is_fsdp_enabled:
                raise ValueError("weight_average needs whole weights, FSDP cuts them")
            if self.args.load_best_model_at_end:
                raise ValueError("weight_average keeps the last average: load_best_model_at_end would be ignored")
            self.average = WeightAverage(weight_average, self._loaded_average())
            self.add_callback(self.average)

    def _loaded_average(self) -> dict[str, torch.Tensor] | None:
        file = Path(self.resumed_from, AVERAGE_FILE) if self.resumed_from else None
        return load_file(file, device=str(self.args.device)) if file is not None and file.exists() else None

    def averaged(self) -> AbstractContextManager[None]:
        """The model has the weights that are to be kept while this context lasts."""
        return nullcontext() if self.average is None else self.average.in_place(self._unwrapped())

    def _unwrapped(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

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

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        # every face is evaluated: what `dataloader_drop_last` is for is training
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Batches of a step, and part → counts of the terms over all of them and all ranks."""
        if self.resumed_from and isinstance(self.train_dataset, CodeStream):
            # The stream begins at its position, so the Trainer has nothing to skip and leaves the generators alone.
            self._load_rng_state(self.resumed_from)
        self.resumed_from = None
        batches = list(islice(epoch_iterator, num_batches))
        counts: dict[str, torch.Tensor] = {}
        for batch in batches:
            for name, part in batch_parts(batch).items():
                local = self._prepare_input(part[COUNTS])
                counts[name] = counts[name] + local if name in counts else local
        return batches, {name: self._summed(value) for name, value in counts.items()} or None

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        """Their sum over the ranks."""
        return self.accelerator.reduce(values, "sum") if self.args.world_size > 1 else values

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward part by part, so that the states of one scale alone are held."""
        *first, last = batch_parts(inputs).items()
        losses = []
        for name, part in first:
            with self.accelerator.no_sync(model):
                losses.append(super().training_step(model, {name: part}, num_items_in_batch))
        losses.append(super().training_step(model, dict([last]), num_items_in_batch))
        return sum(losses)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """`num_items_in_batch`: the counts of [`get_batch_samples`]."""
        losses, outputs = [], None
        for name, part in batch_parts(inputs).items():
            local = part.pop(COUNTS)
            total = local if num_items_in_batch is None else num_items_in_batch[name]
            # gradients are averaged over ranks, so that the sum over ranks needs their number as a factor
            shares = local / total.clamp(min=1) * self.accelerator.num_processes
            outputs = model(**part, loss_weights=self._weights * shares)
            losses.append(outputs.loss)
            self._count(name, outputs, local)
        loss = sum(losses[1:], start=losses[0])
        broken = ~torch.isfinite(loss.detach())
        step = self._first_broken.clamp(max=self.state.global_step + 1)
        self._first_broken = torch.where(broken, step, self._first_broken)
        return (loss, outputs) if return_outputs else loss

    def _count(self, part: str, outputs: GPTFaceForPreTrainingOutput, counts: torch.Tensor) -> None:
        values = [getattr(outputs, name) for name in TERMS]
        terms = torch.stack([counts.new_zeros(()) if value is None else value.detach().float() for value in values])
        totals = torch.stack([terms * counts, counts])
        # a term that is not there and one without labels are both 0 of 0
        self._totals[part] = self._totals[part] + totals if part in self._totals else totals

    def check_losses(self) -> None:
        """
        Waits for the device, and for all ranks.

        Raises:
            FloatingPointError: where a loss was not finite, on any rank: they stop together, for one that goes on
                alone waits for the others.
        """
        first = self._first_broken
        if self.args.world_size > 1:
            first = self.accelerator.gather(first.reshape(1)).min()
        step = float(first)
        if step < float("inf"):
            terms = sorted(
                f"{term_prefix(part)}{name}"
                for part, totals in self._totals.items()
                for name, value in zip(TERMS, self._summed(totals)[0].tolist(), strict=True)
                if not np.isfinite(value)
            )
            raise FloatingPointError(f"the loss is not finite in step {int(step)} ({', '.join(terms) or 'its sum'})")

    def log(self, logs, start_time=None):
        if "loss" in logs:
            self.check_losses()
            logs = {**logs, **self._mean_terms(), **self._throughput()}
        super().log(logs, start_time)

    def _mean_terms(self) -> dict[str, float]:
        """Of the steps since the last log."""
        means: dict[str, float] = {}
        for part, totals in self._totals.items():
            sums, counts = self._summed(totals).tolist()
            names = [f"{term_prefix(part)}{name}" for name in TERMS]
            means |= {name: round(sums[i] / counts[i], 4) for i, name in enumerate(names) if counts[i]}
        self._totals.clear()
        return means

    def _throughput(self) -> dict[str, float]:
        """Samples a second since the last log, without the first steps, in which a compiler works."""
        now, step = time.perf_counter(), self.state.global_step
        speed = {}
        if self._last_log is not None and step > self._last_log[1]:
            samples = (step - self._last_log[1]) * self.get_total_train_batch_size(self.args)
            speed = {"samples_per_second": round(samples / (now - self._last_log[0]), 1)}
        self._last_log = now, step
        return speed

    def evaluate(self, *args, **kwargs):
        timed = nullcontext() if self.budget is None else self.budget.timed("evaluation")
        with self.averaged(), timed:
            return super().evaluate(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Sums and counts instead of logits: those of all masked positions would not fit."""
        rows, losses = [], []
        parts = batch_parts(self._prepare_inputs(inputs))
        self._evaluated_parts = list(parts)
        for part in parts.values():
            counts = part.pop(COUNTS)
            with torch.no_grad():
                outputs = model(**part, loss_weights=self._weights)
            losses.append(outputs.loss)
            labels = part["match"]["labels"] if "match" in part else part["match_labels"]
            rows.append(evaluation_rows(outputs, labels, counts))
        table = torch.cat(rows, 1)
        return sum(losses), table, table[:, :1]

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        return pretraining_metrics(np.asarray(prediction.predictions), self._evaluated_parts)

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

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        budget = self.budget
        if budget is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            optimizer = optimizer or self.optimizer
            assert optimizer is not None
            self.lr_scheduler = LambdaLR(optimizer, lambda _: budget.factor())
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _save_checkpoint(self, model, trial):
        """
        Written beside the checkpoints and renamed when every rank is done: a killed save leaves nothing to resume
        from, and one that fails (a full disk) leaves the checkpoint before.
        """
        self.check_losses()
        timed = nullcontext() if self.budget is None else self.budget.timed("saving")
        with timed:
            problem = self._write_checkpoint(model, trial)
        if problem:
            logger.warning(
                "the checkpoint of step %d could not be written (%s): the one before it stays",
                self.state.global_step,
                problem,
            )

    def _write_checkpoint(self, model, trial) -> str | None:
        """Why a checkpoint could not be written, on any rank; None where it stands."""
        run = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(run / UNFINISHED, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        # Where there is a best step, the Trainer waits for all ranks in the middle: a rank that fails would not come.
        best, self.state.best_global_step = self.state.best_global_step, None
        if self.budget is not None:
            assert self.state.stateful_callbacks is not None
            self.state.stateful_callbacks[BUDGET_STATE] = self.budget.state()  # type: ignore[call-overload]
        problem = None
        self._is_saving = True
        try:
            super()._save_checkpoint(model, trial)
            if best:
                self.state.best_global_step = best
                self.state.best_model_checkpoint = str(run / f"{PREFIX_CHECKPOINT_DIR}-{best}")
            if self.args.should_save:
                self.state.save_to_json(str(run / UNFINISHED / name / TRAINER_STATE_NAME))
                if self.average is not None and self.average.average is not None:
                    tensors = {key: value.contiguous() for key, value in self.average.average.items()}
                    save_file(tensors, run / UNFINISHED / name / AVERAGE_FILE)
                sync(run / UNFINISHED / name)
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # how Python, torch and safetensors report a full disk
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
        finally:
            self._is_saving = False
            self.state.best_global_step = best
        failures = torch.tensor([float(problem is not None)], device=self.args.device)
        if float(self._summed(failures)):
            if self.args.should_save:
                shutil.rmtree(run / UNFINISHED, ignore_errors=True)
            return problem or "another rank failed"
        if self.args.should_save:
            publish(run / UNFINISHED / name, run / name)
            shutil.rmtree(run / UNFINISHED)
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()
        return None

    _is_saving = False

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._is_saving else folder

    def save_final(self, target: Path) -> None:
        """The model, or the average of its weights, and its tokenizer as a folder that appears whole."""
        self.check_losses()
        unfinished = target.with_name(f"{UNFINISHED}_{target.name}")
        try:
            with self.averaged():
                self.save_model(str(unfinished))
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            publish(unfinished, target)
        self.accelerator.wait_for_everyone()


def term_weights(weights: Mapping[str, float]) -> torch.Tensor:
    """
    Weights by name ("image" for `image_loss`) → float [5] in the order of `TERMS`. Raises `ValueError` for an unknown
    name.
    """
    names = [name.removesuffix("_loss") for name in TERMS]
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(f"unknown loss_weights {unknown}; known: {names}")
    return torch.tensor([float(weights.get(name, 1.0)) for name in names])


def evaluation_rows(outputs: GPTFaceForPreTrainingOutput, labels: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """
    Of a batch [B, 2·terms + 2]: the terms of `EVALUATED`, their counts, the AUC of matching and whether it is known. A
    row for each sample, with its share of the counts: what is gathered is cut to the number of samples.
    """
    odds = outputs.match_logits[..., 1] - outputs.match_logits[..., 0]  # type: ignore[index]
    batch, sides = len(odds), [odds[labels == side].float().cpu().numpy() for side in (1, 0)]
    # of the pairs within the batch: a batch of several captions has too many to keep
    known = float(min(map(len, sides)) > 0)
    auc = [area_under_curve(*sides) if known else 0.0, known]
    values = [getattr(outputs, name) for name in EVALUATED]
    losses = torch.stack([counts.new_zeros(()) if value is None else value.float() for value in values])
    return torch.cat([losses, counts[: len(EVALUATED)] / batch, counts.new_tensor(auc)]).expand(batch, -1)


def pretraining_metrics(rows: np.ndarray, parts: list[str]) -> dict[str, float]:
    """
    Of the rows of [`evaluation_rows`] of some parts: terms weighted by what they count, and the mean AUC over the
    batches.
    """
    metrics, terms = {}, len(EVALUATED)
    for part, columns in zip(parts, np.split(rows, len(parts), 1), strict=True):
        for index, name in enumerate(EVALUATED):
            counts = columns[:, terms + index]
            metrics[term_prefix(part) + name] = float((columns[:, index] * counts).sum() / max(counts.sum(), 1))
        auc, known = columns[:, -2], columns[:, -1]
        metrics[f"{term_prefix(part)}match_auc"] = float((auc * known).sum() / known.sum()) if known.any() else np.nan
    return metrics
