"""Folders, lists and patterns from anybody on the command line: what they name, where results go, what is printed."""

import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from gptface import GPTFaceForGuidedGeneration
from gptface.cli import main
from gptface.commands import photos as photos_module
from gptface.commands.common import plain
from gptface.commands.photos import find_photos
from gptface.conversion.space_export import export_space
from gptface.processing.image_loading import ImageInputError, load_image

MODEL_OPTIONS = ["--aligned", "--steps", "1", "--region", "mouth"]


@pytest.fixture
def album(tmp_path, face):
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        face.save(folder / name)
    return folder


@pytest.fixture
def edit_files(tiny_checkpoint, capsys):
    """Runs `gptface edit … smiling` → exit status, stdout, stderr."""

    def run(*arguments):
        given = [str(argument) for argument in arguments]
        options = given.index("-o")
        command = ["edit", *given[:options], "smiling", *given[options:]]
        status = main([*command, "--model", str(tiny_checkpoint), *MODEL_OPTIONS])
        return (status, *capsys.readouterr())

    return run


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


@pytest.mark.parametrize(
    "arguments",
    [
        ["{album}/a.png", "-o", "{album}/a.png"],
        ["{album}/a.png", "-o", "{album}/../album/a.png"],
        ["{album}/a.png", "-o", "{tmp}/out.png", "--mask", "{tmp}/out.png"],
        ["{album}/a.png", "-o", "{tmp}/out.png", "--contact-sheet", "{album}/a.png"],
        ["{album}/a.png", "-o", "{tmp}/out.png", "--contact-sheet", "{tmp}/out.png"],
        ["{album}/a.png", "{album}/a.compare.png", "-o", "{tmp}/out/", "--compare"],
        ["{album}/a.png", "{album}/a.2.png", "-o", "{tmp}/out/", "--save-all", "--candidates", "2"],
        ["{album}/a.png", "{linked}", "-o", "{album}"],
        ["{album}", "-o", "{album}"],
        ["{album}/b.png", "-o", "{album}/a.png", "--save-all", "--candidates", "1000000000"],
    ],
    ids=" ".join,
)
def test_no_file_is_written_twice_or_over_what_is_read(edit_files, album, tmp_path, face, arguments):
    """The photo is often the only one that there is."""
    for name in ("a.compare.png", "a.2.png"):
        face.save(album / name)
    face.save(tmp_path / "out.png")
    (tmp_path / "linked.png").symlink_to(album / "b.png")
    before = content(album)
    places = {"album": album, "tmp": tmp_path, "linked": tmp_path / "linked.png"}
    status, _, told = edit_files(*(each.format(**places) for each in arguments))
    assert status == 2 and content(album) == before
    assert "would be overwritten" in told or "have one name" in told or "at most" in told


def test_the_picture_of_the_parts_is_not_put_over_the_photo(album, tiny_checkpoint, capsys):
    before = content(album)
    arguments = ["parse", str(album / "a.png"), "-o", str(album / "a.png"), "--model", str(tiny_checkpoint)]
    assert main(arguments) == 2 and content(album) == before and "would be overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["photo", "json", "folder"])
def test_a_log_is_added_to_a_log_alone(album, tmp_path, tiny_checkpoint, capsys, kind):
    """`-o photo.jpg` of a command that prints would spoil the photo."""
    log = {"photo": album / "a.png", "json": tmp_path / "config.json", "folder": album}[kind]
    (tmp_path / "config.json").write_text('{\n  "hidden_size": 3\n}\n')
    before = content(album), content(tmp_path) if kind == "json" else None
    arguments = ["expression", str(album / "b.png"), "-o", str(log), "--model", str(tiny_checkpoint), "--aligned"]
    assert main(arguments) == 2 and "is no log of an earlier run" in capsys.readouterr().err
    assert (content(album), content(tmp_path) if kind == "json" else None) == before


