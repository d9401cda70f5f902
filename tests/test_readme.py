"""The README is the first thing a user tries: its examples run, its commands parse."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from gptface.cli import build_parser
from gptface.pipelines.guided_face_editing import GuidedFaceEditingPipeline
from gptface.processing.detection import default_detector

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    lines = [part.strip() for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("gptface ")]


def test_the_commands_parse():
    assert len(commands()) >= 5
    for command in commands():
        assert build_parser().parse_args(command[1:]).run


def test_the_python_examples_run_in_order_and_their_edits_work(tmp_path, monkeypatch):
    """
    What is shown first must not be what fails: the attribute head finds what was asked for, and the detector a face.
    """
    pytest.importorskip("cv2")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    edited, ranked = [], GuidedFaceEditingPipeline.postprocess

    def noted(*arguments, **options):
        results = ranked(*arguments, **options)
        edited.append(results[0])
        return results

    monkeypatch.setattr(GuidedFaceEditingPipeline, "postprocess", noted)
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "face.png").exists()
    assert len(edited) == 9
    for result in edited:
        assert result["note"] is None and set(result["verified"]) == set(result["edits"])
        for name, seen in result["verified"].items():
            assert seen["after"] > max(seen["before"], 0.5), (result["prompt"], name, seen)
        assert result["kept"]["outside"] == 1 and result["kept"]["attributes"] > 0.8, result["prompt"]
        assert len(default_detector().detect(result["image"])) == 1, result["prompt"]


def test_files_that_the_documents_name_exist():
    for document in ("README.md", "model_card.md"):
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{document} links to {target}"
        assert "@" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL), f"{document} has a placeholder"
