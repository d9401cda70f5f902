"""Codes are computed once and read for days: wrong ones void all training on them."""

import io
import json
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig
from gptface.cli import main
from gptface.data import encode
from gptface.data.code_dataset import load_code_table
from gptface.training.plan_training import with_plan
from lab.changed_copies import SLIGHT_CHANGES, encode_changed_copy


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    config = GPTFaceImageTokenizerConfig(image_size=32, hidden_channels=8, latent_channels=4, fsq_levels=[4, 3])
    return GPTFaceImageTokenizer(config).eval()


def picture(size=(178, 218), seed=0):
    array = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def write(path, pictures):
    rows = [{"bytes": data, "path": None} for data in pictures]
    pq.write_table(pa.table({"image": rows, "Smiling": [index % 2 for index in range(len(rows))]}), path)


def test_rows_keep_order_and_labels_and_flips_are_of_the_mirrored_picture(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "ROWS_PER_PART", 2)
    pictures = [picture(seed=seed) for seed in range(5)]
    write(tmp_path / "faces.parquet", pictures)
    assert encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer) == 5
    assert len(list(encode.code_parts(tmp_path / "codes"))) == 3
    table = load_code_table([tmp_path / "codes"], tokenizer.fingerprint())
    assert [row["Smiling"] for row in table.labels] == [0, 1, 0, 1, 0]
    crop = encode.read_crop(pictures[3], "celeba", 32)
    mirrored = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert np.array_equal(table.codes[3], encode.encode_images(tokenizer, [crop, mirrored]))


def test_plan_codes_stand_beside_the_codes(tmp_path, tokenizer):
    """
    A model of plans reads the same rows; parts without a plan, or with another, are not mixed with those that have
    one.
    """
    torch.manual_seed(0)
    planned = with_plan(tokenizer, [3, 4], 16)
    pictures = [picture(seed=seed) for seed in range(3)]
    write(tmp_path / "faces.parquet", pictures)
    encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", planned)
    table = pq.read_table(tmp_path / "codes" / "part-00000.parquet")
    assert table.schema.metadata[encode.PLAN_FINGERPRINT_KEY] == planned.plan_fingerprint().encode()
    crops = [encode.read_crop(data, "celeba", 32) for data in pictures]
    mirrored = [crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops]
    for suffix, versions in (("", crops), ("_flipped", mirrored)):
        codes, plans = encode.encode_with_plan(planned, versions)
        assert np.array_equal(codes, encode.encode_images(tokenizer, versions))
        assert np.array_equal(table[f"codes{suffix}"].to_pylist(), codes)
        assert np.array_equal(table[f"plan_codes{suffix}"].to_pylist(), plans) and plans.shape == (3, 4)
    with pytest.raises(ValueError, match="another plan"):
        encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer)


def test_changed_copies_are_slight_all_different_and_the_same_again(tmp_path, tokenizer, monkeypatch):
    def means(tokenizer, images):
        # in the place of codes: random weights give all pictures the same
        blocks = np.stack([np.asarray(image.convert("L").resize((4, 4), Image.Resampling.BOX)) for image in images])
        return blocks.reshape(len(images), -1).astype(np.uint16)

    monkeypatch.setattr(encode, "encode_images", means)
    write(tmp_path / "faces.parquet", [picture(seed=seed) for seed in range(3)])

    def codes(copy, folder):
        assert encode_changed_copy(tmp_path / "faces.parquet", "celeba", tokenizer, tmp_path / folder, copy) == 3
        return load_code_table([tmp_path / folder], tokenizer.fingerprint()).codes

    first, second, again = codes(1, "first"), codes(2, "second"), codes(1, "again")
    assert np.array_equal(first, again)
    assert (first != second).any(axis=(1, 2)).all(), "every face changes from copy to copy"
    smooth = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    changed = SLIGHT_CHANGES(smooth, np.random.default_rng(0))
    assert np.abs(np.asarray(changed, float) - np.asarray(smooth, float)).mean() < 0.1 * 255


def test_a_changed_copy_of_a_row_is_the_same_wherever_the_run_was_cut(tmp_path, tokenizer, monkeypatch):
    pictures = [picture(seed=seed) for seed in range(5)]
    write(tmp_path / "faces.parquet", pictures)

    def turned(face, row):
        return face.rotate(90 * row)

    for rows_per_part, folder in ((2, "cut"), (512, "whole")):
        monkeypatch.setattr(encode, "ROWS_PER_PART", rows_per_part)
        encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / folder, tokenizer, every=2, change=turned)
    cut, whole = (load_code_table([tmp_path / folder], tokenizer.fingerprint()) for folder in ("cut", "whole"))
    assert np.array_equal(cut.codes, whole.codes)
    copy = encode.read_crop(pictures[4], "celeba", 32).rotate(4 * 90)
    assert np.array_equal(whole.codes[2, :1], encode.encode_images(tokenizer, [copy]))
    copy = encode.read_crop(pictures[2], "celeba", 32).rotate(2 * 90)
    assert np.array_equal(whole.codes[1, :1], encode.encode_images(tokenizer, [copy]))


