"""Fine-tuning of a classification head, with as much of the transformer as wanted, on labelled faces: `gptface
finetune`.
"""

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import EvalPrediction, IntervalStrategy, set_seed

from gptface.data.augmentation import FaceAugmentation
from gptface.data.classification_data import ClassificationData, face_logits, load_classification_data, readable_crops
from gptface.data.encode import pixels_from_images
from gptface.data.epochs import EpochDataset, EpochSetter
from gptface.data.masking import sample_generator
from gptface.metrics.calibration import choose_thresholds, fit_temperature, probabilities
from gptface.metrics.recognition_scores import attribute_scores, expression_scores
from gptface.modeling_gptface.configuration_gptface import DEFAULT_READER, INPUTS, GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import (
    CLASSIFIERS,
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForImageClassification,
)
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT, find_checkpoint
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.whole_files import write_text

from .checkpoints import last_whole_checkpoint
from .classification_loss import ClassificationLoss
from .head_training import fresh_classifier
from .recipe import Recipe
from .release import save_release

logger = logging.getLogger(__name__)

#: The score of [`validation_scores`] by which the best epoch is chosen.
VALIDATION_SCORE = "balanced_accuracy"

#: Heads that have a class of their own.
MODELS: dict[str, type[GPTFaceForImageClassification]] = {
    "attributes": GPTFaceForFaceAttributeClassification,
    "expression": GPTFaceForFacialExpression,
}


@dataclass
class FineTuningConfig(Recipe):
    """
    What a fine-tuning recipe (YAML) holds.

    Args:
        output_dir: where checkpoints, codes and the final model go.
        train: parquet files with an `image` column, tars, folders with a subfolder a class (see
            [`~gptface.data.sources.read_samples`]), or (without augmentation) folders that `gptface encode` wrote.
        labels: 0/1 columns (independent labels) or the column of the class; by default those of the checkpoint's head
            where the data have them, else all 0/1 columns, or the class column that is there. A head that the
            checkpoint does not have gets independent labels by a list of columns, and classes by one column or none.
        start_from: folder or Hub name of the checkpoint to start from; the embedded one by default.
        layout: of the pictures, as in `gptface encode`; by default it is guessed from their size, and pictures of
            tight sets (RAF-DB, FER+) are searched for the face, as the pipelines do it.
        leave_out_every: n never trains on the rows whose number in their file is a multiple of n.
        holdout: share of the people (rows where the data name none) that is not trained on: it gives the
            temperature, and in each epoch the validation score.
        early_stopping: ends the run where the validation score, the mean recall of the classes, has not got better for
            so many epochs; the best epoch is kept.
        threshold_balance: see [`choose_thresholds`].
        reader: what the head is, see `heads` of [`GPTFaceConfig`]; by default what the checkpoint's head for these
            labels is, and `"attention"` for others.
        input: what a head reads, `"codes"` or `"pixels"`; by default pixels where the checkpoint has a pixel reader.
            The other heads that read pixels read them by the same reader: their weights stay, what they are given
            changes with it.
        freeze: `"nothing"`, `"embeddings"`, a number n (the embeddings and the first n layers), or `"backbone"` (all
            but the head and, where it reads pixels, the pixel reader). By default the backbone of a head that reads
            pixels, so that editing and matching stay as they are, and nothing for codes.
        layer_decay: the learning rate of a layer is this to the power of its distance from the head.
        loss: fields of [`ClassificationLoss`].
        mixup: α of the Beta distribution by which two faces and their labels are mixed (Zhang et al. 2018); 0 = off.
        augmentation: fields of [`FaceAugmentation`] ({} = its defaults): pictures are changed and encoded in every
            step. None: they are as they are; for a head that reads codes they are encoded once, with their mirror
            images, which is many times faster on a CPU.
        arguments: `TrainingArguments` by name.
    """

    output_dir: str
    train: list[str]
    labels: list[str] | str | None = None
    start_from: str | None = None
    layout: str | None = None
    leave_out_every: int | None = None
    holdout: float = 0.1
    early_stopping: int | None = None
    threshold_balance: float = 0.2
    reader: str | None = None
    input: str | None = None
    freeze: str | int | None = None
    layer_decay: float = 1.0
    loss: dict[str, float] = field(default_factory=dict)
    mixup: float = 0.0
    augmentation: dict[str, Any] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is a share in 0…1, below 1, got {self.holdout}")
        if self.early_stopping is not None and (self.early_stopping < 1 or not self.holdout):
            raise ValueError("early_stopping is a number of epochs, at least 1, and needs holdout")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must lie above 0, at most 1, got {self.layer_decay}")
        if isinstance(self.freeze, str) and self.freeze not in ("nothing", "embeddings", "backbone"):
            raise ValueError(
                f'freeze is "nothing", "embeddings", "backbone" or a number of layers, got {self.freeze!r}'
            )
        if self.input not in (None, *INPUTS):
            raise ValueError(f"input must be one of {INPUTS}, got {self.input!r}")
        if self.reader not in (None, *CLASSIFIERS):
            raise ValueError(f"reader must be one of {tuple(CLASSIFIERS)}, got {self.reader!r}")
        if self.mixup < 0:
            raise ValueError(f"mixup must be at least 0, got {self.mixup}")

    @classmethod
    def check(cls, path: str | Path, values: dict[str, Any]) -> None:
        if not values.get("output_dir") or not values.get("train"):
            raise ValueError(f"{path}: a recipe needs output_dir and train")


