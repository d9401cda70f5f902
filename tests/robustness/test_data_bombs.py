"""Collections that are small and unpack to hours or to all memory, and files of a run that were cut: read within bounds, or named."""

import os
import tracemalloc
from collections import Counter

import hostile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptface.data.classification_data import _read_codes
from gptface.data.code_dataset import load_code_table
from gptface.data.code_stream import CodeStream
from gptface.data.encode import encode_parquet
from gptface.data.preparation_run import run_preparation
from gptface.data.shard_writing import ShardStatistics, finished_shards
from gptface.data.sources import MAX_FILES, list_sources, read_samples


@pytest.fixture
def mebibytes():
    """A function that says how much memory Arrow and Python have held at most, beyond what they held before the test."""
    known = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(known)
    pa.set_memory_pool(counted)
    tracemalloc.start()
    yield lambda: (counted.max_memory() + tracemalloc.get_traced_memory()[1]) >> 20
    tracemalloc.stop()
    pa.set_memory_pool(known)


def read(path):
    """(samples, refused) of a collection, none of whose samples is kept."""
    refused = Counter()
    return sum(bool(sample.image) for sample in read_samples(path, refused)), refused.total()


@pytest.mark.parametrize("struct", [False, True])
def test_a_repeated_picture_is_not_copied_for_each_row(tmp_path, struct, mebibytes):
    """Sixty-four rows of one picture of 10 MB are a few copies of it, and not 640 MB."""
    hostile.repeated_parquet(tmp_path / "a.parquet", os.urandom(10 * 2**20), 64, struct=struct)
    assert read(tmp_path / "a.parquet") == (64, 0)
    assert mebibytes() < 200


@pytest.mark.parametrize(("write", "name"), [(hostile.swollen_parquet, "swollen"), (hostile.nested_parquet, "nested")])
def test_what_unpacks_to_much_more_than_is_stored_is_left_out(tmp_path, write, name, mebibytes):
    """A file of kilobytes must not cost gigabytes, and not the rest of the collection either."""
    write(tmp_path / f"{name}.parquet")
    hostile.repeated_parquet(tmp_path / "z.parquet", b"picture", 3)
    before = mebibytes()  # of the writer
    assert read(tmp_path) == (3, 1)
    assert mebibytes() < before + 50


def test_an_oversized_text_is_left_out_and_its_picture_stays(tmp_path):
    hostile.repeated_parquet(tmp_path / "a.parquet", b"picture", 40, text="a" * (2**20 + 1))
    refused = Counter()
    samples = list(read_samples(tmp_path / "a.parquet", refused))
    assert [sample.text for sample in samples] == [None] * 40 and refused == {"oversized text": 40}


def test_encoding_keeps_to_the_same_bounds(tmp_path, tiny_model, face_picture):
    """`gptface encode` reads by itself what `prepare` streams."""
    tokenizer = tiny_model().image_tokenizer
    (tmp_path / "face.png").write_bytes(b"")
    face_picture.resize((24, 24)).save(tmp_path / "face.png")
    data = (tmp_path / "face.png").read_bytes()
    hostile.repeated_parquet(tmp_path / "a.parquet", data, 3, text="a" * (2**20 + 1), struct=True)
    assert encode_parquet(tmp_path / "a.parquet", tmp_path / "codes", tokenizer, "aligned") == 3
    assert pq.read_table(tmp_path / "codes/part-00000.parquet")["text"].to_pylist() == [None] * 3
    hostile.swollen_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="200 times as many is the most"):
        encode_parquet(tmp_path / "b.parquet", tmp_path / "other", tokenizer, "aligned")


@pytest.mark.parametrize(
    "pattern", ["{0..99999999999}.tar", "{a,{0..99999999999}}.tar", "{a,b}" * 18 + ".tar", "{0..99}{0..99}{0..99}.tar"]
)
def test_braces_end(tmp_path, pattern):
    """A digit too many would hang, or fill the memory with names."""
    with pytest.raises(ValueError, match=f"more than {MAX_FILES}"):
        list_sources(str(tmp_path / pattern))


@pytest.mark.parametrize("length", [0, 3, 200])
def test_a_damaged_part_of_codes_is_named(tmp_path, tiny_model, face_picture, length):
    """Arrow's own error names no file, of thousands."""
    tokenizer = tiny_model().image_tokenizer
    face_picture.resize((24, 24)).save(tmp_path / "face.png")
    hostile.repeated_parquet(tmp_path / "a.parquet", (tmp_path / "face.png").read_bytes(), 3)
    encode_parquet(tmp_path / "a.parquet", tmp_path / "codes", tokenizer, "aligned")
    os.truncate(tmp_path / "codes/part-00000.parquet", length)
    fingerprint = tokenizer.fingerprint()
    for read in (
        lambda: load_code_table([tmp_path / "codes"], fingerprint),
        lambda: CodeStream([tmp_path / "codes"], fingerprint, 1),
        lambda: _read_codes(tmp_path / "codes", fingerprint),
        lambda: encode_parquet(tmp_path / "a.parquet", tmp_path / "codes", tokenizer, "aligned"),
    ):
        with pytest.raises(ValueError, match=r"part-00000\.parquet is empty, cut or damaged .*remove it and encode"):
            read()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"samples": 1}', "\ud800"])
def test_damaged_notes_of_a_preparation_are_named(tmp_path, face_picture, content):
    """`json` says "line 1 column 1" and no file; and a run must not go on behind what it cannot read."""
    (tmp_path / "in").mkdir()
    face_picture.save(tmp_path / "in" / "a.png")
    output = tmp_path / "out"
    output.mkdir()
    raw = content.encode("utf-8", "surrogatepass")
    (output / "00000.tar").write_bytes(b"")
    (output / "00000_stats.json").write_bytes(raw)
    with pytest.raises(ValueError, match=r"00000_stats\.json is empty, cut or damaged .*its shard is made again"):
        finished_shards(output)
    if content not in ("[]", '{"samples": 1}'):
        (output / "preparation.json").write_bytes(raw)
        with pytest.raises(ValueError, match=r"preparation\.json is empty, cut or damaged .*another folder"):
            run_preparation(tmp_path / "in", output)


def test_missing_files_stay_what_they_are(tmp_path):
    """ "Damaged" would send a user looking for the wrong thing."""
    with pytest.raises(FileNotFoundError):
        ShardStatistics.load(tmp_path / "00000_stats.json")
