"""Pre-training: masked image and language modelling with image-text matching, on encoded faces."""

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import EvalPrediction, PreTrainedTokenizerBase, Trainer, TrainingArguments

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining, GPTFaceForPreTrainingOutput
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.tokenization_gptface import GPTFaceTokenizer

from .captions import emotion_caption
from .code_dataset import CodeDataset, CodeTable, load_code_table
from .collator import PreTrainingCollator, TextMaskLaw
from .masking import MaskLaw, sample_generator
from .muon import MuonWithAdamW, parameter_groups
from .phrases import EMOTION_PHRASES, PHRASES

logger = logging.getLogger(__name__)

TERMS = ("text_loss", "image_loss", "match_loss")
AUXILIARY_TERM = "label_loss"


@dataclass
class PreTrainingConfig:
    """
    What a pre-training recipe (YAML) holds.

    Args:
        output_dir: where checkpoints and the final model go.
        train, evaluation: folders that `gptface encode` wrote, or folder → how often its rows count.
        image_tokenizer: folder of the image tokenizer that made the codes (not needed with `start_from`).
        start_from: folder of a model to continue from instead of random weights.
        model: fields of [`GPTFaceConfig`]; with `start_from`, those that replace the model's.
        auxiliary_head: name of a head over the attributes of the captions that is trained along, none by default.
        vocab_size: most entries of the WordPiece vocabulary trained on captions of the training rows.
        image_laws: mixture of [`MaskLaw`].
        text_law: fields of [`TextMaskLaw`].
        collator: further options of [`PreTrainingCollator`].
        optimizer: `"muon"` or any `optim` of `TrainingArguments`.
        arguments: `TrainingArguments` by name.
    """

    output_dir: str
    train: list[str] | dict[str, float]
    evaluation: list[str] | dict[str, float] = field(default_factory=list)
    image_tokenizer: str | None = None
    start_from: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    auxiliary_head: str | None = None
    vocab_size: int = 2000
    image_laws: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    text_law: dict[str, Any] = field(default_factory=dict)
    collator: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "muon"
    arguments: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> "PreTrainingConfig":
        """
        Reads a recipe; `overrides` replace its fields.

        Raises:
            ValueError: where a field is unknown.
        """
        values = {**(yaml.safe_load(Path(path).read_text()) or {}), **overrides}
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"{path}: unknown fields {unknown}; known: {sorted(cls.__dataclass_fields__)}")
        return cls(**values)


def loss_terms(outputs: GPTFaceForPreTrainingOutput) -> dict[str, float]:
    """The terms of the loss that were counted, by name."""
    values = {name: getattr(outputs, name) for name in (*TERMS, AUXILIARY_TERM)}
    return {name: float(value.detach()) for name, value in values.items() if value is not None}