class RowDataset(EpochDataset):
    """Row numbers with the epoch: all randomness is derived from them in the collator. Epoch −1: no randomness."""

    def __init__(self, rows: np.ndarray, epoch: int = 0):
        super().__init__(epoch)
        self.rows = rows

    def set_epoch(self, epoch: int) -> None:
        # data loaders of accelerate count the epochs of what is measured too
        if self.epoch >= 0:
            super().set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"row": int(self.rows[index]), "epoch": self.epoch}


@dataclass
class FineTuningCollator:
    """
    Rows and epoch → `pixel_values` [B, 3, H, W] or `image_codes` [B, N], `labels`, and with mixup `mix` [B]: how much
    of a face is its own, the rest is the next one's in the batch.

    What is random derives from (seed, epoch, row): workers and resumed runs draw the same. Rows whose picture cannot
    be read are left out of the batch.
    """

    data: ClassificationData
    size: int
    augmentation: FaceAugmentation | None = None
    mixup: float = 0.0
    seed: int = 0

    def __call__(self, samples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        training = samples[0]["epoch"] >= 0
        rows = [sample["row"] for sample in samples]
        generators = {}
        if training:
            generators = {s["row"]: sample_generator(self.seed, s["epoch"], s["row"]) for s in samples}
        batch = {}
        if self.data.codes is not None:
            sides = [int(generators[row].integers(2)) if training else 0 for row in rows]
            batch["image_codes"] = torch.from_numpy(self.data.codes[rows, sides].astype(np.int64))
        else:
            faces = dict(readable_crops(self.data, rows, self.size))
            if not faces:
                raise ValueError(f"none of the pictures of the rows {rows} can be read")
            rows = list(faces)
            if training and self.augmentation is not None:
                faces = {row: self.augmentation(face, generators[row]) for row, face in faces.items()}
            batch["pixel_values"] = pixels_from_images(list(faces.values()))
        # learned are the votes, measured is the majority
        soft = training and self.data.shares is not None
        batch["labels"] = torch.from_numpy((self.data.shares if soft else self.data.targets)[rows])  # type: ignore[index]
        if training and self.mixup:
            shares = [generators[row].beta(self.mixup, self.mixup) for row in rows]
            batch["mix"] = torch.tensor([max(share, 1 - share) for share in shares], dtype=torch.float)
        return batch


class FineTuner(Trainer):
    """Trainer with the losses of [`ClassificationLoss`], mixup and learning rates that decay by layer."""

    def __init__(
        self, *args, loss: ClassificationLoss, weights: torch.Tensor | None, layer_decay: float = 1.0, **kwargs
    ):
        self.loss, self.weights, self.layer_decay = loss, weights, layer_decay
        super().__init__(*args, **kwargs)
        self.add_callback(EpochSetter())

    def create_optimizer(self, model=None):
        if self.layer_decay == 1:
            return super().create_optimizer(model)
        if self.optimizer is None:
            assert self.model is not None
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)  # type: ignore[arg-type]
            decayed = set(self.get_decay_parameter_names(self.model))
            layers: int = self.model.config.num_hidden_layers  # type: ignore[union-attr, assignment]
            groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((distance_from_head(name, layers), name in decayed), []).append(parameter)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "lr": self.args.learning_rate * self.layer_decay**distance,
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (distance, is_decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
                ],
                **options,
            )
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        inputs = dict(inputs)
        labels, mix = inputs.pop("labels"), inputs.pop("mix", None)
        if mix is not None:
            inputs = mixed_faces(self.accelerator.unwrap_model(model), inputs, mix)
        outputs = model(**inputs)
        weights = None if self.weights is None else self.weights.to(labels.device)
        total, count = self.loss(outputs.logits, labels, weights)
        if mix is not None:
            other_total, other_count = self.loss(outputs.logits, labels.roll(-1, 0), weights)
            total, count = mix * total + (1 - mix) * other_total, mix * count + (1 - mix) * other_count
        loss = total.sum() / count.sum().clamp(min=1)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite in step {self.state.global_step + 1}")
        return (loss, outputs) if return_outputs else loss