def test_a_log_of_anybody_does_not_stop_the_run(album, tmp_path, edit_files):
    """One comes with a folder that was unpacked; and a run that was killed leaves half a line."""
    out = tmp_path / "out"
    out.mkdir()
    lines = [{"photo": [1], "modified": {}, "settings": []}, {"output": ["x"]}, {"photo": None, "error": 3}]
    (out / "edits.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n[1]\n7\nnull\n{"photo": "cut')
    assert edit_files(album, "-o", out)[0] == 0 and sorted(path.name for path in out.glob("*.png")) == [
        "a.png",
        "b.png",
    ]


def test_one_run_at_a_time_writes_a_folder(album, tmp_path, edit_files):
    """Two with other options would leave some edits of each, under one log."""
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".edits.jsonl.lock"):
        status, _, told = edit_files(album, "-o", out)
    assert status == 2 and "another run is writing" in told and not list(out.glob("*.png"))
    assert edit_files(album, "-o", out)[0] == 0


NAMES = ["-o.png", "--help.png", "a\nb.png", "\x1b[2J.png", "ü" * 120 + ".png", os.fsdecode(b"\xff\xfe.png"), " .png"]


def test_any_name_of_a_file_is_a_name(tmp_path, face, edit_files):
    """Names that look like options, act on the terminal, are as long as can be, or are no text at all."""
    album = tmp_path / "album"
    album.mkdir()
    for name in NAMES:
        face.save(album / name)
    status, told, warned = edit_files(album, "-o", tmp_path / "out")
    assert status == 0 and {path.name for path in (tmp_path / "out").glob("*.png")} == set(NAMES)
    assert "\x1b" not in told + warned and len(told.splitlines()) == len(NAMES)
    (album / "\x1b[2J.png").write_bytes(b"no picture")
    _, told, warned = edit_files(album, "-o", tmp_path / "other")
    assert "\x1b" not in told + warned and "\\x1b[2J.png" in warned


def test_labels_of_a_checkpoint_do_not_act_on_the_terminal(checkpoint, album, capsys):
    """A checkpoint from anybody names its labels as it likes."""
    config = json.loads((checkpoint / "config.json").read_text())
    config["heads"]["expression"]["labels"][0] = "\x1b]0;owned\x07"
    (checkpoint / "config.json").write_text(json.dumps(config))
    arguments = ["expression", str(album / "a.png"), "--model", str(checkpoint), "--aligned", "--top-k", "9"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\\x1b]0;owned\\x07" in printed


def test_plain_text_stays_as_it_is():
    assert plain("père, 笑顔 🙂 50%") == "père, 笑顔 🙂 50%" and plain("a\tb\n", kept="\n") == "a\\tb\n"


def test_links_that_lead_back_do_not_hold_a_pattern(album):
    """Two of them make 2⁴⁰ paths for who follows them."""
    for name in ("one", "two"):
        (album / name).symlink_to(album, target_is_directory=True)
    start = time.process_time()
    assert [photo.name for photo in find_photos([f"{album}/**/*.png"])] == ["a.png", "b.png"]
    assert [photo.name for photo in find_photos([str(album)], recursive=True)] == ["a.png", "b.png"]
    assert time.process_time() - start < 5


def test_a_list_ends(tmp_path, monkeypatch):
    """`yes photo.jpg | gptface edit -` and a list of 10⁹ lines would fill the memory."""
    monkeypatch.setattr(photos_module, "MAX_LIST", 1000)
    (tmp_path / "long.txt").write_text("photo.png\n" * 101)
    with pytest.raises(ValueError, match=r"long\.txt holds more than 1000 characters: split the list"):
        find_photos([str(tmp_path / "long.txt")])
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 10**6))
    with pytest.raises(ValueError, match="standard input holds more"):
        find_photos(["-"])
    (tmp_path / "names.txt").write_bytes(b"\xff.png\n..\n-x.png\na\0b.png\nhttp://a/..\n")
    names = [photo.name for photo in find_photos([str(tmp_path / "names.txt")])]
    assert names == [os.fsdecode(b"\xff.png"), "..", "-x.png", "a\0b.png", ".."]


