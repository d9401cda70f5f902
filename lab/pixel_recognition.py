"""Trains the pixel reader and the heads that read by it, in minutes of one GPU or hours of one core: `python -m
lab.pixel_recognition`.

First the reader learns to give the transformer what codes give: the states of the backbone, which stays as it is, are
the targets. Then it learns from labels: `expression` (seven classes, votes of annotators as soft labels), `attributes`
(independent labels) and `age` (a regression, in years). Everything lies on the device, pictures too; all changes of
them are made there in batches.
"""

import argparse
import copy
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gptface.data.augmentation import FaceAugmentation
from gptface.data.batch_augmentation import augment_faces, degrade_faces
from gptface.data.phrases import PHRASES
from gptface.metrics.calibration import (
    calibration_pairs,
    choose_thresholds,
    expected_calibration_error,
    fit_temperature,
    probabilities,
)
from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining, GPTFaceTaskModel
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.training.head_training import fresh_classifier, learning_rate_factor, torch_seed
from gptface.training.release import save_release

from .recognition_packs import EXPRESSIONS, RecognitionFaces, read_packs

logger = logging.getLogger(__name__)

#: What photos differ in. Grey is frequent: half of the faces with expressions have no colour, which must not tell the
#: expression.
CHANGES = FaceAugmentation(flip=0.5, colour=0.3, rotation=10, scale=0.1, shift=0.05, erasing=0, grey=0.3)
#: An error of so many years weighs as much as one of an expression; mean age of the data, where the regression starts.
AGE_SCALE, AGE_START = 10.0, 33.0
#: Between two copies of the state on disk.
STATE_SECONDS = 300
EXPRESSION, ATTRIBUTES, AGE = "expression", "attributes", "age"


@dataclass(frozen=True)
class PixelTrainingSettings:
    """
    Args:
        minutes: of training, both parts together; what is read before and measured behind does not count.
        steps: so many steps in its place, for runs that can be repeated.
        imitation: share of the time in which the reader imitates what codes give.
        batch_size: faces of a step.
        undamaged: share of the steps whose pictures keep their pixels; the others lose up to three quarters of their
            resolution.
        expressions: share of a batch that has expressions; the other faces have attributes or an age.
        learning_rate, weight_decay: of AdamW, with warm-up and a cosine in each of the two parts.
        balance: exponent of the class weights (share of the class)^−balance of the expressions.
        label_smoothing: share of the expression's target that is spread over all classes.
        loss_weights: of expression, attributes and age.
        weight_average: share of the running average of the weights that a step keeps.
        held_out: share of the faces that is not trained on, for temperatures.
        bf16: of autocast; twice as fast on CPUs with avx512_bf16.
        seed: of everything that is drawn.
    """

    minutes: float = 2.0
    steps: int | None = None
    imitation: float = 0.25
    batch_size: int = 512
    undamaged: float = 0.5
    expressions: float = 0.55
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    balance: float = 0.5
    label_smoothing: float = 0.05
    loss_weights: tuple[float, float, float] = (1.0, 2.0, 0.5)
    weight_average: float = 0.99
    held_out: float = 0.06
    bf16: bool = False
    seed: int = 0


def with_pixel_reader(
    folder: str | Path, seed: int = 0, image_reader: dict[str, Any] | None = None
) -> GPTFaceForPreTraining:
    """
    The model in a folder with a pixel reader and heads that read pixels in the place of those for codes; an attribute
    head for the same states starts from the one for codes. `image_reader` is that of the configuration where the model
    has none yet.
    """
    config = GPTFaceConfig.from_pretrained(folder)
    known = config.heads.get(ATTRIBUTES, {})
    heads = {name: head for name, head in config.heads.items() if name not in (EXPRESSION, ATTRIBUTES, AGE)}
    heads[ATTRIBUTES] = _entry(known.get("labels", list(PHRASES)), "multi_label_classification")
    heads[EXPRESSION] = _entry(EXPRESSIONS, "single_label_classification")
    heads[AGE] = _entry([AGE], "regression")
    config.heads, config.auxiliary_head = heads, None
    config.image_reader = config.image_reader or image_reader or {}
    with torch_seed(torch.Generator().manual_seed(seed)):
        model = GPTFaceForPreTraining.from_pretrained(folder, config=config, ignore_mismatched_sizes=True)
    # tokens start where their 2×2 cells are
    reader = model.gptface.pixel_reader
    assert reader is not None
    if any(name.endswith("pixel_reader.position_embeddings.weight") for name in model.missing_weights):
        positions = model.gptface.embeddings.position_embeddings.weight[config.max_text_length :]
        reader.position_embeddings.weight.data.copy_(pool_cells(positions[None], config.pixel_grid_size)[0])
    return model