def mixed_faces(
    model: GPTFaceForImageClassification, inputs: dict[str, torch.Tensor], mix: torch.Tensor
) -> dict[str, Any]:
    """Each face mixed with the next one: its pixels, or the vectors of its codes."""
    if "pixel_values" in inputs:
        pixels, share = inputs["pixel_values"], mix[:, None, None, None]
        return {**inputs, "pixel_values": share * pixels + (1 - share) * pixels.roll(-1, 0)}
    vectors, share = model.gptface.embeddings.embed_codes(inputs["image_codes"]), mix[:, None, None]
    return {**inputs, "image_embeds": share * vectors + (1 - share) * vectors.roll(-1, 0)}


def distance_from_head(name: str, layers: int) -> int:
    """
    Layers between a parameter and the head: 0 for the head and the last norm, `layers` + 1 for what reads the picture.
    """
    if name.startswith("gptface.layers."):
        return layers - int(name.split(".")[2])
    if name.startswith("gptface.pixel_reader.adapters."):
        return layers - int(name.split(".")[3])
    return layers + 1 if name.startswith(("gptface.embeddings.", "gptface.pixel_reader.")) else 0


def freeze_parameters(model: GPTFaceForImageClassification, freeze: str | int | None) -> None:
    """
    Freezes parts of the transformer; see [`FineTuningConfig`]. Raises `ValueError` for more layers than there are.
    """
    layers = model.gptface.layers
    reads_pixels = model.config.reads_pixels(model.head_name)
    if freeze is None:
        freeze = "backbone" if reads_pixels else "nothing"
    if isinstance(freeze, int) and not 0 <= freeze <= len(layers):
        raise ValueError(f"freeze: {freeze} layers, the model has {len(layers)}")
    if freeze == "backbone":
        model.gptface.requires_grad_(False)
        if reads_pixels:
            model.gptface.pixel_reader.requires_grad_(True)  # type: ignore[union-attr]
    elif freeze != "nothing":
        model.gptface.embeddings.requires_grad_(False)
        for layer in layers[: freeze if isinstance(freeze, int) else 0]:
            layer.requires_grad_(False)


