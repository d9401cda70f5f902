"""Packs the faces with expressions into one small file: `python lab/pack_recognition.py DATA_DIR TARGET_DIR`.

DATA_DIR holds RAF-DB and FER+ as train/rafdb100.parquet and train/ferplus48.parquet. Every face is found and cut out
as the pipelines do it; where no face is found, by the set's median landmarks. In TARGET_DIR comes to lie
recognition.parquet, a row a face:

- `image`: WebP of the project's crop, 128×128, or 64×64 of the pictures of 48 pixels
- `source`: the set
- a column an expression: how many annotators chose it; ten for the one label of RAF-DB

With `--packs` left_out.txt comes to lie there too: digests of the pictures of UTKFace in the packs of
`lab/pack_faces.py` that are measured on (every tenth row, see `gptface evaluate groups`), which nothing must learn
from.

Left out are rows of FER+ whose majority is contempt, unknown or no face: the head has seven expressions.
landmarks_*.npy keep what the detector found, so that a second run is quick. The file is for those who may use the
sets; it is not to be passed on.
"""

import argparse
import functools
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pack_faces import TRAINING, read_columns, search, webp

from gptface.data.detected_crops import crop_by_landmarks
from gptface.data.encode import LAYOUT_LANDMARKS
from gptface.data.labels import VOTES
from gptface.evaluation.recognition import GROUP_ROWS
from gptface.processing.alignment import CROP_SIZE
from gptface.processing.image_loading import load_image

from .recognition_packs import LEFT_OUT, digest

EXPRESSIONS = sorted({name for name in VOTES.values() if name})
ANNOTATORS = 10


@dataclass(frozen=True)
class ExpressionSet:
    """
    Args:
        name: of the file.
        usual: the set's name in `LAYOUT_LANDMARKS`.
        size: side of the packed crop.
        quality: of WebP.
    """

    name: str
    usual: str
    size: int
    quality: int


SETS = (ExpressionSet("rafdb100", "rafdb100", 128, 62), ExpressionSet("ferplus48", "fer48", 64, 78))


def expression_votes(row: Mapping[str, Any]) -> dict[str, int] | None:
    """Expression → votes of a row; None where most chose none of the seven."""
    if "NF" not in row:
        return {name: ANNOTATORS * (row["emotion"] == name) for name in EXPRESSIONS}
    votes = {emotion: int(row[name]) for name, emotion in VOTES.items() if emotion}
    others = max(int(row[name]) for name, emotion in VOTES.items() if not emotion)
    return votes if max(votes.values()) > others else None


def pack_row(job: tuple[bytes, np.ndarray], faces: ExpressionSet) -> bytes:
    """A picture and its landmarks [5, 2] (NaN: none found) → encoded crop."""
    picture, landmarks = job
    usual = np.asarray(LAYOUT_LANDMARKS[faces.usual], np.float64)
    image = load_image(picture)
    try:
        crop, _ = crop_by_landmarks(image, landmarks if np.isfinite(landmarks).all() else usual, faces.size)
    except ValueError:
        crop, _ = crop_by_landmarks(image, usual, faces.size)
    return webp(crop, faces.quality)


def pack_set(faces: ExpressionSet, data: Path, target: Path, pool: Any, limit: int | None) -> list[dict[str, Any]]:
    columns = read_columns(data / "train" / f"{faces.name}.parquet")
    pictures: Sequence[bytes] = columns.pop("image")
    rows = [{name: values[row] for name, values in columns.items()} for row in range(len(pictures))]
    votes = [expression_votes(row) for row in rows]
    kept = [row for row, chosen in enumerate(votes) if chosen is not None][:limit]
    found = target / f"landmarks_{faces.name}{'' if limit is None else f'_{limit}'}.npy"
    if not found.exists():
        landmarks = pool.map(
            functools.partial(search, usual=faces.usual), [pictures[row] for row in kept], chunksize=32
        )
        np.save(found, np.stack(landmarks))
    landmarks = np.load(found)
    seen = np.isfinite(landmarks).all((1, 2))
    print(
        f"{faces.name}: {len(kept)} of {len(rows)} rows, face found in {seen.mean():.1%}, "
        f"median {np.nanmedian(landmarks, 0).round(1).tolist()}",
        flush=True,
    )
    jobs = [(pictures[row], points) for row, points in zip(kept, landmarks, strict=True)]
    images = pool.map(functools.partial(pack_row, faces=faces), jobs, chunksize=64)
    print(f"{faces.name}: {np.mean([len(image) for image in images]):.0f} bytes a face", flush=True)
    return [
        {"image": image, "source": faces.name, **(votes[row] or {})} for row, image in zip(kept, images, strict=True)
    ]


def measured_digests(data: Path, packs: Path) -> set[str]:
    """Digests of the pictures that `lab/pack_faces.py` made of the rows of UTKFace that are measured on."""
    digests = set()
    for faces in TRAINING:
        if faces.usual != "utkface128":
            continue
        pictures = read_columns(data / f"{faces.file}.parquet")["image"]
        landmarks = np.load(packs / "landmarks" / f"{faces.name}.npy")
        like = ExpressionSet(faces.name, faces.usual, CROP_SIZE, faces.quality)
        for row in range(0, len(pictures), GROUP_ROWS):
            digests.add(digest(pack_row((pictures[row], landmarks[row]), like)))
    packed = {
        digest(picture)
        for path in packs.glob("pack128*.parquet")
        for picture in pq.read_table(path, columns=["image"])["image"].to_pylist()
    }
    print(f"measured on: {len(digests)} faces, {len(digests & packed)} of them in the packs", flush=True)
    return digests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/rafdb100.parquet and train/ferplus48.parquet")
    parser.add_argument("target", type=Path, help="folder of the pack")
    parser.add_argument("--packs", type=Path, help="folder that `lab/pack_faces.py` wrote")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--limit", type=int, help="the first rows of each set only, to try it out")
    options = parser.parse_args()
    options.target.mkdir(parents=True, exist_ok=True)
    if options.packs is not None:
        lines = sorted(measured_digests(options.data, options.packs))
        (options.target / LEFT_OUT).write_text("\n".join(lines) + "\n")
    with multiprocessing.Pool(options.workers) as pool:
        rows = [row for faces in SETS for row in pack_set(faces, options.data, options.target, pool, options.limit)]
    rows = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]
    types = {"image": pa.binary(), "source": pa.string()}
    schema = pa.schema([(name, types.get(name, pa.int8())) for name in rows[0]])
    path = options.target / "recognition.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd", use_dictionary=["source"])
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
