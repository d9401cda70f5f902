"""Whoever asks for eyeglasses gets no dark bar: faces with sunglasses do not teach what eyeglasses are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gptface.training.dark_glasses import forget_dark_glasses, lens_brightness
from gptface.training.encode import FINGERPRINT_KEY


def portrait(size, lenses):
    """A face of one tone with lenses of another, [1, 3, S, S] in [-1, 1]."""
    face = torch.full((1, 3, size, size), 0.2)
    if lenses is not None:
        top, bottom, left, right = (round(x * size / 128) for x in (46, 70, 28, 100))
        face[..., top:bottom, left:right] = lenses
    return face


@pytest.mark.parametrize("size", [32, 100, 128])
def test_dark_lenses_are_told_from_eyes_and_from_clear_ones(size):
    assert lens_brightness(portrait(size, -0.9)) < 0.2
    assert lens_brightness(portrait(size, None)) == pytest.approx(1)
    frames = portrait(size, None)
    frames[..., round(0.39 * size) : round(0.43 * size), :] = -1  # a third of the area of the lenses
    frames[..., round(0.50 * size) : round(0.52 * size), :] = -1
    assert lens_brightness(frames) > 0.9


class Decoder:
    """Decodes code 0 as sunglasses, all others as a bare face."""

    device = torch.device("cpu")

    def fingerprint(self):
        return "abc"

    def decode(self, codes):
        return torch.cat([portrait(32, -0.9 if row[0] == 0 else None) for row in codes])


def write(folder, labels, codes, name="part-00000.parquet", column="Eyeglasses"):
    folder.mkdir(exist_ok=True)
    rows = [np.full(4, code, np.uint16) for code in codes]
    table = pa.table({"identity": labels, column: pa.array(labels, pa.int8()), "codes": rows})
    pq.write_table(table.replace_schema_metadata({FINGERPRINT_KEY: b"abc"}), folder / name)


def test_the_label_of_dark_glasses_becomes_unknown_and_all_else_is_copied(tmp_path):
    source, target = tmp_path / "codes", tmp_path / "clear"
    write(source, [1, 1, 0, 1], [0, 5, 0, 0])
    write(source, [0, 0], [0, 0], "part-00001.parquet")
    assert forget_dark_glasses(source, target, Decoder()) == 2
    before, after = (pq.read_table(folder / "part-00000.parquet") for folder in (source, target))
    assert after["Eyeglasses"].to_pylist() == [None, 1, 0, None]
    assert after.schema == before.schema and after.schema.metadata == before.schema.metadata
    assert after.drop_columns(["Eyeglasses"]).equals(before.drop_columns(["Eyeglasses"]))
    assert pq.read_table(target / "part-00001.parquet").equals(pq.read_table(source / "part-00001.parquet"))
    assert not list(target.glob("*.tmp"))
    assert forget_dark_glasses(source, target, Decoder()) == 0  # done before


def test_codes_of_another_tokenizer_are_not_judged(tmp_path, monkeypatch):
    write(tmp_path / "codes", [1], [0])
    monkeypatch.setattr(Decoder, "fingerprint", lambda self: "another")
    with pytest.raises(ValueError, match="codes of the image tokenizer abc"):
        forget_dark_glasses(tmp_path / "codes", tmp_path / "clear", Decoder())


def test_many_faces_with_glasses_and_unknown_labels(tmp_path):
    write(tmp_path / "codes", [1] * 70 + [None] * 3, [0, 5] * 35 + [0] * 3)
    assert forget_dark_glasses(tmp_path / "codes", tmp_path / "clear", Decoder()) == 35
    labels = pq.read_table(tmp_path / "clear/part-00000.parquet")["Eyeglasses"].to_pylist()
    assert labels == [None, 1] * 35 + [None] * 3


def test_codes_without_the_label_are_refused(tmp_path):
    write(tmp_path / "codes", [1], [0], column="Smiling")
    with pytest.raises(ValueError, match="no column 'Eyeglasses'"):
        forget_dark_glasses(tmp_path / "codes", tmp_path / "clear", Decoder())