def prepare_model(
    name: str, config: FineTuningConfig, seed: int
) -> tuple[GPTFaceForImageClassification, ClassificationData, GPTFaceProcessor]:
    """
    The checkpoint with the head `name` for the labels of the data (its own where they are the same), the data, the
    processor.
    """
    source = find_checkpoint(config.start_from or DEFAULT_CHECKPOINT)
    known = GPTFaceConfig.from_pretrained(source).heads.get(name)
    model = MODELS.get(name, GPTFaceForImageClassification).from_pretrained(source, head=name)
    head = model.config.heads[name]
    problem_type = head["problem_type"]
    if problem_type == "regression":
        raise ValueError(f"the head {name!r} is a regression; fine-tuning is for classes and independent labels")
    if known is None and name not in MODELS and isinstance(config.labels, list):
        problem_type = "multi_label_classification"
    read = config.input or ("codes" if model.config.image_reader is None else "pixels")
    if read == "pixels" and model.config.image_reader is None:
        raise ValueError(f"input: pixels, but {source} has no pixel reader")
    data = load_classification_data(
        config.train,
        problem_type == "multi_label_classification",
        config.labels,
        () if known is None else known["labels"],
        config.layout,
        tokenizer=model.image_tokenizer if config.augmentation is None and read == "codes" else None,
        codes_folder=Path(config.output_dir) / "codes",
        search=config.layout is None,
    )
    # temperature and thresholds of the old head are not the new one's
    entry: dict[str, Any] = {"labels": data.names, "problem_type": data.problem_type, "trained": False}
    goes_on = head.get("trained") and all(list(head[key]) == list(entry[key]) for key in ("labels", "problem_type"))
    goes_on = goes_on and head.get("input", INPUTS[0]) == read
    reader = config.reader or (head.get("reader", DEFAULT_READER) if goes_on else DEFAULT_READER)
    model.config.heads = {**model.config.heads, name: {**entry, "reader": reader, "input": read}}
    model.freeze_unused_parts()
    if not goes_on or reader != head.get("reader", DEFAULT_READER):
        generator = torch.Generator().manual_seed(seed)
        model.classifiers[name] = fresh_classifier(model.config, name, torch.from_numpy(data.targets), generator)
        logger.info("a fresh head for %d labels", len(data.names))
    model.config.problem_type = data.problem_type
    model.config.id2label = dict(enumerate(data.names))
    model.config.label2id = {label: index for index, label in enumerate(data.names)}
    return model, data, GPTFaceProcessor.from_pretrained(source)


