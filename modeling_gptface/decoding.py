"""Decoding of masked cells: schedules and step functions. Tensors in, tensors out; no model.

Randomness comes from one `torch.Generator` for each sample, so that a sample's result does not depend on its batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

DecodingMode = Literal["parallel", "span", "one_shot", "critic"]

#: Each step decides at least one cell: more steps than a grid of 32×32 has cells do nothing.
MAX_STEPS = 1024

#: Share of the cells that a round of correction draws again.
CORRECTED = 0.25

#: Codes of a whole grid [B, N] → for every cell the logit [B, N] that it is real.
Critic = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class DecodingSchedule:
    """
    How masked cells are filled.

    Args:
        num_steps: the most forward passes, 1…`MAX_STEPS`.
        temperature: of the sampled codes; 0 takes the likeliest.
        confidence_temperature: scale of the Gumbel noise on the confidence at the first step, falling linearly to 0.
        mode: `"parallel"` keeps the most confident cells at each step, more and more of them by the cosine schedule
            (MaskGIT, Chang et al. 2022); `"span"` fills each run of masked cells from left to right, all runs at once;
            `"one_shot"` fills everything in the first pass; `"critic"` keeps at each step, of all cells that were
            masked at the start, those that a critic takes for the most real (Token-Critic, Lezama et al. 2022).
        corrections: of `"critic"`, rounds after the last step, each of which draws the least real cells again.
        top_k: only the k likeliest codes of a cell can be drawn; None = all.

    Raises:
        ValueError: a value out of its range.
    """

    num_steps: int = 12
    temperature: float = 1.0
    confidence_temperature: float = 4.5
    mode: DecodingMode = "parallel"
    top_k: int | None = None
    corrections: int = 0

    def __post_init__(self):
        if self.mode not in get_args(DecodingMode):
            raise ValueError(f"the decoding mode must be one of {get_args(DecodingMode)}, got {self.mode!r}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1 (or None, all codes), got {self.top_k}")
        if not 1 <= self.num_steps <= MAX_STEPS or self.num_steps != int(self.num_steps):
            raise ValueError(
                f"num_steps must be at least 1 and at most {MAX_STEPS}, a whole number, got {self.num_steps}: "
                "each step decides a cell"
            )
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
        if step + 1 >= self.num_steps:
            return (total * CORRECTED).ceil().long() if step + 1 < self.most_passes else total * 0
        return torch.minimum((total * ratio).floor().long(), upper)

    @property
    def most_passes(self) -> int:
        """Steps with the rounds of correction."""
        return self.num_steps + (self.corrections if self.mode == "critic" else 0)

    def noise_scale(self, step: int) -> float:
        """Scale of the confidence noise at `step`."""
        return self.confidence_temperature * max(0.0, 1 - (step + 1) / self.num_steps)


def uniform_noise(
    shape: Sequence[int],
    generators: Sequence[torch.Generator],
    device: torch.device,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Uniform noise [B, *shape] in (0, 1), row i from generator i, so that a row is the same in any batch. Where `rows`
    [B] is False nothing is drawn, and the row is constant.
    """
    drawn = [True] * len(generators) if rows is None else rows.tolist()
    size, kind = tuple(shape), torch.float32  # whatever the default is: other numbers would be other pictures
    noise = [
        torch.rand(size, generator=generator, device=generator.device, dtype=kind)
        if draws
        else torch.full(size, 0.5, device=generator.device, dtype=kind)
        for draws, generator in zip(drawn, generators, strict=True)
    ]
    return torch.stack([row.to(device) for row in noise]).clamp(min=1e-20)


