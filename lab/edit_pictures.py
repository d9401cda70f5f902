"""
Makes the pictures of the table in docs/edits.md: for each edit that the table calls good a portrait before and after
it, marked as edited.

    python lab/edit_pictures.py PORTRAITS [--output examples/edits] [--model DIR] [--edits smiling no_beard]

PORTRAITS is a folder of portraits that may be shown; `SHOWN` says which of them shows which edit. Defaults, seed 0.
"""

import argparse
from pathlib import Path

from contact_sheets import TILE, face_tile, mark_as_edited
from PIL import Image, ImageDraw
from transformers import pipeline

import gptface
from gptface.processing.edits import EDITS, PICTURES
from gptface.processing.image_saving import save_picture
from gptface.processing.provenance import INFO_KEY

#: Edit → portrait: faces without what is asked for.
SHOWN = {
    "smiling": "W000187",
    "happy": "B001295",
    "not_smiling": "M001198",
    "neutral": "C001118",
    "sad": "B001295",
    "angry": "M001225",
    "surprised": "M001198",
    "mouth_open": "C001118",
    "mouth_closed": "H001093",
    "bushy_eyebrows": "B001318",
    "arched_eyebrows": "B001302",
    "no_beard": "P000607",
    "blond_hair": "B001318",
    "black_hair": "H001093",
    "brown_hair": "B001318",
    "gray_hair": "B001296",
    "hat": "M001198",
    "earrings": "P000605",
    "lipstick": "B001318",
    "eyeglasses": "C001118",
    "no_eyeglasses": "F000454",
    "sunglasses": "B001318",
    "beard": "C001118",
    "stubble": "M001198",
    "mustache": "M001198",
    "goatee": "B001295",
    "young": "B001302",
    "old": "C001118",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / PICTURES)
    parser.add_argument("--model", default=str(gptface.DEFAULT_CHECKPOINT))
    parser.add_argument("--edits", nargs="+", default=list(SHOWN), choices=list(SHOWN))
    options = parser.parse_args()
    edit = pipeline("guided-face-editing", model=options.model)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.edits:
        before = Image.open(options.portraits / f"{SHOWN[name]}.jpg").convert("RGB")
        result = edit(before, EDITS[name].phrase, seed=0, force=True)[0]
        pair = Image.new("RGB", (2 * TILE, TILE))
        for place, picture in enumerate((before, result["image"])):
            pair.paste(face_tile(picture, result["box"]), (place * TILE, 0))
        mark_as_edited(ImageDraw.Draw(pair), (TILE, 0))
        pair.info[INFO_KEY] = result["image"].info[INFO_KEY]
        save_picture(pair, options.output / f"{name}.webp")
        print(f"{name}: {result['verified']}, kept {result['kept']}", flush=True)


if __name__ == "__main__":
    main()
