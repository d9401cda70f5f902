"""The code and the references by which a folder opens with transformers alone: in exports and in whatever is saved."""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.pipelines.task_registry import AUTO_MODELS, PIPELINES
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.tokenization_gptface import SPECIAL_TOKENS, GPTFaceTokenizer
from gptface.processing.whole_files import write_text

from .checkpoint import read_json
from .remote_code import ENTRY_MODULE, remote_code

CONFIG = "config.json"
#: What is published of tokenizer_config.json. The rest says how somebody opened the tokenizer, and where.
TOKENIZER_KEYS = frozenset(
    (
        *SPECIAL_TOKENS,
        "backend",
        "max_length",
        "model_max_length",
        "padding_side",
        "processor_class",
        "stride",
        "tokenizer_class",
        "truncation_side",
        "truncation_strategy",
    )
)
#: What is published of the image processor: what it does to a picture, not on which machine.
IMAGE_PROCESSOR_KEYS = frozenset(GPTFaceImageProcessor.valid_kwargs.__annotations__) - {"device"} | {
    "image_processor_type"
}
#: What says in a config.json on whose machine, and from which folder, a model was opened.
PRIVATE_KEYS = ("_name_or_path", "name_or_path")


def complete_folder(folder: str | os.PathLike) -> None:
    """
    Puts the package's code into a folder in which a model, a processor or a part of one was saved, and references to
    it into its configurations, so that it opens with `trust_remote_code=True` where the package is missing. Paths of
    this machine leave it.

    A folder of something else, such as an image tokenizer by itself, stays as it is.
    """
    folder = Path(folder)
    completed = {}
    for name, complete in _COMPLETE.items():
        if (folder / name).is_file() and (content := complete(read_json(folder / name))) is not None:
            completed[name] = content
    if not completed:
        return
    for name, text in folder_code().items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, content in completed.items():
        write_json(folder / name, content)


@cache
def folder_code() -> dict[str, str]:
    """Sources, by file name, of all that the references name."""
    pipelines = [pipeline_class for pipeline_class, _ in PIPELINES.values()]
    processors = [GPTFaceImageProcessor, GPTFaceTokenizer, GPTFaceProcessor]
    return remote_code([GPTFaceConfig, *AUTO_MODELS.values(), *processors, *pipelines])


def model_references() -> dict[str, Any]:
    """What config.json says of classes and pipelines."""
    auto_map = {"AutoConfig": _reference(GPTFaceConfig)}
    auto_map |= {auto.__name__: _reference(model_class) for auto, model_class in AUTO_MODELS.items()}
    custom_pipelines = {
        task: {"impl": _reference(pipeline_class), "pt": [_auto_name(model_class)], "type": "multimodal"}
        for task, (pipeline_class, model_class) in PIPELINES.items()
    }
    return {"auto_map": auto_map, "custom_pipelines": custom_pipelines}


def published_tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    """Content of tokenizer_config.json with its references, and nothing of a machine."""
    # (slow, fast), as transformers writes it for a tokenizer of the tokenizers library
    auto_map = {"AutoTokenizer": [None, _reference(GPTFaceTokenizer)], "AutoProcessor": _reference(GPTFaceProcessor)}
    return {**_known(config, TOKENIZER_KEYS), "auto_map": auto_map}


def published_processor_config(config: dict[str, Any]) -> dict[str, Any]:
    """Content of processor_config.json with its references, and nothing of a machine."""
    image_processor = published_image_processor_config(config.get("image_processor", {}))
    auto_map = image_processor["auto_map"]
    return {"processor_class": GPTFaceProcessor.__name__, "auto_map": auto_map, "image_processor": image_processor}


def published_image_processor_config(config: dict[str, Any]) -> dict[str, Any]:
    """What says how pictures are prepared, with its references, and nothing of a machine."""
    auto_map = {
        "AutoProcessor": _reference(GPTFaceProcessor),
        "AutoImageProcessor": _reference(GPTFaceImageProcessor),
    }
    return {**_known(config, IMAGE_PROCESSOR_KEYS), "auto_map": auto_map}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that appears whole."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _saved_model_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """A saved model's configuration with its references; None of a model of another type."""
    if config.get("model_type") != GPTFaceConfig.model_type:
        return None
    return {**_without_paths(config), **model_references()}


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_paths(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in PRIVATE_KEYS
    }


def _reference(cls: type) -> str:
    return f"{ENTRY_MODULE}.{cls.__name__}"


def _auto_name(model_class: type) -> str:
    """The Auto class that gives this model class or the nearest of its bases."""
    line = model_class.mro()
    candidates = [auto for auto, registered in AUTO_MODELS.items() if registered in line]
    return min(candidates, key=lambda auto: line.index(AUTO_MODELS[auto])).__name__


def _known(config: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in keys}


_COMPLETE: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    CONFIG: _saved_model_config,
    "tokenizer_config.json": published_tokenizer_config,
    "processor_config.json": published_processor_config,
    "preprocessor_config.json": published_image_processor_config,
}
