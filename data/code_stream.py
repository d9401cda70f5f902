"""Encoded faces as an endless stream, for data that do not fit into memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from .code_dataset import CodeTable, folder_weights, read_part, repeated_rows
from .encode import check_fingerprint, code_parts, part_metadata
from .masking import sample_generator

# Generators of the order; those of the samples have the samples' small numbers.
_ORDER = 2**62


class CodeStream(IterableDataset):
    """
    Epoch after epoch of encoded parts: the parts in a random order, and the rows of each `window` parts that follow
    each other shuffled together.

    The order is a function of seed and epoch alone. Every rank and worker takes its own positions of it, so that a
    step sees the same samples on one rank with a batch of 2·B as on two with B, however many workers read, and that a
    run goes on at any position without reading what came before. Each reader reads all parts (an encoded face is about
    a kilobyte).

    Samples are as those of [`CodeDataset`]: `id` is the row's number in the table that [`load_code_table`] would make
    of the folders, `table` the rows in the window (false captions come from these), `row` its number there.

    Args:
        folders, fingerprint: see [`load_code_table`].
        batch_size: samples a batch of one rank, so that workers can share them out by batches.
        window: parts that are in memory and shuffled together.
        rank, world_size: of this process.
        start: position to begin at: how many samples all ranks together have taken before.

    Raises:
        FileNotFoundError: a folder without parts.
        ValueError: codes of another image tokenizer.
    """

    def __init__(
        self,
        folders: Mapping[str, float] | Sequence[str | Path],
        fingerprint: str,
        batch_size: int,
        seed: int = 0,
        window: int = 16,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ):
        self.fingerprint, self.batch_size, self.seed, self.window = fingerprint, batch_size, seed, window
        self.rank, self.world_size, self.start = rank, world_size, start
        self.parts: list[tuple[Path, float]] = []
        counts = []
        for folder, weight in folder_weights(folders).items():
            for part in code_parts(Path(folder)):
                metadata = part_metadata(part)
                check_fingerprint(metadata.metadata, part, fingerprint)
                self.parts.append((part, weight))
                counts.append(len(repeated_rows(metadata.num_rows, weight)))
        self.counts = np.array(counts)
        self.offsets = self.counts.cumsum() - self.counts
        #: Samples of an epoch, over all ranks. No `__len__`: the stream does not end.
        self.rows = int(self.counts.sum())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch = self.start // self.rows
        while True:
            begin = epoch * self.rows
            order = sample_generator(self.seed, epoch, _ORDER).permutation(len(self.parts))
            for index in range(0, len(order), self.window):
                chosen = np.sort(order[index : index + self.window])
                rows = int(self.counts[chosen].sum())
                taken = np.arange(begin, begin + rows) - self.start
                mine = (taken >= 0) & (taken % self.world_size == self.rank)
                mine &= taken // self.world_size // self.batch_size % workers == number
                if mine.any():
                    table = self.read(chosen)
                    ids = np.concatenate([self.offsets[part] + np.arange(self.counts[part]) for part in chosen])
                    shuffled = sample_generator(self.seed, epoch, _ORDER + 1 + index).permutation(rows)
                    for row in shuffled[mine].tolist():
                        yield {"row": row, "id": int(ids[row]), "epoch": epoch, "table": table}
                begin += rows
            epoch += 1

    def read(self, parts: Sequence[int] | np.ndarray) -> CodeTable:
        """The rows of these parts, by number."""
        tables = []
        for path, weight in (self.parts[part] for part in parts):
            table = read_part(path, self.fingerprint)
            tables.append(table.take(repeated_rows(len(table), weight)))
        return CodeTable.concatenate(tables)

    def excerpt(self, parts: int = 64) -> CodeTable:
        """The rows of at most `parts` parts, evenly spread over the folders: for a vocabulary."""
        return self.read(np.unique(np.linspace(0, len(self.parts) - 1, parts).round().astype(int)))
