"""The command `gptface train-tokenizer`."""

import argparse
from pathlib import Path
from typing import Any

from .common import given


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

    replaced = given(options, "data_dir", "output_dir", "init", "lpips_weights")
    if len(replaced.get("init", ())) == 1:
        replaced["init"] = replaced["init"][0]
    config = ImageTokenizerTrainingConfig.from_yaml(options.config, **replaced)
    print(train_image_tokenizer(config))
    return 0
