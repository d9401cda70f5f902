"""A trained model → the folder that users load: fp16 weights that open as fp32, configuration, processor."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel

from gptface.processing.processing_gptface import GPTFaceProcessor

CONFIG_NAME = "config.json"


def save_release(model: PreTrainedModel, processor: GPTFaceProcessor, target: str | Path) -> Path:
    """
    Writes model and processor into `target`: weights as fp16, the configuration (and nested ones) says float32, so that
    `from_pretrained` gives fp32 parameters. The files appear whole: they are written beside the target and renamed.

    Raises:
        ValueError: where a weight is not finite as fp16.
    """
    target = Path(target)
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"weights that are not finite as fp16: {broken[:5]}")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model.save_pretrained(scratch, state_dict=state)
        processor.save_pretrained(scratch)
        config_path = Path(scratch) / CONFIG_NAME
        config = json.loads(config_path.read_text())
        config["dtype"] = config["image_tokenizer_config"]["dtype"] = "float32"
        config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for file in sorted(Path(scratch).iterdir()):
            os.replace(file, target / file.name) if file.is_file() else shutil.copytree(
                file, target / file.name, dirs_exist_ok=True
            )
    return target