def _entry(labels: Sequence[str], problem_type: str) -> dict[str, Any]:
    return {"labels": list(labels), "problem_type": problem_type, "input": "pixels", "trained": False}


def pool_cells(states: torch.Tensor, side: int) -> torch.Tensor:
    """
    Vectors of a square grid of cells [B, N, H] → means over the cells of each token of a grid with `side` [B, side²,
    H].
    """
    cells = round(states.shape[1] ** 0.5)
    grid = states.mT.unflatten(2, (cells, cells))
    return nn.functional.adaptive_avg_pool2d(grid, side).flatten(2).mT


class PixelRecognitionTrainer:
    """
    A run that was stopped goes on from the file where its state was kept last.

    Args:
        model: with a pixel reader and the three heads, see [`with_pixel_reader`]; on the device.
        faces: on the device.
        settings: see [`PixelTrainingSettings`].
        state_file: where the state is kept every few minutes, whole or not at all; nowhere if not given.
    """

    def __init__(
        self,
        model: GPTFaceTaskModel,
        faces: RecognitionFaces,
        settings: PixelTrainingSettings,
        state_file: Path | None = None,
    ):
        self.model, self.faces, self.settings, self.state_file = model, faces, settings, state_file
        self.device = faces.images.device
        # a step on a CPU takes 0.91 of the time by plain products: 64 tokens are few, and half precision is slow there
        self.attention = [SDPBackend.MATH]
        if self.device.type != "cpu":
            self.attention += [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
        self.generator = torch.Generator(self.device).manual_seed(settings.seed)
        self.host_generator = torch.Generator().manual_seed(settings.seed)
        draws = torch.rand(len(faces), generator=torch.Generator().manual_seed(settings.seed))
        held_out = (draws < settings.held_out).to(self.device)
        self.held_out = held_out.nonzero().squeeze(1)
        asked = faces.expression.sum(1) > 0
        told = (faces.attributes >= 0).any(1) | ~faces.age.isnan()
        self.with_expression = self._weights(asked & ~held_out)
        self.with_labels = self._weights(told & ~asked & ~held_out)
        self.all_faces = (~held_out).float()
        shares = (faces.expression * self.with_expression[:, None]).sum(0) / self.with_expression.sum().clamp(min=1e-9)
        self.class_weights = shares.clamp(min=1e-3) ** -settings.balance
        self.class_weights /= (self.class_weights * shares).sum().clamp(min=1e-9)
        reader = model.gptface.pixel_reader
        assert reader is not None
        self.reader = reader

    def _weights(self, chosen: torch.Tensor) -> torch.Tensor:
        """
        Faces [N] bool → weights [N] by which they are drawn: each set as often as the others, but small ones by their
        size.
        """
        weights = torch.zeros(len(chosen), device=self.device)
        for number in range(len(self.faces.names)):
            own = chosen & (self.faces.source == number)
            count = own.sum()
            weights += own / count.clamp(min=4000)
        return weights

    def train(self) -> None:
        """Both parts. Raises `FloatingPointError` where a loss is not finite."""
        settings = self.settings
        reader = list(self.reader.parameters())
        heads = [p for name in (EXPRESSION, ATTRIBUTES, AGE) for p in self.model.classifiers[name].parameters()]
        self.model.requires_grad_(False)
        self.model.train()
        share = settings.imitation
        if share > 0:
            self._fit("imitation", self.imitation_loss, reader, share)
        self._fit("labels", self.label_loss, reader + heads, 1 - share)
        self.model.eval()

    def _fit(
        self, name: str, loss_of: Callable[[], dict[str, torch.Tensor]], parameters: list[nn.Parameter], share: float
    ) -> None:
        """One part: AdamW for its share of the time; in the end the parameters are their running average."""
        settings = self.settings
        for parameter in parameters:
            parameter.requires_grad_(True)
        decayed = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda",
        )
        average: list[torch.Tensor] = []
        update = get_ema_multi_avg_fn(settings.weight_average)
        first, done, saved = 0, 0.0, time.monotonic()
        if (state := self._read_state()) is not None:
            if state["part"] != name:  # this part is over
                if state["part"] == "labels":
                    return
            else:
                first, done, average = state["step"], state["progress"], state["average"]
                for parameter, value in zip(parameters, state["parameters"], strict=True):
                    parameter.data.copy_(value)
                optimizer.load_state_dict(state["optimizer"])
                self.generator.set_state(state["generator"].cpu())
                self.host_generator.set_state(state["host_generator"].cpu())
                logger.info("%s goes on at step %d (%.0f %%)", name, first, 100 * done)
        for step, progress in self._progress(share, first, done):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_factor(progress, warmup=0.05)
            optimizer.zero_grad()
            with (
                torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bf16 or self.device.type == "cuda"),
                sdpa_kernel(self.attention),
            ):
                terms = loss_of()
                loss = torch.stack(list(terms.values())).sum()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if not average:
                average = [parameter.detach().clone() for parameter in parameters]
            else:
                update(average, [parameter.detach() for parameter in parameters], 0)
            if self.state_file is not None and time.monotonic() - saved > STATE_SECONDS:
                saved = time.monotonic()
                self._write_state(
                    {
                        "part": name,
                        "step": step + 1,
                        "progress": progress,
                        "average": average,
                        "parameters": [parameter.detach() for parameter in parameters],
                        "optimizer": optimizer.state_dict(),
                        "generator": self.generator.get_state(),
                        "host_generator": self.host_generator.get_state(),
                    }
                )
            if step % 20 == 0:
                said = ", ".join(f"{key} {float(value.detach()):.4f}" for key, value in terms.items())
                logger.info("%s, step %d (%.0f %%): %s, gradient %.2f", name, step, 100 * progress, said, float(norm))
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss of {name} is not finite in step {step}")
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.data.copy_(mean)

    def _progress(self, share: float, first: int, done: float) -> Iterator[tuple[int, float]]:
        """
        For each step from `first` on its number and the share of the part that is done, by the clock or by the number
        of steps; `done` is the share that a run before has done.
        """
        if self.settings.steps is not None:
            count = max(1, round(self.settings.steps * share))
            yield from ((step, step / count) for step in range(first, count))
            return
        seconds = 60 * self.settings.minutes * share
        start = time.monotonic() - done * seconds
        step = first
        while (spent := time.monotonic() - start) < seconds:
            yield step, spent / seconds
            step += 1

    def _read_state(self) -> dict[str, Any] | None:
        if self.state_file is None or not self.state_file.exists():
            return None
        return torch.load(self.state_file, map_location=self.device, weights_only=True)

    def _write_state(self, state: dict[str, Any]) -> None:
        assert self.state_file is not None
        unfinished = self.state_file.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self.state_file)

    def _draw(self, weights: torch.Tensor, count: int) -> torch.Tensor:
        return torch.multinomial(weights, count, replacement=True, generator=self.generator)

    def _degraded(self, pixels: torch.Tensor) -> torch.Tensor:
        """Poor pictures, and in a share of the steps as they are: photos of either kind are asked about."""
        size = pixels.shape[-1]
        if float(torch.rand((), generator=self.host_generator)) < self.settings.undamaged:
            return pixels
        side = int(torch.randint(size // 4, 2 * size // 3, (), generator=self.host_generator))
        return degrade_faces(pixels, side, self.generator)

    def imitation_loss(self) -> dict[str, torch.Tensor]:
        """
        Share of the variance of the states of codes that those of pixels do not explain; the pixels are poorer ones.
        """
        rows = self._draw(self.all_faces, self.settings.batch_size)
        pixels, _ = augment_faces(self.faces.images[rows], None, replace(CHANGES, grey=0.2), self.generator)
        with torch.no_grad():
            codes = self.model.image_tokenizer.encode(pixels)
            outputs = self.model.gptface(image_codes=codes)
            target = pool_cells(self.model.split_states(outputs)[1].float(), self.model.config.pixel_grid_size)
        outputs = self.model.gptface(pixel_values=self._degraded(pixels), read_pixels=True)
        states = self.model.split_states(outputs)[1].float()
        variance = (target - target.mean((0, 1))).square().mean()
        return {"unexplained": (states - target).square().mean() / variance}

    def label_loss(self) -> dict[str, torch.Tensor]:
        """Losses of the three heads, weighted."""
        settings, faces = self.settings, self.faces
        first = round(settings.expressions * settings.batch_size)
        rows = torch.cat(
            [self._draw(self.with_expression, first), self._draw(self.with_labels, settings.batch_size - first)]
        )
        pixels, _ = augment_faces(faces.images[rows], None, CHANGES, self.generator)
        outputs = self.model.gptface(pixel_values=self._degraded(pixels), read_pixels=True)
        states = self.model.split_states(outputs)[1]
        classifiers = self.model.classifiers
        target = faces.expression[rows[:first]]
        target = target * (1 - settings.label_smoothing) + settings.label_smoothing / target.shape[1]
        target = target * self.class_weights
        log_likelihood = classifiers[EXPRESSION](states[:first]).float().log_softmax(-1)
        expression = -(target * log_likelihood).sum() / target.sum()
        rows, states = rows[first:], states[first:]
        attributes = self.model.classification_loss(
            ATTRIBUTES, classifiers[ATTRIBUTES](states).float(), faces.attributes[rows]
        )
        age = faces.age[rows, None]
        known = ~age.isnan()
        guess = classifiers[AGE](states).float()
        errors = nn.functional.smooth_l1_loss(
            guess / AGE_SCALE, torch.where(known, age, 0) / AGE_SCALE, reduction="none"
        )
        weights = settings.loss_weights
        return {
            EXPRESSION: weights[0] * expression,
            ATTRIBUTES: weights[1] * attributes,
            AGE: weights[2] * (errors * known).sum() / known.sum().clamp(min=1),
        }

    @torch.no_grad()
    def logits(self, rows: torch.Tensor, batch_size: int = 512) -> dict[str, torch.Tensor]:
        """Rows [R] of the faces → head → logits [R, labels] on the host, float32."""
        self.model.eval()
        found: dict[str, list[torch.Tensor]] = {EXPRESSION: [], ATTRIBUTES: [], AGE: []}
        for part in rows.split(batch_size):
            pixels = self.faces.images[part].movedim(-1, 1).float() / 127.5 - 1
            outputs = self.model.gptface(pixel_values=pixels, read_pixels=True)
            for name, logits in found.items():
                logits.append(self.model.classify(name, outputs).float().cpu())
        return {name: torch.cat(logits) for name, logits in found.items()}

    def calibrate(self) -> dict[str, Any]:
        """Temperatures and thresholds into the configuration; returns figures of the faces that were held out."""
        faces, rows = self.faces, self.held_out
        heads = {name: dict(head) for name, head in self.model.config.heads.items()}
        logits = self.logits(rows)
        votes, attributes, age = (getattr(faces, name)[rows].cpu() for name in (EXPRESSION, ATTRIBUTES, AGE))
        truth = torch.where(votes.sum(1) > 0, votes.argmax(1), -100).numpy()
        source = np.array(faces.names)[faces.source[rows].cpu().numpy()]
        report: dict[str, Any] = {}
        if (truth >= 0).any():
            heads[EXPRESSION]["temperature"] = fit_temperature(logits[EXPRESSION].numpy(), truth)
            scores = probabilities(logits[EXPRESSION].numpy() / heads[EXPRESSION]["temperature"], False)
            for name in sorted(set(source[truth >= 0])):
                own = (source == name) & (truth >= 0)
                right = scores[own].argmax(1) == truth[own]
                recalls = [right[truth[own] == value].mean() for value in np.unique(truth[own])]
                report[f"{EXPRESSION}_{name}"] = {
                    "accuracy": float(right.mean()),
                    "balanced_accuracy": float(np.mean(recalls)),
                    "ece": expected_calibration_error(*calibration_pairs(scores[own], truth[own])),
                    "images": int(own.sum()),
                }
        told = attributes.numpy()
        if (told >= 0).any():
            temperature = fit_temperature(logits[ATTRIBUTES].numpy(), told)
            thresholds = choose_thresholds(faces.attributes.cpu().numpy())
            heads[ATTRIBUTES] |= {"temperature": temperature, "thresholds": thresholds.tolist()}
            scores = probabilities(logits[ATTRIBUTES].numpy() / temperature, True)
            right = ((scores >= thresholds) == told)[told >= 0]
            report[ATTRIBUTES] = {"accuracy": float(right.mean()), "labels_of_faces": int(right.size)}
        known = ~age.isnan()
        if known.any():
            error = (logits[AGE][known, 0] - age[known]).abs().mean()
            report[AGE] = {"mean_absolute_error": float(error), "images": int(known.sum())}
        for name in (EXPRESSION, ATTRIBUTES, AGE):
            heads[name]["trained"] = True
        self.model.config.heads = heads
        # the labels that a classification class last put there may be another head's
        self.model.config.id2label, self.model.config.label2id = {}, {}
        return report


def start_heads(model: GPTFaceTaskModel, faces: RecognitionFaces, seed: int) -> None:
    """Heads that are not trained yet start at what is common: small weights, shares of the labels, the mean age."""
    generator = torch.Generator().manual_seed(seed)
    config = copy.deepcopy(model.config)
    for name in (ATTRIBUTES, EXPRESSION, AGE):
        fresh = any(key.startswith(f"classifiers.{name}.") for key in model.missing_weights)
        if not fresh and name == ATTRIBUTES:
            continue
        targets = faces.attributes if name == ATTRIBUTES else torch.zeros(1)
        classifier = fresh_classifier(config, name, targets.cpu(), generator)
        if name == AGE:
            nn.init.constant_(classifier.output.bias, AGE_START)
        model.classifiers[name] = classifier


def train_pixel_reader(
    model: GPTFaceTaskModel,
    faces: RecognitionFaces,
    settings: PixelTrainingSettings = PixelTrainingSettings(),
    device: str | torch.device = "cpu",
    state_file: Path | None = None,
) -> dict[str, Any]:
    """
    Trains the pixel reader of a model and its heads `expression`, `attributes` and `age`; all else stays as it is, bit
    by bit.

    Args:
        model: see [`with_pixel_reader`].
        faces: what is trained on; see [`~recognition_packs.read_packs`].
        state_file: see [`PixelRecognitionTrainer`].

    Returns:
        Figures of the faces that were held out: accuracy, balanced accuracy and calibration error of the expressions
            of each set,
        accuracy of the attributes, mean absolute error of the age.

    Raises:
        FloatingPointError: a loss that is not finite.
    """
    start_heads(model, faces, settings.seed)
    trainer = PixelRecognitionTrainer(model.to(device), faces.to(device), settings, state_file)  # type: ignore[arg-type]
    with torch_seed(trainer.host_generator):
        trainer.train()
    report = trainer.calibrate()
    model.cpu()
    return report


def restore_head(model: GPTFaceTaskModel, folder: str | Path, name: str) -> None:
    """Gives a model the head that a checkpoint has under a name, in the place of its own."""
    before = GPTFaceForPreTraining.from_pretrained(folder)
    model.classifiers[name] = before.classifiers[name]
    model.config.heads = {**model.config.heads, name: before.config.heads[name]}
    model.config.auxiliary_head = before.config.auxiliary_head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument("packs", type=Path, help="folder of packed faces")
    parser.add_argument("out", type=Path, help="folder of the result")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further folders of packs")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--steps", type=int, help="so many steps instead")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--imitation", type=float, default=0.25, help="share of the time in which codes are imitated")
    parser.add_argument("--expressions", type=float, default=0.55, help="share of a batch that has expressions")
    parser.add_argument("--adapter-rank", type=int, default=16)
    parser.add_argument("--weight-average", type=float, default=0.99)
    parser.add_argument("--bf16", action="store_true", help="autocast on CPUs too")
    parser.add_argument("--keep", nargs="*", default=[], help="heads of the checkpoint that stay as they are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="at most so many faces, to try it out")
    parser.add_argument("--workers", type=int, help="processes that decode pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    model = with_pixel_reader(options.model, options.seed, {"adapter_rank": options.adapter_rank})
    size = model.config.image_tokenizer_config.image_size
    labels = model.config.heads[ATTRIBUTES]["labels"]
    faces = read_packs([options.packs, *options.more], labels, size, options.limit, options.workers)
    logger.info("%d faces of %s", len(faces), ", ".join(faces.names))
    settings = PixelTrainingSettings(
        minutes=options.minutes,
        steps=options.steps,
        imitation=options.imitation,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        expressions=options.expressions,
        weight_average=options.weight_average,
        bf16=options.bf16,
        seed=options.seed,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    report = train_pixel_reader(model, faces, settings, options.device, options.out / "state.pt")
    for name in options.keep:
        restore_head(model, options.model, name)
    save_release(model, GPTFaceProcessor.from_pretrained(options.model), options.out)
    (options.out / "recognition.json").write_text(json.dumps(report, indent=2) + "\n")
    logger.info("%s", json.dumps(report))


if __name__ == "__main__":
    main()
