"""Muon for the matrices of the transformer, AdamW for everything else, as one optimizer."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

# Quintic Newton-Schulz iteration (Jordan et al. 2024): fast, and its singular values end near 1, not at it.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """
    Matrices [B, M, N] → about their nearest semi-orthogonal ones, in fp32, by a Newton-Schulz iteration.

    It works in bfloat16, as `torch.optim.Muon` does, where the hardware multiplies such matrices, and in fp32
    elsewhere: CPUs without the instructions emulate them hundreds of times more slowly.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    if x.is_cuda or _cpu_multiplies_bfloat16():
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x if wide else x.mT).float()


@cache
def _cpu_multiplies_bfloat16() -> bool:
    # older versions of torch cannot tell
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


class MuonWithAdamW(torch.optim.Optimizer):
    """
    Momentum orthogonalised by [`orthogonalize`] for groups with `muon=True`, AdamW for the others.

    A Muon update is scaled by 0.2·sqrt(max(M, N)), so that it has about the RMS of an AdamW update and both share
    learning rate and weight decay (Liu et al. 2025, arXiv 2502.16982).

    One optimizer of torch's for each half would be two for schedulers, checkpoints and the Trainer to look after; and
    `torch.optim.Muon` multiplies one matrix at a time, and in bfloat16 everywhere.

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
        # says that a loaded `step` belongs on the parameter's device
        defaults["fused"] = True
        super().__init__(list(groups), defaults)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            if group["muon"]:
                self._muon_step(parameters, group)
            else:
                self._adamw_step(parameters, group)
        return loss

    def _muon_step(self, parameters: list[torch.Tensor], group: dict) -> None:
        momenta = [self._state(parameter, "momentum") for parameter in parameters]
        gradients = [_gradient(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, momenta, group["momentum"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for index, parameter in enumerate(parameters):
            by_shape[parameter.shape].append(index)
        # one batched product for all matrices of a shape instead of many small ones
        for shape, indices in by_shape.items():
            updates = orthogonalize(torch.stack([directions[index] for index in indices]))
            scale = 0.2 * max(shape) ** 0.5
            chosen = [parameters[index] for index in indices]
            torch._foreach_add_(chosen, list(updates.unbind()), alpha=-group["lr"] * scale)

    def _adamw_step(self, parameters: list[torch.Tensor], group: dict) -> None:
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [_gradient(parameter) for parameter in parameters],
            [self._state(parameter, "exp_avg") for parameter in parameters],
            [self._state(parameter, "exp_avg_sq") for parameter in parameters],
            [],
            [self.state[parameter]["step"] for parameter in parameters],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _state(self, parameter: torch.Tensor, name: str) -> torch.Tensor:
        """A running average of a parameter, zeros at first."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    """Its gradient; `step` leaves parameters without one out."""
    assert parameter.grad is not None
    return parameter.grad


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay is for a parameter: matrices and filters, but no embeddings, norms and biases."""
    return parameter.ndim >= 2 and "embeddings" not in name


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """
    Trained parameters in three groups: matrices of the transformer's layers (Muon), other matrices and filters (AdamW
    with decay), embeddings, norms and biases (AdamW without).
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
