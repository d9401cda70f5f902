"""The command `gptface finetune`."""

import argparse
from pathlib import Path
from typing import Any

from .common import given


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "finetune", help="fine-tune a classification head by a recipe; resumes where it stopped"
    )
    parser.add_argument(
        "head", help='"attributes", "expression", another head of the checkpoint, or the name of a new one'
    )
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes")
    parser.add_argument("--from", dest="start_from", help="checkpoint to start from; the embedded one by default")
    parser.add_argument("--train", action="append", help="replaces the recipe's data; may be given several times")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.set_defaults(run=run_finetune)


def run_finetune(options: argparse.Namespace) -> int:
    from gptface.training.finetuning import FineTuningConfig, finetune

    replaced = given(options, "start_from", "train", "output_dir")
    config = FineTuningConfig.from_yaml(options.config, **replaced)
    print(finetune(options.head, config))
    return 0
