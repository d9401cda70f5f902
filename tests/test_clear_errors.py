"""Mistakes on the command line end at once, in a line that says what would be right."""

import io
import json
import os
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gptface.cli import main
from gptface.evaluation.progress import progress
from gptface.pipelines.pipeline_loading import find_checkpoint
from gptface.processing.image_saving import save_picture
from gptface.training.finetuning import FineTuningConfig, finetune

SILENCE = "A missing folder asks the Hub for 50 seconds; training and evaluation keep silent"
CONSOLE = "Consoles that lack letters; numbers out of range; links; scattered tar members"


@pytest.mark.report(SILENCE)
@pytest.mark.parametrize(
    "name", ["nowhere/tokenizer/final", "./nowhere", "nowhere", "{tmp}/nowhere", "~/nowhere", "tests/nowhere"]
)
def test_a_missing_folder_is_named_at_once(tmp_path, name, monkeypatch, capsys):
    """Recipes and --model that name a missing folder fail at once and say so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    name = name.format(tmp=tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        json.dumps({"output_dir": "out", "train": ["codes"], "image_tokenizer": name})
    )
    start = time.perf_counter()
    assert main(["pretrain", "recipe.yaml"]) == 2
    assert main(["evaluate", "attributes", "--data", "faces.parquet", "--model", name]) == 2
    assert main(["classify", "photo.jpg", "--model", name]) == 2
    with pytest.raises(FileNotFoundError, match="no folder"):
        finetune("attributes", FineTuningConfig("out", ["faces.parquet"], start_from=name))
    assert capsys.readouterr().err.count(f"there is no folder {name}") == 3
    assert time.perf_counter() - start < 20


@pytest.mark.report(SILENCE)
def test_the_hub_is_asked_once(monkeypatch):
    """A name that may be one on the Hub is looked for there once."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError

    asked = []

    def model_info(self, name, timeout):
        asked.append(name)
        raise HTTPError("no route")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "model_info", model_info)
    with pytest.raises(ConnectionError, match="no folder somebody/faces, and the Hub cannot be reached"):
        find_checkpoint("somebody/faces")
    assert asked == ["somebody/faces"]


@pytest.mark.report(CONSOLE)
def test_a_console_that_lacks_letters(tiny_checkpoint, face_picture, tmp_path, monkeypatch):
    """On a console of code page 1252 a Cyrillic file name is escaped, and all results are printed."""
    names = ["фото.png", "b.png"]
    for name in names:
        face_picture.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert main(["classify", *names, "--aligned", "--model", str(tiny_checkpoint)]) == 0
    sys.stdout.flush()
    lines = written.getvalue().decode("cp1252").splitlines()
    assert lines[0].startswith("\\u0444") and lines[1].startswith("b.png")


@pytest.mark.report(CONSOLE)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["edit", "photo.jpg", "smiling", "-o", "out.png", "--seed", str(2**64)], "within 63 bits"),
        (["edit", "photo.jpg", "smiling", "-o", "out.png", "--seed", "one"], "within 63 bits"),
        (["classify", "photo.jpg", "--threshold", "2"], "score in 0…1"),
        (["classify", "photo.jpg", "--threshold", "nan"], "score in 0…1"),
    ],
)
def test_numbers_out_of_range(options, message, capsys):
    """--seed beyond 63 bits and --threshold outside of 0…1 are refused before anything is loaded."""
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.report(CONSOLE)
def test_an_output_link_is_refused(tmp_path, face_picture, capsys):
    """A link as output is refused before the work, by the command and by save_picture; what it leads to stays."""
    face_picture.save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    link = tmp_path / "link.png"
    os.symlink(tmp_path / "mine.png", link)
    assert main(["edit", "photo.jpg", "smiling", "-o", str(link)]) == 2
    assert "is a link: name the file itself" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is a link"):
        save_picture(Image.new("RGB", (8, 8)), link)
    assert link.is_symlink() and (tmp_path / "mine.png").read_bytes() == before


@pytest.mark.report(SILENCE)
def test_own_labels_need_an_own_checkpoint(tmp_path, capsys, face_picture):
    """Labels that the embedded checkpoint does not have are answered with --model."""
    face_picture.save(data := io.BytesIO(), "PNG")
    rows = [{"bytes": data.getvalue(), "path": None}] * 4
    pq.write_table(pa.table({"image": rows, "Freckles": [0, 1, 0, 1]}), tmp_path / "own.parquet")
    for options in ([], ["--labels", "Freckles"]):
        assert (
            main(["evaluate", "attributes", "--data", str(tmp_path / "own.parquet"), "--layout", "crop", *options])
            == 2
        )
        assert "--model FOLDER" in capsys.readouterr().err


@pytest.mark.report(SILENCE)
def test_evaluation_shows_a_bar_on_a_terminal(monkeypatch):
    """On a terminal there is a bar of the faces; in a file there is none."""
    for is_terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=is_terminal: answer)
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress(range(3), "faces")) == [0, 1, 2]
        assert ("faces" in stream.getvalue()) == is_terminal
