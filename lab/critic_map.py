"""
What the critic looks at: portraits, their edits, and how real it finds each token of the drawn plan (red: drawn).

    python lab/critic_map.py PORTRAITS [--output examples/sheets/critic_map.webp] [--seed 1]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contact_sheets import TILE, face_tile, mark_as_edited
from PIL import Image, ImageDraw
from transformers import pipeline

import gptface
from gptface.processing.image_saving import save_picture

EDITS = (
    ("H001093.jpg", "bangs"),
    ("F000454.jpg", "bangs"),
    ("H001093.jpg", "eyeglasses"),
    ("M001225.jpg", "surprised"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path, help="folder of portraits that may be shown")
    sheets = Path(__file__).parents[1] / "examples" / "sheets"
    parser.add_argument("--output", type=Path, default=sheets / "critic_map.webp")
    parser.add_argument("--model", default=str(gptface.DEFAULT_CHECKPOINT))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    edit = pipeline("guided-face-editing", model=options.model)
    sheet = Image.new("RGB", (3 * TILE, len(EDITS) * TILE), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, prompt) in enumerate(EDITS):
        photo = Image.open(options.portraits / name).convert("RGB")
        result, real = edited_with_map(edit, photo, prompt, options.seed)
        tiles = face_tile(photo, result["box"]), face_tile(result["image"], result["box"]), over(result["face"], real)
        for column, tile in enumerate(tiles):
            sheet.paste(tile, (column * TILE, row * TILE))
        for column in (1, 2):
            mark_as_edited(draw, (column * TILE, row * TILE))
    save_picture(sheet, options.output)


def edited_with_map(edit: Any, photo: Image.Image, prompt: str, seed: int) -> tuple[dict[str, Any], torch.Tensor]:
    """The result of an edit, and how probable it is for the critic that the tokens of its plan are real [P]."""
    plans = []

    def keep(_: Any, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> None:
        if tensors["codes"].shape[1] == edit.model.config.num_critic_tokens:
            plans.append(tensors["codes"])

    result = edit(photo, prompt=prompt, seed=seed, force=True, callback_on_step_end=keep)[0]
    return result, edit.model.criticise(plans[-1])[0].sigmoid()


def over(crop: Image.Image, real: torch.Tensor) -> Image.Image:
    """A crop in grey, the redder the less real its tokens [P] are."""
    side = int(len(real) ** 0.5)
    unreal = Image.fromarray(np.rint(255 * (1 - real.reshape(side, side).numpy())).astype(np.uint8))
    shade = unreal.resize((TILE, TILE), Image.Resampling.BICUBIC)
    grey = crop.convert("L").convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", grey.size, "red"), grey, shade.point(lambda value: value * 0.7))


if __name__ == "__main__":
    main()
