"""A collection of raw pairs → a folder of face shards: reading, the stages in processes or on Ray, duplicates,
writing.

Pairs are taken apart in any order but put together in that of the input, in one place: of duplicates the first stays,
and neither the number of workers nor Ray changes a byte of the shards.
"""

import functools
import json
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from gptface.processing.detection import default_detector

from .claimed_folder import claimed_folder, read_json, write_json
from .preparation import (
    Detector,
    DuplicateIndex,
    Face,
    PreparationOptions,
    PreparedSample,
    prepare_sample,
    read_located,
)
from .shard_writing import Position, ShardStatistics, ShardWriter, finished_shards
from .sources import Sample, content_hashes, list_sources

_SAMPLES_PER_TASK = 4
_TASKS_PER_WORKER = 3  # under way: enough to keep all busy, few enough to bound memory
_STATISTICS_FILE = "statistics.json"

Located = tuple[Position, PreparedSample]


def run_preparation(
    source: str | os.PathLike,
    output: Path,
    options: PreparationOptions | None = None,
    workers: int = 1,
    use_ray: bool = False,
    detector: Detector | None = None,
) -> dict[str, Any]:
    """
    Makes face shards of what [`read_samples`] reads; returns the statistics, which are also written to
    `statistics.json`.

    A run that was stopped goes on behind its last finished shard.

    Args:
        source: see [`read_samples`].
        output: folder of the shards.
        workers: processes; ignored by Ray.
        use_ray: run the stages on Ray Data: on the cluster that the environment names, or on this machine.
        detector: finds the faces, in this process only (`workers` is 1); YuNet by default.

    Raises:
        FileNotFoundError: there is no such input.
        ValueError: `output` was made from another input or with other options, holds something else, or a file of it
            is damaged.
        ImportError: a library of the extra `prepare` (or `ray`) is missing.
        OSError: a worker process died, or another run is writing into `output`.
    """
    options = options or PreparationOptions()
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    refused: Counter[str] = Counter()
    sources = list_sources(source, refused)
    with claimed_folder(output, {**asdict(options), "input": content_hashes(source)}):
        return _fill(sources, output, options, workers, use_ray, detector, refused)


def _fill(
    sources: list[Path],
    output: Path,
    options: PreparationOptions,
    workers: int,
    use_ray: bool,
    detector: Detector | None,
    refused: Counter[str],
) -> dict[str, Any]:
    if (output / _STATISTICS_FILE).exists():
        return read_json(output / _STATISTICS_FILE, ["samples", "faces"], "remove it and run it again")
    finished = finished_shards(output)
    start = finished[-1].end if finished else (0, 0)
    prepared: Iterator[Located]
    if use_ray:
        from .ray_preparation import prepare_on_ray

        prepared = prepare_on_ray(sources, start, options, refused)
    else:
        samples = _located_samples(sources, start, refused)
        if workers == 1:
            prepared = _prepare_here(samples, options, detector or default_detector())
        else:
            prepared = _prepare_in_processes(samples, options, workers)
    total = ShardStatistics()
    with closing(prepared):  # type: ignore[type-var]
        total, shards = _write_shards(prepared, output, options, finished)
    statistics = {
        "samples": _account(total.samples, "read"),
        "faces": _account(total.faces, "found"),
        "refused_members": dict(sorted(refused.items())),
        "face_sizes": {size: total.sizes[size] for size in sorted(total.sizes, key=int)},
        "uncaptioned": total.uncaptioned,
        "shards": shards,
        "bytes": total.bytes,
        "seconds": round(total.seconds, 2),
    }
    write_json(output / _STATISTICS_FILE, statistics)
    return statistics


def _located_samples(sources: list[Path], start: Position, refused: Counter[str]) -> Iterator[tuple[Position, Sample]]:
    for number, source in enumerate(sources):
        yield from read_located(source, number, start, refused)


