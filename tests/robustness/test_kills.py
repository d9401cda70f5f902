"""Commands that are killed at any write: what stands under the name is whole, and the command, given again, ends as if
nothing had been.
"""

import errno
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import pipeline

from gptface import GPTFaceImageTokenizer
from gptface.conversion.hub_export import export_hub
from gptface.training.finetuning import FineTuningConfig, finetune
from gptface.training.image_tokenizer_training import ImageTokenizerTrainingConfig, train_image_tokenizer

ARGUMENTS = {
    "per_device_train_batch_size": 4,
    "max_steps": 4,
    "save_steps": 2,
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
}
KILLS = 5


def in_child(
    act,
    folder: Path,
    killed_at: int | None = None,
    fails_at: int | None = None,
    fails: bool = False,
    answer: str = "count",
):
    """
    Runs `act` in a process of its own.

    Args:
        folder: writes into it are counted: files opened to write, and renames. torch and safetensors open theirs by
            themselves, unseen.
        killed_at: before the write of this number it is killed.
        fails_at: the write of this number finds the disk full.
        fails: whether `act` may end with an error; implied by `fails_at`.
        answer: `"count"` of the writes, or their `"names"` (`"open config.json"`).

    Returns:
        The answer; None where it was killed or ended with an error that it may.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        names: list[str] = []

        def watch(event, arguments):
            flags = arguments[2] if event == "open" else os.O_CREAT
            if event not in ("open", "os.rename") or not str(arguments[0]).startswith(str(folder)):
                return
            if isinstance(flags, int) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                names.append(f"{event} {Path(str(arguments[0])).name}")
                if len(names) == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if len(names) == fails_at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

        status = 1
        try:
            sys.addaudithook(watch)
            act()
            os.write(writer, json.dumps(names).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL and killed_at is not None
        return None
    if os.WEXITSTATUS(status):
        assert fails or fails_at is not None
        return None
    return json.loads(told) if answer == "names" else len(json.loads(told))


@pytest.fixture
def faces(tmp_path, face_picture) -> Path:
    (tmp_path / "face.png").touch()
    face_picture.resize((64, 64)).save(tmp_path / "face.png")
    rows = [{"bytes": (tmp_path / "face.png").read_bytes(), "path": None}] * 12
    table = pa.table(
        {"image": rows, "Bright": [row % 2 for row in range(12)], "Dark": [1 - row % 2 for row in range(12)]}
    )
    pq.write_table(table, tmp_path / "faces.parquet")
    return tmp_path / "faces.parquet"


def check_export(folder):
    assert pipeline("facial-expression", model=str(folder)) and (folder / "README.md").read_text()


def check_finetuned(folder):
    assert pipeline("face-attribute-classification", model=str(folder / "final"))


def check_tokenizer(folder):
    assert GPTFaceImageTokenizer.from_pretrained(folder / "final")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["export", "finetune", "train-tokenizer"])
def test_a_command_that_was_killed_goes_on(command, tiny_checkpoint, tmp_path, faces, lpips_file):
    """
    A cluster's time limit, or a closed laptop: a half checkpoint must not be taken for a whole one, nor stop the next
    run.
    """
    folder = tmp_path / "runs" / "out"
    act, check, target = {
        "export": (lambda: export_hub(tiny_checkpoint, folder), check_export, folder),
        "finetune": (
            lambda: finetune(
                "attributes",
                FineTuningConfig(
                    str(folder), [str(faces)], start_from=str(tiny_checkpoint), arguments=dict(ARGUMENTS)
                ),
            ),
            check_finetuned,
            folder / "final",
        ),
        "train-tokenizer": (
            lambda: train_image_tokenizer(
                ImageTokenizerTrainingConfig(
                    str(folder),
                    [{"path": str(faces), "layout": "aligned"}],
                    model={"image_size": 32, "hidden_channels": 8, "latent_channels": 4, "fsq_levels": [4, 3]},
                    crop_size=32,
                    lpips_weights=str(lpips_file),
                    arguments=dict(ARGUMENTS),
                )
            ),
            check_tokenizer,
            folder / "final",
        ),
    }[command]
    (tmp_path / "runs").mkdir()
    writes = in_child(act, tmp_path / "runs")
    check(folder)
    shutil.rmtree(folder)
    assert writes >= KILLS
    for kill in range(1, KILLS + 1):
        # a run that goes on writes less than the one before
        if in_child(act, tmp_path / "runs", max(1, writes * kill // (KILLS + 1))) is None and target.exists():
            check(folder)
    if command != "export" or not folder.exists():
        in_child(act, tmp_path / "runs")
    check(folder)
