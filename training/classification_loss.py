"""Losses of classification that fine-tuning offers: class weights, focal loss, label smoothing. Pure functions."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class ClassificationLoss:
    """
    Args:
        class_balance: exponent b of the class weights (share of the class)^−b, with mean 1; 0 = none, 1 = all classes
            count the same. Of an independent label the positives weigh (negatives / positives)^b.
        focal_gamma: exponent γ of focal loss, (1 − p)^γ · cross-entropy (Lin et al. 2017); 0 = none.
        label_smoothing: share of the target that is spread over all classes.
    """

    class_balance: float = 0.0
    focal_gamma: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.class_balance < 0 or self.focal_gamma < 0 or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "class_balance and focal_gamma must be at least 0, label_smoothing at least 0 and below 1"
            )

    def weights(self, targets: np.ndarray, labels: int) -> torch.Tensor | None:
        """Training targets → weights of the classes [labels], or of the positives [labels]; None where all are 1."""
        if self.class_balance == 0:
            return None
        if targets.ndim == 2:
            positive, negative = ((targets == value).sum(0).clip(1) for value in (1, 0))
            return torch.tensor((negative / positive) ** self.class_balance, dtype=torch.float)
        share = np.bincount(targets[targets >= 0], minlength=labels).clip(1) / max((targets >= 0).sum(), 1)
        weights = share**-self.class_balance
        return torch.tensor(weights / (weights * share).sum(), dtype=torch.float)

    def __call__(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Logits [B, labels] and targets (as in [`ClassificationData`]; of a float dtype they are its shares) → (summed
        loss of each row [B], what counts in it [B]).

        Their totals divided give the mean loss over known labels.
        """
        logits = logits.float()
        if targets.ndim == 2 and not targets.is_floating_point():
            known = targets >= 0
            target = torch.where(known, targets, 0).float() * (1 - self.label_smoothing) + self.label_smoothing / 2
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, target, reduction="none", pos_weight=weights
            )
            if self.focal_gamma:
                missed = (target - logits.sigmoid()).abs()
                losses = losses * missed**self.focal_gamma
            return (losses * known).sum(1), known.sum(1)
        log_likelihood = logits.log_softmax(-1)
        if targets.is_floating_point():
            known, target = targets.sum(1) > 0, targets
        else:
            known, target = targets >= 0, nn.functional.one_hot(targets.clamp(min=0), logits.shape[1]).float()
        target = target * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        if weights is not None:
            target = target * weights
        if self.focal_gamma:
            target = target * (1 - log_likelihood.exp()) ** self.focal_gamma
        return -(target * log_likelihood).sum(1) * known, known.long()
