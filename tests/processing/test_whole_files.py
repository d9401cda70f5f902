"""Whoever looks at a file or folder, at any time and after any accident, sees the old one or the new one, whole."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from gptface.processing.image_saving import save_picture
from gptface.processing.whole_files import damage_named, whole_file, whole_folder, write_text


@pytest.fixture
def disk(monkeypatch):
    """What reaches the disk, in order: ("sync", name) or ("rename", name)."""
    events = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def renamed(source, target):
        events.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return events


@contextmanager
def small_disk(size):
    """No file grows beyond a size, as on a full disk; for no longer than needed: output is a file, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_on_the_disk_before_its_name(disk, tmp_path):
    """
    After a power cut the name must not stand on an empty file; nor must the file be gone that was reported as written.
    """
    write_text(tmp_path / "report.json", "{}")
    assert [kind for kind, _ in disk] == ["sync", "rename", "sync"]
    assert disk[0][1].startswith(".report.") and disk[1:] == [("rename", "report.json"), ("sync", tmp_path.name)]


def test_all_of_a_folder_is_on_the_disk_before_its_name(disk, tmp_path):
    with whole_folder(tmp_path / "model") as folder:
        (folder / "onnx").mkdir()
        for name in ("config.json", "onnx/part.onnx"):
            (folder / name).write_text("x")
    names = [name for _, name in disk]
    before = names[: names.index("model")]
    assert {"config.json", "part.onnx", "onnx"} < set(before) and names[-2:] == ["model", tmp_path.name]


def test_a_folder_takes_the_place_of_another(tmp_path):
    for content in ("old", "new"):
        with whole_folder(tmp_path / "model", replace=True) as folder:
            (folder / content).write_text(content)
    assert os.listdir(tmp_path) == ["model"] and os.listdir(tmp_path / "model") == ["new"]
    with pytest.raises(FileExistsError, match="new or an empty"), whole_folder(tmp_path / "model"):
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_file_before_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(error), whole_file(tmp_path / "a.txt") as scratch:
        scratch.write_text("half")
        raise error
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "before"


def test_a_full_disk_leaves_the_picture_before(tmp_path):
    """The only copy of a photo would be a half one."""
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with small_disk(1000), pytest.raises(OSError):
        save_picture(Image.effect_noise((99, 99), 99), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == before


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    """The file would be a mixture of both."""
    with whole_file(tmp_path / "a.txt") as first, whole_file(tmp_path / "a.txt") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first" and os.listdir(tmp_path) == ["a.txt"]


def test_what_is_written_can_be_read_by_others(tmp_path):
    """A web server under another user would not serve the picture."""
    mask = os.umask(0o022)
    try:
        save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b"{", b"PK\x03\x04 cut"])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path, content):
    """torch's own error speaks of a central directory, and names no file."""
    (tmp_path / "state.pt").write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"state\.pt is empty, cut or damaged .*: remove it"),
        damage_named(tmp_path / "state.pt", "remove it"),
    ):
        torch.load(tmp_path / "state.pt", weights_only=True)
    with pytest.raises(FileNotFoundError), damage_named(tmp_path / "none.pt", "remove it"):
        torch.load(tmp_path / "none.pt", weights_only=True)