def answer_scores(model: GPTFaceForImageClassification, logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """
    Figures of logits [rows, labels] of the model's head beside the truth, by the head's temperature and thresholds:
    what its pipeline answers. See [`~gptface.metrics.recognition_scores`].
    """
    head = model.config.heads[model.head_name]
    scores = probabilities(logits / head.get("temperature", 1.0), truth.ndim == 2)
    if truth.ndim == 2:
        return attribute_scores(scores, truth, head["labels"], head.get("thresholds", 0.5))
    return expression_scores(scores, truth, head["labels"])


def calibrate(
    model: GPTFaceForImageClassification,
    data: ClassificationData,
    held_out: np.ndarray,
    batch_size: int = 32,
) -> dict[str, Any] | None:
    """
    Puts a temperature fitted on rows that were not trained on into the head, which is trained from now on. Returns the
    figures of these rows, see [`answer_scores`]; None where there are none.
    """
    head = model.config.heads[model.head_name]
    head["trained"] = True
    if not len(held_out):
        return None
    logits, held_out = face_logits(model, data, held_out, batch_size)
    head["temperature"] = fit_temperature(logits, data.targets[held_out])
    return answer_scores(model, logits, data.targets[held_out])


def validation_scores(prediction: EvalPrediction) -> dict[str, float]:
    """
    `accuracy` and `balanced_accuracy` (mean of the accuracies of the classes, or for each independent label of its
    two) of logits [faces, labels] against classes [faces], −100 = unknown, or 0/1 [faces, labels], −1 = unknown.
    """
    logits, truth = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if truth.ndim == 1:
        right = logits.argmax(-1) == truth
        groups = [[truth == value for value in np.unique(truth[truth >= 0])]]
        columns = [right]
    else:
        columns = list(((logits > 0) == truth).T)
        groups = [[column == value for value in (0, 1) if (column == value).any()] for column in truth.T]
    known = [right[truth_of >= 0] for right, truth_of in zip(columns, truth.reshape(len(truth), -1).T, strict=True)]
    balanced = [
        np.mean([right[members].mean() for members in each])
        for right, each in zip(columns, groups, strict=True)
        if each
    ]
    return {"accuracy": float(np.concatenate(known).mean()), "balanced_accuracy": float(np.mean(balanced))}


def finetune(name: str, config: FineTuningConfig) -> Path:
    """
    Fine-tunes the head `name` ("attributes", "expression", another one of the checkpoint or a new one) by a recipe and
    returns the folder of the result.

    It resumes from the last checkpoint in `output_dir`. The other heads stay as they are; the labels that the head had
    go, where the data have others. Rows without a known label are left out. After each epoch it says how the head does
    on the people that are held out, see [`validation_scores`]. `report.json` beside the result says how many rows were
    trained on and held out, these scores, and the figures of the rows that were held out, scored as pipelines do.

    Raises:
        ValueError: recipe or data that do not fit.
        FloatingPointError: a loss that is not finite.
    """
    chosen: dict[str, Any] = {"report_to": "none", "disable_tqdm": not sys.stderr.isatty()}
    chosen["eval_strategy"] = "epoch" if config.holdout else "no"
    if config.early_stopping is not None:
        chosen |= {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": VALIDATION_SCORE}
    arguments = TrainingArguments(
        output_dir=config.output_dir,
        remove_unused_columns=False,
        label_names=["labels"],
        **{**chosen, **config.arguments},
    )
    set_seed(arguments.seed)
    model, data, processor = prepare_model(name, config, arguments.seed)
    freeze_parameters(model, config.freeze)
    rows = np.flatnonzero(data.known)
    if config.leave_out_every:
        rows = rows[data.row_numbers[rows] % config.leave_out_every != 0]
    rows, held_out = data.split(rows, config.holdout, arguments.seed)
    if not len(held_out):
        if config.early_stopping is not None:
            raise ValueError(f"early_stopping needs faces that are held out; of {len(rows)} rows there are none")
        arguments.eval_strategy = IntervalStrategy.NO
    if data.multi_label:
        model.config.heads[name]["thresholds"] = choose_thresholds(data.targets, config.threshold_balance).tolist()
    loss = ClassificationLoss(**config.loss)
    augmentation = None if config.augmentation is None else FaceAugmentation(**config.augmentation)
    size = model.config.image_tokenizer_config.image_size
    trainer = FineTuner(
        model=model,
        args=arguments,
        data_collator=FineTuningCollator(data, size, augmentation, config.mixup, arguments.seed),
        train_dataset=RowDataset(rows),
        eval_dataset=RowDataset(held_out, epoch=-1) if len(held_out) else None,
        compute_metrics=validation_scores,
        loss=loss,
        weights=loss.weights(data.targets[rows], len(data.names)),
        layer_decay=config.layer_decay,
    )
    if config.early_stopping is not None:
        trainer.add_callback(EarlyStoppingCallback(config.early_stopping))
    folder = Path(config.output_dir)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    figures = calibrate(model, data, held_out, arguments.per_device_eval_batch_size)
    report = {
        "head": name,
        "labels": data.names,
        "rows": {"trained": len(rows), "held_out": len(held_out), "in_the_data": len(data)},
        "epochs": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
        "kept_checkpoint": None if (best := trainer.state.best_model_checkpoint) is None else Path(best).name,
        "held_out": figures,
    }
    write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
    return save_release(model, processor, folder / "final")
