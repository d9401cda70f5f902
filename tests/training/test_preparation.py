"""Shards of faces are made once, over days, from what strangers put on the web: nothing may stop them, count twice or
get lost.
"""

import io
import itertools
import json
import os
import struct
import tarfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gptface.cli import main
from gptface.data import preparation_run, shard_writing
from gptface.data.preparation import (
    DuplicateIndex,
    PreparationOptions,
    Skip,
    decode_picture,
    perceptual_hash,
    prepare_sample,
)
from gptface.data.preparation_run import run_preparation
from gptface.data.sources import Sample, read_samples
from gptface.processing.alignment import CROP_LANDMARKS
from gptface.processing.detection import DetectedFace

pytest.importorskip("imagehash", reason="finding duplicates needs the extra `prepare`")
pytest.importorskip("nh3", reason="cleaning captions needs the extra `prepare`")

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"


class GridDetector:
    """A face in every 64 pixels of the picture's width, in pictures at least 64 pixels high."""

    def detect(self, image, thorough=False):
        if image.height < 64:
            return []
        side = min(image.height, 128)
        return [
            DetectedFace((x, 0.0, x + side, float(side)), CROP_LANDMARKS * (side / 128) + [x, 0], 0.9)
            for x in range(0, image.width - side + 1, side)
        ]


