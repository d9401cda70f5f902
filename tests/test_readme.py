"""The README is the first thing a user tries: its examples run, its commands parse."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from gptface.cli import build_parser

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


def test_the_python_examples_run_in_order(tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "face.png").exists()


def test_files_that_the_documents_name_exist():
    for document in ("README.md", "model_card.md"):
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{document} links to {target}"
        assert "@" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL), f"{document} has a placeholder"
