"""
What held-out phrasings do to faces: whether an edit stays where it belongs, and leaves a face.

    python lab/measure_phrasings.py FACES [--faces 24] [--phrasings 20] [--model DIR]

FACES is a parquet file or folder of photos with one face each, such as DATA_DIR/validation/celeba178.parquet. The
phrasings are evenly spread over tests/processing/phrasings_held_out.csv, with those that are to be refused. Prints a
line an edit and what became of all of them.
"""

import argparse
import csv
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import pipeline

import gptface
from gptface.evaluation.changes import VISIBLE, first_photos
from gptface.processing.detection import FaceNotFoundError
from gptface.processing.edits import EDITS
from gptface.processing.hair import refine_hair
from gptface.processing.masks import cells_to_mask
from gptface.processing.part_colour import PartColour
from gptface.processing.prompt_reading import UnknownEditError
from gptface.processing.regions import region_cells

PHRASINGS = Path(__file__).parents[1] / "tests" / "processing" / "phrasings_held_out.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="FACES")
    parser.add_argument("--faces", type=int, default=24)
    parser.add_argument("--phrasings", type=int, default=20)
    parser.add_argument("--model", default=str(gptface.DEFAULT_CHECKPOINT))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # they say what was ignored of a prompt
    with PHRASINGS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [rows[index] for index in np.linspace(0, len(rows) - 1, options.phrasings).astype(int)]
    edit = pipeline("guided-face-editing", model=options.model)
    counts: Counter[str] = Counter()
    for number, photo in enumerate(first_photos(options.photos, options.faces, edit)):
        for row in rows:
            found = outcome(edit, photo.image, row["text"])
            counts.update(found)
            print(f"face {number}, {row['text']!r}: {', '.join(found)}", flush=True)
    print(", ".join(f"{name}: {count}" for name, count in counts.most_common()))


def outcome(edit: Any, photo: Image.Image, prompt: str) -> list[str]:
    """What became of a prompt, in words that can be counted."""
    before = np.array(photo)
    try:
        result = edit(photo, prompt, seed=0)[0]
    except UnknownEditError:
        return ["refused", "photo untouched" if (np.asarray(photo) == before).all() else "PHOTO CHANGED"]
    changed = np.abs(np.asarray(result["image"]).astype(int) - before).max(2)
    if result["note"] is not None and not changed.any():
        return ["there already", "photo untouched"]
    inside_mask = not changed[np.asarray(result["mask"]) == 0].any()
    inside_regions = not (changed > VISIBLE)[~regions(edit, photo, result["edits"])].any()
    try:
        edit.find_faces(result["image"])
        face = "face found"
    except FaceNotFoundError:
        face = "NO FACE"
    return [
        "edited",
        "inside of its mask" if inside_mask else "OUTSIDE OF ITS MASK",
        "inside of its regions" if inside_regions else "OUTSIDE OF ITS REGIONS",
        face,
    ]


def regions(edit: Any, photo: Image.Image, names: list[str]) -> np.ndarray:
    """
    Where edits of the table may change a photo, bool [height, width]: cells of the regions of those that are drawn,
    parts of those that recolour.
    """
    (face,) = edit.find_faces(photo)
    allowed = np.zeros((photo.height, photo.width), bool)
    for row in (EDITS[name] for name in names):
        if isinstance(row.transfer, PartColour):
            parsing = edit.parse_face(photo, face.matrix)
            parsing = refine_hair(photo, parsing) if row.transfer.part == "hair" else parsing
            allowed |= parsing.photo_mask(row.transfer.part, photo.size) > 0
        elif row.transfer is not None:  # laid out around the face, not by its regions
            allowed |= edit.parse_face(photo, face.matrix).photo_mask("person", photo.size) > 0
        else:
            cells = cells_to_mask(region_cells(row.regions, edit.model.config.grid_size), edit.face_size)
            crop = Image.fromarray((cells * 255).astype(np.uint8))
            coefficients = np.asarray(face.matrix).ravel().tolist()
            placed = crop.transform(photo.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
            allowed |= np.asarray(placed) > 0
    return allowed


if __name__ == "__main__":
    main()
