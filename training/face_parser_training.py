"""Training of the face parser on aligned faces with masks: minutes on one GPU, hours on one core of a CPU."""

import copy
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from transformers import AutoConfig

from gptface.data.face_masks import wear_face_masks
from gptface.data.face_parsing_augmentation import IGNORED, ParsingAugmentation
from gptface.data.face_parsing_data import ParsedFaces, read_parsed_faces
from gptface.metrics.segmentation_scores import confusion_counts, intersection_over_union
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES, GPTFaceConfig, GPTFaceParserConfig
from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.modeling_gptface.modeling_gptface import GPTFaceModel
from gptface.pipelines.pipeline_loading import find_checkpoint
from gptface.processing.whole_files import damage_named, whole_file

from .checkpoints import save_rounded
from .recipe import Recipe

logger = logging.getLogger(__name__)

#: File of `output_dir` from which a run that was stopped goes on.
CHECKPOINT_NAME = "face_parser_training.pt"
#: Share of a run after which the averaged parser is good enough to label faces.
TEACHING_FROM = 0.3
#: Logit of a class at the start that a parser was not trained on: rare, wherever it is.
UNSEEN = -6.0
#: Mask value of a pixel that does not count.
UNKNOWN = 255


@dataclass(frozen=True)
class ParserTrainingArguments:
    """
    How a parser is trained. The run ends after `steps` or `minutes`, whichever comes first; the learning rate falls to
    0 until then.

    Args:
        steps, minutes: length of the run; one of them at least.
        batch_size: faces a step.
        learning_rate: the largest, of AdamW; it rises in the first 3 % of the run and falls along a cosine.
        weight_decay: of AdamW.
        max_grad_norm: to which gradients are clipped.
        weight_average: decay of the average of the weights over the steps, which is what is kept.
        dice_weight: factor of the Dice loss (Milletari et al. 2016) beside the cross-entropy; small classes count as
            much as large ones in it.
        rare_class_weight: exponent of a class's share of the pixels in its weight in the cross-entropy, negated; 0
            weighs all pixels alike.
        rare_face_weight: the same of a class's share of the faces, in how often a face is drawn that shows it; 0 draws
            all alike.
        unlabelled_share: share of a batch that are faces without a mask, labelled by the averaged parser
            (Tarvainen and Valpola 2017) as it sees them unchanged.
        confidence: probability below which such a label does not count.
        bf16: whether the network computes in bfloat16; on a GPU alone by default.
        log_every: steps between lines in the log.
        checkpoint_every: seconds between checkpoints.
        seed: of weights, batches and augmentation.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    max_grad_norm: float = 1.0
    weight_average: float = 0.998
    dice_weight: float = 0.5
    rare_class_weight: float = 0.25
    rare_face_weight: float = 0.5
    unlabelled_share: float = 0.25
    confidence: float = 0.8
    bf16: bool | None = None
    log_every: int = 100
    checkpoint_every: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("give the length of the run: steps, minutes or both")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}")
        if not 0 <= self.unlabelled_share < 1 or not 0 <= self.weight_average < 1:
            raise ValueError("unlabelled_share and weight_average must lie in [0, 1)")


@dataclass
class FaceParserTrainingConfig(Recipe):
    """
    What a recipe (YAML) for a face parser holds.

    Args:
        output_dir: where checkpoints and the final parser (`final`) go.
        train, evaluation: parquet files, see [`read_parsed_faces`]; relative paths start at `data_dir`. Rows without a
            mask are the unlabelled faces.
        data_dir: folder of the files.
        init: folder of a parser, or of a model that has one, to start from; random weights where it is not given.
        model: fields of [`GPTFaceParserConfig`].
        face_masks: copies of each face of `train` with a mask painted over mouth and nose, see
            [`~gptface.data.face_masks.wear_face_masks`].
        augmentation: fields of [`ParsingAugmentation`].
        arguments: fields of [`ParserTrainingArguments`].
        device: `"cuda"` or `"cpu"`; the GPU where there is one by default.
    """

    output_dir: str
    train: list[str]
    evaluation: list[str] = field(default_factory=list)
    data_dir: str = "."
    init: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    face_masks: int = 0
    augmentation: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    device: str | None = None

    def paths(self, names: list[str]) -> list[Path]:
        """The files of `train` or `evaluation`, under `data_dir`."""
        return [Path(self.data_dir, name) for name in names]


def run_face_parser_training(config: FaceParserTrainingConfig) -> Path:
    """
    Runs a recipe, going on from the checkpoint in `output_dir` if there is one; returns the folder of the parser,
    whose weights are rounded to fp16, as they are released.

    Raises:
        ValueError: a field of the recipe, or a data file, that cannot be right.
        FloatingPointError: a loss that is not finite.
    """
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model_config = GPTFaceParserConfig(**config.model)
    seed = config.arguments.get("seed", 0)
    parser = None if config.init is None else with_all_classes(load_face_parser(config.init), seed)
    size = model_config.image_size if parser is None else parser.config.image_size
    if config.face_masks and parser is not None and "face_mask" not in parser.config.class_names:
        raise ValueError("face_masks needs a parser that has the class 'face_mask': leave it or `init` out")
    faces = read_parsed_faces(config.paths(config.train), size)
    worn = [wear_face_masks(faces, seed + number) for number in range(config.face_masks)]
    evaluation = read_parsed_faces(config.paths(config.evaluation), size) if config.evaluation else None
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    parser = train_face_parser(
        torch.cat([each.images for each in (faces, *worn)]).to(device),
        torch.cat([each.masks for each in (faces, *worn)]).to(device),
        ParserTrainingArguments(**config.arguments),
        unlabelled=faces.unlabelled.to(device) if len(faces.unlabelled) else None,
        priors=faces.priors.to(device),
        parser=parser if parser is not None else new_parser(model_config, seed),
        augmentation=ParsingAugmentation(**config.augmentation),
        evaluation=evaluation,
        checkpoint=output / CHECKPOINT_NAME,
    )
    target = output / "final"
    save_rounded(parser, target)
    return target


def load_face_parser(folder: str | Path) -> GPTFaceParser:
    """
    The fp32 face parser of a folder or Hub name, be it one alone or inside a whole model.

    Raises:
        ValueError: where it holds no face parser.
    """
    config = AutoConfig.from_pretrained(find_checkpoint(folder))
    if isinstance(config, GPTFaceParserConfig):
        return GPTFaceParser.from_pretrained(folder, dtype=torch.float32)
    if not isinstance(config, GPTFaceConfig) or config.face_parser_config is None:
        raise ValueError(f"{folder} holds a {config.model_type} without a face parser")
    parser = GPTFaceModel.from_pretrained(folder, dtype=torch.float32).face_parser
    assert parser is not None
    return parser


def new_parser(config: GPTFaceParserConfig, seed: int) -> GPTFaceParser:
    """A parser with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPTFaceParser(config)


