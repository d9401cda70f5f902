"""The stages of preparation on Ray Data: parts of the input are read, and pairs are prepared, on any machine of a
cluster.

All machines must see the input under the same path. Duplicates and shards stay with the process that calls, see
`preparation_run`.
"""

import functools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptface.processing.detection import default_detector

from .preparation import PreparationOptions, PreparedSample, prepare_sample, read_located
from .shard_writing import Position

# Ray's own blocks of 128 MiB hold thousands of photos: too coarse to share out among workers.
_BLOCK_BYTES = 8 * 2**20

Row = dict[str, Any]


def prepare_on_ray(
    sources: list[Path], start: Position, options: PreparationOptions, refused: Counter[str]
) -> Iterator[tuple[Position, PreparedSample]]:
    """
    The prepared pairs from `start` on, in the order of the input. Ray is started on this machine unless it runs
    already or the environment names a cluster (`RAY_ADDRESS`).

    Raises:
        ImportError: `ray` is missing.
    """
    try:
        import ray
        from ray.data import DataContext
    except ImportError as error:
        raise ImportError('--ray needs Ray Data: pip install "gptface[ray]"') from error
    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.target_max_block_size = _BLOCK_BYTES
    with DataContext.current(context):
        parts = [{"number": number, "path": os.fsencode(path.resolve())} for number, path in enumerate(sources)]
        rows: ray.data.Dataset = ray.data.from_items(parts, override_num_blocks=len(parts))
        # Reading waits for disks. Without a CPU of its own it is not fused with the work, whose tasks are then as many
        # as there are blocks and not as few as there are files, and it cannot keep them from the only CPU.
        rows = rows.flat_map(functools.partial(_read, start=start), num_cpus=0)
        rows = rows.map(functools.partial(_prepare, options=options), num_cpus=1)
    for row in rows.iter_rows():
        if isinstance(row["item"], Counter):
            refused.update(row["item"])
        else:
            yield (row["number"], row["row"]), row["item"]


def _read(part: Row, start: Position) -> Iterator[Row]:
    """The pairs of one part, and at last what was refused."""
    refused: Counter[str] = Counter()
    for (number, row), sample in read_located(Path(os.fsdecode(part["path"])), part["number"], start, refused):
        yield {"number": number, "row": row, "item": sample}
    yield {"number": part["number"], "row": -1, "item": refused}


def _prepare(row: Row, options: PreparationOptions) -> Row:
    if isinstance(row["item"], Counter):
        return row
    return {**row, "item": prepare_sample(row["item"], options, default_detector())}
