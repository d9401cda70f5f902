"""A loss by which the codes of a picture hear what is said of it."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from .layers import take_positions


def caption_contrast_loss(
    cell_logits: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
    image_states: torch.Tensor,
    image_labels: torch.Tensor,
    words: torch.Tensor,
    contrast: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """
    The masked codes of a picture must be likelier under the phrase that is true of it than under its opposite:
    cross-entropy of the log-likelihood ratio (a generative classifier, trained to discriminate), averaged over pairs
    of a picture and an attribute.

    A phrase changes the loss of a single code by hundredths of a nat, which drown in what the code says about the
    picture; whole regions, compared with their opposites, tell.

    Args:
        cell_logits: (states of cells [Q, M, H], words [Q, T, H], their mask [Q, T] or None) → logits over codes [Q, M,
            K].
        image_states: [B, N, H].
        image_labels: codes [B, N], −100 = not masked.
        words: states of the phrases [P, T, H].
        contrast: the pairs, see [`GPTFaceForPreTraining.forward`].

    Returns:
        A scalar; 0 where nothing is asked for.
    """
    pictures, positions, labels = contrast["pictures"], contrast["positions"], contrast["labels"]
    placed = positions.clamp(min=0)
    states = take_positions(image_states[pictures], placed)
    codes = image_labels[pictures].gather(1, placed).masked_fill(positions < 0, -100)
    phrases = contrast["phrases"].mT.flatten()
    mask = contrast.get("attention_mask")
    logits = cell_logits(states.repeat(2, 1, 1), words[phrases], None if mask is None else mask[phrases])
    losses = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), codes.repeat(2, 1).flatten(), ignore_index=-100, reduction="none"
    )
    without, with_ = losses.view(2, *codes.shape).sum(2)
    asked = labels >= 0
    losses = nn.functional.binary_cross_entropy_with_logits(
        without - with_, labels.clamp(min=0).float(), reduction="none"
    )
    return (losses * asked).sum() / asked.sum().clamp(min=1)
