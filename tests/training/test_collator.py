"""The collator decides what the model may learn; a leak here is a model that looks right and knows nothing."""

import numpy as np
import pytest
import torch

from gptface.processing.regions import region_cells, regions_from_prompt
from gptface.training.batch_masking import MaskLaw
from gptface.training.captions import contradictions, phrase_for
from gptface.training.collator import IGNORED, UNKNOWN, PreTrainingCollator, TextMaskLaw
from gptface.training.masking import sample_generator
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


def pairs(collate, table, epochs=60):
    """(row of the picture, caption, match) of all rows in some epochs."""
    rows = [(row, epoch) for epoch in range(epochs) for row in range(len(table))]
    return [collate._pair(table, row, sample_generator(collate.seed, epoch, row)) for row, epoch in rows]


@pytest.mark.parametrize("counterfactuals", [0.0, 1.0])
def test_a_false_caption_contradicts_the_picture_and_a_true_one_does_not(code_table, tokenizer, counterfactuals):
    collate = PreTrainingCollator(code_table, tokenizer, 32, counterfactuals=counterfactuals)
    drawn = pairs(collate, code_table, 10)
    assert {match for *_, match in drawn} >= {0, 1}
    for picture, caption, match in drawn:
        assert match == IGNORED or (contradictions(caption.mentions, code_table.labels[picture]) == 0) == bool(match)


@pytest.mark.parametrize("counterfactuals", [0.0, 1.0])
def test_neither_the_words_nor_the_picture_alone_tell_the_match(code_table, tokenizer, counterfactuals):
    """Otherwise the matching head learns which phrases are rare, and guidance pulls towards those."""
    # a common and a rare value, where a flipped phrase would give itself away
    for row, labels in enumerate(code_table.labels[:40]):
        labels["Eyeglasses"] = int(row % 8 == 0)
    collate = PreTrainingCollator(code_table, tokenizer, 32, counterfactuals=counterfactuals)
    drawn = [pair for pair in pairs(collate, code_table) if pair[2] != IGNORED]
    matches = np.array([match for *_, match in drawn])
    said = np.array([caption.mentions.get("Eyeglasses", -1) for _, caption, _ in drawn])
    shown = np.array([code_table.labels[picture].get("Eyeglasses", -1) for picture, *_ in drawn])
    for values in (said, shown):
        for value in (0, 1):
            chosen = matches[values == value]
            assert len(chosen) > 100 and abs(chosen.mean() - 0.5) < 4 * 0.5 / len(chosen) ** 0.5


def test_counterfactual_captions_differ_in_few_mentions(code_table, tokenizer):
    counts = []
    for counterfactuals in (0.0, 1.0):
        collate = PreTrainingCollator(code_table, tokenizer, 32, counterfactuals=counterfactuals, max_mentions=4)
        false = [(picture, caption) for picture, caption, match in pairs(collate, code_table, 20) if match == 0]
        faces = [(row, caption) for row, caption in false if code_table.emotions[row] is None]
        counts.append(np.mean([contradictions(caption.mentions, code_table.labels[row]) for row, caption in faces]))
    assert counts[1] < 1.1 < counts[0]


def test_where_all_faces_are_alike_no_caption_is_called_false(code_table, tokenizer):
    code_table.labels[:] = [dict(code_table.labels[0])] * len(code_table)
    code_table.emotions[:] = [None] * len(code_table)
    batch = PreTrainingCollator(code_table, tokenizer, 32)(samples(range(48)))
    assert (batch["match_labels"] == IGNORED).all() and (batch["image_labels"] != IGNORED).any()


def test_region_masks_lie_where_the_caption_speaks(code_table, tokenizer):
    collate = PreTrainingCollator(code_table, tokenizer, 32, region_masks=1.0, max_mentions=1)
    placed = 0
    for row in range(40):
        generator = sample_generator(0, 0, row)
        _, caption, _ = collate._pair(code_table, row, generator)
        regions = regions_from_prompt(phrase_for(*next(iter(caption.mentions.items()))))
        mask = collate._region_mask(CELLS, caption, generator)
        assert (mask is not None) == bool(regions)
        if mask is not None:
            placed += 1
            assert not (mask & ~region_cells(regions, 8).reshape(-1)).any()
    assert placed > 20


def test_the_auxiliary_head_is_not_asked_for_what_the_caption_says(code_table, tokenizer):
    names = ["Smiling", "Male", "Eyeglasses", "Bald"]
    collate = PreTrainingCollator(code_table, tokenizer, 32, label_names=names, caption_dropout=0.0)
    batch = collate(samples(range(40)))
    for row in range(40):
        picture, caption, _ = collate._pair(code_table, row, sample_generator(0, 0, row))
        known = code_table.labels[picture]
        expected = [UNKNOWN if name in caption.mentions else known.get(name, UNKNOWN) for name in names]
        assert batch["labels"][row].tolist() == expected


def test_captions_for_every_picture_are_true_or_false_of_it_and_balanced(code_table, tokenizer):
    """The words alone must tell nothing: each caption counts for as many pictures that match as for others."""
    collate = PreTrainingCollator(code_table, tokenizer, 32, match_captions=12, max_mentions=2)
    counted = 0
    for epoch in range(5):
        batch = collate(samples(range(48), epoch))
        labels = batch["match_labels"]
        assert labels.shape == (48, 12) and batch["match_input_ids"].shape == batch["match_attention_mask"].shape
        assert ((labels == 1).sum(0) == (labels == 0).sum(0)).all()
        counted += int((labels >= 0).sum())
        assert (batch["text_labels"] != IGNORED).any() and (batch["image_labels"] != IGNORED).any(1).all()
    assert counted > 500


