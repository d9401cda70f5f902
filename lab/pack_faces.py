"""Packs the faces to pre-train on into a few small files: `python lab/pack_faces.py DATA_DIR TARGET_DIR`.

DATA_DIR holds the sets as parquet files in train/ and validation/. In TARGET_DIR come to lie

- pack128_a.parquet and pack128_b.parquet, a row a face: `image` (WebP of the project's crop, 128×128; of CelebA at
  half size 64×64), `source`, `covered` (which of the 16×16 cells lie wholly inside of the source picture,
  `numpy.packbits` in raster order; elsewhere its outermost pixels are repeated), the attributes of CelebA,
  `sunglasses` (dark lenses; then `Eyeglasses` is unknown), `emotion`, `age` and `grey` (the picture has no colour).
  Null is unknown.
- pack256.parquet: `image` at 256×256, `source`, `mask` (PNG of 19 classes, or null), `grey`.
- validation128.parquet and validation256.parquet: the same of other people.
- landmarks/: what the detector found in the sets that are aligned differently, so that a second run is quick.

The files are for those who may use the sets; they are not to be passed on.
"""

import argparse
import functools
import io
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import ArrayLike
from PIL import Image

from gptface.data.detected_crops import crop_by_landmarks, find_landmarks, is_alike
from gptface.data.encode import LAYOUT_LANDMARKS, is_grey, pixels_from_images, project_crop
from gptface.data.labels import VOTES, emotion_of, labels_of
from gptface.data.lenses import glasses_labels, lens_brightness
from gptface.data.phrases import PHRASES, SUNGLASSES
from gptface.processing.alignment import CROP_SIZE, apply, compose, crop_matrix, inverse, translation
from gptface.processing.detection import LANDMARK_BIAS, FaceNotFoundError, YuNetDetector
from gptface.processing.image_loading import load_image

#: The 40 of CelebA; two of them are never said.
ATTRIBUTES = sorted((*PHRASES, "Attractive", "Blurry"))
GRID = 16
CLOSE_UP_CROP, CLOSE_UP_SIDE = 90, 160
ALL_COVERED = np.ones((GRID, GRID), bool)
#: Every picture that is searched holds a face: the detector may be less sure than elsewhere.
LEAST_CONFIDENCE = 0.5
VALIDATION_ROWS = 300


@dataclass(frozen=True)
class FaceSet:
    """
    Args:
        file: under DATA_DIR, without suffix.
        kind: `"celeba"`, `"aligned"` (to the crop already) or `"tight"` (searched for the face).
        quality: of WebP.
        usual: `"tight"`: the set's name in `LAYOUT_LANDMARKS`.
        rows: at most so many; the first, or of a set with emotions as evenly over them as can be, less those where no
            face is found.
    """

    file: str
    kind: str
    quality: int
    usual: str = ""
    rows: int | None = None

    @property
    def name(self) -> str:
        return Path(self.file).name


