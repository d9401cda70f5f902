"""Training of an image tokenizer's plan by a recipe."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptface.data.augmentation import FaceAugmentation
from gptface.data.pictures import PictureSource, decode_pictures
from gptface.metrics.lpips_distance import load_lpips

from .checkpoints import save_rounded
from .image_tokenizer_init import load_image_tokenizer
from .plan_training import PlanTrainingSettings, plan_figures, train_plan, with_plan
from .recipe import Recipe

logger = logging.getLogger(__name__)


@dataclass
class PlanRecipe(Recipe):
    """
    What a recipe (YAML) for a plan holds.

    Args:
        output_dir: where the state of the run, its figures and the final image tokenizer go.
        train, evaluation: fields of [`PictureSource`] without its weight, one entry a source; all faces are drawn
            alike.
        data_dir: folder at which relative paths start.
        init: folder of the image tokenizer, alone or in a model; `gptface train-plan` takes the embedded one where it
            is not given.
        plan: `plan_levels` and `plan_channels` of [`GPTFaceImageTokenizerConfig`] for a new plan; without them the one
            of `init` is trained on.
        settings: fields of [`PlanTrainingSettings`]; `augmentation` holds fields of [`FaceAugmentation`].
        lpips_weights: safetensors file of LPIPS (AlexNet); the `lpips` package where it is not given.
        device: such as "cpu" or "cuda"; a GPU where there is one by default.
    """

    output_dir: str
    train: list[dict[str, Any]]
    settings: dict[str, Any]
    init: str | None = None
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    data_dir: str = "."
    plan: dict[str, Any] = field(default_factory=dict)
    lpips_weights: str | None = None
    device: str | None = None

    @classmethod
    def check(cls, path: str | Path, values: dict[str, Any]) -> None:
        missing = [name for name in ("output_dir", "train", "settings") if not values.get(name)]
        if missing:
            raise ValueError(f"{path}: it needs {' and '.join(missing)}")
        if not values.get("plan") and values["settings"].get("latent_share") != 0:
            raise ValueError(
                f"{path}: give `plan` with the levels of a new plan, or train the one of `init` on with "
                "latent_share: 0"
            )

    def training_settings(self) -> PlanTrainingSettings:
        augmentation = FaceAugmentation(**{"erasing": 0.0, **self.settings.get("augmentation", {})})
        return PlanTrainingSettings(**{**self.settings, "augmentation": augmentation})


def train_plan_by_recipe(recipe: PlanRecipe) -> Path:
    """
    Runs a recipe, resuming if it was stopped; returns the folder of the image tokenizer with its plan. `figures.json`
    beside it holds what the plan keeps of the faces of `evaluation`, see [`plan_figures`].

    Raises:
        ValueError: a field of the recipe that cannot be right.
        FloatingPointError: a loss that is not finite; the message names the step.
    """
    settings, output = recipe.training_settings(), Path(recipe.output_dir)
    if recipe.init is None:
        raise ValueError("init must be the folder of an image tokenizer")
    perceptual = load_lpips(recipe.lpips_weights)
    tokenizer = load_image_tokenizer(recipe.init)
    if recipe.plan:
        levels, channels = recipe.plan["plan_levels"], recipe.plan.get("plan_channels", 128)
        tokenizer = with_plan(tokenizer, levels, channels, settings.seed)
    device = recipe.device or ("cuda" if torch.cuda.is_available() else "cpu")
    size = tokenizer.config.image_size
    faces = _read_faces(recipe.train, recipe.data_dir, size, output)
    output.mkdir(parents=True, exist_ok=True)
    train_plan(tokenizer, faces, None, settings, perceptual, device, output / "plan_training.pt")
    save_rounded(tokenizer, output / "final")
    if recipe.evaluation:
        held_out = _read_faces(recipe.evaluation, recipe.data_dir, size, output)
        figures = plan_figures(tokenizer, held_out, perceptual)
        logger.info("held out: %s", figures)
        (output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return output / "final"


def _read_faces(entries: Sequence[dict[str, Any]], data_dir: str, size: int, output: Path) -> torch.Tensor:
    """The faces of all sources [N, size, size, 3] uint8."""
    sources = [PictureSource(**{**entry, "path": str(Path(data_dir, entry["path"]))}) for entry in entries]
    return torch.from_numpy(np.concatenate([decode_pictures(source, size, output / "pictures") for source in sources]))
