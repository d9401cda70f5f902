"""The examples in the docstrings of public names run: they are what somebody copies first."""

import doctest
import inspect
import re
import shutil
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import pipeline

import gptface
from gptface.pipelines.task_registry import PIPELINES

ROOT = Path(__file__).parents[1]
CLASSES = {pipeline_class.__name__: pipeline_class for pipeline_class, _ in PIPELINES.values()}
PUBLIC = {name: getattr(gptface, name) for name in gptface.__all__} | CLASSES
DOCUMENTED = [name for name, value in PUBLIC.items() if inspect.isclass(value) or inspect.isfunction(value)]


def examples(value):
    found = re.findall(r"```python\n(.*?)```", inspect.getdoc(value) or "", re.DOTALL)
    return [textwrap.dedent(example) for example in found]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_public_name_has_an_example_and_it_runs(name, tmp_path, monkeypatch):
    found = examples(PUBLIC[name])
    assert found, "show how it is used"
    if any(".jpg" in example for example in found):
        pytest.importorskip("cv2")
    for photo in ("portrait.jpg", "photo.jpg"):
        shutil.copy(ROOT / "examples" / "serious.jpg", tmp_path / photo)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    known = {**PUBLIC, "torch": torch, "pipeline": pipeline}
    if name == "save_picture":
        known["edit"] = pipeline("guided-face-editing")
    for example in found:
        if ">>>" in example:
            test = doctest.DocTestParser().get_doctest(example, known, name, None, 0)
            report = []
            assert not doctest.DocTestRunner(verbose=False).run(test, out=report.append).failed, "".join(report)
        else:
            exec(compile(example, name, "exec"), known)