# Among what fits 72 MB. At 80 the codes of two thirds of the cells stay what they were, as when a picture moves by a
# quarter of a pixel.
TRAINING = [
    FaceSet("train/celeba178", "celeba", 80),
    FaceSet("train/celeba89", "celeba", 82),
    FaceSet("train/utkface128", "tight", 70, "utkface128"),
    FaceSet("train/utkface128_more", "tight", 70, "utkface128"),
    FaceSet("train/rafdb100", "tight", 70, "rafdb100", rows=8400),
    FaceSet("train/ferplus48", "tight", 70, "fer48", rows=3400),
    FaceSet("train/portraits256", "aligned", 70),
    FaceSet("train/celebamask256", "aligned", 70),
]
VALIDATION = [FaceSet("validation/celeba178", "celeba", 85, rows=VALIDATION_ROWS)]
LARGE_QUALITY = 80


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Column → values; pictures and masks as their encoded bytes."""
    table = pq.read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return {
        name: [value["bytes"] if value else None for value in values] if name in ("image", "mask") else values
        for name, values in columns.items()
    }


def row_of(columns: Mapping[str, Sequence[Any]], row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in columns.items() if name != "image"}


class CloseUpDetector(YuNetDetector):
    """
    Looks first where the faces of a set usually lie: four times as fast as a search, within two pixels of 128 of what
    that finds.
    """

    def look(self, image: Image.Image, usual: ArrayLike) -> np.ndarray | None:
        """Landmarks [5, 2] of the face near `usual`, or None where there seems to be none."""
        landmarks = np.asarray(usual, dtype=np.float64)
        margin = (CLOSE_UP_SIDE - CLOSE_UP_CROP) / 2
        for last in (False, True):
            matrix = compose(crop_matrix(landmarks, CLOSE_UP_CROP), translation(margin, margin))
            # OpenCV counts from the centres of pixels
            centred = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ [0.5, 0.5] - 0.5])
            square = (CLOSE_UP_SIDE, CLOSE_UP_SIDE)
            pixels = cv2.warpAffine(np.asarray(image), centred, square, borderMode=cv2.BORDER_REPLICATE)
            found = self._central_landmarks(Image.fromarray(pixels))
            if found is None:
                return None
            if last:
                mirrored = self._central_landmarks(Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])))
                if mirrored is None:
                    return None
                found = (found + [CLOSE_UP_SIDE, 0] + mirrored[[1, 0, 2, 4, 3]] * [-1, 1]) / 2
            landmarks = apply(inverse(matrix), found - LANDMARK_BIAS * (CLOSE_UP_CROP / CROP_SIZE))
        return landmarks


@functools.cache
def detector() -> CloseUpDetector:
    """One a process."""
    cv2.setNumThreads(1)
    return CloseUpDetector(LEAST_CONFIDENCE)


def search(picture: bytes, usual: str) -> np.ndarray:
    """Landmarks [5, 2], NaN where there is no face."""
    image, expected = load_image(picture), LAYOUT_LANDMARKS[usual]
    landmarks = detector().look(image, expected)
    if landmarks is not None and is_alike(landmarks, expected, image.size):
        return landmarks
    try:
        return find_landmarks(image, detector(), expected)
    except FaceNotFoundError:
        return np.full((5, 2), np.nan)


def landmarks_of(faces: FaceSet, pictures: Sequence[bytes], kept: Path, pool: Any) -> np.ndarray:
    """Landmarks [N, 5, 2] of a set, from the file `kept` where they have been found before."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.stack(pool.map(functools.partial(search, usual=faces.usual), pictures, chunksize=32)))
    return np.load(kept)


