"""
Contact sheets of edits for the eye: portraits × prompts, before and after, zoomed to the face.

    python lab/contact_sheets.py PORTRAITS [--output examples/sheets] [--model DIR] [--prompts smiling "a beard"]
        [--count 12]

Each sheet holds the portraits of a folder (by default 12, evenly spread) with the edit by the defaults, seed 0, at the
right of each, marked as edited. Score every edit by the scale: 0 broken, 1 visible artefacts, 2 recognisable but fake,
3 good at a glance, 4 cannot be told.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from transformers import pipeline

import gptface
from gptface.processing.image_saving import save_picture

PROMPTS = (
    "smiling",
    "not smiling",
    "surprised",
    "sad",
    "angry",
    "mouth open",
    "eyeglasses",
    "sunglasses",
    "no eyeglasses",
    "a beard",
    "no beard",
    "blond hair",
    "gray hair",
    "black hair",
    "bangs",
    "a hat",
    "earrings",
    "lipstick",
    "young",
    "old",
)
TILE = 256
COLUMNS = 3  # pairs in a row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path, help="folder of portraits that may be shown")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "examples" / "sheets")
    parser.add_argument("--model", default=str(gptface.DEFAULT_CHECKPOINT))
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    parser.add_argument("--count", type=int, default=12)
    options = parser.parse_args()
    files = sorted(path for path in options.portraits.iterdir() if path.suffix in (".jpg", ".png"))
    files = [files[index] for index in np.linspace(0, len(files) - 1, min(options.count, len(files))).astype(int)]
    edit = pipeline("guided-face-editing", model=options.model)
    options.output.mkdir(parents=True, exist_ok=True)
    for prompt in options.prompts:
        started = time.monotonic()
        sheet = sheet_of_edits(edit, files, prompt)
        save_picture(sheet, options.output / f"{prompt.replace(' ', '_')}.webp")
        print(f"{prompt}: {time.monotonic() - started:.0f} s", flush=True)


def sheet_of_edits(edit, files: list[Path], prompt: str) -> Image.Image:
    """The portraits and their edits in one picture."""
    rows = -(-len(files) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 2 * TILE, rows * TILE + 20), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 4), f"{prompt}: each portrait beside its edit (EDITED by GPTFace)", fill="black")
    for number, file in enumerate(files):
        photo = Image.open(file).convert("RGB")
        result = edit(photo, prompt=prompt, seed=0, force=True)[0]
        left, top = number % COLUMNS * 2 * TILE, number // COLUMNS * TILE + 20
        for place, picture in enumerate((photo, result["image"])):
            sheet.paste(face_tile(picture, result["box"]), (left + place * TILE, top))
        mark_as_edited(draw, (left + TILE, top))
    return sheet


def mark_as_edited(draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    """Writes into the tile whose upper left corner this is that it is edited."""
    place = (corner[0] + 4, corner[1] + TILE - 14)
    draw.text(place, "EDITED", fill="white", stroke_width=1, stroke_fill="black")


def face_tile(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """The face (x0, y0, x1, y1) with its surroundings, `TILE` × `TILE`."""
    x0, y0, x1, y1 = box
    middle, half = ((x0 + x1) / 2, (y0 + y1) / 2), 0.7 * max(x1 - x0, y1 - y0)
    area = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    return picture.transform((TILE, TILE), Image.Transform.EXTENT, area, Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