def test_a_stopped_run_goes_on_behind_the_last_whole_part(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "ROWS_PER_PART", 2)
    write(tmp_path / "faces.parquet", [picture(seed=seed) for seed in range(4)])
    encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, flips=False)
    first, second = encode.code_parts(tmp_path / "codes")
    stamp, whole = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    second.with_suffix(".tmp").write_bytes(whole[:20])  # what a kill in the middle of a write leaves
    encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, flips=False)
    assert first.stat().st_mtime_ns == stamp
    assert pq.read_table(second).equals(pq.read_table(pa.BufferReader(whole)))


def test_rows_that_cannot_be_read_are_left_out_and_said(tmp_path, tokenizer, caplog):
    write(tmp_path / "faces.parquet", [picture(), b"no picture", picture((50, 60)), picture(seed=2)])
    refused = Counter()
    for _ in range(2):  # a folder that is finished says it again
        refused.clear()
        assert encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, refused=refused) == 2
        assert refused == {"damaged picture": 2}
    assert "faces/00000001 left out: damaged picture" in caplog.text
    assert pq.read_table(tmp_path / "codes" / "part-00000.parquet")["source_row"].to_pylist() == [0, 3]


def test_codes_of_another_tokenizer_are_refused(tmp_path, tokenizer):
    write(tmp_path / "faces.parquet", [picture()])
    encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer)
    with pytest.raises(ValueError, match="encode the data again"):
        load_code_table([tmp_path / "codes"], "another")
    with torch.no_grad():
        tokenizer.quantizer.down.weight.mul_(2)
    with pytest.raises(ValueError, match="another image tokenizer"):
        encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer)


def test_weights_of_data_sets_repeat_or_thin_their_rows(tmp_path, tokenizer):
    write(tmp_path / "faces.parquet", [picture(seed=seed) for seed in range(4)])
    encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, flips=False)
    folder, fingerprint = str(tmp_path / "codes"), tokenizer.fingerprint()
    assert len(load_code_table({folder: 2}, fingerprint)) == 8
    halved = load_code_table({folder: 0.5}, fingerprint)
    assert [row["Smiling"] for row in halved.labels] == [0, 0]


@pytest.mark.parametrize(
    ("layout", "size", "problem"),
    [("celeba", (100, 100), "178×218"), ("aligned", (10, 12), "square"), ("fer48", (48, 40), "square")],
)
def test_a_picture_of_another_layout_is_named(layout, size, problem):
    with pytest.raises(ValueError, match=problem):
        encode.read_crop(picture(size), layout, 32)


def test_small_grey_faces_come_to_the_project_crop():
    """The eyes of FER2013's median face lie where the crop wants them: row 55 of 128."""
    grey = np.full((48, 48), 200, np.uint8)
    for x, y in encode.LAYOUT_LANDMARKS["fer48"][:2]:
        grey[int(y), int(x)] = 0
    data = io.BytesIO()
    Image.fromarray(grey).save(data, "PNG")
    crop = np.asarray(encode.read_crop(data.getvalue(), "fer48"))[:, :, 0]
    rows, columns = np.unravel_index(crop.argsort(axis=None)[:4], crop.shape)
    assert np.abs(rows - 55.5).max() < 4
    assert all(min(abs(column - 44.5), abs(column - 83.5)) < 4 for column in columns)


def test_an_unknown_layout_is_refused(tmp_path, tokenizer):
    write(tmp_path / "faces.parquet", [picture()])
    with pytest.raises(ValueError, match="layout must be one of"):
        encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, "lfw")


def test_a_folder_without_codes_says_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="gptface encode"):
        list(encode.code_parts(tmp_path))


def test_each_nth_row_is_an_even_part_of_the_file(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "ROWS_PER_PART", 4)
    write(tmp_path / "faces.parquet", [picture(seed=seed) for seed in range(7)])
    assert encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer, every=3) == 3
    table = load_code_table([tmp_path / "codes"], tokenizer.fingerprint())
    assert [row["Smiling"] for row in table.labels] == [0, 1, 0]


def write_tar(path, samples):
    with tarfile.open(path, "w") as archive:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_tars_are_encoded_with_captions_and_labels(tmp_path, tokenizer, monkeypatch):
    """Of a web collection every column may be missing, of mixed types, or named like one of ours."""
    monkeypatch.setattr(encode, "ROWS_PER_PART", 2)
    faces = [picture((32, 32), seed) for seed in range(3)]
    columns = [{"Smiling": 1, "width": 9}, {"Smiling": 0, "width": "nine", "codes": [1]}, {"nested": {}, "big": 2**80}]
    write_tar(
        tmp_path / "shard.tar",
        [
            member
            for row in range(3)
            for member in [
                (f"{row}.png", faces[row]),
                (f"{row}.txt", f"face {row}".encode()),
                (f"{row}.json", json.dumps(columns[row]).encode()),
            ]
        ],
    )
    assert encode.encode_dataset(tmp_path / "shard.tar", tmp_path / "codes", tokenizer, "aligned") == 3
    rows = [row for part in encode.code_parts(tmp_path / "codes") for row in pq.read_table(part).to_pylist()]
    assert [row["text"] for row in rows] == ["face 0", "face 1", "face 2"]
    assert [row["key"] for row in rows] == ["shard/0", "shard/1", "shard/2"]
    assert [row.get("Smiling") for row in rows] == [1, 0, None]
    assert [row.get("width") for row in rows] == ["9", "nine", None] and rows[2]["big"] == str(2**80)
    expected = encode.encode_images(tokenizer, [encode.read_crop(data, "aligned", 32) for data in faces])
    assert np.array_equal([row["codes"] for row in rows], expected)


