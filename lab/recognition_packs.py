"""Faces with labels for recognition, out of small packed files into tensors: see `lab/pack_recognition.py` and
`lab/pack_faces.py`.
"""

import functools
import hashlib
import io
import multiprocessing
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

#: In alphabetical order, as the classes of the head.
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
PACKS = ("recognition*.parquet", "pack128*.parquet")
#: Digests, a line each, of pictures that are kept for measuring.
LEFT_OUT = "left_out.txt"
#: From this age on a face is not young where the data say an age and nothing else.
YOUNG_BELOW = 40


@dataclass
class RecognitionFaces:
    """
    Args:
        images: [N, S, S, 3] uint8, aligned crops.
        expression: [N, 7] shares of the annotators; all 0 where nobody was asked.
        attributes: [N, L] 0/1, −1 = unknown.
        age: [N] years, NaN = unknown.
        source: [N], which of `names` each comes from.
        names: of the sets.
    """

    images: torch.Tensor
    expression: torch.Tensor
    attributes: torch.Tensor
    age: torch.Tensor
    source: torch.Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: str | torch.device) -> "RecognitionFaces":
        tensors = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "names"}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def digest(picture: bytes) -> str:
    """What tells an encoded picture from all others."""
    return hashlib.sha1(picture).hexdigest()[:16]


def read_packs(
    folders: Sequence[str | Path],
    attributes: Sequence[str],
    size: int = 128,
    limit: int | None = None,
    workers: int | None = None,
) -> RecognitionFaces:
    """
    All packs in the folders. Faces of a set that one pack has with the votes of its annotators are left out of the
    others, and so are those whose digest stands in a `left_out.txt`.

    Args:
        attributes: columns of independent labels; one that a pack lacks is unknown there.
        size: side of the crops; smaller ones are enlarged.
        limit: at most so many faces, an even part of each pack.
        workers: processes that decode pictures; as many as there are cores where it is not given.

    Raises:
        FileNotFoundError: folders without packs.
        ValueError: a pack without pictures.
    """
    import pyarrow.parquet as pq

    files = [path for pattern in PACKS for folder in map(Path, folders) for path in sorted(folder.glob(pattern))]
    if not files:
        raise FileNotFoundError(f"no {' or '.join(PACKS)} in {', '.join(map(str, folders))}")
    left_out = {
        line
        for folder in map(Path, folders)
        if (folder / LEFT_OUT).exists()
        for line in (folder / LEFT_OUT).read_text().split()
    }
    pictures: list[bytes] = []
    parts: list[dict[str, np.ndarray]] = []
    sources: list[str] = []
    with_votes: set[str] = set()
    for file in files:
        table = pq.read_table(file)
        if not {"image", "source"} <= set(table.column_names):
            raise ValueError(f"{file} is no pack of faces: it needs the columns image and source")
        own_sources = table["source"].to_pylist()
        voted = set(EXPRESSIONS) <= set(table.column_names)
        if voted:
            with_votes |= set(own_sources)
        own = table["image"].to_pylist()
        keep = [
            row
            for row, source in enumerate(own_sources)
            if (voted or source not in with_votes) and (not left_out or digest(own[row]) not in left_out)
        ]
        if limit is not None:
            keep = keep[:: max(1, len(keep) * len(files) // limit)]
        pictures += [own[row] for row in keep]
        sources += [own_sources[row] for row in keep]
        parts.append(_labels(table.take(keep), attributes))
    labels = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    decode = functools.partial(_decode, size=size)
    with multiprocessing.Pool(workers) as pool:
        images = np.stack(pool.map(decode, pictures, chunksize=256))
    names = sorted(set(sources))
    return RecognitionFaces(
        torch.from_numpy(images),
        torch.from_numpy(labels["expression"]),
        torch.from_numpy(labels["attributes"]),
        torch.from_numpy(labels["age"]),
        torch.tensor([names.index(source) for source in sources]),
        names,
    )


def _labels(table, attributes: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a table as the arrays of [`RecognitionFaces`]."""
    columns: Collection[str] = table.column_names
    count = table.num_rows

    def numbers(name: str, unknown: float) -> np.ndarray:
        if name not in columns:
            return np.full(count, unknown, np.float32)
        return np.array([unknown if value is None else value for value in table[name].to_pylist()], np.float32)

    votes = np.stack([numbers(name, 0) for name in EXPRESSIONS], 1)
    age = numbers("age", np.nan)
    labels = np.stack([numbers(name, -1) for name in attributes], 1).astype(np.int64)
    if "Young" in attributes:
        young = labels[:, list(attributes).index("Young")]
        told = (young < 0) & ~np.isnan(age)
        young[told] = age[told] < YOUNG_BELOW
    return {
        "expression": votes / np.maximum(votes.sum(1, keepdims=True), 1),
        "attributes": labels,
        "age": age,
    }


def _decode(picture: bytes, size: int) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as encoded:
        image = encoded.convert("RGB")
        return np.asarray(image if image.width == size else image.resize((size, size), Image.Resampling.BICUBIC))