class PreTrainer(Trainer):
    """Trainer that reports every loss term, stops at a loss that is not finite, and can use Muon."""

    def __init__(self, *args, use_muon: bool = True, **kwargs):
        self.use_muon = use_muon
        self._term_sums: Counter[str] = Counter()
        self._term_steps = 0
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model=None):
        if not self.use_muon:
            return super().create_optimizer(model)
        if self.optimizer is None:
            assert self.model is not None
            groups = parameter_groups(self.model, self.args.weight_decay)
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            self.optimizer = MuonWithAdamW(groups, lr=self.args.learning_rate, betas=betas)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs)
        if not torch.isfinite(outputs.loss):
            raise FloatingPointError(
                f"the loss is not finite in step {self.state.global_step + 1}: {loss_terms(outputs)}"
            )
        if model.training:
            self._term_sums.update(loss_terms(outputs))
            self._term_steps += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs, start_time=None):
        if "loss" in logs and self._term_steps:
            logs = {**logs, **{name: round(total / self._term_steps, 4) for name, total in self._term_sums.items()}}
            self._term_sums.clear()
            self._term_steps = 0
        super().log(logs, start_time)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Sums and counts instead of logits: those of all masked positions would not fit."""
        with torch.no_grad():
            outputs = model(**self._prepare_inputs(inputs))
        odds = outputs.match_logits[:, 1] - outputs.match_logits[:, 0]
        counts = torch.stack(
            [(inputs[name] != -100).sum() for name in ("text_labels", "image_labels", "match_labels")]
        )
        losses = torch.stack([getattr(outputs, name) for name in TERMS])
        batch = len(odds)
        rows = [odds[:, None], losses.expand(batch, -1), counts.expand(batch, -1) / batch]
        return outputs.loss.detach(), torch.cat([row.float().cpu() for row in rows], 1), inputs["match_labels"].cpu()


def pretraining_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Each term weighted by what it counts, and the AUC of matching."""
    rows, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    metrics = {}
    for index, name in enumerate(TERMS):
        counts = rows[:, 4 + index]
        metrics[name] = float((rows[:, 1 + index] * counts).sum() / max(counts.sum(), 1))
    metrics["match_auc"] = area_under_curve(rows[labels == 1, 0], rows[labels == 0, 0])
    return metrics


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive scores above a negative (ties count half); NaN where one side is empty."""
    if len(positive) == 0 or len(negative) == 0:
        return math.nan
    order = np.sort(negative)
    below, not_above = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float((below + not_above).mean() / (2 * len(negative)))


def train_vocabulary(table: CodeTable, vocab_size: int, max_length: int, captions: int = 50_000) -> GPTFaceTokenizer:
    """
    A WordPiece vocabulary from captions of random rows, and of every expression, whether the rows have them or not: a later
    phase of training may bring them, and users type them.
    """
    generator = sample_generator(0, 0, 0)
    texts = [table.caption(int(row), generator).text for row in generator.integers(len(table), size=captions)]
    texts += [emotion_caption(emotion, generator).text for emotion in EMOTION_PHRASES for _ in range(captions // 50)]
    return GPTFaceTokenizer.train(texts, vocab_size, max_length)


def build_model(
    config: PreTrainingConfig, checkpoint: str | None = None
) -> tuple[GPTFaceForPreTraining, PreTrainedTokenizerBase, CodeTable]:
    """Model, text tokenizer and training rows of a recipe, or of the checkpoint where it is resumed."""
    # A vocabulary trained again may number its entries otherwise: a resumed run takes the one that it began with.
    source = checkpoint or config.start_from
    overrides = dict(config.model)
    if config.auxiliary_head:
        head = {"labels": list(PHRASES), "problem_type": "multi_label_classification", "trained": False}
        overrides |= {"heads": {config.auxiliary_head: head}, "auxiliary_head": config.auxiliary_head}
    if source:
        model = GPTFaceForPreTraining.from_pretrained(source, **({} if checkpoint else overrides))
        table = load_code_table(config.train, model.image_tokenizer.fingerprint())
        return model, GPTFaceTokenizer.from_pretrained(source), table
    if not config.image_tokenizer:
        raise ValueError("a recipe needs image_tokenizer (a folder) or start_from (a model)")
    image_tokenizer = GPTFaceImageTokenizer.from_pretrained(config.image_tokenizer)
    table = load_code_table(config.train, image_tokenizer.fingerprint())
    tokenizer = train_vocabulary(table, config.vocab_size, config.model.get("max_text_length", 64))
    model_config = GPTFaceConfig(
        image_tokenizer_config=image_tokenizer.config.to_dict(),
        vocab_size=len(tokenizer),
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep", "mask")},
        **overrides,
    )
    model = GPTFaceForPreTraining(model_config)
    model.image_tokenizer.load_state_dict(image_tokenizer.state_dict())
    return model, tokenizer, table


def pretrain(config: PreTrainingConfig) -> Path:
    """Runs a recipe, resuming from the last checkpoint in `output_dir` if there is one; returns the model's folder."""
    from transformers.trainer_utils import get_last_checkpoint, set_seed

    optimizer: dict[str, Any] = {} if config.optimizer == "muon" else {"optim": config.optimizer}
    arguments = TrainingArguments(
        output_dir=config.output_dir,
        remove_unused_columns=False,
        label_names=["text_labels", "image_labels", "match_labels"],
        report_to=config.arguments.pop("report_to", "none"),
        **{**optimizer, **config.arguments},
    )
    set_seed(arguments.seed)
    checkpoint = get_last_checkpoint(config.output_dir) if Path(config.output_dir).is_dir() else None
    model, tokenizer, table = build_model(config, checkpoint)
    options = {
        "tokenizer": tokenizer,
        "max_text_length": model.config.max_text_length,
        "image_laws": [MaskLaw(**law) for law in config.image_laws],
        "text_law": TextMaskLaw(**config.text_law),
        "label_names": list(PHRASES) if config.auxiliary_head else (),
        **config.collator,
    }
    evaluation = None
    if config.evaluation:
        evaluation = load_code_table(config.evaluation, model.image_tokenizer.fingerprint())
        evaluation_collator = PreTrainingCollator(evaluation, **options)

    class _Trainer(PreTrainer):
        # the two collators hold different tables
        def get_eval_dataloader(self, eval_dataset=None):
            training_collator, self.data_collator = self.data_collator, evaluation_collator
            try:
                return super().get_eval_dataloader(eval_dataset)
            finally:
                self.data_collator = training_collator

    trainer = _Trainer(
        model=model,
        args=arguments,
        data_collator=PreTrainingCollator(table, **options),
        train_dataset=CodeDataset(table),
        eval_dataset=CodeDataset(evaluation) if evaluation else None,
        processing_class=tokenizer,
        compute_metrics=pretraining_metrics,
        use_muon=config.optimizer == "muon",
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    model.config.match_trained = True
    if config.auxiliary_head:
        model.config.heads[config.auxiliary_head]["trained"] = True
    target = Path(config.output_dir) / "final"
    trainer.save_model(str(target))
    return target