def test_names_of_a_list_lead_nowhere_else(tmp_path, face, edit_files):
    """A list from anybody: each line that is no photo is an error of its own, and nothing is written beside OUT."""
    face.save(tmp_path / "a.png")
    lines = [
        "..",
        "a\0b.png",
        "/etc",
        f"{tmp_path}/a.png",
        "/dev/zero",
        "file:///etc/passwd",
        "-",
        "data:,x",
        "x" * 5000,
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    there = set(tmp_path.iterdir())
    status, _, warned = edit_files(tmp_path / "list.txt", "-o", tmp_path / "deep" / "out")
    assert status == 2 and len(warned.splitlines()) >= len(lines) - 1
    assert {path.name for path in (tmp_path / "deep/out").glob("*.png")} == {"a.png"}
    assert set(tmp_path.iterdir()) - there == {tmp_path / "deep"} and os.listdir(tmp_path / "deep") == ["out"]


def test_a_photo_is_a_regular_file(tmp_path, classify):
    """A pipe waits for ever, and a device never ends."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero"), Path("/dev/null")):
        with ThreadPoolExecutor(1) as pool, pytest.raises(ImageInputError, match="no regular file"):
            pool.submit(load_image, path).result(timeout=20)
        with pytest.raises(ValueError, match="no regular file"):
            classify(str(path))


def test_a_large_file_is_refused_unread(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ImageInputError, match="holds more than"):
        load_image(tmp_path / "large.png")


def test_a_contact_sheet_is_bounded_before_work(album, tmp_path, edit_files, monkeypatch):
    """One of 10⁵ photos would take 50 GB at the end of a day's work."""
    monkeypatch.setattr("gptface.commands.edit.SHEET_PHOTOS", 1)
    status, _, told = edit_files(album, "-o", tmp_path / "out", "--contact-sheet", tmp_path / "sheet.webp")
    assert status == 2 and "1 photos at most" in told and not (tmp_path / "out").exists()


def test_an_interrupt_is_no_traceback_and_the_run_goes_on(album, tmp_path, edit_files, monkeypatch):
    """Ctrl-C in the middle of a folder."""
    from gptface.commands import edit

    save, done = edit._save, []

    def interrupted(photo, *arguments):
        if done:
            raise KeyboardInterrupt
        done.append(photo)
        save(photo, *arguments)

    monkeypatch.setattr(edit, "_save", interrupted)
    status, _, warned = edit_files(album, "-o", tmp_path / "out")
    assert status == 130 and warned.endswith("stopped\n")
    monkeypatch.setattr(edit, "_save", save)
    status, _, told = edit_files(album, "-o", tmp_path / "out")
    assert status == 0 and "1 of 2 photos are done already" in told
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {
        "a.png",
        "b.png",
        "edits.jsonl",
    }


def test_a_space_tells_nothing_of_the_machine(checkpoint, tmp_path):
    """What `gptface export` leaves out, `--space` does too; the page's checkpoint opens."""
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        values = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps({**values, "_name_or_path": "/home/anna/secret", "note": "anna"}))
    (checkpoint / "notes.txt").write_text("private")
    names = export_space(checkpoint, tmp_path / "space")
    assert not [name for name in names if "notes" in name]
    for name in names:
        assert b"anna" not in (tmp_path / "space" / name).read_bytes(), name
    assert GPTFaceForGuidedGeneration.from_pretrained(tmp_path / "space/gptface/assets").config.heads


@pytest.mark.parametrize("part", ["model.safetensors", "tokenizer.json"])
def test_a_space_has_no_links(checkpoint, tmp_path, part):
    (tmp_path / "private").write_bytes((checkpoint / part).read_bytes())
    (checkpoint / part).unlink()
    (checkpoint / part).symlink_to(tmp_path / "private")
    with pytest.raises(ValueError, match="links"):
        export_space(checkpoint, tmp_path / "space")
    assert not (tmp_path / "space").exists()
