"""Collections come from strangers and disks rot: one bad member must not end a run of days, nor may codes of other
data be taken for these.
"""

import io
import json
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from PIL import Image

from gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig
from gptface.data import sources
from gptface.data.code_dataset import load_code_table
from gptface.data.encode import encode_dataset
from gptface.data.image_table import ImageTable
from gptface.data.picture_codes import encode_collections
from gptface.data.ray_preparation import _read
from gptface.data.sources import read_samples
from gptface.processing.alignment import CROP_LANDMARKS
from gptface.processing.detection import DetectedFace


def png(seed=0):
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


FACES = [png(seed) for seed in range(6)]
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 6, [None, pa.array(range(0, 14, 2), pa.int32()).buffers()[1], pa.py_buffer(b"ok\xff\xfeokokokok")]
)


def write(path, columns, **options):
    pq.write_table(pa.table({"image": FACES, **columns}), path, **options)


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def damage(path, column, group):
    """Overwrites the end of a column's last page; before the pages lie statistics that nobody needs."""
    chunk = pq.read_metadata(path).row_group(group).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    last = slice(start + chunk.total_compressed_size - 4, start + chunk.total_compressed_size)
    data[last] = bytes(value ^ 0xFF for value in data[last])
    path.write_bytes(data)


def damaged_picture_page(folder):
    write(
        folder / "a.parquet",
        {"text": ["a face"] * 6},
        row_group_size=2,
        write_page_checksum=True,
        use_dictionary=False,
    )
    damage(folder / "a.parquet", 0, 1)


def damaged_other_page(folder):
    columns = {"text": ["a face"] * 6, "Smiling": [0, 1] * 3}
    write(folder / "a.parquet", columns, row_group_size=2, write_page_checksum=True, use_dictionary=False)
    damage(folder / "a.parquet", 2, 1)


def column_name_that_is_not_utf8(folder):
    write(folder / "a.parquet", {"zzzz": [1] * 6}, store_schema=False)
    (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes().replace(b"zzzz", b"\xff\xfe\xff\xfe"))
    write(folder / "b.parquet", {})


def path_that_is_not_utf8(folder):
    pictures = pa.StructArray.from_arrays([pa.array(FACES), NOT_UTF8], ["bytes", "path"])
    pq.write_table(pa.table({"image": pictures}), folder / "a.parquet")


def a_table_of_something_else(folder):
    pq.write_table(pa.table({"url": ["x"]}), folder / "a.parquet")
    write(folder / "b.parquet", {})


def what_is_no_tar(folder):
    (folder / "a.tar").mkdir()
    (folder / "b.tar").symlink_to(folder / "nowhere.tar")
    os.mkfifo(folder / "c.tar")
    (folder / "d.tar").write_bytes(b"")
    (folder / "e.tar").write_bytes(b"noise" * 1000)
    write_tar(folder / "f.tar", [(f"{number}.png", face) for number, face in enumerate(FACES)])


def names_that_are_not_utf8(folder):
    for number, face in enumerate(FACES):
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9%d.png" % number)).write_bytes(face)


def halves_of_a_surrogate_pair(folder):
    columns = b'{"caption": "a \\ud83d face", "\\udc00": "\\udc00", "nested": ["\\ud800"]}'
    write_tar(
        folder / "a.tar",
        [member for n, face in enumerate(FACES) for member in ((f"{n}.png", face), (f"{n}.json", columns))],
    )