def with_all_classes(parser: GPTFaceParser, seed: int) -> GPTFaceParser:
    """
    A parser that tells all `FACE_CLASSES` apart, from one that knows the first of them; the others are rare to it. The
    same parser where it knows them all, or has classes of its own.
    """
    known = parser.config.class_names
    if known == FACE_CLASSES or known != FACE_CLASSES[: len(known)]:
        return parser
    config = copy.deepcopy(parser.config)
    config.id2label = dict(enumerate(FACE_CLASSES))
    config.label2id = {name: index for index, name in enumerate(FACE_CLASSES)}
    grown = new_parser(config, seed)
    state = parser.state_dict()
    own = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    grown.load_state_dict(own, strict=False)
    assert grown.classifier.bias is not None
    with torch.no_grad():
        grown.classifier.weight.mul_(0.1)[: len(known)] = state["classifier.weight"]
        grown.classifier.bias.fill_(UNSEEN)[: len(known)] = state["classifier.bias"]
    return grown


def train_face_parser(
    images: torch.Tensor,
    masks: torch.Tensor,
    arguments: ParserTrainingArguments,
    unlabelled: torch.Tensor | None = None,
    priors: torch.Tensor | None = None,
    parser: GPTFaceParser | None = None,
    augmentation: ParsingAugmentation | None = None,
    evaluation: ParsedFaces | None = None,
    checkpoint: Path | None = None,
) -> GPTFaceParser:
    """
    Trains a parser on the device of its data, on a GPU in bfloat16 unless told otherwise.

    Args:
        images: uint8 [N, S, S, 3], aligned faces.
        masks: uint8 [N, S, S], indices into the parser's classes, 255 where a pixel does not count.
        unlabelled: uint8 [M, S, S, 3], faces without masks.
        priors: [M, C], see [`ParsedFaces`]; nothing is known of the unlabelled faces by default.
        parser: to start from; a new one by default. It is trained in place.
        evaluation: faces whose mean IoU stands in the log after the run and at each checkpoint.
        checkpoint: file that holds the state of the run, written every `checkpoint_every` seconds; a run goes on from
            it.

    Returns:
        The parser with the average of the weights, on the device of the data, in eval mode.

    Raises:
        ValueError: tensors of other shapes.
        FloatingPointError: a loss that is not finite; the message names the step.
    """
    if images.ndim != 4 or images.shape[3] != 3 or masks.shape != images.shape[:3] or not len(images):
        raise ValueError(
            f"images [N, S, S, 3] and masks [N, S, S] expected, got {list(images.shape)} and {list(masks.shape)}"
        )
    device = images.device
    parser = new_parser(GPTFaceParserConfig(image_size=images.shape[1]), arguments.seed) if parser is None else parser
    run = _Run(parser.to(device).to(memory_format=torch.channels_last), arguments, device)  # type: ignore[call-arg,arg-type]
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    augmentation = augmentation or ParsingAugmentation()
    classes = len(parser.config.class_names)
    weights = class_weights(masks, classes, arguments.rare_class_weight)
    shown = torch.stack([(masks == index).flatten(1).any(1) for index in range(classes)], 1)
    draw = _Drawing(images, masks, face_weights(shown, arguments.rare_face_weight))
    others = None
    if unlabelled is not None:
        priors = torch.zeros(len(unlabelled), classes, device=device) if priors is None else priors
        others = _Drawing(unlabelled, priors, face_weights(priors > 0, arguments.rare_face_weight))
    saved = time.monotonic()
    while run.progress() < 1:
        batch_images, batch_masks = run.batch(draw, others)
        pixels, labels = augmentation(batch_images, batch_masks, run.generator)
        loss = run.step(pixels, labels, weights)
        if run.steps % arguments.log_every == 0:
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss of step {run.steps} is not finite: {float(loss)}")
            logger.info("step %d, %.1f min, loss %.4f", run.steps, run.seconds() / 60, float(loss))
        if checkpoint is not None and time.monotonic() - saved > arguments.checkpoint_every:
            run.save(checkpoint)
            if evaluation is not None:
                _log_scores(run.averaged(), evaluation, run.steps)
            saved = time.monotonic()
    if checkpoint is not None:
        run.save(checkpoint)
    trained = run.averaged()
    if not all(torch.isfinite(parameter).all() for parameter in trained.parameters()):
        raise FloatingPointError(f"weights are not finite after {run.steps} steps")
    if evaluation is not None:
        _log_scores(trained, evaluation, run.steps)
    return trained


