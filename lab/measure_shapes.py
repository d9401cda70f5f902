"""Where expressions and shapes move the parts of a face: `python lab/measure_shapes.py DATA_DIR`.

The points that `processing/face_points.py` finds by the face parser, of faces with a label and without it, relative to
the middle of the eyes and in distances of the eyes. Printed are the differences of the means (outwards, down) and, for
each, how many deviations over the faces that is: expressions of RAF-DB's training faces less its neutral ones, shapes
of CelebA's training faces of one sex with a label less those of the same sex without it, of both sexes the mean. No
face with glasses, none that shows no brow.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pack_faces import search
from transformers import pipeline

import gptface
from gptface.processing.alignment import CELEBA_BOX, CROP_LANDMARKS, crop_matrix
from gptface.processing.face_points import POINTS, FacePoints
from gptface.processing.image_loading import load_image
from gptface.processing.signs import GLASSES

EXPRESSIONS = ("happy", "sad", "angry", "surprise", "fear", "disgust")
SHAPES = (
    "Arched_Eyebrows", "Bushy_Eyebrows", "Big_Lips", "Big_Nose", "Pointy_Nose", "Narrow_Eyes", "High_Cheekbones",
    "Smiling",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="DATA_DIR")
    parser.add_argument("--faces", type=int, default=80, help="of each label and sex")
    parser.add_argument("--only", nargs="*", help="of these labels alone")
    options = parser.parse_args()
    parse = pipeline("face-parsing", model=gptface.DEFAULT_CHECKPOINT)
    wanted = set(options.only or (*EXPRESSIONS, *SHAPES))
    if wanted & set(EXPRESSIONS):
        table = pq.read_table(options.data / "train" / "rafdb100.parquet")
        emotions = np.array(table["emotion"].to_pylist())
        neutral = faces_of(parse, table, np.flatnonzero(emotions == "neutral")[: options.faces], "rafdb100")
        told("neutral", neutral)
        for name in EXPRESSIONS:
            if name in wanted:
                found = faces_of(parse, table, np.flatnonzero(emotions == name)[: options.faces], "rafdb100")
                told(name, found)
                compare(name, [(found, neutral)])
    if wanted & set(SHAPES):
        table = pq.read_table(options.data / "train" / "celeba178.parquet")
        labels = {name: np.array(table[name].to_pylist()) > 0 for name in (*SHAPES, "Male", "Eyeglasses")}
        for name in SHAPES:
            if name not in wanted:
                continue
            pairs = []
            for male in (False, True):
                rows = (labels["Male"] == male) & ~labels["Eyeglasses"]
                with_it, without = (np.flatnonzero(rows & (labels[name] == has)) for has in (True, False))
                pairs.append(tuple(faces_of(parse, table, spread(each, options.faces)) for each in (with_it, without)))
            compare(name, pairs)


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, evenly over all."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def faces_of(parse, table, rows: Sequence[int], usual: str | None = None) -> np.ndarray:
    """The points [N, P, 2] (outwards, down) of faces of a set that show all of them; without `usual` CelebA's."""
    found = []
    for row in rows:
        picture = table["image"][int(row)].as_py()["bytes"]
        landmarks = CROP_LANDMARKS + CELEBA_BOX[:2] if usual is None else search(picture, usual)
        if not np.isfinite(landmarks).all():
            continue
        parsing = parse.parse_face(load_image(picture), crop_matrix(landmarks))
        if GLASSES.worn(parsing):
            continue
        points = FacePoints.of(parsing)
        if len(points.places) == len(POINTS):
            found.append(relative(points))
    return np.array(found)


def relative(points: FacePoints) -> np.ndarray:
    """Points [P, 2] relative to the middle of the eyes, the mean of both sides."""
    middle = points.places["pupil"].mean(0)
    rows = []
    for name in POINTS:
        sides = (points.places[name] - middle) / points.unit
        out, down = sides @ points.along * [-1, 1], sides @ points.across
        rows.append((out.mean(), down.mean()))
    return np.array(rows)


def told(name: str, found: np.ndarray) -> None:
    places = {point: found[:, index].mean(0).round(3).tolist() for index, point in enumerate(POINTS)}
    print(name, len(found), places, flush=True)


def compare(name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Prints how the points of the first faces of each pair differ from those of the second."""
    shift = np.mean([has.mean(0) - lacks.mean(0) for has, lacks in pairs], 0)
    deviation = np.mean([lacks.std(0) for _, lacks in pairs], 0)
    print(f"{name}: {' and '.join(f'{len(has)} against {len(lacks)}' for has, lacks in pairs)} faces")
    for index, point in enumerate(POINTS):
        if np.abs(shift[index]).max() > 0.004:
            sigmas = (shift[index] / np.maximum(deviation[index], 1e-3)).round(1).tolist()
            print(f"  {point}: {shift[index].round(3).tolist()}, deviations {sigmas}", flush=True)


if __name__ == "__main__":
    main()