# name → (what makes it, faces that can be read, counts)
COLLECTIONS = {
    "text not UTF-8": (lambda folder: write(folder / "a.parquet", {"text": NOT_UTF8}), 6, {"unreadable value": 1}),
    "unused column not UTF-8": (
        lambda folder: write(folder / "a.parquet", {"url": NOT_UTF8}),
        6,
        {"unreadable value": 1},
    ),
    "path not UTF-8": (path_that_is_not_utf8, 6, {}),
    "column name not UTF-8": (column_name_that_is_not_utf8, 6, {"damaged file": 1}),
    "timestamp out of range": (
        lambda folder: write(folder / "a.parquet", {"taken": pa.array([2**62] * 6, pa.timestamp("us"))}),
        6,
        {},
    ),
    "unknown time zone": (
        lambda folder: write(
            folder / "a.parquet", {"taken": pa.array([0] * 6, pa.timestamp("us", tz="Mars/Olympus"))}
        ),
        6,
        {},
    ),
    "nested timestamps": (
        lambda folder: write(
            folder / "a.parquet", {"taken": pa.array([[2**62]] * 6, pa.list_(pa.timestamp("us", tz="Mars/Olympus")))}
        ),
        6,
        {"unreadable value": 6},
    ),
    "damaged page of pictures": (damaged_picture_page, 4, {"damaged page": 2}),
    "damaged page of labels": (damaged_other_page, 6, {"damaged column": 1}),
    "cut parquet": (
        lambda folder: write(folder / "a.parquet", {}) or (folder / "0.parquet").write_bytes(b"PAR1"),
        6,
        {"damaged file": 1},
    ),
    "table of something else": (a_table_of_something_else, 6, {"no column `image`": 1}),
    "pictures alone": (lambda folder: write(folder / "a.parquet", {}), 6, {}),
    "no tars": (what_is_no_tar, 6, {"not a regular file": 3, "damaged file": 2}),
    "file names not UTF-8": (names_that_are_not_utf8, 6, {}),
    "halves of a surrogate pair": (halves_of_a_surrogate_pair, 6, {}),
}
if sys.platform != "linux":  # no such names, no pipes
    del COLLECTIONS["no tars"], COLLECTIONS["file names not UTF-8"]


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    config = GPTFaceImageTokenizerConfig(image_size=32, hidden_channels=8, latent_channels=4, fsq_levels=[4, 3])
    return GPTFaceImageTokenizer(config).eval()


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_one_bad_member_is_counted_and_named_and_the_rest_goes_on(kind, tmp_path, tokenizer, caplog):
    """Days of encoding would end at the first bad file; a user must see which it was."""
    make, faces, counts = COLLECTIONS[kind]
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    refused = Counter()
    assert encode_dataset(folder, tmp_path / "codes", tokenizer, "aligned", refused=refused) == faces
    assert refused == counts
    assert all(reason in caplog.text for reason in counts)
    table = load_code_table([tmp_path / "codes"], tokenizer.fingerprint())
    assert len(table) == faces == len(ImageTable.read(folder))


class OneFace:
    def detect(self, image, thorough=False):
        return [DetectedFace((0.0, 0.0, 32.0, 32.0), CROP_LANDMARKS / 4, 0.9)]


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_preparation_counts_the_same_here_and_on_ray(kind, tmp_path):
    pytest.importorskip("imagehash", reason="finding duplicates needs the extra `prepare`")
    pytest.importorskip("nh3", reason="cleaning captions needs the extra `prepare`")
    from gptface.data.preparation import PreparationOptions
    from gptface.data.preparation_run import run_preparation

    make, faces, counts = COLLECTIONS[kind]
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    options = PreparationOptions(min_face=8, size=16, keep_uncaptioned=True, max_distance=-1)
    statistics = run_preparation(folder, tmp_path / "out", options, detector=OneFace())
    assert statistics["refused_members"] == counts and statistics["samples"]["kept"] == faces
    assert len(list(read_samples(tmp_path / "out"))) == faces
    on_ray = Counter()
    for number, part in enumerate(sources.list_sources(folder, on_ray)):
        *samples, last = _read({"number": number, "path": os.fsencode(part)}, (0, 0))
        on_ray.update(last["item"])
        faces -= len(samples)
    assert on_ray == counts and faces == 0


@pytest.mark.report("Consoles that lack letters; numbers out of range; links; scattered tar members")
def test_members_of_a_name_that_lie_apart_are_joined(tmp_path):
    """Members of a tar that belong together are joined wherever they lie.

    `tar cf a.tar *.png *.txt` puts all pictures before all texts: half of every pair would be lost.
    """
    texts = [f"face {number}".encode() for number in range(6)]
    pictures = [(f"{number}.png", face) for number, face in enumerate(FACES)]
    write_tar(tmp_path / "a.tar", [*pictures, *((f"{number}.txt", text) for number, text in enumerate(texts))])
    refused = Counter()
    samples = list(read_samples(tmp_path / "a.tar", refused))
    assert [(sample.image, sample.text) for sample in samples] == [
        (face, text.decode()) for face, text in zip(FACES, texts, strict=True)
    ]
    assert not refused
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(b"face 3") + 2])
    samples = list(read_samples(tmp_path / "a.tar", refused))
    assert [sample.text for sample in samples] == ["face 0", "face 1", "face 2", None, None, None]
    assert refused == {"damaged file": 1}


