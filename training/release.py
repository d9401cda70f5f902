"""A trained model → the folder that users load: fp16 weights that open as fp32, configuration, processor."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.whole_files import whole_folder

CONFIG_NAME = "config.json"


def save_release(model: PreTrainedModel, processor: GPTFaceProcessor, target: str | Path) -> Path:
    """
    Writes model and processor into `target`: weights as fp16, the configuration (and nested ones) says float32, so
    that `from_pretrained` gives fp32 parameters. The folder appears as a whole, with what else was in it before.

    Raises:
        ValueError: where a weight is not finite as fp16.
    """
    target = Path(target)
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"weights that are not finite as fp16: {broken[:5]}")
    with whole_folder(target, replace=True) as scratch:
        if target.is_dir():
            shutil.copytree(target, scratch, dirs_exist_ok=True)
        model.save_pretrained(scratch, state_dict=state)
        processor.save_pretrained(scratch)
        config_path = scratch / CONFIG_NAME
        config = json.loads(config_path.read_text())
        for nested in _with_nested(config):
            nested["dtype"] = "float32"
            nested.pop("_name_or_path", None)  # a folder of the machine that it was made on
        config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return target


def _with_nested(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A configuration and those inside of it, which have a model type of their own."""
    yield config
    for value in config.values():
        if isinstance(value, dict) and "model_type" in value:
            yield from _with_nested(value)


def release_with_face_parser(checkpoint: str | Path, parser: GPTFaceParser, target: str | Path) -> Path:
    """
    Writes the checkpoint of a folder or Hub name into `target` with a face parser inside, in the place of the one that
    it may have.

    Raises:
        OSError: where there is no checkpoint.
        ValueError: where a weight is not finite as fp16.
    """
    model = GPTFaceForPreTraining.from_pretrained(checkpoint, dtype=torch.float32)
    model.config.face_parser_config = parser.config
    model.gptface.face_parser = parser
    return save_release(model, GPTFaceProcessor.from_pretrained(checkpoint), target)
