"""A loss by which the codes of a picture hear what is said of it."""

from collections.abc import Callable

import torch
from torch import nn


def caption_contrast_loss(
    cell_logits: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor], torch.Tensor],
    image_states: torch.Tensor,
    image_labels: torch.Tensor,
    words: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cells: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """
    The masked codes of a picture must be likelier under the phrase that is true of it than under its opposite: cross-entropy of
    the log-likelihood ratio (a generative classifier, trained to discriminate), averaged over pictures and attributes.

    A phrase changes the loss of a single code by hundredths of a nat, which drown in what the code says about the picture;
    whole regions, compared with their opposites, tell.

    Args:
        cell_logits: (states of cells [B, N, H], words [B, T, H], their mask [B, T] or None, cells [B, N] bool) → logits over codes
            of these M cells [M, K].
        image_states: [B, N, H].
        image_labels: codes [B, N], −100 = not masked.
        words: states of the phrases [2·A, T, H]: of each attribute that of value 0, then that of value 1.
        attention_mask: of the words [2·A, T], or None.
        cells: [A, N] bool, the region that each attribute speaks of.
        labels: [B, A], value of the attribute, negative = not asked for.

    Returns:
        A scalar; 0 where nothing is asked for.
    """
    total = image_states.new_zeros(())
    for attribute in range(labels.shape[1]):
        rows = labels[:, attribute] >= 0
        if not rows.any():
            continue
        states, codes = image_states[rows], image_labels[rows]
        counted = cells[attribute] & (codes != -100)
        codes, picture = codes[counted], counted.nonzero()[:, 0]
        likelihoods = []
        for phrase in (2 * attribute, 2 * attribute + 1):
            spoken = words[phrase].expand(len(states), -1, -1)
            mask = None if attention_mask is None else attention_mask[phrase].expand(len(states), -1)
            losses = nn.functional.cross_entropy(
                cell_logits(states, spoken, mask, counted).float(), codes, reduction="none"
            )
            likelihoods.append(-losses.new_zeros(len(states)).index_add(0, picture, losses))
        odds, truth = likelihoods[1] - likelihoods[0], labels[rows, attribute].float()
        total = total + nn.functional.binary_cross_entropy_with_logits(odds, truth, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)
