"""A disk that is full at any write of a run: the checkpoint before stays, the error says what it was, and the run goes
on when there is room again.
"""

import errno
import io
import os
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_kills import in_child

from gptface import GPTFaceForPreTraining
from gptface.training.checkpoints import last_whole_checkpoint
from gptface.training.pretraining import PreTrainingConfig, pretrain

LONG = "GPTFACE_EXAMPLES" in os.environ


@pytest.fixture
def act(tiny_checkpoint, tmp_path, face_picture):
    """`act(folder, steps)` pre-trains a tiny model into a folder, with a checkpoint after each second step."""
    picture = io.BytesIO()
    face_picture.resize((64, 64)).save(picture, "PNG")
    columns = {name: [row % 2 for row in range(16)] for name in ("Smiling", "Male", "Young")}
    pq.write_table(pa.table({"image": [picture.getvalue()] * 16, **columns}), tmp_path / "faces.parquet")

    def run(folder, steps=4):
        arguments = {
            "max_steps": steps,
            "save_steps": 2,
            "logging_steps": 1,
            "per_device_train_batch_size": 4,
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
        }
        network = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
        return pretrain(
            PreTrainingConfig(
                str(folder),
                [str(tmp_path / "faces.parquet")],
                image_tokenizer=str(tiny_checkpoint),
                layout="aligned",
                vocab_size=300,
                model={**network, "max_text_length": 24},
                arguments=arguments,
            )
        )

    return run


def sites(writes):
    """
    Numbers of the last write and the last rename of each file name, with all of the code that is saved as one name; in
    the long form of all.
    """
    last = {}
    for number, write in enumerate(writes, start=1):
        name = re.sub(r"\.[0-9a-f]{8}\.partial|\d+", "", write)
        last["code" if name.endswith(".py") else name] = number
    return range(1, len(writes) + 1) if LONG else sorted(last.values())


@pytest.mark.slow
def test_every_write_of_pretraining_may_find_the_disk_full(act, tmp_path, capfd):
    """
    Whichever file of a checkpoint, of the final model or of the codes it is: what stands under a name is whole, and
    the run goes on when there is room.
    """
    folder = tmp_path / "runs" / "out"
    folder.parent.mkdir()
    writes = in_child(lambda: act(folder), folder.parent, answer="names")
    assert {"open config.json", "open trainer_state.json", "os.rename checkpoint-4"} <= set(writes)
    for site in sites(writes):
        shutil.rmtree(folder)
        capfd.readouterr()
        ended = in_child(lambda: act(folder), folder.parent, fails_at=site)
        # some files, such as a scratch one of a library, can be done without
        assert ended or "No space left on device" in capfd.readouterr().err, writes[site - 1]
        if checkpoint := last_whole_checkpoint(folder):
            assert GPTFaceForPreTraining.from_pretrained(checkpoint).config.match_trained
        if ended is None:
            assert not (folder / "final").exists(), writes[site - 1]
            assert in_child(lambda: act(folder), folder.parent)
        assert GPTFaceForPreTraining.from_pretrained(folder / "final")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a disk needs Linux and root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, left):
    """Fills a disk but for `left` bytes."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(0, file.tell() - left))


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_the_checkpoint_before(act, tmp_path, small_disk, capfd):
    """A real disk, for the files that torch and safetensors write by themselves: full at tenths of a checkpoint."""
    folder = small_disk / "run"
    assert in_child(lambda: act(folder, 2), tmp_path)
    size = sum(path.stat().st_size for path in (folder / "checkpoint-2").rglob("*"))
    for tenth in range(0, 12, 1 if LONG else 4):
        for name in ("final", "checkpoint-4"):
            shutil.rmtree(folder / name, ignore_errors=True)
        fill(small_disk, size * tenth // 10)
        capfd.readouterr()
        ended = in_child(lambda: act(folder), tmp_path, fails=True)
        told = capfd.readouterr().err
        # what is left when the checkpoint failed may be enough for the final model, which is smaller
        assert "o space left on device" in told or ended, f"{tenth}: {told}"
        assert last_whole_checkpoint(folder) in [str(folder / f"checkpoint-{step}") for step in (2, 4)]
        assert ended is None or GPTFaceForPreTraining.from_pretrained(folder / "final")
        os.remove(small_disk / "filler")
    shutil.rmtree(folder / "checkpoint-4", ignore_errors=True)
    assert in_child(lambda: act(folder), tmp_path) and GPTFaceForPreTraining.from_pretrained(folder / "final")