def picture(seed=0, size=(128, 128), image_format="PNG"):
    """Coarse noise: each seed is another face to the hash, and scaling does not change it."""
    coarse = np.random.default_rng(seed).integers(0, 255, (16, 16 * size[0] // size[1], 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(data, image_format)
    return data.getvalue()


def bomb():
    """A PNG of a few hundred bytes whose header claims 30,000 × 30,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def write_tar(path, pairs):
    with tarfile.open(path, "w") as archive:
        for number, (image, text) in enumerate(pairs):
            for suffix, data in (("jpg", image), ("txt", text.encode())):
                info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def web(tmp_path):
    """Two tars: six good pairs, one of them twice and smaller, and one pair for each reason to leave one out."""
    folder = tmp_path / "web"
    folder.mkdir()
    first = [
        (picture(0), "face <b>zero</b>"),
        (picture(1), "face one"),
        (b"no picture", "of nothing"),
        (bomb(), "a bomb"),
    ]
    again = picture(0, (96, 96), "JPEG")
    second = [
        (again, "face zero again"),
        (picture(2), "face two"),
        (picture(3, (40, 40)), "too low"),
        (picture(4, (70, 70)), "small face"),
        (picture(5), "12345"),
        (picture(6)[:-2000], "cut off"),
        (picture(7), "face seven"),
        (picture(8), "face eight"),
        (picture(9), "face nine"),
    ]
    write_tar(folder / "00000.tar", first)
    write_tar(folder / "00001.tar", second)
    return folder


OPTIONS = PreparationOptions(min_face=80, size=32, shard_size=2)


def prepare(web, output, options=OPTIONS, **kwargs):
    return run_preparation(web, output, options, detector=GridDetector(), **kwargs)


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_every_pair_is_kept_or_counted_by_its_reason(web, tmp_path):
    statistics = prepare(web, tmp_path / "out")
    assert statistics["samples"] == {
        "read": 13,
        "kept": 6,
        "skipped": {
            "caption too short": 1,
            "damaged picture": 1,
            "duplicate": 1,
            "face too small": 1,
            "no face": 1,
            "not a picture": 1,
            "picture too large": 1,
        },
    }
    assert statistics["faces"] == {"found": 8, "kept": 6, "skipped": {"duplicate": 1, "face too small": 1}}
    assert statistics["face_sizes"] == {"128": 6} and statistics["shards"] == 3 and statistics["uncaptioned"] == 0
    for counts, total in ((statistics["samples"], "read"), (statistics["faces"], "found")):
        assert counts[total] == counts["kept"] + sum(counts["skipped"].values())
    assert json.loads((tmp_path / "out" / "statistics.json").read_text()) == statistics


def test_shards_are_read_again_with_crops_captions_and_facts(web, tmp_path):
    prepare(web, tmp_path / "out")
    refused = Counter()
    faces = list(read_samples(tmp_path / "out", refused))
    assert not refused and len({face.key for face in faces}) == 6
    assert [face.text for face in faces][:3] == ["face zero", "face one", "face two"]
    for face in faces:
        assert Image.open(io.BytesIO(face.image)).size == (32, 32)
    facts = faces[2].columns
    assert facts["source_key"] == "00001/0001" and facts["box"] == [0, 0, 128, 128] and facts["face"] == 0
    assert np.allclose(facts["landmarks"], CROP_LANDMARKS) and len(facts["sha256"]) == 64 and len(facts["phash"]) == 36


def test_webdataset_readers_open_the_shards(web, tmp_path):
    datasets = pytest.importorskip("datasets", reason="comes with the extra `train` of some installations only")
    prepare(web, tmp_path / "out")
    rows = list(
        datasets.load_dataset("webdataset", data_files=str(tmp_path / "out" / "*.tar"), streaming=True)["train"]
    )
    assert len(rows) == 6 and rows[0]["txt"] == "face zero" and rows[0]["webp"].size == (32, 32)


def test_a_stopped_run_goes_on_and_ends_in_the_same_shards(web, tmp_path, monkeypatch):
    """Stopped in the middle of each shard; the folder never holds a shard that is not whole."""
    whole, original = prepare(web, tmp_path / "whole"), preparation_run._prepare_here
    for stop in range(1, 13):
        output = tmp_path / f"stopped-{stop}"

        def stopping(*arguments, stop=stop):
            yield from itertools.islice(original(*arguments), stop)
            raise KeyboardInterrupt

        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(preparation_run, "_prepare_here", stopping)
            prepare(web, output)
        assert not list(output.glob("*.tmp")) and not (output / "statistics.json").exists()
        before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar")}
        assert all(data == shards(tmp_path / "whole")[name] for name, data in shards(output).items())
        resumed = prepare(web, output)
        assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
        assert shards(output) == shards(tmp_path / "whole")
        assert all((output / name).stat().st_mtime_ns == stamp for name, stamp in before.items())


def test_a_kill_between_shard_and_statistics_makes_the_shard_again(web, tmp_path):
    prepare(web, tmp_path / "out")
    expected = shards(tmp_path / "out")
    (tmp_path / "out" / "statistics.json").unlink()
    shard_writing.statistics_path(tmp_path / "out" / "00001.tar").unlink()
    (tmp_path / "out" / "00001.tar").write_bytes(b"half")
    (tmp_path / "out" / "00002.tar.tmp").write_bytes(b"half")
    prepare(web, tmp_path / "out")
    assert shards(tmp_path / "out") == expected and not list((tmp_path / "out").glob("*.tmp"))


def test_a_finished_run_is_not_repeated(web, tmp_path):
    statistics = prepare(web, tmp_path / "out")
    stamps = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").iterdir())]
    assert prepare(web, tmp_path / "out") == statistics
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").iterdir())] == stamps


def test_a_folder_made_otherwise_is_refused(web, tmp_path):
    prepare(web, tmp_path / "out")
    with pytest.raises(ValueError, match="another min_face"):
        prepare(web, tmp_path / "out", PreparationOptions(min_face=81, size=32, shard_size=2))
    with pytest.raises(ValueError, match="another input"):
        prepare(web / "00000.tar", tmp_path / "out")
    with pytest.raises(ValueError, match="is not empty"):
        prepare(web, web)


def test_all_faces_of_a_photo_stay_together(tmp_path):
    group = np.concatenate([np.asarray(Image.open(io.BytesIO(picture(seed)))) for seed in range(3)], axis=1)
    data = io.BytesIO()
    Image.fromarray(group).save(data, "PNG")
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", [(data.getvalue(), "three people"), (picture(1), "one of them")])
    options = PreparationOptions(size=32, faces="all", shard_size=2)
    statistics = prepare(tmp_path / "in", tmp_path / "all", options)
    assert statistics["faces"] == {"found": 4, "kept": 3, "skipped": {"duplicate": 1}} and statistics["shards"] == 1
    assert [face.columns["face"] for face in read_samples(tmp_path / "all")] == [0, 1, 2]
    largest = prepare(tmp_path / "in", tmp_path / "largest", PreparationOptions(size=32))
    assert largest["faces"] == {"found": 4, "kept": 2, "skipped": {"not the largest": 2}}


def test_duplicates_may_stay_and_so_may_faces_without_captions(web, tmp_path):
    options = PreparationOptions(min_face=80, size=32, max_distance=-1, keep_uncaptioned=True, image_format="png")
    statistics = prepare(web, tmp_path / "out", options)
    assert statistics["samples"]["kept"] == 8 and statistics["uncaptioned"] == 1
    assert [face.text for face in read_samples(tmp_path / "out")].count(None) == 1


def test_an_input_of_which_nothing_is_usable_says_why(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no picture")
    statistics = prepare(tmp_path / "in", tmp_path / "out")
    assert statistics["samples"] == {"read": 1, "kept": 0, "skipped": {"no caption": 1}} and statistics["shards"] == 0


def test_metadata_keeps_what_json_can_hold():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    columns = {"age": 3, "caption": "raw", "embedding": b"x", "nan": float("nan"), "deep": deep, "box": "forged"}
    prepared = prepare_sample(Sample("k", picture(), "a face", columns), OPTIONS, GridDetector())
    facts = json.loads(prepared.faces[0].metadata)
    assert facts["age"] == 3 and facts["box"] == [0, 0, 128, 128]
    assert not {"caption", "embedding", "nan", "deep"} & facts.keys()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (picture(image_format="TIFF"), "not a picture"),
        (bomb(), "picture too large"),
        (picture(image_format="JPEG")[:400], "not a picture"),
        (picture()[:3000], "damaged picture"),
    ],
)
def test_pictures_that_are_left_out(data, reason):
    with pytest.raises(Skip, match=reason):
        decode_picture(data)


def test_duplicates_are_what_is_near_as_a_whole():
    index = DuplicateIndex(max_distance=2)
    assert not index.is_duplicate(bytes(18))
    for _ in range(1025):  # more than the first allocation
        index.add(b"\xff" * 18)
    index.add(bytes(18))
    assert index.is_duplicate(bytes(17) + b"\x03") and index.is_duplicate(b"\x01" + bytes(16) + b"\x80")
    assert not index.is_duplicate(bytes(17) + b"\x07") and not index.is_duplicate(b"\x03" + bytes(16) + b"\x01")
    assert not DuplicateIndex(-1).is_duplicate(bytes(18))


def test_the_hash_sees_through_scaling_and_jpeg_but_tells_faces_apart():
    def bits(data):
        return np.unpackbits(np.frombuffer(perceptual_hash(Image.open(io.BytesIO(data))), np.uint8))

    assert (bits(picture(0)) != bits(picture(0, (64, 64), "JPEG"))).sum() <= 16
    assert (bits(picture(0)) != bits(picture(1))).sum() > 32


@pytest.mark.parametrize(
    "wrong",
    [
        {"faces": "some"},
        {"image_format": "jpg"},
        {"min_face": 0},
        {"size": 8},
        {"shard_size": 0},
        {"max_distance": 145},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        PreparationOptions(**wrong)


@pytest.fixture
def portraits(tmp_path):
    """Eight pairs of one portrait in two shards: twice, upside down in its EXIF, mirrored, in other colours, cut."""
    portrait = Image.open(PORTRAIT).convert("RGB").resize((300, 300))
    mirrored = portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    images = [
        portrait,
        mirrored,
        portrait.rotate(25),
        portrait.crop((0, 0, 20, 20)),
        mirrored,
        portrait.resize((250, 250)),
    ]
    pairs = []
    for number, image in enumerate(images):
        data = io.BytesIO()
        image.save(data, "JPEG", quality=90)
        pairs.append((data.getvalue(), f"portrait number {number}"))
    folder = tmp_path / "portraits"
    folder.mkdir()
    write_tar(folder / "00000.tar", pairs[:3])
    write_tar(folder / "00001.tar", pairs[3:])
    return folder


def test_the_command_makes_the_same_shards_with_any_number_of_workers(portraits, tmp_path, capsys, monkeypatch):
    pytest.importorskip("cv2", reason="finding faces needs the extra `detect`")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PORTRAIT.parents[1]), os.environ.get("PYTHONPATH", "")]))
    reports = []
    for workers in ("1", "2"):
        command = [
            "prepare",
            str(portraits),
            str(tmp_path / workers),
            "--shard-size",
            "1",
            "--workers",
            workers,
            "--json",
        ]
        assert main(command) == 0
        reports.append({**json.loads(capsys.readouterr().out), "seconds": 0})
    assert reports[0] == reports[1]
    assert reports[0]["samples"]["kept"] >= 2 and reports[0]["samples"]["skipped"]["duplicate"] >= 1
    assert shards(tmp_path / "1") == shards(tmp_path / "2")


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys):
    assert main(["prepare", str(tmp_path / "nothing.tar"), str(tmp_path / "out")]) == 2
    assert "nothing.tar does not exist" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "a.jpg").write_bytes(picture())
    assert main(["prepare", str(tmp_path), str(tmp_path / "out"), "--max-caption", "1"]) == 2
    assert "1 characters" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_makes_the_same_shards(portraits, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is large and optional: pip install 'gptface[ray]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PORTRAIT.parents[1]), os.environ.get("PYTHONPATH", "")]))
    ray.init(address="local", num_cpus=1, include_dashboard=False)
    try:
        options = PreparationOptions(shard_size=1)
        here = run_preparation(portraits, tmp_path / "here", options)
        on_ray = run_preparation(portraits, tmp_path / "ray", options, use_ray=True)
    finally:
        ray.shutdown()
    assert {**here, "seconds": 0} == {**on_ray, "seconds": 0}
    assert shards(tmp_path / "here") == shards(tmp_path / "ray")
