"""Pairs of pictures and captions, ready for a model: codes that were computed once beside JPEG files."""

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from gptface.data.code_dataset import load_code_table
from gptface.data.encode import FINGERPRINT_KEY, ROWS_PER_PART, pixels_from_images

from .models import Size
from .timing import Claim, Comparison, Contender

BATCH = 64
CAPTION = "a smiling woman with blond hair"
FINGERPRINT = "benchmark"


def comparisons(size: Size, mask_ratio: float = 0.15) -> Iterator[Comparison]:
    """One pass over all pairs, each reader in the process that would train, without workers."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        side = size.patch * size.cells
        _write(root, size)
        contenders = [
            Contender("codes", lambda: _read_codes(root / "codes")),
            Contender("DataLoader over JPEG files", lambda: _read_files(root / "jpeg", side)),
        ]
        notes = []
        for name, make in (("webdataset", _webdataset), ("datasets, streaming", _datasets)):
            try:
                contenders.append(Contender(name, make(root / "pairs.tar", side)))
            except ImportError as error:
                notes.append(f"{name} left out: {error}")
        claims = [Claim(each.name, "pairs", size.pairs, size.pairs, 20.0) for each in contenders[1:]]
        yield Comparison(f"{size.pairs} pairs, batches of {BATCH}", contenders, claims, notes)


def _write(root: Path, size: Size) -> None:
    """JPEG files as of CelebA (178×218, smooth), the same in a tar, and codes as `gptface encode` writes them."""
    (root / "jpeg").mkdir()
    (root / "codes").mkdir()
    generator = np.random.default_rng(0)
    encoded = []
    for _ in range(min(size.pairs, 64)):
        small = Image.fromarray(generator.integers(0, 255, (27, 22, 3), dtype=np.uint8))
        data = io.BytesIO()
        small.resize((178, 218), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        encoded.append(data.getvalue())
    with tarfile.open(root / "pairs.tar", "w") as tar:
        for number in range(size.pairs):
            picture = encoded[number % len(encoded)]
            (root / "jpeg" / f"{number:06d}.jpg").write_bytes(picture)
            for suffix, content in (("jpg", picture), ("txt", CAPTION.encode())):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for number, start in enumerate(range(0, size.pairs, ROWS_PER_PART)):
        rows = min(ROWS_PER_PART, size.pairs - start)
        codes = generator.integers(0, size.codes, (rows, size.tokens)).astype(np.uint16)
        column = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), size.tokens)
        table = pa.table({"text": [CAPTION] * rows, "codes": column})
        table = table.replace_schema_metadata({FINGERPRINT_KEY: FINGERPRINT.encode()})
        pq.write_table(table, root / "codes" / f"part-{number:05d}.parquet")


def _read_codes(folder: Path) -> int:
    table = load_code_table([folder], FINGERPRINT)
    order = np.random.default_rng(0).permutation(len(table))
    pairs = 0
    for start in range(0, len(table), BATCH):
        rows = order[start : start + BATCH]
        codes = torch.from_numpy(table.codes[rows, 0].astype(np.int64))
        texts = [table.texts[row] for row in rows]
        pairs += min(len(codes), len(texts))
    return pairs


def _pixels(picture: Image.Image, side: int) -> np.ndarray:
    return np.asarray(picture.convert("RGB").crop((25, 56, 153, 184)).resize((side, side), Image.Resampling.BICUBIC))


def _collate(rows: list[tuple[np.ndarray, str]]) -> tuple[torch.Tensor, list[str]]:
    return pixels_from_images([pixels for pixels, _ in rows]), [text for _, text in rows]


class _Files(Dataset):
    def __init__(self, folder: Path, side: int):
        self.files, self.side = sorted(folder.glob("*.jpg")), side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        with Image.open(self.files[index]) as picture:
            return _pixels(picture, self.side), CAPTION


def _exhaust(loader: Any) -> int:
    return sum(len(texts) for _, texts in loader)


def _read_files(folder: Path, side: int) -> int:
    return _exhaust(DataLoader(_Files(folder, side), batch_size=BATCH, shuffle=True, collate_fn=_collate))


def _webdataset(tar: Path, side: int) -> Callable[[], int]:
    import webdataset

    def read() -> int:
        pairs = webdataset.WebDataset(str(tar), shardshuffle=False).decode("pil").to_tuple("jpg", "txt")
        pairs = pairs.map_tuple(lambda picture: _pixels(picture, side), str)
        return _exhaust(DataLoader(pairs, batch_size=BATCH, collate_fn=_collate))

    return read


def _datasets(tar: Path, side: int) -> Callable[[], int]:
    import datasets

    datasets.disable_progress_bars()

    def read() -> int:
        rows = datasets.load_dataset("webdataset", data_files=str(tar), split="train", streaming=True)

        def collate(batch: list[dict[str, Any]]) -> tuple[torch.Tensor, list[str]]:
            return _collate([(_pixels(row["jpg"], side), row["txt"]) for row in batch])

        return _exhaust(DataLoader(rows, batch_size=BATCH, collate_fn=collate))

    return read
