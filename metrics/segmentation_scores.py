"""How well classes of pixels were found: confusion counts and intersection over union."""

import torch


def confusion_counts(predicted: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """
    Counts of pixels, long [num_classes, num_classes]: row = label, column = prediction. Labels outside of
    0…num_classes−1 do not count.
    """
    known = (labels >= 0) & (labels < num_classes)
    pairs = labels[known].long() * num_classes + predicted[known].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def intersection_over_union(counts: torch.Tensor) -> torch.Tensor:
    """Confusion counts [C, C] → IoU of each class [C] over all pixels; NaN where a class neither is nor was found."""
    both = counts.diagonal().double()
    return both / (counts.sum(0) + counts.sum(1) - both)
