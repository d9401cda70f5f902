"""A running average of the weights, as a callback of the Trainer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback


class WeightAverage(TrainerCallback):
    """
    Exponential average of all parameters of the model (Polyak and Juditsky 1992).

    Args:
        decay: share of the average that a step keeps, in [0, 1); 0.99 averages over some hundred steps.
        average: parameter name → average, to resume; from the weights after the first step where it is not given.
    """

    def __init__(self, decay: float, average: dict[str, torch.Tensor] | None = None):
        if not 0 <= decay < 1:
            raise ValueError(f"weight_average must lie in [0, 1), got {decay}")
        self.average = average
        # of `AveragedModel`, which itself would wait for the device in every step
        self._update = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any) -> None:
        assert model is not None
        parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        if self.average is None:
            self.average = {name: parameter.clone() for name, parameter in parameters.items()}
        self.average = {name: average.to(parameters[name].device) for name, average in self.average.items()}
        self._update(list(self.average.values()), [parameters[name] for name in self.average], 0)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The model has the averages while the context lasts."""
        if self.average is None:
            yield
            return
        trained = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._set(model, self.average)
        try:
            yield
        finally:
            self._set(model, trained)

    @staticmethod
    @torch.no_grad()
    def _set(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
        parameters = dict(model.named_parameters())
        torch._foreach_copy_(list(parameters.values()), [values[name] for name in parameters])
