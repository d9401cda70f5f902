"""Collections come from strangers: what is wrong in them must neither stop a run of days nor reach the rest of the
disk.
"""

import io
import json
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptface.data import sources
from gptface.data.sources import list_sources, read_samples, read_source


def write_tar(path, members):
    """`members`: (name, bytes) or ready `TarInfo`s without data."""
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read(path):
    refused = Counter()
    return list(read_samples(path, refused)), refused


def test_a_tar_as_img2dataset_writes_it(tmp_path):
    path = write_tar(
        tmp_path / "00003.tar",
        [
            ("000000001.jpg", b"one"),
            ("000000001.txt", "a façade".encode()),
            ("000000001.json", json.dumps({"url": "u", "caption": "of the json"}).encode()),
            ("sub/b.seg.x.png", b"ignored: its type is seg.x.png"),
            ("sub/b.WEBP", b"two"),
            ("sub/b.json", b'{"caption": "only here", "width": 3}'),
        ],
    )
    samples, refused = read(path)
    assert [(sample.key, sample.image, sample.text) for sample in samples] == [
        ("00003/000000001", b"one", "a façade"),
        ("00003/sub/b", b"two", "only here"),
    ]
    assert samples[0].columns == {"url": "u", "caption": "of the json"} and samples[1].columns == {"width": 3}
    assert refused == {"unused type": 1}


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.jpg", "/etc/passwd.jpg", "C:/x.jpg", "a\\..\\b.jpg", "a/../b.jpg", "a\n.jpg"]
)
def test_names_that_leave_the_archive_are_refused(tmp_path, name):
    path = write_tar(tmp_path / "a.tar", [(name, b"evil"), ("good.jpg", b"picture")])
    samples, refused = read(path)
    assert [sample.key for sample in samples] == ["a/good"] and refused == {"unsafe name": 1}


def test_links_and_devices_are_refused_and_folders_passed_over(tmp_path):
    hostile = [
        special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("b.jpg", tarfile.LNKTYPE, "good.jpg"),
        special("c.jpg", tarfile.CHRTYPE),
        special("d.jpg", tarfile.FIFOTYPE),
        special("folder", tarfile.DIRTYPE),
    ]
    samples, refused = read(write_tar(tmp_path / "a.tar", [*hostile, ("good.jpg", b"picture")]))
    assert [sample.image for sample in samples] == [b"picture"] and refused == {"not a regular file": 4}


def test_a_member_that_claims_a_terabyte_is_not_read(tmp_path):
    """The archive is cut there, as a hostile one would be: nothing is allocated, the members before stay."""
    path = write_tar(tmp_path / "a.tar", [("good.jpg", b"picture")])
    info = tarfile.TarInfo("huge.jpg")
    info.size = 2**40
    path.write_bytes(path.read_bytes()[:1024] + info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    samples, refused = read(path)
    assert len(samples) == 1 and refused == {"oversized member": 1, "damaged file": 1}


def test_an_extended_header_that_claims_a_gigabyte_is_not_read(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("good.jpg", b"picture")])
    info = special("././@PaxHeader", tarfile.XHDTYPE)
    info.size = 2**30
    path.write_bytes(path.read_bytes()[:1024] + info.tobuf(tarfile.USTAR_FORMAT) + b"x" * 512)
    samples, refused = read(path)
    assert len(samples) == 1 and refused == {"damaged file": 1}


def test_members_over_the_limit_are_left_out_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_PICTURE_BYTES", 1000)
    monkeypatch.setattr(sources, "MAX_TEXT_BYTES", 100)
    members = [("a.jpg", b"x" * 1001), ("b.jpg", b"x" * 1000), ("b.txt", b"x" * 101), ("c.jpg", b"c")]
    samples, refused = read(write_tar(tmp_path / "a.tar", members))
    assert [(sample.key, sample.text) for sample in samples] == [("a/b", None), ("a/c", None)]
    assert refused == {"oversized member": 2}


@pytest.mark.parametrize("length", [600, 1100, 1400, 1536])
def test_a_truncated_tar_keeps_what_came_before(tmp_path, length):
    """Cut in the data of the first member, behind it in a header, in a header's data, and between members."""
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"a" * 500), ("b.jpg", b"b" * 500)])
    path.write_bytes(path.read_bytes()[:length])
    refused = Counter()
    assert len(list(read_source(path, refused))) == (length >= 1024) and refused == {"damaged file": 1}


