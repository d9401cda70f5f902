"""Training of the plan of an image tokenizer, whose encoder, codes and decoder stay as they are: first on latents,
then on pixels.
"""

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gptface.data.augmentation import FaceAugmentation
from gptface.data.batch_augmentation import augment_faces
from gptface.metrics.reconstruction import code_usage, psnr
from gptface.modeling_gptface.configuration_gptface import GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer, PlanTokenizer
from gptface.processing.whole_files import damage_named, whole_file

from .image_tokenizer_init import fit_quantizer, merged_config

logger = logging.getLogger(__name__)

#: Faces that are encoded at once, by kind of device.
ENCODED_AT_ONCE = {"cpu": 2}
WARMUP_STEPS = 30
#: Parameters of a plan without a say in its codes.
WAY_BACK = ("decoder.", "quantizer.up.")
LEAST_LEARNING_RATE = 0.03


@dataclass(frozen=True)
class PlanTrainingSettings:
    """
    Args:
        minutes, steps: how long, by the clock or by steps; one of them.
        latent_share: share of that for the first part, on latents alone; 0 goes on with a plan that is trained
            already.
        latent_faces: most faces whose latents are computed once, for the first part.
        latent_batch_size, batch_size: faces a step of the first and the second part.
        latent_learning_rate, learning_rate: of AdamW in the two parts; each rises quickly and falls by a cosine.
        lpips_weight: factor of LPIPS beside the mean absolute error, both of pixels in [-1, 1].
        latent_weight: factor of the mean squared error of the latents, in the second part.
        weight_average: decay of the average of the weights over the steps, which is what is kept.
        frozen_codes: train the way back alone: plan codes made before stay valid.
        augmentation: what happens to the faces.
        log_every: steps between two lines in the log.
        save_every: seconds between two checkpoints.
        seed: of all draws.
    """

    minutes: float | None = None
    steps: int | None = None
    latent_share: float = 0.3
    latent_faces: int = 32768
    latent_batch_size: int = 64
    batch_size: int = 128
    latent_learning_rate: float = 2e-3
    learning_rate: float = 1e-3
    lpips_weight: float = 2.0
    latent_weight: float = 0.1
    weight_average: float = 0.99
    frozen_codes: bool = False
    augmentation: FaceAugmentation = field(default_factory=lambda: FaceAugmentation(erasing=0.0))
    log_every: int = 50
    save_every: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("a plan is trained for some minutes or for some steps: give one of them")
        if not (self.minutes or self.steps or 0) > 0:
            raise ValueError(f"minutes and steps must be above 0, got {self.minutes or self.steps}")
        if not 0 <= self.latent_share <= 1:
            raise ValueError(f"latent_share must lie in 0…1, got {self.latent_share}")
        if self.frozen_codes and self.latent_share:
            raise ValueError("frozen_codes goes on with a trained plan: set latent_share to 0")


