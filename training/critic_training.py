"""Training of a frozen model's critic by a recipe: samples are drawn once, their states computed once."""

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gptface.data.code_dataset import load_code_table
from gptface.data.critic_samples import (
    CriticSampleLaw,
    CriticSampler,
    CriticSamples,
    read_critic_samples,
    write_critic_samples,
)
from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
from gptface.modeling_gptface.heads_gptface import GPTFaceCritic
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.whole_files import damage_named, whole_file

from .head_training import learning_rate_factor, torch_seed
from .recipe import Recipe
from .release import save_release

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "critic_training.pt"


@dataclass(frozen=True)
class CriticTrainingSettings:
    """
    Args:
        minutes, steps: how long, by the clock or by steps; one of them.
        batch_size: grids a step.
        learning_rate, weight_decay: of AdamW; the rate rises quickly and falls by a cosine.
        weight_average: decay of the average of the weights over the steps, which is what is kept.
        log_every: steps between two lines in the log.
        save_every: seconds between two checkpoints.
        seed: of all draws.

    Raises:
        ValueError: both times or none, or one that is not above 0.
    """

    minutes: float | None = None
    steps: int | None = None
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    weight_average: float = 0.98
    log_every: int = 50
    save_every: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("a critic is trained for some minutes or for some steps: give one of them")
        if not (self.minutes or self.steps or 0) > 0:
            raise ValueError(f"minutes and steps must be above 0, got {self.minutes or self.steps}")


@dataclass
class CriticRecipe(Recipe):
    """
    What a recipe (YAML) for a critic holds.

    Args:
        output_dir: where samples, the state of the run and the final model go.
        train, evaluation: folders of codes by `gptface encode`, made by the image tokenizer of `init`; the figures of
            those for evaluation stand in the log.
        batches, evaluation_batches: of samples, see `samples`.
        settings: fields of [`CriticTrainingSettings`].
        data_dir: folder at which relative paths start.
        init: folder or Hub name of the generator; `gptface train-critic` takes the embedded one where it is not given.
        channels: width of the critic, see `critic_channels` of [`GPTFaceConfig`].
        samples: fields of [`CriticSampleLaw`].
        bf16: whether samples are drawn in bfloat16.
    """

    output_dir: str
    train: list[str]
    settings: dict[str, Any]
    batches: int
    evaluation: list[str] = field(default_factory=list)
    evaluation_batches: int = 10
    data_dir: str = "."
    init: str | None = None
    channels: int = 96
    samples: dict[str, Any] = field(default_factory=dict)
    bf16: bool = False

    @classmethod
    def check(cls, path: str | Path, values: dict[str, Any]) -> None:
        missing = [name for name in ("output_dir", "train", "settings", "batches") if not values.get(name)]
        if missing:
            raise ValueError(f"{path}: it needs {' and '.join(missing)}")


def train_critic_by_recipe(recipe: CriticRecipe) -> Path:
    """
    Runs a recipe, resuming if it was stopped; returns the folder of the model with its trained critic.

    Raises:
        ValueError: a field of the recipe that cannot be right, or samples of another generator.
        FloatingPointError: a loss that is not finite; the message names the step.
    """
    settings, output = CriticTrainingSettings(**recipe.settings), Path(recipe.output_dir)
    if recipe.init is None:
        raise ValueError("init must be the folder of a model")
    model = GPTFaceForGuidedGeneration.from_pretrained(recipe.init, dtype=torch.float32)
    processor = GPTFaceProcessor.from_pretrained(recipe.init)
    samples = _samples(recipe, model, processor, "train", recipe.train, recipe.batches)
    held_out = None
    if recipe.evaluation:
        held_out = _samples(recipe, model, processor, "evaluation", recipe.evaluation, recipe.evaluation_batches)
    train_critic(model, samples, settings, recipe.channels, held_out, output / CHECKPOINT_NAME)
    return save_release(model, processor, output / "final")


def _samples(
    recipe: CriticRecipe,
    model: GPTFaceForGuidedGeneration,
    processor: GPTFaceProcessor,
    name: str,
    folders: Sequence[str],
    batches: int,
) -> CriticSamples:
    """The samples of the faces in some folders, drawn where they are not there yet."""
    table = load_code_table([Path(recipe.data_dir, folder) for folder in folders], model.image_tokenizer.fingerprint())
    law, seed = CriticSampleLaw(**recipe.samples), recipe.settings.get("seed", 0)
    target = Path(recipe.output_dir, f"{name}_samples")
    sampler = CriticSampler(model, processor, table, law, seed, recipe.bf16)
    write_critic_samples(target, sampler, batches, {"faces": list(folders), "bf16": recipe.bf16})
    return read_critic_samples(target)