@dataclass(frozen=True)
class _Drawing:
    """
    Faces from which batches are drawn.

    Args:
        images: uint8 [N, S, S, 3].
        targets: [N, …], what is known of them.
        odds: [N], how often each is drawn.
    """

    images: torch.Tensor
    targets: torch.Tensor
    odds: torch.Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.multinomial(self.odds, count, replacement=True, generator=generator)
        return self.images[rows], self.targets[rows]


class _Run:
    """The state of a training run."""

    def __init__(self, parser: GPTFaceParser, arguments: ParserTrainingArguments, device: torch.device):
        self.arguments = arguments
        self.device = device
        self.parser = parser.train()
        decayed = [parameter for parameter in parser.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in parser.parameters() if parameter.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": arguments.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=arguments.learning_rate,
            fused=device.type == "cuda",
        )
        self.average = AveragedModel(parser, multi_avg_fn=self._lerp)
        self.generator = torch.Generator(device).manual_seed(arguments.seed)
        self.steps = 0
        self._seconds_before, self._start = 0.0, time.monotonic()

    def _lerp(self, averages: Any, parameters: Any, _: Any) -> None:
        # a short average at first, so that the random weights are soon forgotten
        share = max(1 - self.arguments.weight_average, 9 / (10 + self.steps))
        torch._foreach_lerp_(averages, parameters, share)

    def seconds(self) -> float:
        """Time spent in training, that of runs before the checkpoint too."""
        return self._seconds_before + time.monotonic() - self._start

    def progress(self) -> float:
        """How much of the run is over, from 0 to 1."""
        arguments = self.arguments
        by_steps = 0.0 if arguments.steps is None else self.steps / max(1, arguments.steps)
        by_time = 0.0 if arguments.minutes is None else self.seconds() / 60 / max(1e-6, arguments.minutes)
        return min(1.0, max(by_steps, by_time))

    def batch(self, labelled: "_Drawing", unlabelled: "_Drawing | None") -> tuple[torch.Tensor, torch.Tensor]:
        """Random faces [B, S, S, 3] with their masks [B, S, S], in part with masks that the averaged parser makes."""
        count, taught = self.arguments.batch_size, 0
        if unlabelled is not None and self.progress() > TEACHING_FROM:
            taught = round(count * self.arguments.unlabelled_share)
        images, masks = labelled.draw(count - taught, self.generator)
        if not taught or unlabelled is None:
            return images, masks
        others, priors = unlabelled.draw(taught, self.generator)
        return torch.cat([images, others]), torch.cat([masks, self._teach(others, priors)])

    def _teach(self, images: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
        probability, classes = predict_probabilities(self.averaged(), images, priors).max(1)
        return classes.to(torch.uint8).masked_fill(probability < self.arguments.confidence, UNKNOWN)

    def step(self, pixels: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """One step on pixels [B, 3, S, S] and labels [B, S, S]; returns its loss."""
        arguments, progress = self.arguments, self.progress()
        factor = min(1.0, (progress + 1e-3) / 0.03) * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
        for group in self.optimizer.param_groups:
            group["lr"] = arguments.learning_rate * factor
        bf16 = self.device.type == "cuda" if arguments.bf16 is None else arguments.bf16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits = self.parser(pixels).logits
        loss = parsing_loss(logits.float(), labels, weights, arguments.dice_weight)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parser.parameters(), arguments.max_grad_norm)
        self.optimizer.step()
        self.steps += 1
        self.average.update_parameters(self.parser)
        return loss.detach()

    def averaged(self) -> GPTFaceParser:
        """The parser with the average of the weights."""
        return self.average.module.eval()  # type: ignore[return-value]

    def save(self, path: Path) -> None:
        """Writes the state; the file appears whole."""
        state = {
            "parser": self.parser.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "seconds": self.seconds(),
        }
        with whole_file(path) as unfinished:
            torch.save(state, unfinished)

    def load(self, path: Path) -> None:
        """Goes on from a state that was written on a device of the same kind."""
        with damage_named(path, "remove it to begin anew"):
            state = torch.load(path, self.device, weights_only=True)
        self.parser.load_state_dict(state["parser"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.steps, self._seconds_before = state["steps"], state["seconds"]
        logger.info("goes on from step %d", self.steps)


def class_weights(masks: torch.Tensor, num_classes: int, exponent: float) -> torch.Tensor:
    """
    Weights [num_classes] of the classes in masks [N, S, S]: share of the pixels ** −exponent; 1 for a pixel on
    average.
    """
    counts = torch.bincount(masks.flatten().long(), minlength=num_classes)[:num_classes].float()
    weights = (counts.clamp(min=1) / counts.sum()) ** -exponent
    return weights / (weights * counts / counts.sum()).sum()


def face_weights(shown: torch.Tensor, exponent: float) -> torch.Tensor:
    """
    How often each face is drawn [N]: by the rarest class that it shows (bool [N, C]), its share of the faces **
    −exponent.
    """
    shares = shown.float().mean(0).clamp(min=1 / len(shown))
    return (shown * shares**-exponent).amax(1).clamp(min=1)


def parsing_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, dice_weight: float
) -> torch.Tensor:
    """
    Weighted cross-entropy and Dice loss.

    Args:
        logits: [B, C, H, W].
        labels: long [B, H, W], [`IGNORED`] where a pixel does not count.
        weights: [C], of the classes in the cross-entropy.
    """
    log_probabilities = logits.log_softmax(1)
    loss = F.nll_loss(log_probabilities, labels, weights, ignore_index=IGNORED)
    if dice_weight == 0:
        return loss
    classes = torch.arange(logits.shape[1], device=logits.device)
    true = labels[:, None] == classes[:, None, None]
    probabilities = log_probabilities.exp() * (labels != IGNORED)[:, None]
    both = (probabilities * true).sum((0, 2, 3))
    area = true.sum((0, 2, 3))
    dice = (2 * both + 1) / (probabilities.sum((0, 2, 3)) + area + 1)
    present = (area > 0).float()  # of a class that is not in the batch the cross-entropy says enough
    return loss + dice_weight * ((1 - dice) * present).sum() / present.sum().clamp(min=1)


@torch.no_grad()
def predict_probabilities(
    parser: GPTFaceParser, images: torch.Tensor, priors: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Probabilities [B, C, S, S] of the classes in pictures uint8 [B, S, S, 3] on the parser's device: the mean of those
    of a picture and of its mirror image; priors [B, C] are added to the logits.
    """
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        straight, mirrored = parser(torch.cat([pixels, pixels.flip(3)])).logits.float().chunk(2)
    if priors is not None:
        straight, mirrored = (logits + priors[:, :, None, None] for logits in (straight, mirrored))
    return (straight.softmax(1) + mirrored.softmax(1).flip(3)) / 2


@torch.no_grad()
def parsing_confusion(
    parser: GPTFaceParser, images: torch.Tensor, masks: torch.Tensor, batch_size: int = 16
) -> torch.Tensor:
    """
    Confusion counts long [C, C] of a parser, on the CPU, over pictures uint8 [N, S, S, 3] and masks [N, S, S]; no
    mirror images.
    """
    classes = len(parser.config.class_names)
    counts = torch.zeros(classes, classes, dtype=torch.long)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        pixels = images[rows].to(parser.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        predicted = parser(pixels).logits.argmax(1).cpu()
        counts += confusion_counts(predicted, masks[rows].cpu(), classes)
    return counts


def _log_scores(parser: GPTFaceParser, faces: ParsedFaces, step: int) -> None:
    scores = intersection_over_union(parsing_confusion(parser, faces.images, faces.masks))
    named = {name: round(score, 3) for name, score in zip(parser.config.class_names, scores.tolist(), strict=True)}
    logger.info("step %d, IoU %s, mean %.4f", step, named, float(scores.nanmean()))
