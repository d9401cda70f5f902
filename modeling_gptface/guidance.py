"""Guidance by the gradient of the image-text matching loss (plug-and-play, Dathathri et al. 2020, on masked cells)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch.nn.functional import logsigmoid

from .decoding import gumbel_noise

Estimator = Literal["soft", "straight_through"]


#: Vectors of a grid's cells [B, N, H] → log-odds [B] that they match the prompt, or a pair of these and the logits
#: [B, N] that cells are real.
Judgement = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, torch.Tensor]]

#: Of a loss whose gradient passes through float16, which holds nothing below 6e-8: where caption and picture match
#: well already, there would be no gradient left.
HALF_LOSS_SCALE = 1024.0


class GuidanceError(RuntimeError):
    """Guidance was asked for and cannot act."""


@dataclass(frozen=True)
class ITMGuidance:
    """
    Constants of the guidance; design and symbols as in [`guide_logits`].

    Args:
        iterations: m, gradient steps at each decoding step; 0 = no guidance.
        step_size: α, in standard deviations of the logits.
        gradient_power: γ, exponent of the gradient's norm.
        kl_weight: k, weight of KL(q‖p).
        critic_weight: λ, weight of how little the critic takes what is drawn for real: what matches must not be broken
            for it. 0 = it has no say; more needs a checkpoint with a trained critic.
        fusion: g of the geometric mean between guided and unguided distribution.
        temperature: τ of both distributions.
        estimator: what the matching head reads in a masked cell: `"soft"`, the mean vector of the distribution, or
            `"straight_through"`, the vector of a drawn code, with the gradient of the mean.

    Raises:
        ValueError: another estimator, or numbers that are not finite or out of range: iterations, step_size and
            critic_weight ≥ 0, temperature > 0, fusion in 0…1.

    Example:

    ```python
    >>> ITMGuidance(step_size=4.0).iterations  # what the pipelines make of itm_guidance=4.0
    1
    >>> ITMGuidance.original().iterations
    3

    ```
    """

    iterations: int = 1
    step_size: float = 1.0
    gradient_power: float = 1.0
    kl_weight: float = 0.01
    fusion: float = 0.9
    temperature: float = 1.0
    estimator: Estimator = "soft"
    critic_weight: float = 0.0

    def __post_init__(self):
        if self.estimator not in get_args(Estimator):
            raise ValueError(f"estimator must be one of {get_args(Estimator)}, got {self.estimator!r}")
        numbers = (
            self.step_size,
            self.gradient_power,
            self.kl_weight,
            self.fusion,
            self.temperature,
            self.critic_weight,
        )
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"guidance needs finite numbers, got {self}")
        if self.iterations < 0 or self.step_size < 0 or self.temperature <= 0 or not 0 <= self.fusion <= 1:
            raise ValueError(f"need iterations ≥ 0, step_size ≥ 0, temperature > 0 and 0 ≤ fusion ≤ 1, got {self}")
        if self.critic_weight < 0:
            raise ValueError(
                f"critic_weight must not be negative: what is real must not be moved away from, got {self}"
            )

    @classmethod
    def original(cls, estimator: Estimator = "soft") -> "ITMGuidance":
        """The constants of the original plug-and-play method."""
        return cls(iterations=3, step_size=0.02, gradient_power=1.5, kl_weight=0.01, estimator=estimator)


def guide_logits(
    logits: torch.Tensor,
    mask: torch.Tensor,
    match_score: Judgement,
    code_table: torch.Tensor,
    guidance: ITMGuidance,
    generators: Sequence[torch.Generator] | None = None,
) -> torch.Tensor:
    """
    Pulls the distribution over masked cells towards what the matching head takes for the prompt.

    With ℓ the logits, p = softmax(ℓ/τ), q = softmax((ℓ+δ)/τ) and e_i = Σ_c q_i(c)·E(c), δ descends
    L = −log σ(s(e)) + k·mean_i KL(q_i‖p_i) + λ·mean_i −log σ(r_i(e)): δ ← δ − α·σ_ℓ·∇/max(‖∇‖^γ, ε), σ_ℓ the standard
    deviation of ℓ over codes and ‖∇‖ the root of the mean over masked cells of ‖∇_i‖², per sample. The result is
    ℓ + g·δ: the geometric fusion q^g·p^(1−g). With `estimator="straight_through"` e_i is E of a code drawn from q_i,
    and its gradient that of the sum.

    Args:
        logits: ℓ [M, K] of the masked cells, in order.
        mask: [B, N] bool, where they lie.
        match_score: cell vectors [B, N, H] (those of unmasked cells are ignored) → match log-odds s [B]; where λ > 0
            these and the logits r [B, N] that cells are real, a pair.
        code_table: E [K, H].
        generators: one for each sample; only `"straight_through"` draws from them.

    Returns:
        logits [M, K]; the very tensor given where `iterations` is 0.

    Raises:
        ValueError: `"straight_through"` without generators, or λ > 0 and nothing says what is real.
        FloatingPointError: where the gradient is not finite.
        GuidanceError: where there is something to guide in a sample and its gradient is zero: guidance cannot act.
    """
    if guidance.iterations == 0 or not mask.any():
        return logits
    straight_through = guidance.estimator == "straight_through"
    if straight_through and generators is None:
        raise ValueError('estimator="straight_through" draws codes: give generators, one for each sample')
    logits = logits.detach().float()
    batch_index = mask.nonzero()[:, 0]
    reference = (logits / guidance.temperature).log_softmax(-1)
    spread = logits.std(-1, keepdim=True)
    cells = mask.sum(-1).clamp(min=1)
    table = code_table.detach()
    delta = torch.zeros_like(logits)

    def cell_mean(values: torch.Tensor) -> torch.Tensor:
        """Of masked cells [M] → of the masked cells of each sample [B]."""
        return values.new_zeros(len(mask)).index_add(0, batch_index, values) / cells

    for iteration in range(guidance.iterations):
        # pipelines run under no_grad
        with torch.enable_grad():
            delta.requires_grad_(True)
            log_q = ((logits + delta) / guidance.temperature).log_softmax(-1)
            q = log_q.exp()
            masked_vectors = (q @ table.float()).to(table.dtype)
            if straight_through:
                assert generators is not None
                noise = gumbel_noise((mask.shape[1], len(table)), generators, logits.device, mask)
                drawn = table[(log_q.detach() + noise).argmax(-1)]
                masked_vectors = drawn + masked_vectors - masked_vectors.detach()
            vectors = table.new_zeros(*mask.shape, table.shape[1]).masked_scatter(mask[..., None], masked_vectors)
            divergence = (q * (log_q - reference)).sum(-1)
            judged = match_score(vectors)
            score, *real = judged if isinstance(judged, tuple) else (judged,)
            loss = -logsigmoid(score) + guidance.kl_weight * cell_mean(divergence)
            if guidance.critic_weight:
                if not real:
                    raise ValueError("critic_weight needs a critic: match_score must say what is real, too")
                loss = loss - guidance.critic_weight * cell_mean(logsigmoid(real[0][mask]))
            loss_scale = HALF_LOSS_SCALE if table.dtype == torch.float16 else 1.0
            (gradient,) = torch.autograd.grad(loss.sum() * loss_scale, delta)
        gradient = gradient / loss_scale
        if not torch.isfinite(gradient).all():
            raise FloatingPointError(f"the guidance gradient is not finite in iteration {iteration + 1}")
        square = gradient.square().sum(-1)
        norm = cell_mean(square).sqrt()
        if ((norm == 0) & mask.any(-1)).any():
            raise GuidanceError("the matching head gives no gradient for the masked cells: guidance cannot act")
        scale = norm.pow(guidance.gradient_power).clamp(min=1e-12)[batch_index, None]
        delta = delta.detach() - guidance.step_size * spread * gradient / scale
    return logits + guidance.fusion * delta


def guidance_divergence(
    guided: torch.Tensor, unguided: torch.Tensor, mask: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """
    How far guidance moved the distributions: mean over masked cells of KL(guided ‖ unguided), nats [B]; 0 without such
    cells.

    Args:
        guided, unguided: logits [M, K] of the masked cells, in order.
        mask: [B, N] bool.
    """
    log_q = (guided.float() / temperature).log_softmax(-1)
    log_p = (unguided.float() / temperature).log_softmax(-1)
    divergence = (log_q.exp() * (log_q - log_p)).sum(-1)
    total = divergence.new_zeros(len(mask)).index_add(0, mask.nonzero()[:, 0], divergence)
    return total / mask.sum(-1).clamp(min=1)


def cell_saliency(match_score: Callable[[torch.Tensor], torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
    """
    Norm [B, N] of the gradient of the match log-odds with respect to each cell's vector [B, N, H].

    Raises:
        FloatingPointError: where it is not finite.
    """
    with torch.enable_grad():
        vectors = vectors.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(match_score(vectors).sum(), vectors)
    saliency = gradient.norm(dim=-1)
    if not torch.isfinite(saliency).all():
        raise FloatingPointError("the gradient of the match is not finite")
    return saliency


def classifier_free(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): ℓ_uncond + scale·(ℓ_cond − ℓ_uncond)."""
    return unconditional + scale * (conditional - unconditional)
