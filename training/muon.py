"""Muon for the matrices of the transformer, AdamW for everything else, as one optimizer."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

# Quintic Newton-Schulz iteration (Jordan et al. 2024): fast, and its singular values end near 1, not at it.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """
    Matrices [B, M, N] → about their nearest semi-orthogonal ones, by a Newton-Schulz iteration.

    Works in the matrices' own precision: `torch.optim.Muon` casts to bfloat16, which CPUs without such instructions emulate
    hundreds of times more slowly.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class MuonWithAdamW(torch.optim.Optimizer):
    """
    Momentum orthogonalised by [`orthogonalize`] for groups with `muon=True`, AdamW for the others.

    A Muon update is scaled by 0.2·sqrt(max(M, N)), so that it has about the RMS of an AdamW update and both share learning
    rate and weight decay (Liu et al. 2025, arXiv 2502.16982).

    Args:
        groups: parameter groups, each with `params` and `muon`.
        lr: learning rate of both.
        momentum: of the Muon groups (Nesterov).
        betas, eps: of the AdamW groups.
    """

    def __init__(
        self,
        groups: Iterable[dict],
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(list(groups), defaults)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            if group["muon"]:
                self._muon_step(parameters, group)
            else:
                self._adamw_step(parameters, group)
        return loss

    def _muon_step(self, parameters: list[nn.Parameter], group: dict) -> None:
        by_shape = defaultdict(list)
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = _gradient(parameter)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            by_shape[parameter.shape].append((parameter, gradient.lerp(state["momentum"], group["momentum"])))
        # one batched product for all matrices of a shape instead of many small ones
        for shape, pairs in by_shape.items():
            updates = orthogonalize(torch.stack([update for _, update in pairs]))
            scale = 0.2 * max(shape) ** 0.5
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.add_(update, alpha=-group["lr"] * scale)

    def _adamw_step(self, parameters: list[nn.Parameter], group: dict) -> None:
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
            gradient = _gradient(parameter)
            state["mean"].lerp_(gradient, 1 - beta1)
            state["square"].lerp_(gradient.square(), 1 - beta2)
            scale = (1 - beta2 ** state["step"]) ** 0.5
            denominator = (state["square"].sqrt() / scale).add_(group["eps"])
            parameter.addcdiv_(state["mean"], denominator, value=-group["lr"] / (1 - beta1 ** state["step"]))


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    """Its gradient; `step` leaves parameters without one out."""
    assert parameter.grad is not None
    return parameter.grad


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay is for a parameter: matrices and filters, but no embeddings, norms and biases."""
    return parameter.ndim >= 2 and "embeddings" not in name


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """
    Trained parameters in three groups: matrices of the transformer's layers (Muon), other matrices and filters (AdamW with
    decay), embeddings, norms and biases (AdamW without).
    """
    layer_matrices, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if not is_decayed(name, parameter):
            plain.append(parameter)
        elif ".layers." in name and parameter.ndim == 2:
            layer_matrices.append(parameter)
        else:
            decayed.append(parameter)
    return [
        {"params": layer_matrices, "muon": True, "weight_decay": weight_decay},
        {"params": decayed, "muon": False, "weight_decay": weight_decay},
        {"params": plain, "muon": False, "weight_decay": 0.0},
    ]
