"""
Puts a trained critic into the folder of a model, in place; every other tensor keeps its bytes.

    python lab/add_critic.py CRITIC.safetensors FOLDER

The critic's file holds its tensors as they are named in the model, `critic.*`, such as those of a folder that `gptface
train-critic` made: any model.safetensors will do. The generator of both must be the same.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gptface.processing.whole_files import whole_file, write_text

PREFIX = "critic."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("critic", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    add_critic(options.critic, options.folder)


def add_critic(critic: Path, folder: Path) -> None:
    """Raises `ValueError` where the file holds no critic."""
    tensors = {name: each.half() for name, each in load_file(critic).items() if name.startswith(PREFIX)}
    if not tensors:
        raise ValueError(f"{critic} holds no tensors {PREFIX}*")
    weights, config = folder / "model.safetensors", folder / "config.json"
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    before = load_file(weights)
    others = {name: each for name, each in before.items() if not name.startswith(PREFIX)}
    with whole_file(weights) as unfinished:
        save_file({**others, **tensors}, unfinished, metadata)
    after = load_file(weights)
    assert all(torch.equal(each.view(torch.uint8), after[name].view(torch.uint8)) for name, each in others.items())
    values = json.loads(config.read_text())
    values |= {"critic_channels": len(tensors[f"{PREFIX}project.bias"]), "critic_trained": True}
    write_text(config, json.dumps(values, indent=2, sort_keys=True) + "\n")
    parameters = sum(tensor.numel() for tensor in tensors.values())
    print(f"{folder}: a critic of {parameters:,} parameters, {weights.stat().st_size:,} bytes in all")


if __name__ == "__main__":
    main()
