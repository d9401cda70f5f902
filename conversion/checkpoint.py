"""Checkpoint files: read without running foreign code, written tensor by tensor."""

import json
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open

from gptface.modeling_gptface.weight_loading import check_weight_names

from .report import ConversionError

StateDict = dict[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"


def read_state_dict(path: str | Path) -> StateDict:
    """
    Tensors by name out of a `torch.save` or safetensors file; a Lightning checkpoint's `state_dict` is unwrapped. The
    tensors are mapped from the file, not read into memory, unless it is in torch's old format.

    Raises:
        FileNotFoundError: where there is no such file.
        ConversionError: where the file holds anything but named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ConversionError(_refused_pickle(path, error), []) from error
    except (EOFError, RuntimeError, ValueError) as error:
        raise ConversionError(f"{path} is no checkpoint that torch can read: {_first_line(error)}", []) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise ConversionError(f"{path} holds a {type(state).__name__}, not a state dict (tensors by name)", [])
    foreign = [f"{key!r} is a {type(value).__name__}" for key, value in state.items() if not _is_entry(key, value)]
    if foreign or not state:
        raise ConversionError(f"{path} is not a state dict (tensors by name)", foreign or ["it is empty"])
    return dict(state)


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _refused_pickle(path: Path, error: Exception) -> str:
    return (
        f"{path} is no checkpoint of tensors alone, and other objects are not unpickled: they can run code. If it is "
        "a training checkpoint (of Lightning, for example) that you trust, strip it once:\n"
        f"  python -c \"import torch; c = torch.load('{path}', map_location='cpu', weights_only=False); "
        f"torch.save({{'state_dict': c['state_dict']}}, '{path.with_suffix('.stripped' + path.suffix)}')\"\n"
        f"torch says: {_first_line(error)}"
    )


def _read_safetensors(path: Path) -> StateDict:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ConversionError(f"{path} is no safetensors file: {_first_line(error)}", []) from error


def read_model_folder(folder: str | Path) -> StateDict:
    """
    Tensors of a folder that `save_pretrained` wrote, in one file or in shards (or of an older pytorch_model.bin).

    Raises:
        FileNotFoundError: where the folder holds no weights.
    """
    folder = Path(folder)
    names = weight_files(folder)
    if names == [WEIGHTS] and not (folder / WEIGHTS).is_file():
        if not (folder / "pytorch_model.bin").is_file():
            raise FileNotFoundError(f"{folder} holds no {WEIGHTS}")
        names = ["pytorch_model.bin"]
    return {key: tensor for name in names for key, tensor in read_state_dict(folder / name).items()}


def weight_files(folder: Path) -> list[str]:
    """
    Names of the safetensors files that transformers would open in a folder, whether they are there or not: one, or
    those of an index.

    Raises:
        ValueError: the index is none, or names other files than safetensors beside it.
    """
    index = folder / WEIGHTS_INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [WEIGHTS]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConversionError(f"{index} has no weight_map of file names", [])
    names = set(map(str, weight_map.values()))
    check_weight_names(names, str(index))
    return sorted(names)


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON object. Raises `ConversionError` where the file holds something else."""
    return _read_mapping(Path(path), json.loads, json.JSONDecodeError, "JSON object")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping. Raises `ConversionError` where the file holds something else."""
    return _read_mapping(Path(path), yaml.safe_load, yaml.YAMLError, "YAML mapping")


def _read_mapping(path: Path, parse: Any, parse_error: type[Exception], what: str) -> dict[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (parse_error, UnicodeDecodeError) as error:
        raise ConversionError(f"{path} is no {what}: {_first_line(error)}", []) from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path} holds a {type(content).__name__}, not a {what}", [])
    return content


def check_entries(content: Mapping[str, Any], kinds: Mapping[str, type], what: str) -> None:
    """
    Checks that a configuration has the entries that are read, each of its type.

    Raises:
        ConversionError: lists those that are missing or of another type.
    """
    problems = [f"missing {key}" for key in kinds if key not in content]
    problems += [
        f"{key} is {content[key]!r}, not of type {kind.__name__}"
        for key, kind in kinds.items()
        if key in content and not isinstance(content[key], kind)
    ]
    if problems:
        raise ConversionError(what, problems)


def write_safetensors(path: str | Path, shapes: Shapes, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """
    Writes float32 tensors as they come, so that only one of them is in memory.

    Args:
        shapes: shape of each tensor by name, in the order of `tensors`.
        tensors: (name, tensor), on the CPU.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # the format aligns the data to 8 bytes
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for (name, tensor), expected in zip(tensors, shapes, strict=True):
            if name != expected or tuple(tensor.shape) != tuple(shapes[name]):
                raise AssertionError(f"{name} {list(tensor.shape)} came where {expected} was announced")
            tensor.detach().float().contiguous().numpy().tofile(file)