def test_a_stopped_run_over_a_tar_goes_on(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "ROWS_PER_PART", 2)
    write_tar(tmp_path / "shard.tar", [(f"{row}.png", picture((32, 32), row)) for row in range(5)])
    encode.encode_dataset(tmp_path / "shard.tar", tmp_path / "codes", tokenizer, "aligned")
    first, second, third = encode.code_parts(tmp_path / "codes")
    stamp, whole = first.stat().st_mtime_ns, pq.read_table(second)
    second.unlink()
    assert encode.encode_dataset(tmp_path / "shard.tar", tmp_path / "codes", tokenizer, "aligned") == 5
    assert first.stat().st_mtime_ns == stamp and pq.read_table(second).equals(whole) and third.exists()


def test_the_command_counts_what_it_skips(tmp_path, tokenizer, capsys):
    """Folders give the name of a class as `label`; what cannot be read is left out, and said."""
    (tmp_path / "faces" / "happy").mkdir(parents=True)
    for seed in range(2):
        (tmp_path / "faces" / "happy" / f"{seed}.png").write_bytes(picture((32, 32), seed))
    (tmp_path / "faces" / "broken.png").write_bytes(picture()[:50])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    arguments = ["encode", str(tmp_path / "faces"), str(tmp_path / "codes"), "--image-tokenizer"]
    assert main([*arguments, str(tmp_path / "tokenizer")]) == 0
    assert "2 rows; 1 skipped: damaged picture" in capsys.readouterr().out
    (part,) = encode.code_parts(tmp_path / "codes")
    assert pq.read_table(part)["label"].to_pylist() == ["happy", "happy"]
    assert main(["encode", str(tmp_path / "none"), str(tmp_path / "codes")]) == 2
    assert "none" in capsys.readouterr().err


def test_a_part_without_a_picture_is_empty(tmp_path, tokenizer):
    write(tmp_path / "faces.parquet", [b"none", b"none"])
    assert encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer) == 0


def test_a_path_in_the_place_of_a_picture_is_not_opened(tmp_path, tokenizer):
    """A collection from elsewhere must not be able to read this machine's files, or fetch addresses."""
    (tmp_path / "secret.png").write_bytes(picture())
    pq.write_table(pa.table({"image": [str(tmp_path / "secret.png")]}), tmp_path / "faces.parquet")
    with pytest.raises(ValueError, match="holds no picture: no picture \\(1\\)"):
        encode.encode_dataset(tmp_path / "faces.parquet", tmp_path / "codes", tokenizer)


def test_a_model_labels_what_the_data_do_not_say(tmp_path, tiny_checkpoint, monkeypatch, capsys):
    """Users with pictures alone get captions, too, where the head is sure."""
    from gptface.data import confident_labels

    monkeypatch.setattr(confident_labels, "trusted_values", lambda: {"Smiling": frozenset({0, 1})})
    monkeypatch.setattr(confident_labels, "PRESENT", 0.0)  # random weights are never sure
    write(tmp_path / "faces.parquet", [picture((64, 64), seed) for seed in range(2)])
    arguments = ["encode", str(tmp_path / "faces.parquet"), str(tmp_path / "codes"), "--layout", "aligned"]
    arguments += ["--image-tokenizer", str(tiny_checkpoint), "--label-with", str(tiny_checkpoint)]
    assert main(arguments) == 0, capsys.readouterr().err
    (part,) = encode.code_parts(tmp_path / "codes")
    table = pq.read_table(part)
    assert table["Smiling"].to_pylist() == [0, 1], "the data's own labels stay"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "one.png").write_bytes(picture((64, 64)))
    assert main(["encode", str(pictures), str(tmp_path / "new"), *arguments[3:]]) == 0
    (part,) = encode.code_parts(tmp_path / "new")
    assert pq.read_table(part)["Smiling"].to_pylist() == [1]


def test_a_model_of_another_tokenizer_labels_nothing(tmp_path, tokenizer, tiny_checkpoint, capsys):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    write(tmp_path / "faces.parquet", [picture((32, 32))])
    arguments = ["encode", str(tmp_path / "faces.parquet"), str(tmp_path / "codes"), "--image-tokenizer"]
    assert main([*arguments, str(tmp_path / "tokenizer"), "--label-with", str(tiny_checkpoint)]) == 2
    assert "another image tokenizer" in capsys.readouterr().err