def with_plan(
    tokenizer: GPTFaceImageTokenizer, levels: list[int], channels: int = 128, seed: int = 0
) -> GPTFaceImageTokenizer:
    """A copy of an image tokenizer with a new, untrained plan; its codes, fingerprint and decoder are the same."""
    config: GPTFaceImageTokenizerConfig = merged_config(
        tokenizer.config, {"plan_levels": levels, "plan_channels": channels}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = GPTFaceImageTokenizer(config)
    state = {name: tensor for name, tensor in tokenizer.state_dict().items() if not name.startswith("plan.")}
    missing = copy.load_state_dict(state, strict=False).missing_keys
    assert all(name.startswith("plan.") for name in missing)
    return copy.to(tokenizer.device, tokenizer.dtype).eval()  # type: ignore[arg-type]


@torch.no_grad()
def start_plan(plan: PlanTokenizer, latents: torch.Tensor) -> None:
    """
    Sets an untrained plan so that training starts well: residual blocks that change nothing yet, and all levels in use
    for these latents [B, C, h, w].
    """
    for name, parameter in plan.named_parameters():
        if ".project." in name:
            parameter.zero_()
    fit_quantizer(plan.quantizer, plan.encoder(latents))


def train_plan(
    tokenizer: GPTFaceImageTokenizer,
    faces: torch.Tensor,
    covered: torch.Tensor | None,
    settings: PlanTrainingSettings,
    perceptual: nn.Module,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
) -> GPTFaceImageTokenizer:
    """
    Trains the plan of an image tokenizer in place and returns it. The weights of the plan are rounded to fp16 in the
    end, as they are released: codes made with it are those of the released one.

    Args:
        tokenizer: with a plan, see [`with_plan`].
        faces: aligned faces [N, H, W, 3] uint8; they go to the device as a whole.
        covered: [N, cells] bool, the cells of the grid that a face's picture covers; there is no loss outside. All by
            default.
        perceptual: LPIPS, (pictures, targets) → distances [B].
        checkpoint: file for the state of the run; where it exists, the run goes on from it.

    Raises:
        ValueError: a tokenizer without a plan, faces of another shape.
        FloatingPointError: a loss that is not finite; the message names the step.
    """
    trainer = _PlanTrainer(tokenizer, faces, covered, settings, perceptual, torch.device(device), checkpoint)
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    try:
        trainer.run()
    finally:
        torch.backends.cudnn.benchmark = benchmark
    return tokenizer


class _PlanTrainer:
    """The state of one run of [`train_plan`]."""

    def __init__(
        self,
        tokenizer: GPTFaceImageTokenizer,
        faces: torch.Tensor,
        covered: torch.Tensor | None,
        settings: PlanTrainingSettings,
        perceptual: nn.Module,
        device: torch.device,
        checkpoint: Path | None,
    ):
        self.started = self.saved = time.monotonic()
        check_faces(tokenizer, faces, covered)
        if tokenizer.plan is None:
            raise ValueError("the image tokenizer has no plan: see with_plan")
        self.settings, self.device, self.checkpoint = settings, device, checkpoint
        tokenizer.requires_grad_(False).eval()
        self.tokenizer = tokenizer.to(device, memory_format=torch.channels_last)  # type: ignore[arg-type, call-arg]
        self.plan = tokenizer.plan.train()
        self.faces = faces.to(device)
        self.covered = None if covered is None else covered.to(device)
        self.perceptual = perceptual.to(device)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        for name, parameter in self.plan.named_parameters():
            parameter.requires_grad_(not settings.frozen_codes or name.startswith(WAY_BACK))
        self.trained = [parameter for parameter in self.plan.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda"
        )
        self.average = AveragedModel(self.plan, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average))
        self.step = self.step_of_part = 0
        self.terms: Counter[str] = Counter()
        self.codes: list[torch.Tensor] = []
        if checkpoint is not None and checkpoint.is_file():
            self._resume(checkpoint)

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        assert self.settings.minutes is not None
        return (time.monotonic() - self.started) / (60 * self.settings.minutes)

    def run(self) -> None:
        settings = self.settings
        if self.progress < settings.latent_share:
            self._train_on_latents()
            self.step_of_part = 0
        while self.progress < 1:
            rows = self._draw(len(self.faces), settings.batch_size)
            terms, codes = self._pixel_terms(rows)
            loss = terms["l1"] + settings.lpips_weight * terms["lpips"] + settings.latent_weight * terms["latents"]
            self._update(loss, terms, codes, settings.learning_rate, settings.latent_share, 1.0)
        self._keep_average()
        self.plan.requires_grad_(False).eval()

    @torch.no_grad()
    def _keep_average(self) -> None:
        """
        Gives what was trained its average, rounded; no byte of the rest changes, nor does the fingerprint of frozen
        codes.
        """
        for parameter, average in zip(self.plan.parameters(), self.average.module.parameters(), strict=True):
            if parameter.requires_grad:
                parameter.copy_(average.half())

    def _train_on_latents(self) -> None:
        settings = self.settings
        latents, targets, seen = self._latents()
        if not self.step:
            start_plan(self.plan, latents[:1024].float())
        while self.progress < settings.latent_share:
            rows = self._draw(len(latents), settings.latent_batch_size)
            values, codes = self.plan(latents[rows].float())
            loss = masked_error(values, targets[rows].float(), seen[rows])
            self._update(loss, {"latents": loss}, codes, settings.latent_learning_rate, 0.0, settings.latent_share)

    @torch.no_grad()
    def _latents(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Latents, those that the decoder is to get [N, C, h, w] (half precision), and whether a cell is seen [N, 1, h,
        w].
        """
        generator = torch.Generator(self.device).manual_seed(self.settings.seed)
        count = min(len(self.faces), self.settings.latent_faces)
        order = torch.randperm(len(self.faces), generator=generator, device=self.device)[:count]
        parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for rows in order.split(ENCODED_AT_ONCE.get(self.device.type, 256)):
            pixels, seen = self._augmented(rows, generator)
            latents = self.tokenizer.latents(pixels)
            parts.append((latents.half(), self.tokenizer.quantizer(latents)[0].half(), self._cells(seen)))
        logger.info("latents of %d faces after %.0f s", count, time.monotonic() - self.started)
        latents, targets, cells = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return latents, targets, cells

    def _pixel_terms(self, rows: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Terms of the loss, and the plan codes, of the faces [rows]."""
        with torch.no_grad():
            pixels, seen = self._augmented(rows, self.generator)
            latents = self.tokenizer.latents(pixels)
            targets = self.tokenizer.quantizer(latents)[0]
        # What decides the codes stays in full precision: the codes in use do not come from autocast.
        quantized, codes = self.plan.quantizer(self.plan.encoder(latents))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            values = self.plan.decoder(quantized)
            decoded = self.tokenizer.decode_latents(values)
            decoded = torch.where(seen, decoded.float(), pixels)
            terms = {
                "l1": (decoded - pixels).abs().mean(),
                "lpips": self.perceptual(decoded, pixels).float().mean(),
                "latents": masked_error(values.float(), targets, self._cells(seen)),
            }
        return terms, codes

    def _augmented(self, rows: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        covered = None if self.covered is None else self.covered[rows]
        return augment_faces(self.faces[rows], covered, self.settings.augmentation, generator)

    def _cells(self, seen: torch.Tensor) -> torch.Tensor:
        """Seen pixels [B, 1, H, W] → cells of which most is seen [B, 1, h, w] bool."""
        return nn.functional.avg_pool2d(seen.float(), self.tokenizer.config.downsample_factor) > 0.5

    def _draw(self, count: int, batch_size: int) -> torch.Tensor:
        return torch.randint(count, (batch_size,), generator=self.generator, device=self.device)

    def _update(
        self,
        loss: torch.Tensor,
        terms: dict[str, torch.Tensor],
        codes: torch.Tensor,
        learning_rate: float,
        start: float,
        end: float,
    ) -> None:
        """
        A step of the optimizer in the part of the run from `start` to `end` (shares of it), whose peak rate is given.
        """
        part = min(1.0, (self.progress - start) / (end - start))
        falling = LEAST_LEARNING_RATE + (1 - LEAST_LEARNING_RATE) * 0.5 * (1 + math.cos(math.pi * part))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (self.step_of_part + 1) / WARMUP_STEPS) * falling
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.plan)
        self.step += 1
        self.step_of_part += 1
        self.terms.update({name: term.detach() for name, term in terms.items()})  # type: ignore[arg-type]
        self.codes.append(codes.flatten())
        if len(self.codes) == self.settings.log_every:
            self._log()
        if self.checkpoint is not None and time.monotonic() - self.saved > self.settings.save_every:
            self._save(self.checkpoint)

    def _log(self) -> None:
        means = {name: float(total) / len(self.codes) for name, total in self.terms.items()}
        if not all(map(math.isfinite, means.values())):
            raise FloatingPointError(f"the loss is not finite in the steps before {self.step}: {means}")
        usage = code_usage(torch.cat(self.codes), self.plan.quantizer.num_codes)
        figures = {**means, **usage}
        line = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        logger.info("step %d, %.0f s: %s", self.step, time.monotonic() - self.started, line)
        self.terms.clear()
        self.codes.clear()

    def _save(self, checkpoint: Path) -> None:
        state = {
            "step": self.step,
            "step_of_part": self.step_of_part,
            "elapsed": time.monotonic() - self.started,
            "plan": self.plan.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        with whole_file(checkpoint) as unfinished:
            torch.save(state, unfinished)
        self.saved = time.monotonic()

    def _resume(self, checkpoint: Path) -> None:
        with damage_named(checkpoint, "remove it to begin anew"):
            state = torch.load(checkpoint, self.device, weights_only=True)
        self.plan.load_state_dict(state["plan"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.step, self.step_of_part = state["step"], state["step_of_part"]
        self.started -= state["elapsed"]


def check_faces(tokenizer: GPTFaceImageTokenizer, faces: torch.Tensor, covered: torch.Tensor | None) -> None:
    """
    Raises `ValueError` where faces [N, H, W, 3] uint8 or their covered cells [N, cells] are not those of the
    tokenizer.
    """
    size, cells = tokenizer.config.image_size, tokenizer.config.grid_size**2
    if faces.dtype != torch.uint8 or faces.shape[1:] != (size, size, 3) or not len(faces):
        raise ValueError(f"faces must be uint8 of shape [N, {size}, {size}, 3], got {faces.dtype} {list(faces.shape)}")
    if covered is not None and covered.shape != (len(faces), cells):
        raise ValueError(f"covered must have shape [{len(faces)}, {cells}], got {list(covered.shape)}")


def masked_error(values: torch.Tensor, targets: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Mean squared error of latents [B, C, h, w] over the cells that are seen [B, 1, h, w] bool."""
    squared = (values - targets).pow(2).mean(1, keepdim=True)
    return (squared * seen).sum() / seen.sum().clamp(min=1)


@torch.no_grad()
def plan_figures(
    tokenizer: GPTFaceImageTokenizer, faces: torch.Tensor, perceptual: nn.Module, batch_size: int = 8
) -> dict[str, float]:
    """
    What the plan keeps of faces [N, H, W, 3] uint8: `psnr` (dB), `lpips`, means of the values of each face,
    `codes_used` and `perplexity` of its codes, `bits` a face.
    """
    distances, codes = [], []
    for part in faces.split(batch_size):
        pixels = part.to(tokenizer.device).movedim(-1, 1).float() / 127.5 - 1
        codes.append(tokenizer.encode_plan(pixels))
        decoded = tokenizer.decode_plan(codes[-1])
        distances.append(torch.stack([psnr(decoded, pixels), perceptual(decoded, pixels)], 1))
    config = tokenizer.config
    means = torch.cat(distances).mean(0).tolist()
    return {
        **dict(zip(("psnr", "lpips"), means, strict=True)),
        **code_usage(torch.cat(codes), config.num_plan_codes),
        "bits": config.num_plan_tokens * math.log2(config.num_plan_codes),
    }
