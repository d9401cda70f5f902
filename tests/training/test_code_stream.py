"""A stream that repeats, loses or mixes up samples trains on other data than it says, and nobody sees it."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from gptface.data.captions import Caption
from gptface.data.code_dataset import CodeDataset, CodeTable, load_code_table
from gptface.data.code_stream import CodeStream
from gptface.data.masking import mask_budget
from gptface.training.pretraining import train_vocabulary
from gptface.training.pretraining_collator import PreTrainingCollator, TextMaskLaw

SIZES = (7, 12, 3, 10, 8)


@pytest.fixture
def codes(code_table, write_part, tmp_path):
    """Forty faces in five parts of different sizes."""
    start = 0
    for number, size in enumerate(SIZES):
        rows = np.arange(start, start + size)
        write_part(tmp_path / f"codes/part-{number:05d}.parquet", code_table.take(rows), "tokenizer")
        start += size
    return tmp_path / "codes"


@pytest.fixture
def collate(code_table):
    return PreTrainingCollator(code_table, train_vocabulary(code_table, 400, 32, captions=500), 32)


def stream(codes, **options):
    return CodeStream([codes], "tokenizer", **{"batch_size": 4, "window": 2, **options})


def ids(samples, count):
    return [(sample["epoch"], sample["id"]) for sample in islice(samples, count)]


def test_an_epoch_holds_every_face_once_in_another_order(codes):
    seen = ids(stream(codes), 80)
    assert [epoch for epoch, _ in seen] == [0] * 40 + [1] * 40
    first, second = ([number for _, number in seen[part : part + 40]] for part in (0, 40))
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second and first != sorted(first)
    assert ids(stream(codes), 80) == seen
    assert ids(stream(codes, seed=1), 40) != seen[:40]


def test_samples_are_the_rows_of_the_table(codes):
    table = load_code_table([codes], "tokenizer")
    for sample in islice(stream(codes), 40):
        assert (sample["table"].codes[sample["row"]] == table.codes[sample["id"]]).all()
        assert sample["table"].labels[sample["row"]] == table.labels[sample["id"]]


def test_weights_repeat_rows_as_in_the_table(codes):
    twice = CodeStream({codes: 2}, "tokenizer", 4)
    assert twice.rows == len(load_code_table({codes: 2}, "tokenizer")) == 80
    assert sorted(number for _, number in ids(twice, 80)) == list(range(80))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_see_what_one_rank_sees(codes, ranks):
    """So a step on two ranks of batch 4 is the step on one of batch 8."""
    shares = [ids(stream(codes, rank=rank, world_size=ranks), 20) for rank in range(ranks)]
    merged = [sample for step in zip(*shares, strict=True) for sample in step]
    assert merged == ids(stream(codes), 20 * ranks)
    assert not set(shares[0]) & set(shares[1])


@pytest.mark.parametrize("start", [8, 40, 52])
def test_a_stream_goes_on_from_any_position(codes, start):
    assert ids(stream(codes, start=start), 20) == ids(stream(codes), start + 20)[start:]
    assert ids(stream(codes, start=start, world_size=2, rank=1), 10) == ids(stream(codes), start + 20)[start + 1 :: 2]


def batches(codes, workers, count, **options):
    loader = DataLoader(stream(codes, **options), batch_size=4, num_workers=workers, collate_fn=lambda s: ids(s, 4))
    return list(islice(loader, count))


def test_workers_change_nothing(codes):
    for options in ({}, {"rank": 1, "world_size": 2, "start": 16}):
        assert batches(codes, 2, 13, **options) == batches(codes, 0, 13, **options)


def test_a_sample_is_the_same_on_any_rank_and_after_resume(codes, code_table):
    collate = PreTrainingCollator(None, train_vocabulary(code_table, 400, 32, captions=500), 32)
    whole = list(islice(stream(codes), 24))
    half = list(islice(stream(codes, rank=1, world_size=2, start=8), 8))
    by_id = {sample["id"]: sample for sample in whole}
    alone = collate(half)
    together = collate([by_id[sample["id"]] for sample in half])
    for name, tensor in alone.items():
        assert torch.equal(tensor, together[name]), name


@pytest.mark.parametrize("kind", [CodeDataset, CodeStream])
def test_workers_change_no_mask_and_no_caption(codes, code_table, kind):
    collate = PreTrainingCollator(None, train_vocabulary(code_table, 400, 32, captions=500), 32)
    dataset = stream(codes) if kind is CodeStream else CodeDataset(load_code_table([codes], "tokenizer"))
    first, second = (
        list(islice(DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=collate), 6))
        for workers in (0, 2)
    )
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@given(row=st.integers(0, 47), epoch=st.integers(0, 1000), ratio=st.floats(0.05, 1), high=st.floats(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_are_masked_in_number_and_special_tokens_never(collate, row, epoch, ratio, high):
    collate.text_law = TextMaskLaw(unmasked=0.0, high=high, ratio=ratio)
    batch = collate([{"row": row, "epoch": epoch}, {"row": (row + 7) % 48, "epoch": epoch}])
    special = {collate.tokenizer.cls_token_id, collate.tokenizer.sep_token_id, collate.tokenizer.pad_token_id}
    for labels, seen in zip(batch["text_labels"], batch["attention_mask"], strict=True):
        length = int(seen.sum())
        counted = labels != -100
        assert not counted[0] and not counted[length - 1 :].any()
        assert not set(labels[counted].tolist()) & special
        if counted.any():
            least = mask_budget(length - 2, ratio)
            assert counted.sum() >= least if high else counted.sum() == least


def test_codes_of_another_tokenizer_and_empty_folders_are_refused(codes, tmp_path):
    with pytest.raises(ValueError, match="encode the data again"):
        CodeStream([codes], "another", 4)
    with pytest.raises(FileNotFoundError, match="gptface encode"):
        CodeStream([tmp_path], "tokenizer", 4)


TEXTS = ["A photo of Ann", "bob at the sea", "BOB at the sea", None, "  ", "Ann"]


@pytest.fixture
def web(code_table, write_part, tmp_path):
    """Six pictures with what was written beside them; the last two known by nothing else."""
    table = code_table.take(np.arange(6))
    bare = CodeTable(table.codes, [{}] * 6, [None] * 6)
    write_part(tmp_path / "web/part-00000.parquet", bare, "tokenizer", text=TEXTS, url=["https://example.org"] * 6)
    return load_code_table([tmp_path / "web"], "tokenizer")


def test_texts_are_captions_as_they_are(web):
    generator = np.random.default_rng(0)
    assert web.texts == ["A photo of Ann", "bob at the sea", "BOB at the sea", None, None, "Ann"]
    assert web.caption(1, generator) == Caption("bob at the sea", {})
    assert web.labels == [{}] * 6  # other columns say nothing of the face


def test_weak_captions_are_never_denied_by_their_own_or_an_equal_caption(web, code_table):
    tokenizer = train_vocabulary(web, 400, 32, captions=50)
    collate = PreTrainingCollator(web, tokenizer, 32, caption_dropout=0.0)
    pairs = {0: set(), 1: set(), -100: set()}
    for epoch in range(200):
        for row in range(6):
            generator = np.random.default_rng([epoch, row])
            picture, caption, match = collate._pair(web, row, generator)
            pairs[match].add((picture, caption.text))
    own = dict(enumerate(web.texts))
    assert pairs[1] == {(row, text) for row, text in own.items() if text}
    assert pairs[0] == {
        (row, text) for row in (0, 1, 2, 5) for text in own.values() if text and text.casefold() != own[row].casefold()
    }
    # pictures of which nothing is known can be neither matched nor denied
    assert {picture for picture, _ in pairs[-100]} == {3, 4}
