"""What hair of each colour is like: `python lab/measure_hair_colours.py DATA_DIR` prints the rows' `HairColour` of `processing/edits.py`.

Read are faces of DATA_DIR/train/celeba178.parquet that have one colour of hair by their labels, no hat and no bald head; what is hair, the
face parser says.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from transformers import pipeline

import gptface
from gptface.processing.alignment import translation
from gptface.processing.hair_colour import measure_colour

COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
#: Corner of the crop in pictures with CelebA's alignment.
CROP_CORNER = (25, 56)
#: Share of the picture that hair must fill.
LEAST_HAIR = 0.015


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="DATA_DIR")
    parser.add_argument("--faces", type=int, default=160, help="of each colour, the first in file order")
    options = parser.parse_args()
    parse = pipeline("face-parsing", model=gptface.DEFAULT_CHECKPOINT)
    table = pq.read_table(options.data / "train" / "celeba178.parquet")
    labels = {name: np.array(table[name].to_pylist()) > 0 for name in (*COLOURS, "Wearing_Hat", "Bald")}
    single = sum(labels[name].astype(int) for name in COLOURS) == 1
    for colour in COLOURS:
        rows = np.flatnonzero(labels[colour] & single & ~labels["Wearing_Hat"] & ~labels["Bald"])[: options.faces]
        found = []
        for row in rows:
            photo = Image.open(io.BytesIO(table["image"][int(row)].as_py()["bytes"])).convert("RGB")
            hair = parse.parse_face(photo, translation(-CROP_CORNER[0], -CROP_CORNER[1])).photo_mask(
                "hair", photo.size
            )
            if (hair > 0.5).mean() > LEAST_HAIR:
                found.append(measure_colour(np.asarray(photo) / 255, hair))
        mean, deviation = (np.mean([getattr(each, name) for each in found], 0) for name in ("mean", "deviation"))
        print(f"{colour}: {len(found)} faces, HairColour({_tuple(mean)}, {_tuple(deviation)})", flush=True)


def _tuple(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"


if __name__ == "__main__":
    main()
