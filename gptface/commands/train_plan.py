"""The command `gptface train-plan`."""

import argparse
from pathlib import Path
from typing import Any

from .common import given


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "train-plan", help="train the plan of an image tokenizer by a recipe; resumes where it stopped"
    )
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes/plan_tokenizer.yaml")
    parser.add_argument("--data-dir", help="folder at which the recipe's relative paths start")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.add_argument("--init", metavar="FOLDER", help="image tokenizer or model; the embedded one by default")
    parser.add_argument("--lpips-weights", help="safetensors file of LPIPS; the `lpips` package by default")
    parser.add_argument("--device", help='such as "cuda"; a GPU where there is one by default')
    parser.set_defaults(run=run_train_plan)


def run_train_plan(options: argparse.Namespace) -> int:
    from gptface import DEFAULT_CHECKPOINT
    from gptface.training.plan_recipe import PlanRecipe, train_plan_by_recipe

    replaced = given(options, "data_dir", "output_dir", "init", "lpips_weights", "device")
    recipe = PlanRecipe.from_yaml(options.config, **replaced)
    recipe.init = recipe.init or DEFAULT_CHECKPOINT
    print(train_plan_by_recipe(recipe))
    return 0
