"""The package as users get it: a light import, no bare top-level names, and the documented Auto classes."""

import ast
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoModelForPreTraining,
    AutoModelForZeroShotImageClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

import gptface
from gptface.registration import register

ROOT = Path(__file__).parent.parent
FOLDERS = ("modeling_gptface", "processing", "pipelines", "data", "training", "conversion", "evaluation", "metrics")


def run(code: str, **kwargs) -> str:
    """The output of Python code in a process of its own; its error is the test's."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here(code: str) -> str:
    """The output of code that finds the package in this checkout."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return run(code, env=environment).strip()


def test_the_import_brings_in_nothing_heavy():
    """`gptface --help` would take seconds, and who imports the package for a constant would wait for torch."""
    heavy = ["torch", "transformers", "numpy", "PIL", "diffusers", "cv2", "datasets", "evaluate", "pyarrow"]
    loaded = f"print([name for name in {heavy} if name in sys.modules])"
    assert run_here(f"import gptface, sys; gptface.DEFAULT_CHECKPOINT; {loaded}") == "[]"


def test_the_models_bring_in_only_what_they_need():
    """diffusers, OpenCV and datasets cost seconds or are not installed; only what needs them may load them."""
    heavy = ["diffusers", "cv2", "datasets", "torchvision", "evaluate", "pyarrow"]
    loaded = f"print([name for name in {heavy} if name in sys.modules])"
    assert run_here(f"import gptface, gptface.registration, sys; {loaded}") == "[]"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["edit", "--no-such-option"], ["evaluate", "editing", "--help"]]
)
def test_the_command_line_answers_without_torch(arguments):
    code = f"""
import sys
from gptface.cli import main
try:
    main({arguments!r})
except SystemExit:
    print("loaded", [name for name in ("torch", "transformers", "PIL") if name in sys.modules])
"""
    assert run_here(code).endswith("loaded []")


@pytest.mark.parametrize(
    "imports",
    [
        "import transformers.pipelines, gptface",
        "from gptface import GPTFaceModel; import transformers.pipelines",
        "from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration\n"
        "import transformers.pipelines",
        "import gptface; from transformers import pipeline, AutoModel",
    ],
)
def test_pipelines_and_auto_classes_know_the_package_in_whatever_order_they_are_imported(imports):
    code = f"""
{imports}
import gptface
from transformers import AutoConfig, AutoModelForImageToImage
from transformers.pipelines import PIPELINE_REGISTRY
assert type(AutoConfig.for_model("gptface")) is gptface.GPTFaceConfig
assert AutoModelForImageToImage._model_mapping[gptface.GPTFaceConfig] is gptface.GPTFaceForGuidedGeneration
print(PIPELINE_REGISTRY.check_task("guided-face-editing")[1]["default"]["model"][0] == gptface.DEFAULT_CHECKPOINT)
"""
    assert run_here(code) == "True"


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, gptface.GPTFaceModel),
        (AutoModelForPreTraining, gptface.GPTFaceForPreTraining),
        (AutoModelForImageClassification, gptface.GPTFaceForImageClassification),
        (AutoModelForImageToImage, gptface.GPTFaceForGuidedGeneration),
        (AutoModelForZeroShotImageClassification, gptface.GPTFaceForImageTextMatching),
    ],
)
def test_auto_classes(tiny_checkpoint, auto_class, model_class):
    assert type(auto_class.from_pretrained(tiny_checkpoint)) is model_class


def test_auto_config(tiny_checkpoint, tmp_path):
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    assert type(config) is gptface.GPTFaceConfig
    config.image_tokenizer_config.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is gptface.GPTFaceImageTokenizerConfig
    tokenizer = AutoModel.from_config(config.image_tokenizer_config)
    assert type(tokenizer) is gptface.GPTFaceImageTokenizer


def test_pipeline_tasks_are_registered():
    for task in ("guided-face-editing", "face-attribute-classification", "facial-expression"):
        assert PIPELINE_REGISTRY.supported_tasks[task]["default"]["model"][0] == gptface.DEFAULT_CHECKPOINT


def test_registering_twice_is_harmless():
    register()


def test_all_public_names_exist_where_type_checkers_look_for_them():
    assert sorted(gptface.__all__) == gptface.__all__
    assert all(hasattr(gptface, name) for name in gptface.__all__) and set(gptface.__all__) <= set(dir(gptface))
    tree = ast.parse(Path(gptface.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {alias.name: line.module for line in checked.body for alias in line.names}
    assert imported == {name: f"gptface.{module}" for name, module in gptface._MODULES.items()}
    assert sorted(imported) == gptface.__all__


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="GPTFaceForNothing"):
        _ = gptface.GPTFaceForNothing


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source")
    # A copy, so that the build leaves nothing behind in the checkout.
    for name in [*FOLDERS, "gptface", "LICENSES"]:
        if (ROOT / name).is_dir():
            copy_tree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            (source / name).write_bytes((ROOT / name).read_bytes())
    if not (source / "README.md").exists():
        (source / "README.md").write_text("GPTFace\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        source,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def copy_tree(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(source)).write_bytes(file.read_bytes())


def test_the_wheel_holds_every_folder_under_gptface_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"gptface"}
    for folder in FOLDERS:
        modules = {path.name for path in (ROOT / folder).glob("*.py")}
        assert modules <= {name.rsplit("/", 1)[1] for name in names if name.startswith(f"gptface/{folder}/")}
    assets = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gptface" / "assets").rglob("*") if path.is_file()}
    assert assets <= set(names)


@pytest.mark.slow
def test_installed_only_the_names_under_gptface_can_be_imported(wheel, tmp_path):
    """`processing` and `pipelines` are names that other distributions use."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    code = f"""
import sys, importlib.util
sys.path.insert(0, {str(tmp_path / "site")!r})
import gptface, gptface.processing.alignment, gptface.pipelines.guided_face_editing
assert gptface.__file__.startswith({str(tmp_path)!r}), gptface.__file__
print([name for name in {FOLDERS} if importlib.util.find_spec(name)])
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert run(code, cwd=tmp_path / "elsewhere", env=environment).strip() == "[]"