def gumbel_noise(
    shape: Sequence[int],
    generators: Sequence[torch.Generator],
    device: torch.device,
    mask: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Standard Gumbel noise [B, *shape], row i from generator i; with a `mask` [B, shape[0]] that of its M entries alone,
    as [M, *shape[1:]]. An entry's noise does not depend on the mask. Rows without any entry, or where `rows` [B] is
    False, draw nothing: a sample that is done before the others of its batch leaves its generator as it would alone.
    """
    noise = uniform_noise(shape, generators, device, mask.any(-1) if mask is not None else rows)
    if mask is not None:
        noise = noise[mask]
    return -torch.log((-torch.log(noise)).clamp(min=1e-20))


def sample_codes(
    logits: torch.Tensor,
    mask: torch.Tensor,
    generators: Sequence[torch.Generator],
    temperature: float = 1.0,
    top_k: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logits [M, K] of the cells in `mask` [B, N] → codes [M] and their log-probabilities [M] under the untempered
    distribution of all codes.

    Raises:
        FloatingPointError: where logits are not finite.
    """
    if not torch.isfinite(logits).all():
        raise FloatingPointError("logits are not finite")
    noisy = logits
    if temperature > 0:
        shape = (mask.shape[1], logits.shape[-1])
        noisy = logits + temperature * gumbel_noise(shape, generators, logits.device, mask)
    if top_k is not None and top_k < logits.shape[-1]:
        # by rank, not by the k-th value: equal logits do not let more than k codes through
        likeliest = logits.topk(top_k, -1).indices
        noisy = torch.full_like(noisy, -math.inf).scatter(-1, likeliest, noisy.gather(-1, likeliest))
    codes = noisy.argmax(-1)
    log_probabilities = logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    return codes, log_probabilities


def decoding_step(
    logits: torch.Tensor,
    codes: torch.Tensor,
    mask: torch.Tensor,
    step: int,
    total: torch.Tensor,
    schedule: DecodingSchedule,
    generators: Sequence[torch.Generator],
    fillable: torch.Tensor | None = None,
    critic: Critic | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Fills the masked cells and masks those again that the schedule leaves for later steps.

    Args:
        logits: [M, K] of this step, those of the masked cells in order.
        codes: [B, N]; given cells keep theirs.
        mask: [B, N] bool, True = still to be decided.
        step: 0-based.
        total: [B] cells that were masked at the start.
        fillable: [B, N] bool, where these lie, and the `critic` that chooses among them in the mode `"critic"`.

    Returns:
        codes [B, N] and the mask [B, N] for the next step. The codes hold a full grid: what is still masked holds this
        step's guess.
    """
    sampled, log_probabilities = sample_codes(logits, mask, generators, schedule.temperature, schedule.top_k)
    codes = codes.masked_scatter(mask, sampled)
    if schedule.mode == "one_shot":
        return codes, torch.zeros_like(mask)
    if schedule.mode == "span":
        return codes, mask & (place_in_run(mask) >= run_budget(mask, schedule.num_steps - step))
    noise = gumbel_noise(mask.shape[1:], generators, logits.device, rows=mask.any(-1))
    # given cells are never masked again
    if schedule.mode == "critic":
        assert fillable is not None and critic is not None
        confidence = critic(codes).masked_fill(~fillable, math.inf)
        rank = (confidence + schedule.noise_scale(step) * noise).argsort(-1).argsort(-1)
        return codes, fillable & (rank < schedule.masked_after(step, total)[:, None])
    confidence = torch.full_like(noise, math.inf).masked_scatter(mask, log_probabilities)
    confidence = confidence + schedule.noise_scale(step) * noise
    rank = confidence.argsort(-1).argsort(-1)
    remaining = torch.minimum(schedule.masked_after(step, total), mask.sum(-1))
    return codes, mask & (rank < remaining[:, None])


def place_in_run(mask: torch.Tensor) -> torch.Tensor:
    """Place (long, 0 = the leftmost) [B, N] of each masked cell in its run of masked neighbours; of other cells −1."""
    index = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    last_given = torch.where(mask, -1, index).cummax(1).values
    return torch.where(mask, index - last_given - 1, -1)


def run_budget(mask: torch.Tensor, steps_left: int) -> torch.Tensor:
    """
    How many cells of its run [B, N] one step fills, so that `steps_left` steps of about equal size fill all of it.
    """
    length = place_in_run(mask) + place_in_run(mask.flip(1)).flip(1) + 1
    return -(-length // steps_left)


def fill_masked(
    codes: torch.Tensor,
    mask: torch.Tensor,
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    schedule: DecodingSchedule,
    generators: Sequence[torch.Generator],
    on_step: Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
    critic: Critic | None = None,
) -> torch.Tensor:
    """
    Fills all masked cells step by step.

    Args:
        codes: [B, N]; what stands under the mask does not matter.
        mask: [B, N] bool, True = to be filled.
        predict: codes and mask of a step → logits [M, K] of its masked cells, sample by sample, in order.
        on_step: called with step, codes and mask after each step; gives those with which the next one goes on.
        critic: of the mode `"critic"`.

    Returns:
        codes [B, N]; given cells keep theirs.

    Raises:
        FloatingPointError: where logits or gradients are not finite; names the step.
    """
    total, fillable = mask.sum(-1), mask
    for step in range(schedule.most_passes):
        if not mask.any():
            break
        try:
            logits = predict(codes, mask)
            codes, mask = decoding_step(logits, codes, mask, step, total, schedule, generators, fillable, critic)
        except FloatingPointError as error:
            raise FloatingPointError(f"decoding step {step + 1} of {schedule.most_passes}: {error}") from error
        if on_step is not None:
            codes, mask = on_step(step, codes, mask)
    return codes
