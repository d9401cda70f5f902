"""GPTFace and its peers with random weights at one size, fp32, without dropout, sdpa where a model has it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from gptface import GPTFaceConfig, GPTFaceForPreTraining
from gptface.data.masking import sample_generator, span_mask

IGNORED = -100


@dataclass(frozen=True)
class Size:
    """
    The size that all models of a comparison share; a picture has `cells`² tokens, `patch` pixels wide in the peers.
    """

    width: int = 256
    layers: int = 6
    heads: int = 4
    feed_forward: int = 1024
    words: int = 30522
    text_length: int = 64
    cells: int = 16
    levels: tuple[int, ...] = (8, 5, 5, 5)
    tokenizer_channels: int = 64
    patch: int = 16
    batches: tuple[int, ...] = (4, 16)
    steps: int = 12
    pairs: int = 5000

    @property
    def codes(self) -> int:
        return int(np.prod(self.levels))

    @property
    def tokens(self) -> int:
        return self.cells**2

    def encoder(self) -> dict[str, Any]:
        """Arguments that the configurations of transformers have in common."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
        }


FULL = Size()
TINY = Size(16, 2, 2, 32, 60, 8, 4, (3, 3), 8, 4, (2,), 3, 12)


def gptface(size: Size, model_class: type[PreTrainedModel] = GPTFaceForPreTraining, **overrides: Any) -> Any:
    """GPTFace with the compact image tokenizer at 8 pixels a cell."""
    torch.manual_seed(0)
    tokenizer = {
        "image_size": 8 * size.cells,
        "fsq_levels": list(size.levels),
        "hidden_channels": size.tokenizer_channels,
        "latent_channels": 32,
    }
    config = GPTFaceConfig(
        image_tokenizer_config=tokenizer,
        vocab_size=size.words,
        max_text_length=size.text_length,
        cls_token_id=1,
        sep_token_id=2,
        mask_token_id=3,
        **{**size.encoder(), **overrides},
    )
    return model_class(config)


def masked_batch(size: Size, batch: int, ratio: float = 0.15) -> dict[str, torch.Tensor]:
    """
    Captions [B, T] and codes [B, N] with spans of both masked, as pre-training has them: of every other pair the
    caption is not its own, and it carries no loss on words and codes.
    """
    generator = np.random.default_rng(0)
    words = generator.integers(4, size.words, (batch, size.text_length))
    words[:, 0], words[:, -1] = 1, 2
    codes = generator.integers(0, size.codes, (batch, size.tokens))
    image_masks = np.stack([span_mask(size.tokens, ratio, sample_generator(0, 0, row)) >= 0 for row in range(batch)])
    text_masks = np.zeros(words.shape, bool)
    for row in range(batch):
        text_masks[row, 1:-1] = span_mask(size.text_length - 2, ratio, sample_generator(1, 0, row)) >= 0
    match = np.arange(batch) % 2
    counted = match[:, None] == 1
    # what is predicted, within a budget a sample, as the collator names it
    text_positions, image_positions = (
        np.argsort(~masks, axis=1, kind="stable")[:, : masks.sum(1).max()] for masks in (text_masks, image_masks)
    )
    arrays = {
        "input_ids": np.where(text_masks, 3, words),
        "attention_mask": np.ones_like(words),
        "image_codes": codes,
        "image_mask": image_masks,
        "text_labels": np.where(text_masks & counted, words, IGNORED),
        "image_labels": np.where(image_masks & counted, codes, IGNORED),
        "match_labels": match,
        "text_positions": text_positions,
        "image_positions": image_positions,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def masked_positions(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Where words and cells [B, T + N] are masked."""
    return torch.cat([batch["input_ids"] == 3, batch["image_mask"]], 1)


def joint_batch(batch: dict[str, torch.Tensor], size: Size) -> dict[str, torch.Tensor]:
    """
    The same tokens for an encoder with one vocabulary; every sequence carries loss, for it has no pairs that do not
    match.
    """
    ids = torch.cat([batch["input_ids"], torch.where(batch["image_mask"], 3, batch["image_codes"] + size.words)], 1)
    types = torch.cat([torch.zeros_like(batch["input_ids"]), torch.ones_like(batch["image_codes"])], 1)
    labels = torch.where(masked_positions(batch), 4, IGNORED)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types, "labels": labels}


def bert(size: Size) -> Any:
    """`BertForMaskedLM` over words and codes."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size.words + size.codes,
        max_position_embeddings=size.text_length + size.tokens,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
        **size.encoder(),
    )
    return BertForMaskedLM(config)