def test_noise_is_no_tar_and_the_other_shards_are_read(tmp_path):
    (tmp_path / "0.tar").write_bytes(bytes(range(256)) * 20)
    write_tar(tmp_path / "1.tar", [("a.jpg", b"a")])
    samples, refused = read(tmp_path)
    assert [sample.key for sample in samples] == ["1/a"] and refused == {"damaged file": 1}


def test_texts_that_are_not_utf8_and_json_that_is_none(tmp_path):
    members = [
        ("a.jpg", b"a"),
        ("a.txt", b"caf\xe9"),
        ("a.json", b"[" * 100_000),
        ("b.jpg", b"b"),
        ("b.json", b"[1]"),
        ("c.txt", b"without a picture"),
        ("d.jpg", b"first"),
        ("d.jpg", b"second"),
    ]
    samples, refused = read(write_tar(tmp_path / "a.tar", members))
    assert [(sample.image, sample.text, sample.columns) for sample in samples] == [
        (b"a", None, {}),
        (b"b", None, {}),
        (b"first", None, {}),
    ]
    assert refused == {"text is not UTF-8": 1, "damaged json": 2, "no picture": 1, "repeated member": 1}


def test_parquet_carries_its_other_columns_and_never_opens_its_paths(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    rows = [
        {"bytes": b"one", "path": "x.jpg"},
        {"bytes": None, "path": str(secret)},
        {"bytes": b"three", "path": None},
    ]
    table = pa.table({"image": rows, "caption": ["a", "b", None], "Smiling": [1, 0, 1]})
    pq.write_table(table, tmp_path / "faces.parquet")
    samples, refused = read(tmp_path / "faces.parquet")
    assert [(sample.key, sample.image, sample.text) for sample in samples] == [
        ("faces/00000000", b"one", "a"),
        ("faces/00000002", b"three", None),
    ]
    assert samples[0].columns == {"Smiling": 1} and refused == {"no picture": 1}


def test_parquet_with_plain_bytes(tmp_path):
    pq.write_table(pa.table({"image": [b"one", b"two"], "text": ["a", "b"]}), tmp_path / "a.parquet")
    assert [(sample.image, sample.text) for sample in read(tmp_path)[0]] == [(b"one", "a"), (b"two", "b")]


def test_a_damaged_parquet_file_is_counted(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"image": [b"one"]}), tmp_path / "b.parquet")
    samples, refused = read(tmp_path)
    assert len(samples) == 1 and refused == {"damaged file": 1}


def test_parquet_without_pictures_names_its_columns(tmp_path, caplog):
    pq.write_table(pa.table({"picture": [b"one"], "text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet holds no picture: no column `image`"):
        read(tmp_path / "a.parquet")
    assert "its columns are picture, text" in caplog.text


def test_a_folder_of_pictures_with_texts_or_classes(tmp_path):
    (tmp_path / "folder" / "happy").mkdir(parents=True)
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    folder = tmp_path / "folder"
    (folder / "b.JPG").write_bytes(b"b")
    (folder / "b.txt").write_text("of b", encoding="utf-8")
    (folder / "a.png").write_bytes(b"a")
    (folder / "a.txt").symlink_to(outside)
    (folder / "happy" / "c.webp").write_bytes(b"c")
    (folder / "notes.md").write_text("no picture")
    (folder / "link.jpg").symlink_to(outside)
    samples, refused = read(folder)
    assert [(sample.key, sample.image, sample.text, sample.columns) for sample in samples] == [
        ("a", b"a", None, {}),
        ("b", b"b", "of b", {}),
        ("happy/c", b"c", None, {"label": "happy"}),
    ]
    assert refused == {"not a regular file": 2}


def test_patterns_and_braces_name_shards_in_order(tmp_path):
    for number in range(12):
        write_tar(tmp_path / f"{number:05d}.tar", [("a.jpg", b"a")])
    names = [file.stem for file in list_sources(f"{tmp_path}/{{00009..00011}}.tar")]
    assert names == ["00009", "00010", "00011"]
    assert len(list_sources(f"{tmp_path}/0000*.tar")) == 10
    assert [sample.key for sample in read(tmp_path)[0]][:2] == ["00000/a", "00001/a"]


@pytest.mark.parametrize("name", ["nothing.tar", "*.tar", "faces.zip", "empty"])
def test_inputs_that_are_none_are_said_at_once(tmp_path, name):
    (tmp_path / "faces.zip").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        read(tmp_path / name)
