"""Files and folders that are there whole or not at all, for whoever looks, and after a kill, a full disk or a power cut."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """
    A scratch name beside `path` to write a file to; the file takes the name `path` when the block ends well, in the place of one that
    may be there. After an error nothing is left of it.

    ```python
    with whole_file("report.json") as scratch:
        scratch.write_text("{}")
    ```

    Raises:
        OSError: the folder is missing or the disk is full.
    """
    path = Path(path)
    # the ending stays: some writers go by it
    scratch = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield scratch
        publish(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(target: str | Path) -> Iterator[Path]:
    """
    A scratch folder beside `target` that takes its name when the block ends well; after an error nothing is left of it.

    Raises:
        FileExistsError: where `target` is a file or a folder that is not empty.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already: name a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    scratch.mkdir()
    try:
        yield scratch
        if target.exists():
            target.rmdir()
        publish(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file that appears whole."""
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def publish(scratch: Path, path: Path) -> None:
    """
    Renames a finished file, or a folder with all that is in it, in the place of a file that may be there. What it holds is on the disk
    before the name is: else a power cut could leave the name on something empty.
    """
    if scratch.is_dir():
        for parent, _, names in os.walk(scratch):
            for name in names:
                _sync(Path(parent, name))
            _sync(Path(parent))
    else:
        _sync(scratch)
    os.replace(scratch, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # no folder can be opened there
        return
    # Windows syncs what is open for writing alone
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