def _prepare_here(
    samples: Iterable[tuple[Position, Sample]], options: PreparationOptions, detector: Detector
) -> Iterator[Located]:
    for position, sample in samples:
        yield position, prepare_sample(sample, options, detector)


def _prepare_in_processes(
    samples: Iterable[tuple[Position, Sample]], options: PreparationOptions, workers: int
) -> Iterator[Located]:
    samples = iter(samples)
    pool = ProcessPoolExecutor(workers, _process_context(), _start_worker)
    under_way: deque[Future[list[Located]]] = deque()
    work = functools.partial(_prepare_batch, options=options)
    try:
        while True:
            while len(under_way) < workers * _TASKS_PER_WORKER and (batch := list(islice(samples, _SAMPLES_PER_TASK))):
                under_way.append(pool.submit(work, batch))
            if not under_way:
                return
            yield from under_way.popleft().result()
    except BrokenProcessPool as error:
        raise OSError(
            "a worker died, perhaps for want of memory: run it again with fewer workers, finished shards are kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _process_context() -> multiprocessing.context.BaseContext:
    """
    Not forked from here: a child of a process with threads, such as PyTorch's, can wait for ever. Forked from a fresh
    process that has imported the package once, where there is such a thing: that saves each worker seconds and the
    memory of the imports.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the work
    import cv2

    cv2.setNumThreads(1)


def _prepare_batch(batch: list[tuple[Position, Sample]], options: PreparationOptions) -> list[Located]:
    return list(_prepare_here(batch, options, default_detector()))


def _write_shards(
    prepared: Iterable[Located], output: Path, options: PreparationOptions, finished: list[ShardStatistics]
) -> tuple[ShardStatistics, int]:
    """Drops duplicates and writes the rest; returns the sum of all statistics and the number of shards."""
    index = DuplicateIndex(options.max_distance)
    total = ShardStatistics()
    for statistics in finished:
        total.add(statistics)
        for value in statistics.hashes:
            index.add(bytes.fromhex(value))
    shards = len(finished)
    writer, current, started = ShardWriter(output, shards), ShardStatistics(), time.monotonic()

    def close_shard() -> None:
        nonlocal shards, writer, current, started
        current.seconds = round(time.monotonic() - started, 2)
        if writer.faces:
            writer.finish(current)
            shards += 1
        total.add(current)
        writer, current, started = ShardWriter(output, shards), ShardStatistics(), time.monotonic()

    try:
        for (number, row), sample in prepared:
            kept = [face for face in sample.faces if _is_new(face, index, current)]
            for face in kept:
                members = {options.image_format: face.image, "json": face.metadata}
                if sample.text is not None:
                    members["txt"] = sample.text.encode()
                writer.write(f"{number:05d}_{row:08d}_{json.loads(face.metadata)['face']}", members)
                current.bytes += len(face.image)
                current.sizes[str(1 << (face.side.bit_length() - 1))] += 1
            current.uncaptioned += len(kept) * (sample.text is None)
            current.faces.update({"found": sample.found, "kept": len(kept)} | sample.skipped_faces)
            current.samples.update(["read", sample.skipped or ("kept" if kept else "duplicate")])
            current.end = (number, row + 1)
            if writer.faces >= options.shard_size:
                close_shard()
        close_shard()
    finally:
        writer.abandon()
    return total, shards


def _is_new(face: Face, index: DuplicateIndex, statistics: ShardStatistics) -> bool:
    if index.is_duplicate(face.hash):
        statistics.faces["duplicate"] += 1
        return False
    index.add(face.hash)
    statistics.hashes.append(face.hash.hex())
    return True


def _account(counts: Counter[str], total: str) -> dict[str, Any]:
    """{total: …, "kept": …, "skipped": {reason: …}}: the total is the sum of the others."""
    skipped = {name: count for name, count in sorted(counts.items()) if name not in (total, "kept") and count}
    return {total: counts[total], "kept": counts["kept"], "skipped": skipped}
