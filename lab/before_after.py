"""Makes examples/before_after.jpg: portraits, their edits (defaults, the best match of four), and the mark that they
are edited.

python lab/before_after.py [--model DIR] [--output FILE]
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw
from transformers import pipeline

import gptface
from gptface.evaluation.sheet import side_by_side

EXAMPLES = Path(__file__).parents[1] / "examples"
#: Portrait and prompt; the first is the README's first command.
EDITS = [
    ("serious.jpg", "smiling"),
    ("clean_shaven.jpg", "eyeglasses"),
    ("portrait.jpg", "not smiling"),
    ("clean_shaven.jpg", "blond hair"),
]
CANDIDATES = 4
HEIGHT = 300
GAP = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(gptface.DEFAULT_CHECKPOINT))
    parser.add_argument("--output", type=Path, default=EXAMPLES / "before_after.jpg")
    options = parser.parse_args()
    edit = pipeline("guided-face-editing", model=options.model)
    pairs = []
    for name, prompt in EDITS:
        before = Image.open(EXAMPLES / name).convert("RGB")
        after = edit(before, prompt=prompt, seed=0, num_images_per_prompt=CANDIDATES)[0]["image"]
        size = (round(before.width * HEIGHT / before.height), HEIGHT)
        pairs.append(side_by_side([before.resize(size), labelled(after.resize(size), f"EDITED: {prompt}")]))
    side_by_side(pairs, GAP).save(options.output, quality=90)


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """The picture with the text in its lower left corner."""
    draw = ImageDraw.Draw(picture)
    width = round(draw.textlength(text))
    draw.rectangle((0, picture.height - 22, width + 14, picture.height), fill="white")
    draw.text((7, picture.height - 17), text, fill="black")
    return picture


if __name__ == "__main__":
    main()
