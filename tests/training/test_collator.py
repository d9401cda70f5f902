"""The collator decides what the model may learn; a leak here is a model that looks right and knows nothing."""

import numpy as np
import pytest
import torch

from gptface.data.batch_masking import MaskLaw
from gptface.data.captions import contradictions, phrase_for
from gptface.data.masking import sample_generator
from gptface.data.phrase_contrast import (
    PLACED,
    contrast_pairs,
    label_matrix,
    opposite_phrases,
    placed_cells,
    truths,
)
from gptface.data.phrases import SAYABLE
from gptface.processing.prompt_words import regions_from_prompt
from gptface.processing.regions import region_cells
from gptface.training.pretraining import train_vocabulary
from gptface.training.pretraining_collator import IGNORED, UNKNOWN, PreTrainingCollator, TextMaskLaw, packed_rows

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
        labels = batch["match"]["labels"]
        assert labels.shape == (48, 12)
        assert (
            batch["match"]["input_ids"].shape
            == batch["match"]["attention_mask"].shape
            == (12, batch["input_ids"].shape[1])
        )
        assert ((labels == 1).sum(0) == (labels == 0).sum(0)).all()
        counted += int((labels >= 0).sum())
        assert (batch["text_labels"] != IGNORED).any() and (batch["image_labels"] != IGNORED).any(1).all()
    assert counted > 500


def match_all(collate, faces):
    """The captions that pictures are matched with and the labels, and what each picture's own caption mentions."""
    mentions = [collate._sample(face)["mentions"] for face in faces]
    known = label_matrix([collate.table.labels[face["row"]] for face in faces])
    tables = [(collate.table, face["row"]) for face in faces]
    return *collate._match_all(faces, tables, known, label_matrix(mentions)), mentions


def test_a_picture_is_not_matched_with_captions_about_what_its_own_says(code_table, tokenizer):
    """It could read the answer off its own caption; and of a grey photo nothing is known about glasses."""
    collate = PreTrainingCollator(code_table, tokenizer, 32, match_captions=30, caption_dropout=0.0, max_mentions=1)
    captions, labels, mentions = match_all(collate, samples(range(48)))
    assert labels.shape == (48, 30) == (len(mentions), len(captions)) and (labels >= 0).any()
    phrases = {phrase_for(name, value): name for name, sayable in SAYABLE.items() for value in sayable}
    stated = [{name for phrase, name in phrases.items() if caption == phrase} for caption in captions]
    for row, own in enumerate(mentions):
        for column, names in enumerate(stated):
            assert labels[row, column] == IGNORED or not own.keys() & names
    emotions = labels[40:]
    assert (emotions[:, (labels[:40] >= 0).any(0)] != 1).all()


def test_the_truth_of_a_caption_is_unknown_where_the_labels_do_not_say(code_table):
    smiling = code_table.labels[0]["Smiling"]
    known = label_matrix([code_table.labels[0], {**code_table.labels[45], "grayscale": 1}])
    assert truths({"Smiling": smiling}, known)[0] == 1
    assert truths({"Smiling": 1 - smiling}, known)[0] == 0
    assert truths({"Smiling": smiling, "Bald": 1}, known)[0] == IGNORED
    assert truths({"Smiling": 1 - smiling, "Bald": 1}, known)[0] == 0
    assert truths({"Eyeglasses": 1}, known)[1] == IGNORED
    # a colour photo of somebody happy is not known to be a grey one
    assert truths({"emotion:sad": 1, "grayscale": 1}, known).tolist() == [IGNORED, 1]


def test_a_weak_caption_is_true_of_its_own_picture_alone(code_table, tokenizer):
    """What an alt text leaves out may be true all the same: of pictures without a text nothing is known."""
    code_table.texts[:6] = ["Somebody", "somebody", "someone else", "a third", "a fourth", "a fifth"]
    collate = PreTrainingCollator(code_table, tokenizer, 32, match_captions=40)
    captions, labels, _ = match_all(collate, samples(range(10)))
    weak = [column for column, caption in enumerate(captions) if caption in code_table.texts]
    assert len(weak) > 10
    for column in weak:
        for row in np.flatnonzero(labels[:, column] != IGNORED):
            text = code_table.texts[row]
            assert labels[row, column] == (text.casefold() == captions[column].casefold())


