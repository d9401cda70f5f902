"""Outputs of an exported model beside torch's: what is wrong with them."""

from collections.abc import Iterator

import torch

from gptface.modeling_gptface.quantization import (
    CodebookQuantizer,
    FiniteScalarQuantizer,
    GumbelQuantizer,
    Quantizer,
    code_levels,
)

#: Tensors by name.
Outputs = dict[str, torch.Tensor]

#: Largest absolute difference from torch in latents, pixels and logits.
TOLERANCE = 1e-4
#: Share of the codes (one at least) that may be others than torch's, and those only where two codes fit equally well.
TIED_CODES = 1e-3


def differences(expected: Outputs, found: Outputs, quantizer: Quantizer | None = None) -> Iterator[str]:
    """
    What is wrong with the outputs of a file, a line each.

    Args:
        expected: torch's outputs; with `image_codes` [B, N] among them also `latents` [B, C, h, w].
        quantizer: needed for codes.
    """
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            yield f"{name} has the shape {list(found[name].shape)}, torch's {list(tensor.shape)}"
        elif tensor.is_floating_point():
            difference = (tensor - found[name]).abs().max().item()
            if not difference <= TOLERANCE:  # also where it is no number
                yield f"{name} differs by up to {difference:.2g}, more than {TOLERANCE:g}"
        elif quantizer is not None:
            differing = tensor != found[name]
            allowed = max(1, int(TIED_CODES * tensor.numel()))
            wrong = differing & ~tied(quantizer, expected["latents"], tensor, found[name])
            if wrong.any() or differing.sum() > allowed:
                yield (
                    f"{int(differing.sum())} of {tensor.numel()} codes differ, {int(wrong.sum())} of them where "
                    "no other code is as good"
                )


def tied(quantizer: Quantizer, latents: torch.Tensor, codes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """
    Whether two codes fit the latents equally well, up to `TOLERANCE`: [B, N] of latents [B, C, h, w] and codes [B, N]
    each.

    FSQ: where their levels differ, they are neighbours and the bounded latent lies on the border of rounding between
    them. Learned codebooks: their distances, or their scores, are the same.
    """
    if isinstance(quantizer, FiniteScalarQuantizer):
        bounded = quantizer.integers(latents, rounded=False).flatten(2).movedim(1, -1)
        steps = (code_levels(codes, quantizer.levels) - code_levels(others, quantizer.levels)).abs()
        on_border = (bounded - bounded.floor() - 0.5).abs() <= TOLERANCE
        return ((steps == 0) | ((steps == 1) & on_border)).all(-1)
    assert isinstance(quantizer, CodebookQuantizer)
    vectors = quantizer.down(latents)
    if isinstance(quantizer, GumbelQuantizer):
        scores = quantizer.proj(vectors).flatten(2).movedim(1, -1)
        fits = [scores.gather(-1, chosen[..., None]).squeeze(-1) for chosen in (codes, others)]
    else:
        vectors = vectors.flatten(2).movedim(1, -1)
        fits = [(vectors - quantizer.codebook(chosen)).norm(dim=-1) for chosen in (codes, others)]
    return (fits[0] - fits[1]).abs() <= TOLERANCE
