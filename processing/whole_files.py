"""Files and folders that are there whole or not at all, for whoever looks, and after a kill, a full disk or a power
cut.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

#: Characters of a name, of up to four bytes each, that its scratch name begins with.
_NAME_SHOWN = 40


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """
    A scratch name beside `path` to write a file to; the file takes the name `path` when the block ends well, in the
    place of one that may be there. After an error nothing is left of it.

    ```python
    with whole_file("report.json") as scratch:
        scratch.write_text("{}")
    ```

    Raises:
        OSError: the folder is missing or the disk is full.
    """
    path = Path(path)
    # the ending stays: some writers go by it; a name as long as the file system allows must not get longer
    scratch = path.with_name(f".{path.stem[:_NAME_SHOWN]}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield scratch
        publish(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(target: str | Path, replace: bool = False) -> Iterator[Path]:
    """
    A scratch folder beside `target` that takes its name when the block ends well; after an error nothing is left of
    it.

    Args:
        replace: take the place of a folder that is there, which goes when the new one stands.

    Raises:
        FileExistsError: where `target` is a file, or without `replace` a folder that is not empty.
    """
    target = Path(target)
    if not (replace and target.is_dir()) and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already: name a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name[:_NAME_SHOWN]}.{uuid.uuid4().hex[:8]}.partial"
    scratch.mkdir()
    try:
        yield scratch
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
    Renames a finished file or folder, in the place of one that may be there. What it holds is on the disk before the
    name is: else a power cut could leave the name on something empty.
    """
    sync(scratch)
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.is_dir():  # no folder can be put over another
        os.replace(path, old)
    os.replace(scratch, path)
    _sync_one(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """
    Waits until a file, or a folder with all that is in it, is on the disk. Raises `OSError` where the disk is full.
    """
    for parent, _, names in os.walk(path):
        for name in names:
            _sync_one(Path(parent, name))
        _sync_one(Path(parent))
    if not path.is_dir():
        _sync_one(path)


def _sync_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # no folder can be opened there
        return
    # Windows syncs what is open for writing alone
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def damage_named(path: str | Path, remedy: str) -> Iterator[None]:
    """
    Inside of the block a file is read and taken apart: what goes wrong with its content becomes one error that names
    it.

    Args:
        remedy: what to do about a damaged file.

    Raises:
        ValueError: the file is empty, cut or damaged.
        OSError: as it came where the file is missing or must not be read.
    """
    try:
        yield
    except (
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        UnpicklingError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have none
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is empty, cut or damaged ({reason:.200}): {remedy}") from error
