"""Checkpoints of a training run: folders that appear whole, and the newest that is whole."""

import json
import logging
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from gptface.processing.whole_files import publish

logger = logging.getLogger(__name__)

UNFINISHED = "unfinished"


def last_whole_checkpoint(folder: str | Path) -> str | None:
    """
    The newest `checkpoint-N` of a training folder that was written to its end, None where there is none. Each newer
    one that is passed over is named in a warning.
    """
    found = [
        path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()
    ]
    for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        damage = what_is_cut(path)
        if damage is None:
            return str(path)
        logger.warning("%s is not whole (%s): the checkpoint before it is used", path, damage)
    if found:
        logger.warning("%s holds no whole checkpoint: training begins anew", folder)
    return None


def what_is_cut(checkpoint: Path) -> str | None:
    """The first file of a checkpoint that is missing or was not written to its end; None where all are whole."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    except (OSError, ValueError):
        return TRAINER_STATE_NAME
    for path in sorted(checkpoint.iterdir()):
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, "pt"):  # compares the file's length with what its header says
                    pass
            except (OSError, SafetensorError):
                return path.name
        # what torch.save writes: the directory of the archive stands at its end
        elif path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return path.name
    return None


def save_rounded(model: PreTrainedModel, target: Path) -> None:
    """
    Rounds the weights to fp16 in place and writes them as fp32; the folder appears whole.

    Raises:
        ValueError: where a weight is not finite as fp16.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter.half())
            if not torch.isfinite(parameter).all():
                raise ValueError(f"the weight {name} is not finite as fp16")
    unfinished = target.with_name(f"{UNFINISHED}_{target.name}")
    model.save_pretrained(unfinished)
    publish(unfinished, target)
