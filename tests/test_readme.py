"""README and docs/ are what a user tries first: examples run, commands parse, links lead somewhere."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest

from gptface.cli import build_parser
from gptface.pipelines.guided_face_editing import GuidedFaceEditingPipeline
from gptface.processing.detection import default_detector
from gptface.processing.edits import EDITS
from gptface.training.pretraining import PreTrainingConfig, training_arguments

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Folders of the repository whose files commands name.
FOLDERS = ("training", "lab", "examples", "gptface")


def blocks(document, language):
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL)


def code(document):
    return "\n".join(blocks(document, "python"))


def commands(document):
    lines = "\n".join(blocks(document, "bash")).replace("&&", "\n").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def named(document):
    return document.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=named)


@every_document
def test_the_commands_parse(document):
    for program, *arguments in commands(document):
        if program == "gptface":
            assert build_parser().parse_args(arguments).run
        if "-m" in arguments and program in ("python", "torchrun"):
            module = arguments[arguments.index("-m") + 1]
            assert importlib.util.find_spec(module) or (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
        files = [each for each in arguments if each.split("/")[0] in FOLDERS and "/" in each]
        assert all((ROOT / each).exists() for each in files), files


def test_every_command_is_shown():
    """A command that no page tells of is one that nobody finds."""
    lines = [words for document in DOCUMENTS for words in commands(document)]
    shown = {words[1] for words in lines if words[0] == "gptface"}
    (choices,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    assert set(choices) <= shown


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if blocks(each, "python")], ids=named)
def test_the_python_examples_run_in_order_and_their_edits_work(document, tmp_path, monkeypatch):
    """
    What is shown must not be what fails: the attribute head finds what was asked for, and the detector a face.
    """
    pytest.importorskip("cv2")
    if "import peft" in code(document):
        pytest.importorskip("peft")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    # what is laid over faces from text may be there already
    edits_photos = 'pipeline("guided-face-editing")' in code(document)
    edited, ranked = [], GuidedFaceEditingPipeline.postprocess

    def noted(*arguments, **options):
        results = ranked(*arguments, **options)
        edited.extend(results[:edits_photos])
        return results

    monkeypatch.setattr(GuidedFaceEditingPipeline, "postprocess", noted)
    namespace = {}
    for block in blocks(document, "python"):
        exec(compile(block, named(document), "exec"), namespace)
    written = re.findall(r'(?:\.save\(|save_picture\(.*, )"([^"{]+)"', code(document))
    assert all((tmp_path / name).exists() for name in written)
    assert bool(edited) == edits_photos
    for result in edited:
        assert result["note"] is None and set(result["verified"]) == set(result["edits"])
        for name, seen in result["verified"].items():
            # of what is laid over the photo the heads see the way, and often not the end
            least = 0.5 if EDITS[name].transfer is None else 0.0
            assert seen["after"] > max(seen["before"], least), (result["prompt"], name, seen)
        assert result["kept"]["outside"] == 1 and result["kept"]["attributes"] > 0.8, result["prompt"]
        assert len(default_detector().detect(result["image"])) == 1, result["prompt"]


def test_recipes_are_read(tmp_path):
    """A recipe is copied whole; a field that there is not would stop the run."""
    (tmp_path / "mine.yaml").write_text("".join(blocks(ROOT / "docs" / "how-to" / "pre-train.md", "yaml")))
    config = PreTrainingConfig.from_yaml(tmp_path / "mine.yaml", output_dir=str(tmp_path / "run"))
    assert training_arguments(config).learning_rate == 1e-3 and config.scales == ["image", "plan"]


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "model_card.md", ROOT / "SECURITY.md"], ids=named)
def test_files_that_the_documents_name_exist(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (document.parent / target).exists(), target
    assert "@" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL), "a placeholder"