def train_critic(
    model: GPTFaceForGuidedGeneration,
    samples: CriticSamples,
    settings: CriticTrainingSettings,
    channels: int = 96,
    held_out: CriticSamples | None = None,
    checkpoint: Path | None = None,
) -> GPTFaceForGuidedGeneration:
    """
    Gives a model a new critic, trained on samples; all else of the model stays as it is.

    Args:
        channels: width of the critic.
        held_out: samples of other faces, whose figures stand in the log at each checkpoint and in the end.
        checkpoint: file for the state of the run; where it exists, the run goes on from it.

    Raises:
        ValueError: samples of grids that the model does not read.
        FloatingPointError: a loss that is not finite; the message names the step.
    """
    config = copy.deepcopy(model.config)
    config.critic_channels = channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        critic = GPTFaceCritic(config)
    if samples.codes.shape[1] != config.num_critic_tokens:
        raise ValueError(
            f"the samples have {samples.codes.shape[1]} tokens a grid, this model's critic reads "
            f"{config.num_critic_tokens}"
        )
    run = _Run(critic.to(model.device), settings, checkpoint)
    states = grid_states(model, critic, samples.codes)
    others = None if held_out is None else grid_states(model, critic, held_out.codes)
    while run.progress() < 1:
        rows = torch.randint(len(samples), (settings.batch_size,), generator=run.generator)
        loss = run.step(states[:, rows].to(model.device).float(), samples.drawn[rows].to(model.device))
        if run.steps % settings.log_every == 0:
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss of step {run.steps} is not finite: {float(loss)}")
            logger.info("step %d, %.1f min, loss %.4f", run.steps, run.seconds() / 60, float(loss))
        if run.is_due():
            run.save()
            if held_out is not None and others is not None:
                logger.info("held out: %s", _figures(run.averaged(), others, held_out))
    run.save()
    model.critic = run.averaged().requires_grad_(False)
    model.config.critic_channels, model.config.critic_trained = channels, True
    if held_out is not None and others is not None:
        logger.info("held out: %s", _figures(model.critic, others, held_out))
    return model


@torch.no_grad()
def grid_states(
    model: GPTFaceForGuidedGeneration, critic: GPTFaceCritic, codes: torch.Tensor, batch_size: int = 64
) -> torch.Tensor:
    """
    Grids of codes [S, N] → their states behind the layers that a critic reads [layers, S, N, H] as float16, on the
    CPU.
    """
    model.eval()
    parts = []
    for batch in codes.split(batch_size):
        hidden = model.gptface(image_codes=batch.to(model.device), output_hidden_states=True).hidden_states
        parts.append(torch.stack([hidden[layer][:, -codes.shape[1] :] for layer in critic.layers]).half().cpu())
    return torch.cat(parts, 1)


@torch.no_grad()
def _figures(critic: GPTFaceCritic, states: torch.Tensor, samples: CriticSamples) -> dict[str, float]:
    """Figures of samples whose states are those of [`grid_states`]."""
    device = critic.output.weight.device
    logits = [critic.of_states(list(each.to(device).float())).cpu() for each in states.split(64, 1)]
    return samples.figures(torch.cat(logits))


class _Run:
    """The state of one run of [`train_critic`]."""

    def __init__(self, critic: GPTFaceCritic, settings: CriticTrainingSettings, checkpoint: Path | None):
        self.critic, self.settings, self.checkpoint = critic.train(), settings, checkpoint
        self.optimizer = torch.optim.AdamW(
            critic.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.average = AveragedModel(critic, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average))
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.steps = 0
        self._before, self._started = 0.0, time.monotonic()
        self._saved = self._started
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)

    def seconds(self) -> float:
        """Time spent, that of runs before the checkpoint too."""
        return self._before + time.monotonic() - self._started

    def progress(self) -> float:
        """Share of the run that is over."""
        if self.settings.steps is not None:
            return self.steps / self.settings.steps
        assert self.settings.minutes is not None
        return self.seconds() / 60 / self.settings.minutes

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.checkpoint is not None and time.monotonic() - self._saved > self.settings.save_every

    def step(self, states: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """One step on states [layers, B, N, H] of grids of which the tokens [B, N] bool are drawn; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * learning_rate_factor(min(1.0, self.progress()))
        with torch_seed(self.generator):
            logits = self.critic.of_states(list(states))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, (~drawn).to(logits))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.critic.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.critic)
        self.steps += 1
        return loss.detach()

    def averaged(self) -> GPTFaceCritic:
        """A critic with the average of the weights."""
        return copy.deepcopy(self.average.module).eval()  # type: ignore[return-value]

    def save(self) -> None:
        """Writes the state, if there is a file for it, which appears whole."""
        self._saved = time.monotonic()
        if self.checkpoint is None:
            return
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "critic": self.critic.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "seconds": self.seconds(),
        }
        with whole_file(self.checkpoint) as unfinished:
            torch.save(state, unfinished)

    def _load(self, checkpoint: Path) -> None:
        with damage_named(checkpoint, "remove it to begin anew"):
            state = torch.load(checkpoint, "cpu", weights_only=True)
        self.critic.load_state_dict(state["critic"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.steps, self._before = state["steps"], state["seconds"]
        logger.info("goes on from step %d", self.steps)
