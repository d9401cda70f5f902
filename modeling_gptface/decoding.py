"""Decoding of masked cells: schedules and step functions. Tensors in, tensors out; no model.

Randomness comes from one `torch.Generator` for each sample, so that a sample's result does not depend on its batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DecodingSchedule:
    """
    How masked cells are filled (MaskGIT, Chang et al. 2022).

    Args:
        num_steps: forward passes; at least 1.
        temperature: of the sampled codes; 0 takes the likeliest.
        confidence_temperature: scale of the Gumbel noise on the confidence at the first step, falling linearly to 0.
    """

    num_steps: int = 12
    temperature: float = 1.0
    confidence_temperature: float = 4.5

    def __post_init__(self):
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        if not (0 <= self.temperature < math.inf and 0 <= self.confidence_temperature < math.inf):
            raise ValueError(
                "temperatures must be finite and not negative, "
                f"got temperature={self.temperature} and confidence_temperature={self.confidence_temperature}"
            )

    def masked_after(self, step: int, total: torch.Tensor) -> torch.Tensor:
        """How many of `total` [B] masked cells are still masked after `step` (0-based): the cosine schedule."""
        ratio = math.cos(math.pi / 2 * (step + 1) / self.num_steps)
        # at least one cell is decided in each step while any is left
        upper = (total - step - 1).clamp(min=0)
        return torch.minimum((total * ratio).floor().long(), upper) if step + 1 < self.num_steps else total * 0

    def noise_scale(self, step: int) -> float:
        """Scale of the confidence noise at `step`."""
        return self.confidence_temperature * (1 - (step + 1) / self.num_steps)


def uniform_noise(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> torch.Tensor:
    """Uniform noise [B, *shape] in (0, 1), row i from generator i, so that a row is the same in any batch."""
    rows = [torch.rand(tuple(shape), generator=generator, device=generator.device) for generator in generators]
    return torch.stack([row.to(device) for row in rows]).clamp(min=1e-20)


def gumbel_noise(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> torch.Tensor:
    """Standard Gumbel noise [B, *shape], row i from generator i."""
    return -torch.log((-torch.log(uniform_noise(shape, generators, device))).clamp(min=1e-20))


def sample_codes(
    logits: torch.Tensor, generators: Sequence[torch.Generator], temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logits [B, N, K] → codes [B, N] and their log-probabilities [B, N] under the untempered distribution.

    Raises:
        FloatingPointError: where logits are not finite.
    """
    if not torch.isfinite(logits).all():
        raise FloatingPointError("logits are not finite")
    noise = gumbel_noise(logits.shape[1:], generators, logits.device) if temperature > 0 else 0.0
    codes = (logits + temperature * noise).argmax(-1)
    log_probabilities = logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    return codes, log_probabilities


def parallel_step(
    logits: torch.Tensor,
    codes: torch.Tensor,
    mask: torch.Tensor,
    step: int,
    total: torch.Tensor,
    schedule: DecodingSchedule,
    generators: Sequence[torch.Generator],
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Fills the masked cells and masks the least confident of them again.

    Args:
        logits: [B, N, K] of this step.
        codes: [B, N]; given cells keep theirs.
        mask: [B, N] bool, True = still to be decided.
        step: 0-based.
        total: [B] cells that were masked at the start.

    Returns:
        codes [B, N] and the mask [B, N] for the next step. The codes hold a full grid: what is still masked holds this
        step's guess.
    """
    sampled, confidence = sample_codes(logits, generators, schedule.temperature)
    codes = torch.where(mask, sampled, codes)
    noise = gumbel_noise(mask.shape[1:], generators, logits.device)
    confidence = confidence + schedule.noise_scale(step) * noise
    # given cells are never masked again
    confidence = confidence.masked_fill(~mask, math.inf)
    rank = confidence.argsort(-1).argsort(-1)
    remaining = torch.minimum(schedule.masked_after(step, total), mask.sum(-1))
    return codes, mask & (rank < remaining[:, None])
