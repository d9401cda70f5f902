"""What may be published of a folder: regular files of its own, and weights that are those of its configuration."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from gptface.modeling_gptface.configuration_gptface import (
    GPTFaceConfig,
    GPTFaceImageTokenizerConfig,
    GPTFaceParserConfig,
    GPTFaceRefinerConfig,
)
from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.modeling_gptface.modeling_gptface import GPTFaceModel
from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner

from .checkpoint import WEIGHTS_INDEX, Shapes, read_json, weight_files
from .model_folder import model_shapes, module_shapes
from .report import ConversionError

#: Kinds of networks by the `model_type` of their configuration.
NETWORKS: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    config_class.model_type: (config_class, model_class)
    for config_class, model_class in (
        (GPTFaceConfig, GPTFaceForPreTraining),  # all task models have its weights
        (GPTFaceImageTokenizerConfig, GPTFaceImageTokenizer),
        (GPTFaceParserConfig, GPTFaceParser),
        (GPTFaceRefinerConfig, GPTFaceRefiner),
    )
}


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """
    Raises `ConversionError` where one of the files `names` of a folder, or a folder on the way to it, is a link: what
    it leads to was never meant to be published.
    """
    links = {part for name in names for part in (folder / name, *(folder / name).parents) if part.is_symlink()}
    links = {link for link in links if folder in link.parents}
    if links:
        listed = [link.relative_to(folder).as_posix() for link in sorted(links)]
        raise ConversionError(
            f"{folder} has links, whose contents would be published: put files in their place", listed
        )


def files_to_publish(folder: Path) -> list[str]:
    """
    Paths of the files of a folder, relative to it, sorted; without those whose name, or the name of whose folder,
    starts with a dot.

    Raises:
        ConversionError: lists the links and what else is no regular file.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    refuse_links(folder, names)
    names = [name for name in names if not (folder / name).is_dir()]
    if odd := [name for name in names if not (folder / name).is_file()]:
        raise ConversionError(f"{folder} has what is no file", odd)
    return names


def check_weights(folder: Path) -> list[str]:
    """
    Names of the weight files of a folder, and of their index where there are several, after comparing the names and
    shapes of the tensors with the configuration, and their numbers with numbers.

    Raises:
        FileNotFoundError: a file is missing.
        ConversionError: lists what is cut, missing, surplus, of another shape, or not finite.
    """
    expected, optional = _expected_shapes(folder)
    files = weight_files(folder)
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} is not complete: save model and processor into it; missing {', '.join(missing)}"
        )
    problems: list[str] = []
    stored: dict[str, tuple[int, ...]] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (no mapping)
                    tensor = file.get_tensor(key)
                    stored[key] = tuple(tensor.shape)
                    if not torch.isfinite(tensor).all():
                        problems.append(f"not finite: {key}")
        except SafetensorError as error:
            problems.append(f"cut or damaged: {name} ({error})")
    if not problems:
        problems += [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in stored]
        problems += [f"surplus: {name}" for name in sorted(stored.keys() - expected.keys() - optional)]
        problems += [
            f"of another shape: {name} {list(stored[name])}, not {list(shape)}"
            for name, shape in expected.items()
            if stored.get(name, shape) != shape
        ]
    if problems:
        raise ConversionError(f"the weights in {folder} are not those of its configuration", problems[:20])
    return files if len(files) == 1 else [WEIGHTS_INDEX, *files]


def _expected_shapes(folder: Path) -> tuple[Shapes, set[str]]:
    """Shapes of the tensors by the configuration, and names of those that may be there or not."""
    content = read_json(folder / "config.json")
    if content.get("model_type") not in NETWORKS:
        raise ConversionError(f"{folder} holds a model of type {content.get('model_type')!r}, no GPTFace model", [])
    config_class, model_class = NETWORKS[content["model_type"]]
    config = config_class.from_pretrained(folder)
    if not isinstance(config, GPTFaceConfig):
        return module_shapes(lambda: model_class(config)), set()
    if config.architectures == [GPTFaceModel.__name__]:
        return module_shapes(lambda: GPTFaceModel(config)), set()
    shapes = model_shapes(config)
    return shapes, set(module_shapes(lambda: model_class(config)).keys() - shapes.keys())
