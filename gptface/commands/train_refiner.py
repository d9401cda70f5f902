"""The command `gptface train-refiner`."""

import argparse
from pathlib import Path
from typing import Any

from .common import given


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("train-refiner", help="train the refiner behind an image tokenizer by a recipe")
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes/refiner.yaml")
    parser.add_argument("--data-dir", help="folder at which the recipe's relative paths start")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.add_argument("--image-tokenizer", help="folder or Hub name of the image tokenizer; replaces the recipe's")
    parser.add_argument("--lpips-weights", help="safetensors file of LPIPS (AlexNet); replaces the recipe's")
    parser.add_argument("--minutes", type=float, help="replaces the recipe's")
    parser.add_argument("--device", help="cuda or cpu; a GPU where there is one by default")
    parser.set_defaults(run=run_train_refiner)


def run_train_refiner(options: argparse.Namespace) -> int:
    from gptface.training.refiner_training import RefinerTrainingConfig, run_refiner_training

    replaced = given(options, "data_dir", "output_dir", "image_tokenizer", "lpips_weights", "minutes", "device")
    print(run_refiner_training(RefinerTrainingConfig.from_yaml(options.config, **replaced)))
    return 0
