"""The fit of whatever maps inputs to logits, such as a fresh classification head on states that were computed once."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceClassifier, make_classifier

from .classification_loss import ClassificationLoss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadTraining:
    """
    Args:
        epochs, batch_size, learning_rate, weight_decay: of AdamW with a cosine schedule.
        balance: exponent of the class weights (share of the class)^−balance of single-label heads; 0 = none.
        max_grad_norm: the gradient is clipped to this norm; 0 = never.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    balance: float = 0.5
    max_grad_norm: float = 0.0


@contextmanager
def torch_seed(generator: torch.Generator) -> Iterator[None]:
    """
    What draws from torch's own generator, as dropout does, draws from a seed of this one; torch's is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        yield


def fresh_classifier(
    config: GPTFaceConfig, name: str, targets: torch.Tensor, generator: torch.Generator
) -> GPTFaceClassifier:
    """
    The head `name` of the configuration with small random weights. Independent labels start at their share of the
    known targets [rows, labels]: most are rare, and learning so first would cost many steps.
    """
    with torch.random.fork_rng(devices=[]):
        classifier = make_classifier(config, name)
    for part in classifier.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02, generator=generator)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)
    if targets.ndim == 2:
        known = targets >= 0
        share = (targets * known).sum(0) / known.sum(0).clamp(min=1)
        classifier.output.bias.data.copy_(share.clamp(1e-3, 1 - 1e-3).logit())
    return classifier


def learning_rate_factor(progress: float, warmup: float = 0.1) -> float:
    """Linear warm-up over the first share of the training, then half a cosine down to 0; progress in [0, 1]."""
    if progress < warmup:
        return max(progress / warmup, 0.04)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def cpu_seconds_per_thread() -> float:
    """Time that this process has worked, a thread: what a clock shows on an idle machine, also where others use it."""
    return time.process_time() / torch.get_num_threads()


def fit_classifier(
    classify: Callable[[torch.Tensor], torch.Tensor],
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
    options: HeadTraining = HeadTraining(),
    seconds: float | None = None,
) -> list[float]:
    """
    Trains whatever maps a batch of inputs to logits. Returns the mean loss of each epoch.

    Args:
        classify: inputs [B, …] → logits [B, labels].
        parameters: those to train, or groups of them as optimizers take them; `scale` of a group multiplies its
            learning rate.
        inputs: [rows, …], the batches are rows of it.
        targets: class indices [rows] (−100 = unknown) or 0/1 [rows, labels] (−1 = unknown).
        generator: decides the order of the rows.
        seconds: train for so long instead of `options.epochs` (see [`cpu_seconds_per_thread`]), so that methods whose
            steps cost more get no more time than others.
    """
    loss = ClassificationLoss(class_balance=options.balance if targets.ndim == 1 else 0)
    given: list[Any] = list(parameters)
    optimizer = torch.optim.AdamW(given, lr=options.learning_rate, weight_decay=options.weight_decay)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    steps = options.epochs * -(-len(inputs) // options.batch_size)
    weights: torch.Tensor | None = None
    history: list[float] = []
    step, start = 0, cpu_seconds_per_thread()
    while True:
        total = 0.0
        for rows in torch.randperm(len(inputs), generator=generator).split(options.batch_size):
            progress = step / steps if seconds is None else (cpu_seconds_per_thread() - start) / seconds
            if progress >= 1:
                return history
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * group.get("scale", 1) * learning_rate_factor(progress)
            logits = classify(inputs[rows])
            weights = loss.weights(targets.numpy(), logits.shape[1]) if step == 0 else weights
            losses, counts = loss(logits, targets[rows], weights)
            mean = losses.sum() / counts.sum().clamp(min=1)
            optimizer.zero_grad()
            mean.backward()
            if options.max_grad_norm:
                nn.utils.clip_grad_norm_(trained, options.max_grad_norm)
            optimizer.step()
            total += float(mean.detach()) * len(rows)
            step += 1
        history.append(total / len(inputs))
        logger.info("epoch %d, loss %.4f", len(history), history[-1])
