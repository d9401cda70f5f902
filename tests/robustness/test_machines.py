"""Machines as users have them: devices, files named in any script, servers that answer for days."""

import copy
import gc
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface.cli import main


@pytest.mark.report("device=… is ignored, or fails in the depths of torch")
def test_a_device_is_named_as_torch_and_transformers_name_it(tiny_checkpoint, classify, face):
    """ "cpu", -1 and torch.device("cpu") are the same; what is no device is refused when the pipeline opens."""
    for device in ("cpu", -1, torch.device("cpu")):
        pipe = pipeline("face-attribute-classification", model=str(tiny_checkpoint), aligned=True, device=device)
        assert pipe.device == pipe.model.device == torch.device("cpu")
        assert pipe(face) == classify(face)
    with pytest.raises(RuntimeError, match="cpu, cuda"):
        pipeline("face-attribute-classification", model=str(tiny_checkpoint), device="gpu")


@pytest.mark.report("Pipelines cannot be copied or pickled")
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_a_copy_of_a_pipeline_gives_what_the_pipeline_gives(edit, face, copied):
    """Copies draw the same pictures, and have weights of their own."""
    twin = copied(edit)
    expected, found = (pipe(face, "smiling", region="mouth")[0]["image"] for pipe in (edit, twin))
    assert np.array_equal(np.asarray(expected), np.asarray(found))
    with torch.no_grad():
        next(twin.model.parameters()).zero_()
    assert next(edit.model.parameters()).any()


@pytest.mark.report(
    "Files with spaces or letters of other scripts in their names are not found, or written under others"
)
@pytest.mark.parametrize("name", ["two words.png", "Größe é.png", "写真 😀.png", "a;b&c'd.png", "-o.png"])
def test_files_are_read_and_written_under_any_name(tiny_checkpoint, face, tmp_path, capsys, monkeypatch, name):
    """Spaces, brackets, other scripts and signs of the shell stay as they are."""
    (tmp_path / "photos").mkdir()
    face.save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    arguments = ["edit", "photos", "smiling", "-o", "out", "--model", str(tiny_checkpoint), "--aligned", "--json"]
    assert main([*arguments, "--steps", "1", "--region", "mouth"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["output"].endswith(name) and Image.open(tmp_path / "out" / name).size == face.size


def alive():
    """How many tensors and pictures there are."""
    gc.collect()
    return sum(isinstance(each, torch.Tensor | Image.Image) for each in gc.get_objects())


@pytest.mark.report("Memory grows from call to call")
def test_calls_leave_nothing_behind(edit, classify, face):
    """After fifty calls there are as many tensors and pictures as after two."""
    calls = [lambda: classify(face)] * 48 + [lambda: edit(face, "smiling", region="mouth")] * 2
    for call in (calls[0], calls[-1]):
        call()
    before = alive()
    for call in calls:
        call()
    assert alive() <= before