def test_a_picture_is_not_matched_with_captions_about_what_its_own_says(code_table, tokenizer):
    """It could read the answer off its own caption; and of a grey photo nothing is known about glasses."""
    collate = PreTrainingCollator(code_table, tokenizer, 32, match_captions=30, caption_dropout=0.0, max_mentions=1)
    rows = [collate._sample(sample) for sample in samples(range(48))]
    drawn = {}
    collate.tokenizer.encode, original = lambda text, **_: drawn.setdefault(text, [1, 5, 2]), collate.tokenizer.encode
    try:
        labels = collate._match_all(samples(range(48)), rows)["match_labels"]
    finally:
        collate.tokenizer.encode = original
    assert labels.shape == (48, 30) and drawn
    for row, shown in enumerate(rows):
        known = set(code_table.labels[row])
        assert shown["mentions"].keys() <= known
    emotions = labels[40:]
    assert (emotions[:, (labels[:40] >= 0).any(0)] != 1).all()


def test_agreement_is_unknown_where_the_labels_do_not_say(code_table):
    from gptface.training.captions import Caption

    smiling = code_table.labels[0]["Smiling"]
    assert code_table.agrees(Caption("", {"Smiling": smiling}), 0) == 1
    assert code_table.agrees(Caption("", {"Smiling": 1 - smiling}), 0) == 0
    assert code_table.agrees(Caption("", {"Smiling": smiling, "Bald": 1}), 0) == IGNORED
    assert code_table.agrees(Caption("", {"Eyeglasses": 1}), 45) == IGNORED
    code_table.texts[3] = "Somebody"
    assert code_table.agrees(Caption("somebody", {}), 3) == 1
    assert code_table.agrees(Caption("someone else", {}), 3) == 0


def test_opposite_phrases_are_asked_fairly_and_never_where_the_caption_or_the_given_cells_tell(tiny_tokenizer):
    from gptface.training.phrase_contrast import PLACED, contrast_labels, opposite_phrases, placed_cells

    rng = np.random.default_rng(0)
    known = [{"Smiling": int(rng.integers(2)), "Eyeglasses": int(rng.random() < 0.2)} for _ in range(24)]
    mentions = [{"Smiling": 1} if row % 5 == 0 else {} for row in range(24)]
    masked = rng.random((24, 256)) < 0.5
    masked[1::5] = False
    labels = contrast_labels(known, mentions, masked, np.random.default_rng(1))
    smiling, glasses = (labels[:, PLACED.index(name)] for name in ("Smiling", "Eyeglasses"))
    for name, column in (("Smiling", smiling), ("Eyeglasses", glasses)):
        assert (column == 1).sum() == (column == 0).sum() > 0
        asked = column >= 0
        assert [known[row][name] for row in np.flatnonzero(asked)] == column[asked].tolist()
        assert not asked[1::5].any()
    assert not (smiling[::5] >= 0).any()
    # nothing is known of the others
    assert (np.delete(labels, [PLACED.index("Smiling"), PLACED.index("Eyeglasses")], 1) < 0).all()
    phrases = opposite_phrases()
    place = 2 * PLACED.index("Smiling")
    assert phrases[place : place + 2] == ["not smiling", "smiling"] and len(phrases) == 2 * len(placed_cells(16))


def contrast_collator(code_table, tokenizer, share):
    laws = [MaskLaw("random", "fixed", 0.9, 0.9)]
    return PreTrainingCollator(code_table, tokenizer, 16, image_laws=laws, match_captions=4, contrast=share)


def test_a_share_of_the_contrasts_asks_the_same_of_fewer_attributes(code_table, tiny_tokenizer):
    """Each attribute keeps its phrases, its region and its pictures; which are asked changes from batch to batch."""
    samples = [{"row": row, "epoch": 0} for row in range(12)]
    every = contrast_collator(code_table, tiny_tokenizer, True)(samples)
    some = contrast_collator(code_table, tiny_tokenizer, 0.3)(samples)
    columns = [
        next(
            column
            for column in range(len(every["contrast_cells"]))
            if all(
                torch.equal(some[name][2 * place : 2 * place + 2], every[name][2 * column : 2 * column + 2])
                for name in ("contrast_input_ids", "contrast_attention_mask")
            )
        )
        for place in range(len(some["contrast_cells"]))
    ]
    assert len(columns) == round(0.3 * len(every["contrast_cells"])) and columns == sorted(set(columns))
    assert torch.equal(some["contrast_labels"], every["contrast_labels"][:, columns])
    assert torch.equal(some["contrast_cells"], every["contrast_cells"][columns])
    later = contrast_collator(code_table, tiny_tokenizer, 0.3)([{"row": row, "epoch": 1} for row in range(12)])
    assert not torch.equal(later["contrast_input_ids"], some["contrast_input_ids"])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_of_contrasts_outside_of_0_and_1_is_refused(code_table, tiny_tokenizer, share):
    with pytest.raises(ValueError, match="contrast is a share"):
        contrast_collator(code_table, tiny_tokenizer, share)


def test_a_batch_with_contrast_is_what_the_model_takes(code_table, tiny_tokenizer, tiny_model):
    collator = contrast_collator(code_table, tiny_tokenizer, True)
    batch = collator([{"row": row, "epoch": 0} for row in range(12)])
    assert (batch["contrast_labels"] >= 0).any()
    model = tiny_model(
        vocab_size=len(tiny_tokenizer),
        max_text_length=16,
        caption_reader=True,
        match_head="cross",
        image_tokenizer_config={"image_size": 64, "fsq_levels": [8, 6, 5, 5]},
    ).train()
    output = model(**batch)
    assert torch.isfinite(output.contrast_loss) and output.contrast_loss > 0
    output.contrast_loss.backward()
    assert model.lm_head.caption_reader.output.weight.grad.abs().sum() > 0