def test_rows_of_a_data_set_are_a_collection(tmp_path, tokenizer):
    """Who has `datasets` need not write a file first; a class has its name, a damaged picture is left out."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "emotion": datasets.ClassLabel(names=["sad", "happy"])})
    pictures = [{"bytes": face, "path": None} for face in (*FACES[:2], b"no picture")]
    rows = datasets.Dataset.from_dict({"image": pictures, "emotion": [1, 0, 1]}, features=features)
    table = ImageTable.read(rows)
    assert table.pictures == [*FACES[:2], b"no picture"] and table.columns == {"emotion": ["happy", "sad", "happy"]}
    assert table.classes == {"emotion": ["sad", "happy"]}
    refused = Counter()
    assert encode_dataset(rows, tmp_path / "codes", tokenizer, "aligned", refused=refused) == 2
    assert refused == {"damaged picture": 1}
    plain = [{"image": Image.open(io.BytesIO(FACES[0])), "age": np.int64(3)}, {"image": None}, {"image": FACES[1]}]
    samples = list(read_samples(plain, refused))
    assert [sample.row for sample in samples] == [0, 2] and samples[0].columns == {"age": 3}
    assert np.array_equal(Image.open(io.BytesIO(samples[0].image)), plain[0]["image"])


@pytest.mark.parametrize(
    "pattern", ["{0..99999999999}.tar", "{a,b}" * 40 + ".tar", "{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}.tar"]
)
def test_braces_that_stand_for_too_many_names_are_refused(pattern):
    """Writing them all out would fill the memory."""
    pytest.importorskip("braceexpand")
    with pytest.raises(ValueError, match="more than 100000 names"):
        sources.list_sources(pattern)


def test_one_large_value_in_many_rows_does_not_fill_the_memory(tmp_path):
    """
    A parquet file of some kilobytes names one picture of 40 MB a hundred times; four gigabytes would be read at once.
    """
    large = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int32()), pa.array([bytes(40 * 2**20)]))
    pq.write_table(pa.table({"image": large}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        refused = Counter()
        sizes = {
            len(sample.image)
            for sample, _ in zip(read_samples(tmp_path / "a.parquet", refused), range(20), strict=False)
        }
        assert sizes == {40 * 2**20}
        assert pool.max_memory() < 600 * 2**20
    finally:
        pa.set_memory_pool(before)
    swollen = pa.array([bytes(60 * 2**20)] * 6)
    pq.write_table(pa.table({"image": swollen}), tmp_path / "b.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(ValueError, match=r"oversized member \(6\)"):
        next(read_samples(tmp_path / "b.parquet"))


# ------------------------------------------------------------------------------------------------------ codes of other
# data


def test_a_folder_of_codes_goes_on_with_the_same_data_and_options_alone(tmp_path, tokenizer):
    """
    `gptface encode b.parquet OUT` into the codes of a.parquet answered with a's rows: a model learns from the wrong
    faces.
    """
    write(tmp_path / "a.parquet", {"Smiling": [0, 1] * 3})
    write(tmp_path / "b.parquet", {"Smiling": [1, 0] * 3})
    target = tmp_path / "codes"
    assert encode_dataset(tmp_path / "a.parquet", target, tokenizer, "aligned") == 6
    assert encode_dataset(tmp_path / "a.parquet", target, tokenizer, "aligned") == 6
    for other, match in (
        ({"source": tmp_path / "b.parquet"}, "another input"),
        ({"flips": False}, "another flips"),
        ({"every": 2}, "another every"),
        ({"layout": "fer48"}, "another layout"),
    ):
        with pytest.raises(ValueError, match=f"{match}.*choose another folder"):
            arguments = {"source": tmp_path / "a.parquet", "layout": "aligned", **other}
            encode_dataset(target=target, tokenizer=tokenizer, **arguments)
    content = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"another input \(a\.parquet with other content\)"):
        encode_dataset(tmp_path / "a.parquet", target, tokenizer, "aligned")
    with pytest.raises(ValueError, match="does not say what it was made of"):
        (target / "manifest.json").unlink()
        encode_dataset(tmp_path / "a.parquet", target, tokenizer, "aligned")


def test_pretrainings_cache_notices_a_tar_in_the_place_of_another(tmp_path, tokenizer):
    tar = tmp_path / "web.tar"
    write_tar(tar, [("a.png", FACES[0]), ("a.txt", b"one")])
    encode_collections([tar], tmp_path / "cache", tokenizer)
    size, times = tar.stat().st_size, (tar.stat().st_atime_ns, tar.stat().st_mtime_ns)
    write_tar(tar, [("a.png", FACES[0]), ("a.txt", b"two")])
    os.utime(tar, ns=times)
    assert tar.stat().st_size == size
    with pytest.raises(ValueError, match=r"web\.tar with other content"):
        encode_collections([tar], tmp_path / "cache", tokenizer)


def test_two_runs_do_not_write_into_one_folder(tmp_path, tokenizer):
    write(tmp_path / "a.parquet", {})
    (tmp_path / "codes").mkdir()
    with FileLock(tmp_path / "codes" / ".lock-0"), pytest.raises(OSError, match="another run is writing"):
        encode_dataset(tmp_path / "a.parquet", tmp_path / "codes", tokenizer, "aligned")
    assert encode_dataset(tmp_path / "a.parquet", tmp_path / "codes", tokenizer, "aligned") == 6


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty"])
def test_a_part_that_is_not_what_was_written_is_not_trained_on(harm, tmp_path, tokenizer):
    write(tmp_path / "a.parquet", {"Smiling": [0, 1] * 3})
    encode_dataset(tmp_path / "a.parquet", tmp_path / "codes", tokenizer, "aligned")
    (part,) = (tmp_path / "codes").glob("*.parquet")
    whole = part.read_bytes()
    if harm == "flipped":
        metadata = pq.read_metadata(part)
        names = [metadata.row_group(0).column(index).path_in_schema for index in range(metadata.num_columns)]
        for index in range(len(names)):
            part.write_bytes(whole)
            damage(part, index, 0)
            with pytest.raises(ValueError, match=r"part-00000\.parquet is damaged.*run `gptface encode` again"):
                load_code_table([tmp_path / "codes"], tokenizer.fingerprint())
        assert "codes.list.element" in names
        return
    part.write_bytes(whole[: len(whole) // 2] if harm == "cut" else b"")
    for read in (
        lambda: load_code_table([tmp_path / "codes"], tokenizer.fingerprint()),
        lambda: encode_dataset(tmp_path / "a.parquet", tmp_path / "codes", tokenizer, "aligned"),
    ):
        with pytest.raises(ValueError, match=r"part-00000\.parquet is damaged.*run `gptface encode` again"):
            read()


def test_labels_that_are_none_leave_their_row_without(tmp_path, tokenizer, caplog):
    """
    A collection has its own idea of a column `age` or `emotion`: the picture and its text are still worth something.
    """
    columns = [{"Smiling": 1}, {"Smiling": 7}, {"emotion": "bored"}, {"age": -3}, {"age": "old"}, {"Smiling": [1]}]
    members = [
        member
        for n, (face, known) in enumerate(zip(FACES, columns, strict=True))
        for member in ((f"{n}.png", face), (f"{n}.json", json.dumps(known).encode()))
    ]
    write_tar(tmp_path / "a.tar", members)
    encode_dataset(tmp_path / "a.tar", tmp_path / "codes", tokenizer, "aligned")
    table = load_code_table([tmp_path / "codes"], tokenizer.fingerprint())
    assert [row.get("Smiling") for row in table.labels] == [1] + [None] * 5
    assert "row 2, labels left out: labels that are none (" in caplog.text


def test_a_prepared_shard_that_is_not_what_was_written_is_left_out(tmp_path):
    pytest.importorskip("imagehash", reason="finding duplicates needs the extra `prepare`")
    pytest.importorskip("nh3", reason="cleaning captions needs the extra `prepare`")
    from gptface.data.preparation import PreparationOptions
    from gptface.data.preparation_run import run_preparation

    write_tar(tmp_path / "a.tar", [(f"{number}.png", face) for number, face in enumerate(FACES)])
    options = PreparationOptions(min_face=8, size=16, keep_uncaptioned=True, max_distance=-1, shard_size=2)
    run_preparation(tmp_path / "a.tar", tmp_path / "out", options, detector=OneFace())
    shard = tmp_path / "out" / "00001.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    refused = Counter()
    assert [sample.key[:5] for sample in read_samples(tmp_path / "out", refused)] == ["00000"] * 2 + ["00002"] * 2
    assert refused == {"damaged shard": 1}
    write_tar(tmp_path / "a.tar", [(f"{number}.png", face) for number, face in enumerate(reversed(FACES))])
    with pytest.raises(ValueError, match=r"a\.tar with other content"):
        run_preparation(tmp_path / "a.tar", tmp_path / "out", options, detector=OneFace())


@pytest.mark.parametrize("name", ["manifest.json", "statistics.json", "00000_stats.json"])
@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_damaged_notes_of_a_preparation_are_named(name, content, tmp_path):
    pytest.importorskip("imagehash", reason="finding duplicates needs the extra `prepare`")
    pytest.importorskip("nh3", reason="cleaning captions needs the extra `prepare`")
    from gptface.data.preparation import PreparationOptions
    from gptface.data.preparation_run import run_preparation

    write_tar(tmp_path / "a.tar", [("a.png", FACES[0])])
    options = PreparationOptions(min_face=8, size=16, keep_uncaptioned=True)
    run_preparation(tmp_path / "a.tar", tmp_path / "out", options, detector=OneFace())
    if name != "statistics.json":
        (tmp_path / "out" / "statistics.json").unlink()
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} is damaged.*run it again"):
        run_preparation(tmp_path / "a.tar", tmp_path / "out", options, detector=OneFace())
