"""Masks and batches beside a loop over tokens of the same law, and beside FLAVA's generator of block masks."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from gptface import GPTFaceTokenizer
from gptface.data.batch_masking import MaskLaw, SampleNoise, block_masks
from gptface.data.masking import MAX_SPAN, SPAN_PROBABILITY, mask_budget, sample_generator
from gptface.training.pretraining_collator import PreTrainingCollator, TextMaskLaw

from .models import IGNORED, Size
from .timing import Claim, Comparison, Contender

BATCHES = (16, 64, 256)


def comparisons(size: Size, mask_ratio: float = 0.15) -> Iterator[Comparison]:
    """Spans of words and cells in batches of several sizes; blocks of cells."""
    captions = ["a smiling woman with blond hair", "an old man without glasses"]
    tokenizer = GPTFaceTokenizer.train(captions, vocab_size=300, max_length=size.text_length)
    law = MaskLaw("raster", "fixed", mask_ratio, mask_ratio)
    words_law = TextMaskLaw(unmasked=0.0, high=0.0, ratio=mask_ratio)
    collator = PreTrainingCollator(None, tokenizer, size.text_length, [law], text_law=words_law)
    special = (tokenizer.mask_token_id, tokenizer.pad_token_id, len(tokenizer))
    for batch in BATCHES:
        captions, codes = _pairs(size, tokenizer, batch)
        yield Comparison(
            f"{batch} pairs of words and {size.tokens} cells, spans, into a batch",
            [
                Contender("GPTFace", partial(_collate, collator, captions, codes)),
                Contender("loop over tokens", partial(loop_over_tokens, captions, codes, mask_ratio, *special)),
            ],
            [Claim("loop over tokens", "pairs", batch, batch, 20.0)],
        )
    batch, budget = BATCHES[-1], mask_budget(size.tokens, 0.38)  # FLAVA masks 75 of 196
    yield Comparison(
        f"{batch} block masks, {budget} of {size.tokens} cells",
        [
            Contender("GPTFace", partial(_blocks, size.tokens, budget, batch)),
            Contender("FlavaMaskingGenerator", _flava(size, budget, batch)),
        ],
        [Claim("FlavaMaskingGenerator", "masks", batch, batch)],
    )


def _pairs(size: Size, tokenizer: GPTFaceTokenizer, batch: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Captions of several lengths and codes."""
    generator = np.random.default_rng(0)
    captions = []
    for _ in range(batch):
        words = generator.integers(5, len(tokenizer), generator.integers(4, size.text_length + 1))
        words[0], words[-1] = tokenizer.cls_token_id, tokenizer.sep_token_id
        captions.append(words)
    return captions, generator.integers(0, size.codes, (batch, size.tokens))


def _collate(collator: PreTrainingCollator, captions: list[np.ndarray], codes: np.ndarray) -> dict[str, torch.Tensor]:
    noise = SampleNoise.of(0, [0] * len(captions), range(len(captions)))
    arrays = collator.mask_pairs(captions, codes, noise)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _blocks(cells: int, budget: int, batch: int) -> np.ndarray:
    return block_masks(cells, np.full(batch, budget), SampleNoise.of(0, [0] * batch, range(batch)))


def _flava(size: Size, budget: int, batch: int) -> Callable[[], Any]:
    from transformers.models.flava.image_processing_pil_flava import FlavaMaskingGenerator

    generator = FlavaMaskingGenerator(size.cells, budget, mask_group_min_patches=max(1, size.tokens // 16))
    return lambda: torch.stack([generator() for _ in range(batch)])


def loop_over_tokens(
    captions: list[np.ndarray],
    grids: np.ndarray,
    ratio: float,
    mask_token: int,
    pad_token: int,
    vocabulary: int,
) -> dict[str, torch.Tensor]:
    """Span masks of words (80 % masked, 10 % random, 10 % kept) and cells, decided token by token, then padded."""
    longest = max(map(len, captions))
    batch: dict[str, list[list[Any]]] = {
        name: [] for name in ("input_ids", "text_labels", "image_mask", "image_labels")
    }
    for number, (words, codes) in enumerate(zip(captions, grids, strict=True)):
        generator = sample_generator(0, 0, number)
        masked, labels, kind = [], [], 0.0
        owners = [-1, *_owners(len(words) - 2, ratio, generator), -1]
        for position, word in enumerate(words.tolist()):
            owner = owners[position]
            if owner < 0:
                masked.append(word)
                labels.append(IGNORED)
                continue
            if position == 0 or owners[position - 1] != owner:
                kind = generator.random()
            masked.append(mask_token if kind < 0.8 else int(generator.integers(5, vocabulary)) if kind < 0.9 else word)
            labels.append(word)
        while len(masked) < longest:
            masked.append(pad_token)
            labels.append(IGNORED)
        batch["input_ids"].append(masked)
        batch["text_labels"].append(labels)
        owners = _owners(len(codes), ratio, generator)
        batch["image_mask"].append([owner >= 0 for owner in owners])
        batch["image_labels"].append(
            [code if owner >= 0 else IGNORED for code, owner in zip(codes.tolist(), owners, strict=True)]
        )
    return {name: torch.tensor(values) for name, values in batch.items()}


def _owners(count: int, ratio: float, generator: np.random.Generator) -> list[int]:
    """Span number of each position, −1 = unmasked."""
    budget, lengths = mask_budget(count, ratio), []
    while sum(lengths) < budget:
        length = 1
        while generator.random() >= SPAN_PROBABILITY:
            length += 1
        if length <= MAX_SPAN:
            lengths.append(min(length, budget - sum(lengths)))
    order = list(range(len(lengths))) + [-1] * (count - budget)
    generator.shuffle(order)
    owners: list[int] = []
    for number in order:
        for _ in range(1 if number < 0 else lengths[number]):
            owners.append(number)
    return owners
