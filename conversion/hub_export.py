"""A checkpoint → a repository for the Hub that opens with transformers alone, and its upload."""

import json
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

import gptface
from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.tokenization_gptface import GPTFaceTokenizer
from gptface.processing.whole_files import whole_folder
from gptface.registration import AUTO_MODELS, PIPELINES

from .checkpoint import read_json
from .model_folder import read_config
from .remote_code import ENTRY_MODULE, remote_code
from .report import ConversionError

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PROCESSOR_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json")
#: Top of a checkout, where licences and the card of the embedded checkpoint stand.
CHECKOUT = Path(gptface.__file__).resolve().parent.parent


def export_hub(
    source: str | Path, output: str | Path, card: str | Path | None = None, onnx: bool = False
) -> list[str]:
    """
    Writes a repository that `pipeline(task, model=…, trust_remote_code=True)` and the Auto classes open without this package:
    the checkpoint in the folder `source`, its processor, the code of the package flattened, licences, and the model card as
    README.md.

    Args:
        card: the model card; without it README.md or model_card.md of `source`, else a short one.
        onnx: also write the folder onnx/ in it, see [`export_onnx`].

    Returns:
        The names of the files in `output`, sorted.

    Raises:
        OSError: a file is missing, or `output` exists and is not empty.
        ConversionError: where `source` holds no complete GPTFace checkpoint; lists what is missing. Or where an ONNX file gives
            other numbers than torch.
        ImportError: where `onnx` needs packages that are missing.
    """
    source = Path(source)
    read_config(source)
    weights = _weight_files(source)
    missing = [name for name in (*weights, *PROCESSOR_FILES) if not (source / name).is_file()]
    if missing:
        raise ConversionError(f"{source} is not complete: save model and processor into it; missing", missing)
    readme = _card_text(source, card)
    with whole_folder(output) as folder:
        for name in (*weights, "tokenizer.json"):
            shutil.copyfile(source / name, folder / name)
        _write_json(folder / "config.json", {**read_json(source / "config.json"), **_model_references()})
        _write_json(folder / "tokenizer_config.json", _tokenizer_config(source))
        _write_json(folder / "processor_config.json", _processor_config(source))
        for name, text in remote_code(_exported_classes()).items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, text in license_files():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(readme, encoding="utf-8")
        if onnx:
            from .onnx_export import export_onnx

            export_onnx(source, folder / "onnx")
    output = Path(output)
    return sorted(file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file())


def push_folder(
    folder: str | Path,
    repository: str,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload GPTFace checkpoint",
    api: HfApi | None = None,
) -> str:
    """
    Uploads a folder in one commit, which is all there or not at all; what was uploaded before a connection dropped is not
    uploaded again.

    Args:
        repository: "user/name"; made where it does not exist.
        private: whether a new repository is a private one.
        revision: a branch, made where it does not exist; the main one by default.

    Returns:
        The hash of the commit.

    Raises:
        OSError: `folder` holds no checkpoint, or the Hub cannot be reached or refuses.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: push the folder of a checkpoint or an export of it")
    # `upload_folder` may spread the files over several commits
    operations = [
        CommitOperationAdd(file.relative_to(folder).as_posix(), file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    api = api or HfApi()
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message=message, revision=revision)
    except HfHubHTTPError:
        raise
    except (HTTPError, RuntimeError) as error:  # a connection, in an upload wrapped into a RuntimeError
        raise ConnectionError(f"{repository}: the upload broke off ({error}); push again to complete it") from error
    return commit.oid


def license_files() -> Iterator[tuple[str, str]]:
    """(name, text) of LICENSE and of the notices in LICENSES/, from a checkout or from the installed distribution."""
    if (CHECKOUT / "LICENSES").is_dir():
        for file in (CHECKOUT / "LICENSE", *sorted((CHECKOUT / "LICENSES").iterdir())):
            yield file.relative_to(CHECKOUT).as_posix(), file.read_text(encoding="utf-8")
        return
    for entry in metadata.files("gptface") or ():
        folder, _, name = entry.as_posix().partition("/licenses/")
        if folder.endswith(".dist-info") and name:
            yield name, entry.read_text(encoding="utf-8")


def _weight_files(source: Path) -> list[str]:
    if not (source / WEIGHTS_INDEX).is_file():
        return [WEIGHTS]
    shards = read_json(source / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(Path(str(name)).name == name for name in shards.values()):
        raise ConversionError(f"{source / WEIGHTS_INDEX} has no weight_map of file names", [])
    return [WEIGHTS_INDEX, *sorted(set(shards.values()))]


def _exported_classes() -> list[type]:
    pipelines = [pipeline_class for pipeline_class, _ in PIPELINES.values()]
    processors = [GPTFaceImageProcessor, GPTFaceTokenizer, GPTFaceProcessor]
    return [GPTFaceConfig, *AUTO_MODELS.values(), *processors, *pipelines]


def _reference(cls: type) -> str:
    return f"{ENTRY_MODULE}.{cls.__name__}"


def _auto_name(model_class: type) -> str:
    """The Auto class that gives this model class or the nearest of its bases."""
    line = model_class.mro()
    candidates = [auto for auto, registered in AUTO_MODELS.items() if registered in line]
    return min(candidates, key=lambda auto: line.index(AUTO_MODELS[auto])).__name__


def _model_references() -> dict[str, Any]:
    auto_map = {"AutoConfig": _reference(GPTFaceConfig)}
    auto_map |= {auto.__name__: _reference(model_class) for auto, model_class in AUTO_MODELS.items()}
    custom_pipelines = {
        task: {"impl": _reference(pipeline_class), "pt": [_auto_name(model_class)], "type": "multimodal"}
        for task, (pipeline_class, model_class) in PIPELINES.items()
    }
    return {"auto_map": auto_map, "custom_pipelines": custom_pipelines}


def _tokenizer_config(source: Path) -> dict[str, Any]:
    # (slow, fast), as transformers writes it for a tokenizer of the tokenizers library
    auto_map = {"AutoTokenizer": [None, _reference(GPTFaceTokenizer)], "AutoProcessor": _reference(GPTFaceProcessor)}
    return {**read_json(source / "tokenizer_config.json"), "auto_map": auto_map}


def _processor_config(source: Path) -> dict[str, Any]:
    config = read_json(source / "processor_config.json")
    auto_map = {
        "AutoProcessor": _reference(GPTFaceProcessor),
        "AutoImageProcessor": _reference(GPTFaceImageProcessor),
    }
    image_processor = {**config.get("image_processor", {}), "auto_map": auto_map}
    return {**config, "auto_map": auto_map, "image_processor": image_processor}


def _card_text(source: Path, card: str | Path | None) -> str:
    if card is not None:
        return Path(card).read_text(encoding="utf-8")
    for folder in (source, CHECKOUT) if source.resolve() == Path(gptface.DEFAULT_CHECKPOINT).resolve() else (source,):
        for name in ("model_card.md", "README.md"):
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8")
    from gptface.evaluation.card import short_card

    return short_card()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
