"""What the page to edit faces on does, without Gradio: visitors' files, wishes and steps back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gptface.cli import main
from gptface.demo import app
from gptface.demo.app import History, PhotoEditor, Version, Wish, message_of, open_photo, painted_area, understood
from gptface.processing.detection import FaceNotFoundError


@pytest.fixture(scope="module")
def editor(tiny_checkpoint):
    return PhotoEditor(str(tiny_checkpoint), aligned=True)


@pytest.fixture
def opened(editor, face_picture, tmp_path):
    """The history of an upload; its files are deleted behind the test."""
    face_picture.save(tmp_path / "photo.png")
    history, crops, remark = editor.open(tmp_path / "photo.png")
    assert len(crops) == 1 and remark == ""
    yield history
    history.forget()
    assert not history.folder.exists()


def wish(**changes):
    return Wish("smiling", **{"regions": ("mouth",), "force": True, **changes})


def test_what_was_understood_is_told_while_typing():
    assert understood("  ") == ""
    told = understood("make her smle, with a parrot")
    assert "**smiling**" in told and "“smle” as “smile”" in told and "“parrot”" in told
    assert "Did you mean **" in understood("as a pirate") and "strict" not in understood("as a pirate")


def test_an_edit_is_a_version_that_can_be_undone_and_redone(editor, opened):
    steps = []
    history, remark = editor.edit(opened, wish(candidates=3), lambda done, all_steps: steps.append((done, all_steps)))
    assert remark == "" and len(history.proposals) == 3 and steps[-1][0] == steps[-1][1]
    assert history.current.path.name != opened.current.path.name and "match" in history.current.title
    assert history.moved(-1).current is opened.current and history.moved(-1).moved(1).current is history.current
    assert history.moved(5).current is history.current and history.moved(-5).position == 0
    other = history.chosen(2)
    assert other.current is history.proposals[2] and other.moved(-1).current is opened.current
    # an edit after an undo ends what was undone, and starts from what is seen
    again, _ = editor.edit(history.moved(-1), wish(seed=5))
    assert len(again.versions) == 2 and again.moved(1) is again


def test_the_same_seed_gives_the_same_picture_and_the_file_says_that_it_is_edited(editor, opened):
    first, second = (editor.edit(opened, wish(seed=4))[0].current for _ in range(2))
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert "xmp" in Image.open(first.path).info and "xmp" not in Image.open(opened.current.path).info


def test_what_is_painted_is_all_that_changes(editor, opened):
    width, height = opened.current.image.size
    layer = Image.new("RGBA", (2 * width, 2 * height))
    layer.paste((255, 0, 0, 255), (40, 60, 120, 140))
    mask = painted_area([layer], (width, height))
    history, _ = editor.edit(opened, wish(regions=(), mask=mask))
    changed = (np.asarray(history.current.image) != np.asarray(opened.current.image)).any(-1)
    assert changed.any() and not changed[np.asarray(mask) == 0].any()
    with pytest.raises(ValueError, match="Nothing is painted"):
        painted_area([Image.new("RGBA", (8, 8))], (8, 8))


def test_a_face_is_described_by_what_can_be_edited_alone(editor, opened):
    told = editor.describe(opened.current.crop)
    assert "Expression: **" in told
    assert " male " not in f" {told.lower()} "  # nobody asked for a judgement of who they are


def test_hostile_and_huge_uploads_are_messages(tmp_path, monkeypatch):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a picture") as raised:
        open_photo(tmp_path / "bad.jpg")
    assert str(tmp_path) not in message_of(raised.value)  # where the server keeps its files is nobody's business
    monkeypatch.setattr(app, "MAX_PIXELS", 1000)
    Image.new("RGB", (100, 50)).save(tmp_path / "large.png")
    photo, remark = open_photo(tmp_path / "large.png")
    assert photo.size == (44, 22) and "44×22" in remark
    monkeypatch.setattr(app, "MAX_UPLOAD_BYTES", 20)
    with pytest.raises(ValueError, match="MB"):
        open_photo(tmp_path / "large.png")


def test_messages_name_no_parameters():
    for error in (FaceNotFoundError("pass landmarks="), *map(_refused, ["as a pirate", ""])):
        assert "=" not in message_of(error) and message_of(error)


def _refused(prompt):
    with pytest.raises(ValueError) as raised:
        app.read_prompt(prompt)
    return raised.value


def test_versions_are_bounded_and_the_upload_stays():
    blank = Image.new("RGB", (1, 1))
    history = History(Path(), (Version(blank, Path(), "upload", blank),))
    for number in range(3 * app.MAX_VERSIONS):
        history = history.edited([Version(blank, Path(), str(number), blank)])
    assert len(history.versions) == app.MAX_VERSIONS and history.versions[0].title == "upload"
    assert history.current.title == str(3 * app.MAX_VERSIONS - 1)


def test_the_space_runs_without_this_package(tiny_checkpoint, tmp_path, capsys):
    space = tmp_path / "space"
    assert main(["export", str(tiny_checkpoint), str(space), "--space"]) == 0
    assert "app.py" in capsys.readouterr().out
    assert (space / "README.md").read_text().startswith("---\n") and "app_file: app.py" in (
        space / "README.md"
    ).read_text()
    requirements = (space / "requirements.txt").read_text()
    assert "torch" in requirements and "opencv" in requirements
    code = f"""
import sys
sys.path.insert(0, {str(space)!r})
import app, gptface
assert gptface.__file__.startswith({str(space)!r}), gptface.__file__
editor = app.PhotoEditor()
print(editor.pipe.model.name_or_path, app.understood("smiling"))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert str(space) in done.stdout and "**smiling**" in done.stdout
    with pytest.raises(SystemExit):
        main(["export"])
    assert main(["export", str(tmp_path / "out")]) == 2


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 2
    assert "gptface[demo]" in capsys.readouterr().err
