"""A trained transformer under another image tokenizer: its code vectors are carried over instead of learned anew."""

import logging

import numpy as np
import torch

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig, GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.modeling_gptface.quantization import code_levels

logger = logging.getLogger(__name__)

# Counts that a code needs before its own vector weighs as much as the sum of its levels' vectors.
SHRINKAGE = 8.0
BATCH = 16


@torch.no_grad()
def paired_codes(
    old: GPTFaceImageTokenizer, new: GPTFaceImageTokenizer, codes: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Codes of the new tokenizer [rows, N] → the same faces, cell by cell, as (old codes, new codes), each of the cells
    that have pixels.
    """
    new_codes = torch.from_numpy(codes.astype(np.int64))
    present = new_codes < new.config.num_codes
    shown = new_codes.where(present, 0)
    old_codes = torch.cat([old.encode(new.decode(rows)) for rows in shown.split(BATCH)])
    return old_codes[present], new_codes[present]


@torch.no_grad()
def swap_image_tokenizer(
    model: GPTFaceForPreTraining, tokenizer: GPTFaceImageTokenizer, codes: np.ndarray
) -> GPTFaceForPreTraining:
    """
    The model with another image tokenizer of the same grid.

    A new code gets the mean vector (and bias) of the old codes that stand in the same cells of the same faces; with
    `code_embedding="levels"` a ridge regression splits it into the vectors of its levels and the code's own rest. All
    other weights stay.

    Args:
        model: trained with its present image tokenizer; not changed.
        tokenizer: the new one.
        codes: codes of faces by the new tokenizer [rows, N], larger than all codes where a picture has no pixels; a
            few hundred faces are enough.

    Raises:
        ValueError: where the two grids differ in size, or the decoder over codes is not tied to the embeddings.
    """
    old, config = model.image_tokenizer, model.config
    if old.config.grid_size != tokenizer.config.grid_size:
        raise ValueError(
            f"the image tokenizers have grids of {old.config.grid_size}² and {tokenizer.config.grid_size}² cells: "
            "a trained transformer can only be carried over to a grid of the same size"
        )
    if not config.tie_word_embeddings:
        raise ValueError("only a decoder over codes that is tied to the embeddings can be carried over")
    old_codes, new_codes = paired_codes(old.eval(), tokenizer.eval(), codes)
    values = {**config.to_dict(), "image_tokenizer_config": tokenizer.config.to_dict()}
    carried = GPTFaceForPreTraining(GPTFaceConfig.from_dict(values))
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("gptface.image_tokenizer.") and "code_embeddings" not in name and "level_" not in name
    }
    bias = state.pop("lm_head.image_bias")
    carried.load_state_dict(state, strict=False)
    carried.image_tokenizer.load_state_dict(tokenizer.state_dict())

    embeddings = carried.gptface.embeddings
    table = model.gptface.embeddings.code_table()
    vectors = torch.cat([table, bias[:, None]], 1)
    size = table.shape[1]
    free, levels = split_by_levels(vectors[old_codes], new_codes, tokenizer.config)
    sums = _sum_of_levels(free, levels, tokenizer.config)
    if embeddings.level_embeddings is not None:
        embeddings.code_embeddings.weight.copy_(free[:, :size])
        embeddings.level_embeddings.weight.copy_(levels[:, :size])
    else:
        embeddings.code_embeddings.weight.copy_(sums[:, :size])
    assert carried.lm_head.image_bias is not None
    carried.lm_head.image_bias.copy_(sums[:, size])
    seen = int(torch.bincount(new_codes, minlength=tokenizer.config.num_codes).gt(0).sum())
    logger.info("code vectors carried over: %d of %d codes seen", seen, tokenizer.config.num_codes)
    return carried


def split_by_levels(
    targets: torch.Tensor, codes: torch.Tensor, config: GPTFaceImageTokenizerConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Vectors wanted for observed codes ([M, H], [M]) → (own vectors [K, H], level vectors [ΣL, H]) whose sums fit them.

    Without FSQ there are no levels to share; then one "level" holds the mean and the rest is the code's own.
    """
    radix = config.fsq_levels if config.quantizer == "fsq" else [1]
    one_hot = torch.cat(
        [
            torch.nn.functional.one_hot(level, size)
            for level, size in zip(code_levels(codes, radix).unbind(-1), radix, strict=True)
        ],
        -1,
    ).to(targets)
    gram = one_hot.T @ one_hot + torch.eye(one_hot.shape[1])
    levels = torch.linalg.solve(gram, one_hot.T @ targets)
    rest = targets - one_hot @ levels
    counts = torch.bincount(codes, minlength=config.num_codes)[:, None]
    own = torch.zeros(config.num_codes, targets.shape[1]).index_add_(0, codes, rest) / (counts + SHRINKAGE)
    return own, levels


def _sum_of_levels(own: torch.Tensor, levels: torch.Tensor, config: GPTFaceImageTokenizerConfig) -> torch.Tensor:
    """Own vectors [K, H] plus those of each code's levels."""
    radix = config.fsq_levels if config.quantizer == "fsq" else [1]
    indices = code_levels(torch.arange(config.num_codes), radix)
    offsets = torch.tensor([sum(radix[:dimension]) for dimension in range(len(radix))])
    return own + levels[indices + offsets].sum(1)