def chosen_rows(faces: FaceSet, columns: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """Row numbers of a set that are packed, ascending."""
    rows = np.arange(len(columns["image"]))
    if faces.rows is None:
        return rows
    if not {"NF", "emotion"} & columns.keys():
        return rows[: faces.rows]
    of_emotion = defaultdict(list)
    for row in rows.tolist():
        emotion = emotion_of(row_of(columns, row))
        if emotion is not None:
            of_emotion[emotion].append(row)
    # the rarest first: what they cannot fill goes to the others
    chosen: list[int] = []
    for left, members in zip(range(len(of_emotion), 0, -1), sorted(of_emotion.values(), key=len), strict=True):
        share = min(len(members), (faces.rows - len(chosen)) // left)
        chosen += [members[index] for index in np.linspace(0, len(members) - 1, share).astype(int)]
    return np.array(sorted(chosen))


def webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def pack_row(job: tuple[bytes, dict[str, Any], np.ndarray | None], faces: FaceSet) -> dict[str, Any]:
    """A row of pack128 from a picture, its other columns and, of a tight set, the landmarks (NaN: the usual ones)."""
    torch.set_num_threads(1)
    picture, known, landmarks = job
    image, covered = load_image(picture), ALL_COVERED
    if landmarks is not None:
        usual = LAYOUT_LANDMARKS[faces.usual]
        crop, covered = crop_by_landmarks(image, landmarks if np.isfinite(landmarks).all() else usual)
    else:
        crop = project_crop(image, faces.kind, 64 if image.width == 89 else 128)
    seen = labels_of({name: value for name, value in known.items() if name != "emotion" and name not in VOTES})
    large = crop.resize((128, 128), Image.Resampling.BICUBIC)
    seen = glasses_labels(seen, float(lens_brightness(pixels_from_images([large]))[0]))
    said = {**known, "Eyeglasses": None, **seen}  # with the two attributes that have no phrases
    return {
        **{name: said.get(name) for name in (*ATTRIBUTES, SUNGLASSES)},
        "image": webp(crop, faces.quality),
        "source": faces.name,
        "covered": np.packbits(covered).tobytes(),
        "emotion": emotion_of(known),
        "age": known.get("age"),
        "grey": is_grey(image),
    }


def pack_large_row(job: tuple[bytes, bytes | None], source: str) -> dict[str, Any]:
    """A row of pack256 from a picture that is aligned already."""
    picture, mask = job
    image = project_crop(load_image(picture), "aligned", 256)
    return {"image": webp(image, LARGE_QUALITY), "source": source, "mask": mask, "grey": is_grey(image)}


def pack_set(faces: FaceSet, data: Path, target: Path, pool: Any) -> list[dict[str, Any]]:
    """The rows of a set for pack128."""
    columns = read_columns(data / f"{faces.file}.parquet")
    pictures = columns["image"]
    rows = chosen_rows(faces, columns)
    landmarks: Sequence[np.ndarray | None] = [None] * len(rows)
    if faces.kind == "tight":
        landmarks = landmarks_of(
            faces, [pictures[row] for row in rows], target / "landmarks" / f"{faces.name}.npy", pool
        )
        found = np.isfinite(landmarks).all(axis=(1, 2))
        print(
            f"{faces.file}: face found in {found.mean():.1%}; median {np.nanmedian(landmarks, 0).round(1).tolist()}",
            flush=True,
        )
        if faces.rows is not None:  # there are enough without
            rows, landmarks = rows[found], landmarks[found]
    jobs = [(pictures[row], row_of(columns, row), points) for row, points in zip(rows, landmarks, strict=True)]
    return pool.map(functools.partial(pack_row, faces=faces), jobs, chunksize=64)


def pack_large(files: Sequence[str], data: Path, pool: Any) -> list[dict[str, Any]]:
    """The rows of pack256."""
    packed = []
    for file in files:
        columns = read_columns(data / f"{file}.parquet")
        masks = columns.get("mask", [None] * len(columns["image"]))
        jobs = list(zip(columns["image"], masks, strict=True))
        packed += pool.map(functools.partial(pack_large_row, source=Path(file).name), jobs, chunksize=32)
    return packed


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Writes rows as parquet, says what is in them and returns the file's size in bytes."""
    table = pa.Table.from_pylist(list(rows), schema_of(rows[0]))
    pq.write_table(
        table, path, compression="zstd", use_dictionary=["source", "emotion"] if "emotion" in rows[0] else ["source"]
    )
    size = path.stat().st_size
    print(
        f"{path.name}: {size / 1e6:.2f} MB, {len(rows)} rows: {dict(Counter(row['source'] for row in rows))}",
        flush=True,
    )
    return size


def schema_of(row: Mapping[str, Any]) -> pa.Schema:
    types = {
        "image": pa.binary(),
        "source": pa.string(),
        "covered": pa.binary(GRID**2 // 8),
        "emotion": pa.string(),
        "age": pa.int16(),
        "grey": pa.bool_(),
        "mask": pa.binary(),
    }
    return pa.schema([(name, types.get(name, pa.int8())) for name in row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and validation/ parquet files")
    parser.add_argument("target", type=Path, help="folder of the packs")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    options.target.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(options.workers) as pool:
        rows = [row for faces in TRAINING for row in pack_set(faces, options.data, options.target, pool)]
        validation = [row for faces in VALIDATION for row in pack_set(faces, options.data, options.target, pool)]
        large = pack_large(["train/portraits256", "train/celebamask256"], options.data, pool)
        large_validation = pack_large(["validation/celebamask256"], options.data, pool)
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[index] for index in order]
    taken = write(large, options.target / "pack256.parquet")
    taken += write(validation, options.target / "validation128.parquet")
    taken += write(large_validation, options.target / "validation256.parquet")
    # what a row takes beside its picture is little after compression
    sizes = np.cumsum([len(row["image"]) + 40 for row in rows])
    first = int(np.searchsorted(sizes, (sizes[-1] - taken) / 2))
    taken += write(rows[:first], options.target / "pack128_a.parquet")
    second = write(rows[first:], options.target / "pack128_b.parquet")
    print(f"{taken / 1e6:.2f} MB and {second / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
