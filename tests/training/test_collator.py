"""The collator decides what the model may learn; a leak here is a model that looks right and knows nothing."""

import numpy as np
import pytest
import torch

from gptface.training.collator import PreTrainingCollator, TextMaskLaw
from gptface.training.masking import MaskLaw
from gptface.training.pretrain import train_vocabulary

CELLS = 64


@pytest.fixture
def tokenizer(code_table):
    return train_vocabulary(code_table, 400, 32, captions=500)


@pytest.fixture
def collate(code_table, tokenizer):
    laws = [MaskLaw("random", "uniform", 0.1, 0.9)]
    return PreTrainingCollator(code_table, tokenizer, 32, laws)


def samples(rows, epoch=0):
    return [{"row": row, "epoch": epoch} for row in rows]


def test_batch_has_what_the_model_takes(collate):
    batch = collate(samples(range(6)))
    length = batch["input_ids"].shape[1]
    assert batch["image_codes"].shape == batch["image_mask"].shape == batch["image_labels"].shape == (6, CELLS)
    assert batch["text_labels"].shape == batch["attention_mask"].shape == (6, length)
    assert batch["match_labels"].shape == (6,)


def test_a_sample_is_the_same_in_any_batch(collate):
    alone = collate(samples([7], epoch=3))
    together = collate(samples([1, 7, 30], epoch=3))
    length = alone["input_ids"].shape[1]
    assert torch.equal(together["image_mask"][1], alone["image_mask"][0])
    assert torch.equal(together["input_ids"][1, :length], alone["input_ids"][0])
    assert torch.equal(together["match_labels"][1], alone["match_labels"][0])


def test_another_epoch_draws_anew(collate):
    first, second = collate(samples(range(8), 0)), collate(samples(range(8), 1))
    assert not torch.equal(first["image_mask"], second["image_mask"])


def test_special_tokens_and_padding_are_never_masked(collate, tokenizer):
    batch = collate(samples(range(48)))
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    labels = set(batch["text_labels"].unique().tolist()) - {-100}
    assert labels and not labels & special
    assert (batch["input_ids"][:, 0] == tokenizer.cls_token_id).all()
    ends = batch["attention_mask"].sum(1) - 1
    assert (batch["input_ids"].gather(1, ends[:, None]) == tokenizer.sep_token_id).all()
    assert ((batch["input_ids"] == tokenizer.pad_token_id) == (batch["attention_mask"] == 0)).all()


def test_labels_are_the_masked_codes_and_only_of_matching_pairs(collate, code_table):
    batch = collate(samples(range(48)))
    counted = batch["image_labels"] != -100
    assert (batch["image_labels"][counted] == batch["image_codes"][counted]).all()
    assert not (counted & ~batch["image_mask"]).any()
    mismatched = batch["match_labels"] == 0
    assert mismatched.any() and not counted[mismatched].any()
    assert (batch["text_labels"][mismatched] == -100).all()


def test_matching_and_other_pairs_are_masked_alike(code_table, tokenizer):
    """A collator whose negatives keep their words teaches the matching head to see [MASK]."""
    collate = PreTrainingCollator(code_table, tokenizer, 32, seed=3)
    counts = {0: [], 1: []}
    for epoch in range(120):
        batch = collate(samples(range(48), epoch))
        masked = (batch["input_ids"] == tokenizer.mask_token_id).sum(1) / batch["attention_mask"].sum(1)
        for label, share, cells in zip(
            batch["match_labels"], masked, batch["image_mask"].float().mean(1), strict=True
        ):
            if int(label) != -100:
                counts[int(label)].append((float(share), float(cells)))
    matching, other = np.array(counts[1]), np.array(counts[0])
    assert abs(len(matching) - len(other)) < 0.15 * len(other)
    error = np.sqrt(matching.var(0) / len(matching) + other.var(0) / len(other))
    assert (np.abs(matching.mean(0) - other.mean(0)) < 4 * error + 0.01).all()


def test_dropped_and_wholly_masked_captions_carry_no_matching_loss(code_table, tokenizer):
    law = TextMaskLaw(unmasked=0.0, high=1.0, ratio=1.0)
    assert (
        PreTrainingCollator(code_table, tokenizer, 32, text_law=law)(samples(range(20)))["match_labels"] == -100
    ).all()
    dropped = PreTrainingCollator(code_table, tokenizer, 32, caption_dropout=1.0)(samples(range(20)))
    assert (dropped["match_labels"] == -100).all() and (dropped["attention_mask"].sum(1) == 2).all()


def test_random_words_are_words(code_table, tokenizer):
    law = TextMaskLaw(unmasked=0.0, high=0.0, ratio=1.0)
    batch = PreTrainingCollator(code_table, tokenizer, 32, text_law=law, match_negatives=0.0)(samples(range(48)))
    counted = batch["text_labels"] != -100
    shown = batch["input_ids"][counted]
    kept = (shown == batch["text_labels"][counted]).float().mean()
    masked = (shown == tokenizer.mask_token_id).float().mean()
    assert 0.7 < masked < 0.9 and 0.03 < kept < 0.2
    others = set(tokenizer.all_special_ids) - {tokenizer.mask_token_id}
    assert not set(shown.tolist()) & others
