"""The command `gptface train-parser`."""

import argparse
from pathlib import Path
from typing import Any

from .common import given


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("train-parser", help="train a face parser by a recipe; resumes where it stopped")
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes/face_parser.yaml")
    parser.add_argument("--data-dir", help="folder at which the recipe's relative paths start")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.add_argument("--init", metavar="FOLDER", help="face parser to start from")
    parser.add_argument("--device", help='"cuda" or "cpu"; the GPU where there is one by default')
    parser.set_defaults(run=run_train_parser)


def run_train_parser(options: argparse.Namespace) -> int:
    from gptface.training.face_parser_training import FaceParserTrainingConfig, run_face_parser_training

    replaced = given(options, "data_dir", "output_dir", "init", "device")
    print(run_face_parser_training(FaceParserTrainingConfig.from_yaml(options.config, **replaced)))
    return 0
