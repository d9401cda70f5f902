"""The command `gptface train-critic`."""

import argparse
from pathlib import Path
from typing import Any

from .common import given


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "train-critic", help="train a model's critic of drawn tokens by a recipe; resumes where it stopped"
    )
    parser.add_argument("config", type=Path, help="YAML recipe, see training/recipes/critic.yaml")
    parser.add_argument("--data-dir", help="folder at which the recipe's relative paths start")
    parser.add_argument("--output-dir", help="replaces the recipe's")
    parser.add_argument("--init", metavar="FOLDER", help="the generator; the embedded model by default")
    parser.set_defaults(run=run_train_critic)


def run_train_critic(options: argparse.Namespace) -> int:
    from gptface import DEFAULT_CHECKPOINT
    from gptface.training.critic_training import CriticRecipe, train_critic_by_recipe

    replaced = given(options, "data_dir", "output_dir", "init")
    recipe = CriticRecipe.from_yaml(options.config, **replaced)
    recipe.init = recipe.init or str(DEFAULT_CHECKPOINT)
    print(train_critic_by_recipe(recipe))
    return 0
