"""The command line: exit status, output and files."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gptface.cli import READER_LEFT, build_parser, main
from gptface.commands.edit import in_plain_words
from gptface.processing.image_saving import save_picture

ROOT = Path(__file__).parents[1]


@pytest.fixture
def face(tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.fixture
def model(tiny_checkpoint):
    return ["--model", str(tiny_checkpoint), "--aligned"]


def test_edit_writes_the_picture_and_says_so(face, model, tmp_path, capsys):
    output = tmp_path / "edited.png"
    assert main(["edit", face, "smiling", "-o", str(output), "--steps", "2", "--region", "mouth", *model]) == 0
    assert Image.open(output).size == (64, 64) and "smiling" in capsys.readouterr().out
    first = output.read_bytes()
    assert (
        main(["edit", face, "smiling", "-o", str(output), "--steps", "2", "--json", "--region", "mouth", *model]) == 0
    )
    assert output.read_bytes() == first
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == str(output) and report["seed"] == 0


def test_classifiers_print_a_line_for_each_photo(face, model, tmp_path, capsys):
    for command in ("classify", "expression"):
        assert main([command, face, face, "--json", "--top-k", "2", *model]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["photo"] for line in lines] == [face, face] and len(lines[0]["scores"]) == 2
    assert main(["classify", str(tmp_path / "missing.png"), face, "--json", *model]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "missing.png" in lines[0]["error"] and lines[1]["scores"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{face}", "smiling", "-o", "{tmp}/edited.xyz"], "unknown picture format"),
        (["{face}", "smiling", "-o", "{tmp}/nowhere/edited.png"], "no folder"),
        (["{face}", " ", "-o", "{tmp}/edited.png"], "prompt must say"),
        (["{face}", "as a pirate", "-o", "{tmp}/edited.png"], "did you mean"),
        (["{face}", "smiling", "-o", "{tmp}/edited.png", "--region", "moth"], "mouth"),
        (["{tmp}/missing.jpg", "smiling", "-o", "{tmp}/edited.png"], "missing.jpg"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(face, model, tmp_path, capsys, arguments, message):
    filled = [argument.format(face=face, tmp=tmp_path) for argument in arguments]
    assert main(["edit", *filled, *model]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith("gptface edit:")
    assert not (tmp_path / "edited.png").exists()


def test_where_the_seconds_go_is_told(face, model, tmp_path, capsys):
    """Who waits wants to know for what; what is printed for programs stays as it is."""
    arguments = ["edit", face, "smiling", "-o", str(tmp_path / "edited.png"), "--steps", "1", "--region", "mouth"]
    assert main([*arguments, "--json", "--timing", *model]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["output"]
    parts = dict(part.rsplit(" ", 2)[:2] for part in printed.err.strip().splitlines()[-1].split(", "))
    assert list(parts) == ["loading", "faces", "drawing", "blending", "saving", "all"]
    assert sum(float(seconds) for name, seconds in parts.items() if name != "all") <= float(parts["all"]) + 0.05


def test_the_edits_are_listed(capsys):
    """Who is refused is sent here: what is listed must be what may be typed."""
    assert main(["edits", "--quality", "good", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"smiling", "no beard"} <= {row["prompt"] for row in rows} and {row["quality"] for row in rows} == {"good"}
    assert main(["edits"]) == 0
    assert 'e.g. "remove the beard"' in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a pipe breaks in other ways")
def test_a_reader_that_has_seen_enough_is_no_error():
    """`gptface edits | head -1` ended in a line about a broken pipe."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "gptface", "edits"], stdout=write, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(write)
    assert done.returncode == READER_LEFT and done.stderr == b""


def test_a_result_is_told_in_one_line_that_says_what_to_try_next():
    seen = {"no_beard": {"before": 0.1, "after": 0.3}}
    kept = {"attributes": 0.94, "outside": 1.0}
    result = {"prompt": "no beard", "match_score": 1.5, "verified": seen, "kept": kept, "note": None}
    line = "no beard 10% → 30% (match +1.50); kept: other attributes 94%, outside of the edit 100%"
    assert in_plain_words(result) == f"{line}; not convincing: try --candidates 8"
    assert in_plain_words(result, candidates=8) == f"{line}; not convincing: try another --seed"
    blond = result | {"verified": {"blond_hair": {"before": 0.0, "after": 0.2}}}
    assert "convincing" not in in_plain_words(blond), "all candidates have one colour"
    seen["no_beard"]["after"] = 0.9
    assert in_plain_words(result) == line.replace("30%", "90%")
    assert in_plain_words(result | {"note": "already", "match_score": None}) == "already"
    unknown = result | {"verified": {}, "kept": {"attributes": None, "outside": 1.0}}
    assert in_plain_words(unknown) == "no beard (match +1.50); kept: outside of the edit 100%"


@pytest.mark.report("A run that was stopped starts anew, or leaves half files")
def test_a_picture_that_cannot_be_written_leaves_the_old_file(tmp_path):
    """A picture that cannot be written leaves the old file."""
    path = tmp_path / "edited.png"
    path.write_bytes(b"old")

    class Broken:
        info = {}

        def save(self, *args, **kwargs):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_picture(Broken(), path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["edited.png"]


def test_colour_profile_is_kept(tmp_path):
    profile = Image.new("RGB", (1, 1))
    image = Image.new("RGB", (4, 4))
    image.info["icc_profile"] = b"profile of the photo"
    save_picture(image, tmp_path / "edited.jpg")
    assert Image.open(tmp_path / "edited.jpg").info["icc_profile"] == b"profile of the photo"
    save_picture(profile, tmp_path / "plain.webp")
    assert "icc_profile" not in Image.open(tmp_path / "plain.webp").info


def test_every_command_and_option_says_what_it_is():
    """The help is all that somebody has who sits before the command alone."""
    waiting = [build_parser()]
    while waiting:
        parser = waiting.pop()
        assert len(parser.description) > 10, parser.prog
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
            else:
                assert action.help, f"{parser.prog}: {action.option_strings or action.dest}"
