"""Makes examples/before_after.jpg: the portrait, its edit by the README's command, and the mark that it is edited.

python benchmarks/before_after.py edited.png
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

EXAMPLES = Path(__file__).parents[1] / "examples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edited", type=Path)
    options = parser.parse_args()
    before, after = Image.open(EXAMPLES / "portrait.jpg").convert("RGB"), Image.open(options.edited).convert("RGB")
    draw = ImageDraw.Draw(after)
    draw.rectangle((0, after.height - 22, 62, after.height), fill="white")
    draw.text((8, after.height - 17), "EDITED", fill="black")
    pair = Image.new("RGB", (before.width + after.width, before.height))
    pair.paste(before, (0, 0))
    pair.paste(after, (before.width, 0))
    pair.save(EXAMPLES / "before_after.jpg", quality=90)


if __name__ == "__main__":
    main()
