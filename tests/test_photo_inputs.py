"""Folders of photos on the command line: what is found, what becomes of it, and what one bad file or a stop spoils."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from gptface.cli import main
from gptface.commands.photos import find_photos


@pytest.fixture
def album(tmp_path):
    """A folder of three photos, one of them further down, and what is none."""
    folder = tmp_path / "album"
    (folder / "summer").mkdir(parents=True)
    for seed, name in enumerate(["anna.png", "ben.bmp", "summer/anna.png"]):
        pixels = np.random.default_rng(seed).integers(0, 255, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.md").write_text("no picture")
    (folder / ".anna.partial.png").write_bytes(b"half")
    return folder


@pytest.fixture
def model(tiny_checkpoint):
    return ["--model", str(tiny_checkpoint), "--aligned", "--json"]


@pytest.fixture
def edit(model, capsys):
    """Runs `gptface edit … smiling -o out` → exit status, the lines on stdout, stderr."""

    def run(*arguments):
        status = main(["edit", *map(str, arguments), "--steps", "1", "--region", "mouth", *model])
        printed = capsys.readouterr()
        return status, [json.loads(line) for line in printed.out.splitlines()], printed.err

    return run


def names(photos):
    return [photo.name for photo in photos]


def test_folders_patterns_and_lists_are_found(album, tmp_path, monkeypatch):
    assert names(find_photos([str(album)])) == ["anna.png", "ben.bmp"]
    assert names(find_photos([str(album)], recursive=True)) == ["anna.png", "ben.bmp", "summer/anna.png"]
    assert names(find_photos([f"{album}/*.png"])) == ["anna.png"]
    assert names(find_photos([f"{album}/**/*.png"])) == ["anna.png", "summer/anna.png"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{album}/ben.bmp\n\nhttps://example.org/faces/carl.jpg?size=2\n")
    assert names(find_photos([str(listed)])) == ["ben.bmp", "carl.jpg"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{album}/anna.png\n"))
    assert [photo.source for photo in find_photos(["-"])] == [f"{album}/anna.png"]
    # one that is missing is its own line later, not the end of the run
    assert names(find_photos(["missing.jpg", str(album)])) == ["missing.jpg", "anna.png", "ben.bmp"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(album):
    (album / "anna.png").rename(album / "anna[1].png")
    assert names(find_photos([f"{album}/anna[1].png"])) == ["anna[1].png"]


@pytest.mark.parametrize("given", ["{tmp}/empty", "{tmp}/*.png", "{tmp}/list.txt"])
def test_what_holds_no_photo_is_named(tmp_path, given):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"empty|\*\.png|list\.txt"):
        find_photos([given.format(tmp=tmp_path)])


def test_a_folder_is_edited_under_its_names(album, tmp_path, edit):
    out = tmp_path / "out"
    status, lines, _ = edit(album, "smiling", "-o", out, "--recursive", "--batch-size", "2")
    assert status == 0 and len(lines) == 3
    # a format that cannot say that it is edited becomes one that can
    written = ["anna.png", "ben.bmp.png", "summer/anna.png"]
    assert [line["output"] for line in lines] == [str(out / name) for name in written]
    for name in written:
        assert Image.open(out / name).size == (40, 48) and "xmp" in Image.open(out / name).info
    # the photos of a batch are what they are alone
    assert edit(album / "anna.png", "smiling", "-o", tmp_path / "one.png")[0] == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "one.png")), np.asarray(Image.open(out / "anna.png")))


@pytest.mark.report("One bad picture stops the whole batch")
def test_one_bad_file_does_not_end_it(album, tmp_path, edit):
    """A folder on the command line goes on behind it."""
    (album / "aaa.jpg").write_bytes(b"no picture")
    status, lines, _ = edit(album, tmp_path / "missing.png", "smiling", "-o", f"{tmp_path}/out/")
    assert status == 2
    assert ["error" in line for line in lines] == [True, False, False, True]
    assert lines[0]["photo"].endswith("aaa.jpg") and (tmp_path / "out" / "ben.bmp.png").is_file()


@pytest.mark.report("A run that was stopped starts anew, or leaves half files")
def test_a_run_that_was_stopped_goes_on(album, tmp_path, edit):
    """It goes on with the photos that are missing."""
    out = tmp_path / "out"
    assert edit(album / "anna.png", "smiling", "-o", f"{out}/")[0] == 0
    with (out / "edits.jsonl").open("a") as log:
        log.write('{"photo": "cut off')
    before = (out / "anna.png").stat().st_mtime_ns
    status, lines, told = edit(album, "smiling", "-o", out)
    assert status == 0 and [line["photo"] for line in lines] == [str(album / "ben.bmp")]
    assert "1 of 2 photos are done already" in told and (out / "anna.png").stat().st_mtime_ns == before
    # a line without its file is not done
    (out / "ben.bmp.png").unlink()
    assert len(edit(album, "smiling", "-o", out)[1]) == 1
    assert edit(album, "smiling", "-o", out)[1] == []


def test_other_edits_and_foreign_files_are_not_written_over(album, tmp_path, edit):
    out = tmp_path / "out"
    edit(album, "smiling", "-o", out)
    kept = (out / "anna.png").read_bytes()
    status, lines, told = edit(album, "smiling", "-o", out, "--seed", "5")
    assert status == 2 and lines == [] and "--overwrite" in told and (out / "anna.png").read_bytes() == kept
    status, lines, _ = edit(album, "smiling", "-o", out, "--seed", "5", "--overwrite")
    assert status == 0 and len(lines) == 2
    assert edit(album, "smiling", "-o", album)[0] == 2  # would replace the photos


def test_edits_inside_the_folder_of_the_photos_are_not_edited_again(album, edit):
    out = album / "edited"
    for expected in (3, 0):
        assert len(edit(album, "smiling", "-o", out, "--recursive")[1]) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{album}", "smiling", "-o", "{tmp}/one.png"], "do not go into one file"),
        (["{album}/anna.png", "{album}/summer/anna.png", "smiling", "-o", "{tmp}/out"], "have one name"),
        (["{album}", "as a pirate", "-o", "{tmp}/out"], "did you mean"),
    ],
)
def test_what_is_wrong_with_all_is_said_once(album, tmp_path, edit, arguments, message):
    status, lines, told = edit(*[each.format(album=album, tmp=tmp_path) for each in arguments])
    assert status == 2 and lines == [] and message in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_pair_the_candidates_and_the_sheet_are_written(album, tmp_path, edit):
    out = tmp_path / "out"
    extras = ["--candidates", "3", "--save-all", "--compare", "--contact-sheet", tmp_path / "sheet.png"]
    status, lines, _ = edit(album, "smiling", "-o", out, *extras)
    assert status == 0
    assert [each["output"] for each in lines[0]["candidates"]] == [
        str(out / name) for name in ("anna.png", "anna.2.png", "anna.3.png")
    ]
    assert sorted(each["seed"] for each in lines[0]["candidates"]) == [0, 1, 2]
    pair, photo, edited = (
        np.asarray(Image.open(path).convert("RGB"))
        for path in (lines[0]["compare"], album / "anna.png", out / "anna.png")
    )
    assert np.array_equal(pair[:, :40], photo) and np.array_equal(pair[:, -40:], edited)
    assert (pair[:, 40:-40] == 255).all() and pair.shape[1] > 80
    assert Image.open(tmp_path / "sheet.png").width == 2 * 256
    for path in (lines[0]["compare"], out / "anna.2.png", tmp_path / "sheet.png"):
        assert "xmp" in Image.open(path).info, f"{path} does not say that it is edited"


@pytest.mark.parametrize("command", ["classify", "expression", "caption"])
def test_what_prints_reads_folders_too_and_goes_on(album, tmp_path, model, capsys, command):
    (album / "aaa.jpg").write_bytes(b"no picture")
    log = tmp_path / "results.jsonl"
    arguments = [command, str(album), "--recursive", "-o", str(log), *model]
    arguments += ["--steps", "1", "--tokens", "2"] if command == "caption" else ["--batch-size", "2"]
    assert main(arguments) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in line for line in lines] == [True, False, False, False]
    assert [json.loads(line)["photo"] for line in log.read_text().splitlines()] == [line["photo"] for line in lines]
    (album / "aaa.jpg").unlink()
    assert main(arguments) == 0 and capsys.readouterr().out == ""
