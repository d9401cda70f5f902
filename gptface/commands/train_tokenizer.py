"""The command `gptface train-tokenizer`."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "train-tokenizer", help="train an image tokenizer by a recipe; resumes where it stopped"
    )
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes/tokenizer.yaml")
    parser.add_argument("--data-dir", help="folder at which the recipe's relative paths start")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.add_argument(
        "--init",
        nargs="+",
        metavar="PATH",
        help="folder of an image tokenizer to start from, or two safetensors files: an encoder and a decoder",
    )
    parser.add_argument("--lpips-weights", help="safetensors file of LPIPS; the `lpips` package by default")
    parser.set_defaults(run=run_train_tokenizer)


def run_train_tokenizer(options: argparse.Namespace) -> int:
    from gptface.training.image_tokenizer_training import ImageTokenizerTrainingConfig, train_image_tokenizer

    overrides = {
        "data_dir": options.data_dir,
        "output_dir": options.output_dir,
        "init": options.init[0] if options.init and len(options.init) == 1 else options.init,
        "lpips_weights": options.lpips_weights,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    print(train_image_tokenizer(ImageTokenizerTrainingConfig.from_yaml(options.config, **given)))
    return 0
