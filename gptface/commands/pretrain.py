"""The command `gptface pretrain`."""

import argparse
import os
from pathlib import Path
from typing import Any

from .common import given


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("pretrain", help="pre-train (MILM and ITM) by a recipe; resumes where it stopped")
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes")
    parser.add_argument("--from", dest="start_from", help="folder of a checkpoint to continue from")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.add_argument("--minutes", type=float, help="time until the final model is written; replaces the recipe's")
    parser.set_defaults(run=run_pretrain)


def run_pretrain(options: argparse.Namespace) -> int:
    from gptface.training.pretraining import PreTrainingConfig, pretrain

    replaced = given(options, "start_from", "output_dir", "minutes")
    config = PreTrainingConfig.from_yaml(options.config, **replaced)
    target = pretrain(config)
    if os.environ.get("RANK", "0") == "0":  # torchrun and accelerate start a process each
        print(target)
    return 0