def faces_of_two_attributes(count=24):
    """
    What is known of faces, what their captions say, and which of their 16×16 codes are predicted: of every fifth none
    is.
    """
    rng = np.random.default_rng(0)
    known = [{"Smiling": int(rng.integers(2)), "Eyeglasses": int(rng.random() < 0.2)} for _ in range(count)]
    said = [{"Smiling": 1} if row % 5 == 0 else {} for row in range(count)]
    labelled = rng.random((count, 256)) < 0.5
    labelled[1::5] = False
    return known, said, labelled


def test_opposite_phrases_are_asked_fairly_and_never_where_the_caption_or_the_given_cells_tell():
    known, said, labelled = faces_of_two_attributes()
    pairs = contrast_pairs(label_matrix(known), label_matrix(said), labelled, 8, 200, 12, np.random.default_rng(1))
    names = [PLACED[attribute] for attribute in pairs["asked"]]
    assert len(names) == 8 == len(set(names)) and set(names[:2]) == {"Smiling", "Eyeglasses"}
    assert (pairs["phrases"] == 2 * (pairs["phrases"][:, :1] // 2) + np.array([0, 1])).all()
    asked = pairs["phrases"][:, 0] // 2
    assert set(asked.tolist()) == {0, 1}  # nothing is known of the others
    regions = placed_cells(16)
    for number in range(2):
        chosen = asked == number
        labels, pictures = pairs["labels"][chosen], pairs["pictures"][chosen]
        assert chosen.sum() > 60 and (labels == 1).sum() == (labels == 0).sum()
        assert [known[picture][names[number]] for picture in pictures] == labels.tolist()
        assert not any(names[number] in said[picture] for picture in pictures)
        assert len(set(pictures.tolist())) > 4
        for picture, positions in zip(pictures, pairs["positions"][chosen], strict=True):
            cells = positions[positions >= 0]
            inside = labelled[picture] & regions[pairs["asked"][number]]
            assert len(cells) == min(12, inside.sum()) == len(set(cells.tolist())) > 0 and inside[cells].all()


def test_opposite_phrases_have_the_order_that_pairs_count_on():
    phrases = opposite_phrases()
    place = 2 * PLACED.index("Smiling")
    assert phrases[place : place + 2] == ["not smiling", "smiling"] and len(phrases) == 2 * len(placed_cells(16))


@pytest.mark.parametrize("known", [[{}, {}], [{"Smiling": 1}, {"Smiling": 1}]])
def test_a_batch_without_a_pair_asks_for_nothing_and_has_the_same_shapes(known):
    """Shapes that changed with the data would compile the step anew."""
    labelled, nothing = np.ones((2, 64), bool), label_matrix([{}, {}])
    pairs = contrast_pairs(label_matrix(known), nothing, labelled, 3, 6, 5, np.random.default_rng(0))
    shapes = {name: value.shape for name, value in pairs.items()}
    assert shapes == {"asked": (3,), "phrases": (6, 2), "pictures": (6,), "positions": (6, 5), "labels": (6,)}
    assert (pairs["labels"] == IGNORED).all() and (pairs["positions"] == -1).all()


def test_pairs_ask_rare_attributes_as_often_as_others():
    known = [{"Smiling": row % 2, "Eyeglasses": int(row == 0)} for row in range(40)]
    drawn = contrast_pairs(
        label_matrix(known), label_matrix([{}] * 40), np.ones((40, 64), bool), 2, 2000, 4, np.random.default_rng(0)
    )
    share = (drawn["phrases"][:, 0] == 0).mean()
    assert 0.4 < share < 0.6


def contrast_collator(code_table, tokenizer, **options):
    laws = [MaskLaw("random", "fixed", 0.9, 0.9)]
    design = {"match_captions": 4, "contrast_pairs": 10, "contrast_attributes": 3, "contrast_cells": 6, **options}
    return PreTrainingCollator(code_table, tokenizer, 16, image_laws=laws, **design)


def test_pairs_are_numbered_as_their_phrases_are_encoded(code_table, tiny_tokenizer):
    batch = contrast_collator(code_table, tiny_tokenizer, caption_dropout=1.0)(samples(range(12)))
    contrast, length = batch["contrast"], batch["input_ids"].shape[1]
    shown = opposite_phrases()
    # as long as the longest that there is, whatever the batch
    longest = max(len(tiny_tokenizer.encode(text)[:length]) for text in shown)
    assert contrast["input_ids"].shape == contrast["attention_mask"].shape == (6, longest)
    sayings = {tuple(tiny_tokenizer.encode(text)[:length]): number for number, text in enumerate(shown)}
    for picture, label, phrases in zip(contrast["pictures"], contrast["labels"], contrast["phrases"], strict=True):
        rows = [contrast["input_ids"][phrase][contrast["attention_mask"][phrase] == 1] for phrase in phrases]
        numbers = [sayings[tuple(row.tolist())] for row in rows]
        known = code_table.labels[int(picture)][PLACED[numbers[1] // 2]]
        assert known == label and (numbers[0] + 1 == numbers[1] or shown[numbers[0]] == "")
    later = contrast_collator(code_table, tiny_tokenizer, caption_dropout=1.0)(samples(range(12), 1))["contrast"]
    assert not torch.equal(later["pictures"], contrast["pictures"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast_pairs": 7}, "even number, got 7"),
        ({"contrast_pairs": -2}, "even number, got -2"),
        ({"contrast_attributes": 0}, "at least 1"),
        ({"contrast_cells": 0}, "at least 1"),
    ],
)
def test_contrasts_that_cannot_be_are_refused(code_table, tiny_tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        contrast_collator(code_table, tiny_tokenizer, **options)


def all_terms_model(tiny_model, tokenizer, **tokenizer_config):
    return tiny_model(
        vocab_size=len(tokenizer),
        max_text_length=16,
        caption_reader=True,
        match_head="cross",
        heads={"attributes": {"labels": NAMES, "problem_type": "multi_label_classification", "trained": True}},
        auxiliary_head="attributes",
        image_tokenizer_config={"image_size": 64, "fsq_levels": [8, 6, 5, 5], **tokenizer_config},
    ).train()


def test_a_batch_with_contrast_is_what_the_model_takes(code_table, tiny_tokenizer, tiny_model):
    batch = contrast_collator(code_table, tiny_tokenizer)(samples(range(12)))
    assert (batch["contrast"]["labels"] >= 0).any()
    batch.pop("label_counts")
    model = all_terms_model(tiny_model, tiny_tokenizer)
    output = model(**batch)
    assert torch.isfinite(output.contrast_loss) and output.contrast_loss > 0
    output.contrast_loss.backward()
    assert model.lm_head.caption_reader.output.weight.grad.abs().sum() > 0


NAMES = ["Smiling", "Male", "Eyeglasses", "Bald"]


@pytest.mark.parametrize("options", [{}, {"match_captions": 0}, {"predicted_cells": 20, "predicted_words": 2}])
def test_counts_are_what_the_terms_count(code_table, tiny_tokenizer, tiny_model, options):
    """
    The Trainer adds up terms by these counts; a wrong one would weigh some batches more than others in every report.
    """
    text_law = TextMaskLaw(unmasked=0.0)
    collate = contrast_collator(code_table, tiny_tokenizer, label_names=NAMES, text_law=text_law, **options)
    batch = collate(samples(range(12)))
    counts = batch.pop("label_counts")
    assert counts.shape == (5,) and counts.dtype == torch.float32 and (counts > 0).all()
    model = all_terms_model(tiny_model, tiny_tokenizer)
    output = model(**batch)

    def counted(labels, positions=None):
        labels = labels if positions is None else labels.gather(1, positions)
        return labels[labels >= 0]

    found = [
        counted(batch["text_labels"], batch.get("text_positions")),
        counted(batch["image_labels"], batch.get("image_positions")),
        counted(batch["match"]["labels"] if "match" in batch else batch["match_labels"]),
        counted(batch["labels"]),
        counted(batch["contrast"]["labels"]),
    ]
    assert [len(labels) for labels in found] == counts.tolist()
    # a sum over what counts, divided by the count, is the term
    rows = output.image_logits.flatten(0, 1)
    labels = batch["image_labels"]
    labels = labels.gather(1, batch["image_positions"]) if "image_positions" in batch else labels
    total = torch.nn.functional.cross_entropy(rows, labels.flatten(), reduction="sum")
    torch.testing.assert_close(total / counts[1], output.image_loss)


def test_predicted_cells_are_labelled_and_the_same_in_any_batch(code_table, tokenizer):
    """
    Predicting fewer cells must be a sample of them, not the first ones, and must not depend on the batch's other
    faces.
    """
    laws = [MaskLaw("random", "fixed", 0.5, 0.5)]
    collate = PreTrainingCollator(
        code_table, tokenizer, 32, laws, match_negatives=0.0, predicted_cells=10, predicted_words=1
    )
    batch = collate(samples(range(48), 2))
    for name, budget in (("image", 10), ("text", 1)):
        labels, positions = batch[f"{name}_labels"], batch[f"{name}_positions"]
        assert positions.shape == (48, budget) and positions.dtype == torch.long
        assert all(len(set(row)) == budget for row in positions.tolist())
        found = (labels.gather(1, positions) != IGNORED).sum(1)
        assert torch.equal(found, (labels != IGNORED).sum(1).clamp(max=budget))
    # anywhere among those that are masked
    assert len(set(batch["image_positions"].flatten().tolist())) > 55
    alone, other_epoch = collate(samples([7], 2)), collate(samples([7], 3))
    assert torch.equal(alone["image_positions"][0], batch["image_positions"][7])
    assert not torch.equal(other_epoch["image_positions"], alone["image_positions"])


def test_a_budget_of_all_cells_names_none(code_table, tokenizer):
    batch = PreTrainingCollator(code_table, tokenizer, 32, predicted_cells=CELLS)(samples(range(4)))
    assert "image_positions" not in batch


def test_captions_have_one_of_few_lengths(code_table, tokenizer):
    """A new length is a new shape, for which a compiler starts anew; captions and rows of a batch share one."""
    lengths = []
    for options in ({"match_captions": 3, "contrast_pairs": 4}, {"max_mentions": 5}, {"caption_dropout": 1.0}):
        batch = PreTrainingCollator(code_table, tokenizer, 32, text_lengths=(6, 20), **options)(samples(range(8)))
        parts = [batch[name] for name in ("match", "contrast") if name in batch] + [batch]
        (length,) = {part["packing"].shape[1] for part in parts} | {batch["input_ids"].shape[1]}
        assert length >= max(int(part["attention_mask"].sum(1).max()) for part in parts)
        lengths.append(length)
    assert set(lengths) <= {6, 20, 32} and lengths[-1] == 6
    # multiples of 8 where nothing is said, and the longest that the model reads
    default = PreTrainingCollator(code_table, tokenizer, 30)(samples(range(8)))["input_ids"].shape[1]
    assert default in (8, 16, 24, 30)


@pytest.mark.parametrize("unit", [1, 4])
def test_packed_captions_stand_whole_in_rows_one_behind_the_other(unit):
    """A word that got lost, or a caption cut in two, would be learned wrongly without an error."""
    lengths = np.random.default_rng(0).integers(2, 12, 50).tolist()
    rows = packed_rows(lengths, 11, 16, unit)
    assert len(rows) % unit == 0 and 16 * len(rows) <= 1.1 * sum(lengths) + 16 * unit
    words = rows[rows >= 0]
    assert sorted(words) == [11 * number + word for number, length in enumerate(lengths) for word in range(length)]
    for row in rows:
        inside = row[row >= 0]
        assert (row[: len(inside)] >= 0).all()  # nothing but the end is empty
        follows = np.diff(inside) == 1
        assert (inside[1:][~follows] % 11 == 0).all() and (len(inside) == 0 or inside[0] % 11 == 0)


def test_rows_are_a_multiple_of_a_share_of_the_captions(code_table, tokenizer):
    """Their number is a shape: with a large share it is the same in every batch."""
    packings = []
    for epoch in range(4):
        for packing in (0.125, 0.5):
            collate = PreTrainingCollator(
                code_table, tokenizer, 32, match_captions=16, text_lengths=[32], packing=packing
            )
            packings.append((packing, len(collate(samples(range(16), epoch))["match"]["packing"])))
    assert all(rows % round(packing * 16) == 0 for packing, rows in packings)
    assert {rows for packing, rows in packings if packing == 0.5} == {8}
    with pytest.raises(ValueError, match=r"packing is a share in \(0, 1\], got 0"):
        PreTrainingCollator(code_table, tokenizer, 32, packing=0)


def test_cells_without_pixels_are_minus_one_and_carry_no_label(code_table, tokenizer):
    """A tight crop has no pixels beside the face: what stands there is no code, and nothing to learn."""
    code_table.codes[:, :, :8] = 65535
    laws = [MaskLaw("random", "fixed", 0.9, 0.9)]
    collate = PreTrainingCollator(
        code_table, tokenizer, 32, laws, match_captions=4, contrast_pairs=8, predicted_cells=30
    )
    batch = collate(samples(range(24)))
    assert (batch["image_codes"][:, :8] == -1).all() and (batch["image_codes"][:, 8:] >= 0).all()
    assert (batch["image_labels"][:, :8] == IGNORED).all() and (batch["image_labels"][:, 8:] != IGNORED).any()
    assert (batch["image_positions"] >= 8).all()
    positions = batch["contrast"]["positions"]
    assert not ((positions >= 0) & (positions < 8)).any()


@pytest.fixture
def planned_table(code_table):
    """With plan codes [rows, 2, 16]; of face 3 a part is absent."""
    generator = np.random.default_rng(1)
    code_table.plan_codes = generator.integers(0, 24, (48, 2, 16)).astype(np.uint16)
    code_table.plan_codes[3, :, 0] = 65535
    return code_table


def test_the_plan_is_of_the_same_mirror_image_as_the_codes(planned_table, tokenizer):
    batch = PreTrainingCollator(planned_table, tokenizer, 32, plan_dropout=0.0, match_negatives=0.0)(
        samples(range(40))
    )
    versions = set()
    for row, (codes, plan) in enumerate(zip(batch["image_codes"], batch["plan_codes"], strict=True)):
        picture, _, _ = PreTrainingCollator(planned_table, tokenizer, 32, match_negatives=0.0)._pair(
            planned_table, row, sample_generator(0, 0, row)
        )
        (version,) = (v for v in (0, 1) if (planned_table.codes[picture, v] == codes.numpy()).all())
        versions.add(version)
        stored = planned_table.plan_codes[picture, version].astype(np.int64)
        assert plan.tolist() == np.where(stored == 65535, -1, stored).tolist()
    assert versions == {0, 1}


def test_a_share_of_faces_is_read_without_its_plan(planned_table, tokenizer):
    """Editing begins without one; the codes must be predicted well both ways."""
    unknown = []
    for epoch in range(10):
        batch = PreTrainingCollator(planned_table, tokenizer, 32, plan_dropout=0.4, match_captions=2)(
            samples(range(48), epoch)
        )
        missing = (batch["plan_codes"] == -1).all(1)
        assert ((batch["plan_codes"] >= 0).sum(1)[~missing] >= 15).all()
        unknown.append(missing.float().mean())
    assert 0.3 < np.mean(unknown) < 0.5


def test_a_plan_batch_predicts_plan_codes(planned_table, tiny_tokenizer, tiny_model):
    design = {"plan": True, "predicted_cells": 6, "label_names": NAMES, "contrast_cells": 3}
    batch = contrast_collator(planned_table, tiny_tokenizer, **design)(samples(range(12)))
    assert batch["image_codes"].shape == batch["image_labels"].shape == (12, 16) and "plan_codes" not in batch
    assert batch["image_positions"].shape == (12, 6)
    assert (batch["image_codes"][3, 0], batch["image_labels"][3, 0]) == (-1, IGNORED)
    counts = batch.pop("label_counts")
    output = all_terms_model(tiny_model, tiny_tokenizer, plan_levels=[2, 3, 4])(**batch)
    assert output.image_logits.shape == (12, 6, 24) and torch.isfinite(output.loss) and (counts[1:] > 0).all()
