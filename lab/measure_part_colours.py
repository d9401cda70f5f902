"""What hair and lips of each colour are like, and teeth: `python lab/measure_part_colours.py DATA_DIR` prints the
`PartColour`s of `processing/edits.py`, and what `processing/mouth.py` knows of teeth beside skin.

Read are faces of DATA_DIR/train/celeba178.parquet: those that have one colour of hair by their labels, no hat and no
bald head; women with and without lipstick; and, for teeth, smiles with an open mouth. What is hair, lips or skin, the
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
from gptface.processing.alignment import CELEBA_BOX, translation
from gptface.processing.part_colour import SURELY, measure_colour, to_oklab

COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
#: Much of what is called so is hardly seen: the share of the faces that show it best, and how well one does, from the
#: mean in Oklab.
CLEAREST = {"lipstick": (0.25, lambda mean: mean[1]), "Gray_Hair": (0.5, lambda mean: -np.hypot(*mean[1:]))}
#: Share of the picture that a part must fill.
LEAST_HAIR, LEAST_LIPS = 0.015, 0.003
#: Share of what is seen between lips that smile, the lightest, that is taken for teeth; and its pixels, at least.
LIGHTEST, LEAST_TEETH = 0.4, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="DATA_DIR")
    parser.add_argument("--faces", type=int, default=160, help="of each colour, the first in file order")
    parser.add_argument("--only", nargs="*", help="of these alone, for example lipstick")
    options = parser.parse_args()
    parse = pipeline("face-parsing", model=gptface.DEFAULT_CHECKPOINT)
    table = pq.read_table(options.data / "train" / "celeba178.parquet")
    names = (*COLOURS, "Wearing_Hat", "Bald", "Wearing_Lipstick", "Male", "Smiling", "Mouth_Slightly_Open")
    labels = {name: np.array(table[name].to_pylist()) > 0 for name in names}
    single = sum(labels[name].astype(int) for name in COLOURS) == 1
    sets = {name: labels[name] & single & ~labels["Wearing_Hat"] & ~labels["Bald"] for name in COLOURS}
    sets |= {
        "lipstick": labels["Wearing_Lipstick"] & ~labels["Male"],
        "no lipstick": ~labels["Wearing_Lipstick"] & ~labels["Male"],
    }
    for name, chosen in sets.items():
        if options.only and name not in options.only:
            continue
        part, least = ("hair", LEAST_HAIR) if name in COLOURS else ("lips", LEAST_LIPS)
        means, deviations = [], []
        for row in np.flatnonzero(chosen)[: options.faces]:
            photo = Image.open(io.BytesIO(table["image"][int(row)].as_py()["bytes"])).convert("RGB")
            parsing = parse.parse_face(photo, translation(-CELEBA_BOX[0], -CELEBA_BOX[1]))
            pixels, seen = np.asarray(photo) / 255, parsing.photo_mask(part, photo.size)
            found = measure_colour(pixels, seen)
            skin = measure_colour(pixels, parsing.photo_mask("facial_skin", photo.size))
            if found is not None and skin is not None and (seen > SURELY).mean() > least:
                means.append(found.mean if part == "hair" else np.subtract(found.mean, skin.mean))
                deviations.append(found.deviation)
        if name in CLEAREST:
            share, clearness = CLEAREST[name]
            best = np.argsort([clearness(mean) for mean in means])[-round(share * len(means)) :]
            means, deviations = ([values[index] for index in best] for values in (means, deviations))
        print(
            f"{name}: {len(means)} faces, Colour({_tuple(np.mean(means, 0))}, {_tuple(np.mean(deviations, 0))})",
            flush=True,
        )
    if not options.only or "teeth" in options.only:
        smiling = np.flatnonzero(labels["Smiling"] & labels["Mouth_Slightly_Open"])
        told_teeth(parse, table, smiling[: options.faces])


def told_teeth(parse, table, rows: np.ndarray) -> None:
    """Prints the colour of teeth by that of skin: slopes and heights of the lines through the faces, in Oklab."""
    teeth, skin = [], []
    for row in rows:
        photo = Image.open(io.BytesIO(table["image"][int(row)].as_py()["bytes"])).convert("RGB")
        parsing = parse.parse_face(photo, translation(-CELEBA_BOX[0], -CELEBA_BOX[1]))
        pixels = to_oklab(np.asarray(photo) / 255)
        between, face = (pixels[parsing.photo_mask(name, photo.size) > 0.8] for name in ("mouth", "facial_skin"))
        if len(between) >= LEAST_TEETH and len(face):
            light = between[:, 0] >= np.quantile(between[:, 0], 1 - LIGHTEST)
            teeth.append(between[light].mean(0))
            skin.append(np.median(face, 0))
    slopes, heights = zip(
        *(np.polyfit(x, y, 1) for x, y in zip(np.transpose(skin), np.transpose(teeth), strict=True)), strict=True
    )
    print(f"teeth: {len(teeth)} faces, slopes {_tuple(slopes)}, heights {_tuple(heights)}", flush=True)


def _tuple(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"


if __name__ == "__main__":
    main()
