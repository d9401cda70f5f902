"""Classification heads on the frozen backbone: its states are computed once, so that many passes over a head cost little."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gptface.modeling_gptface.heads_gptface import GPTFaceClassifier, GPTFaceTaskModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadTraining:
    """
    Args:
        epochs, batch_size, learning_rate, weight_decay: of AdamW with a cosine schedule.
        balance: exponent of the class weights (share of the class)^−balance of single-label heads; 0 = none.
        dropout: of whole cells, so that no label hangs on a few of them.
        seed: of the order and the initial weights.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    balance: float = 0.5
    dropout: float = 0.1
    seed: int = 0


@torch.no_grad()
def image_states(model: GPTFaceTaskModel, codes: np.ndarray, batch_size: int = 32) -> torch.Tensor:
    """Codes [rows, N] → states of the cells under the empty caption [rows, N, H] as float16."""
    model.eval()
    states = []
    for start in range(0, len(codes), batch_size):
        batch = torch.from_numpy(codes[start : start + batch_size].astype(np.int64)).to(model.device)
        states.append(model.split_states(model.gptface(image_codes=batch))[1].half().cpu())
    return torch.cat(states)


def train_head(
    model: GPTFaceTaskModel,
    name: str,
    states: torch.Tensor,
    labels: torch.Tensor,
    names: list[str],
    problem_type: str,
    options: HeadTraining = HeadTraining(),
) -> list[float]:
    """
    Trains a fresh head `name` on states [rows, N, H] and labels ([rows] class indices or [rows, L] 0/1) and puts it into the
    model and its configuration; the other heads stay. Returns the mean loss of each epoch.
    """
    generator = torch.Generator().manual_seed(options.seed)
    torch.manual_seed(options.seed)
    head = GPTFaceClassifier(model.config, len(names))
    nn.init.normal_(head.query.weight, std=0.02, generator=generator)
    nn.init.normal_(head.output.weight, std=0.02, generator=generator)
    single = problem_type == "single_label_classification"
    class_weights = None
    if single:
        share = torch.bincount(labels, minlength=len(names)).clamp(min=1) / len(labels)
        class_weights = share ** (-options.balance)
        class_weights = class_weights / (class_weights * share).sum()
    else:
        prior = labels.float().mean(0).clamp(1e-3, 1 - 1e-3)
        nn.init.zeros_(head.output.bias)
        head.output.bias.data.copy_(prior.logit())
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    steps = options.epochs * -(-len(states) // options.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=steps, pct_start=0.1)
    history = []
    for epoch in range(options.epochs):
        total = 0.0
        for rows in torch.randperm(len(states), generator=generator).split(options.batch_size):
            batch = states[rows].float()
            keep = torch.rand(batch.shape[:2], generator=generator) >= options.dropout
            logits = head(batch * keep[..., None])
            if single:
                loss = nn.functional.cross_entropy(logits, labels[rows], class_weights)
            else:
                loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[rows].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        history.append(total / len(states))
        logger.info("%s: epoch %d of %d, loss %.4f", name, epoch + 1, options.epochs, history[-1])
    model.classifiers[name] = head
    model.config.heads = {
        **model.config.heads,
        name: {"labels": names, "problem_type": problem_type, "trained": True},
    }
    # the labels that a classification class last put there may be another head's
    model.config.id2label, model.config.label2id = {}, {}
    return history


@torch.no_grad()
def head_scores(model: GPTFaceTaskModel, name: str, states: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
    """States [rows, N, H] → probabilities [rows, L] of a head."""
    logits = torch.cat([model.classifiers[name](batch.float()) for batch in states.split(batch_size)])
    multi_label = model.config.heads[name]["problem_type"] == "multi_label_classification"
    return logits.sigmoid() if multi_label else logits.softmax(-1)
