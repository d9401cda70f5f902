"""Pictures with texts from untrusted collections: parquet files, webdataset tars, folders.

[`read_samples`] is a stream in a fixed order. What is damaged or hostile in a collection is counted by reason and left out; the
rest goes on. Nothing is extracted to disk, no name from a collection is ever opened as a path, and no picture is decoded here.
"""

import glob
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .tar_reading import read_members

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset(["jpg", "jpeg", "png", "webp", "gif", "bmp"])
TEXT_COLUMNS = ("text", "caption")
MAX_PICTURE_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 2**20
_ROWS_PER_BATCH = 32


@dataclass
class Sample:
    """
    Args:
        key: stable name, unique in its collection: `"STEM/ROW"` for a parquet row, `"STEM/MEMBER"` for a member of a tar (STEM is
            the file's name without suffix), the path relative to the folder for a picture in one; never with a suffix.
        image: the encoded picture as it was found, at most `MAX_PICTURE_BYTES`; perhaps no picture at all.
        text: what was said of it, uncleaned; `None` where there is nothing.
        columns: all else that is known: the other columns of the row, the fields of `key.json`, `label` in a folder of classes.
    """

    key: str
    image: bytes
    text: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


def read_samples(path: str | os.PathLike, refused: Counter[str] | None = None) -> Iterator[Sample]:
    """
    Streams the samples of a collection; the order is always the same.

    Args:
        path: a parquet file with an `image` column ({"bytes", "path"} or bytes) and, if it has one, `text` or `caption`; a tar
            with `key.jpg` (or .png, .webp, …), `key.txt` and `key.json` as img2dataset writes them; several of one kind, as a
            folder, a glob pattern or braces (`"{00000..00012}.tar"`); or a folder of pictures with texts of the same name
            (`a.jpg`, `a.txt`). A picture in a subfolder that has no text gets the subfolder's name as the column `label`.
        refused: gains a count for every reason for which something was left out.

    Raises:
        FileNotFoundError: there is no such file, or no file of a known kind.
        ValueError: a parquet file without an `image` column.
    """
    refused = Counter() if refused is None else refused
    for file in list_sources(path):
        yield from read_source(file, refused)


def list_sources(path: str | os.PathLike) -> list[Path]:
    """
    The parts of a collection that can be read on their own, in order: its tars, its parquet files, or one folder of pictures.

    Raises:
        FileNotFoundError: there is no such file, or no file of a known kind.
    """
    found = Path(path)
    if found.is_file():
        if found.suffix not in (".tar", ".parquet"):
            raise FileNotFoundError(f"{found} is neither a .tar nor a .parquet file nor a folder")
        return [found]
    if found.is_dir():
        return sorted(found.glob("*.tar")) or sorted(found.glob("*.parquet")) or [found]
    files = [Path(name) for pattern in _expand_braces(os.fspath(path)) for name in sorted(glob.glob(pattern))]
    files = [file for file in files if file.suffix in (".tar", ".parquet") and file.is_file()]
    if not files:
        raise FileNotFoundError(f"{path} does not exist and matches no .tar or .parquet file")
    return files


def read_source(source: Path, refused: Counter[str]) -> Iterator[Sample]:
    """The samples of one part that [`list_sources`] names; see [`read_samples`]."""
    if source.is_dir():
        return _read_folder(source, refused)
    return _read_tar(source, refused) if source.suffix == ".tar" else _read_parquet(source, refused)


def _expand_braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise ImportError('braces in a path need braceexpand: pip install "gptface[prepare]"') from error
    return list(braceexpand(pattern))


# ---------------------------------------------------------------------------------------------------------------- parquet


def _read_parquet(path: Path, refused: Counter[str]) -> Iterator[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            if "image" not in file.schema_arrow.names:
                raise ValueError(f"{path} has no column `image`: its columns are {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(_ROWS_PER_BATCH):
                for values in batch.to_pylist():
                    sample = _sample_from_row(f"{path.stem}/{row:08d}", values, refused)
                    row += 1
                    if sample is not None:
                        yield sample
    except (pa.ArrowException, OSError) as error:
        _refuse(refused, "damaged file", f"{path}, row {row}", error)


def _sample_from_row(key: str, values: dict[str, Any], refused: Counter[str]) -> Sample | None:
    image = values.pop("image")
    if isinstance(image, dict):  # `path` in it is a claim of whoever made the file: never opened
        image = image.get("bytes")
    if not isinstance(image, bytes) or not image:
        _refuse(refused, "no picture", key)
        return None
    if len(image) > MAX_PICTURE_BYTES:
        _refuse(refused, "oversized member", key)
        return None
    return Sample(key, image, _text_of(values), values)


def _text_of(columns: dict[str, Any]) -> str | None:
    """Takes the text out of the columns: the first of `TEXT_COLUMNS` that holds one."""
    for name in TEXT_COLUMNS:
        if isinstance(columns.get(name), str):
            return columns.pop(name)
    return None


# -------------------------------------------------------------------------------------------------------------------- tar


def _read_tar(path: Path, refused: Counter[str]) -> Iterator[Sample]:
    """Members that follow each other and share a name up to the first dot of the file name are one sample."""
    key: str | None = None
    group: dict[str, bytes] = {}
    for name, suffix, data in read_members(path, _member_limit, refused):
        if name != key:
            yield from _sample_from_group(path.stem, key, group, refused)
            key, group = name, {}
        if suffix in group:
            _refuse(refused, "repeated member", f"{path}, {name}.{suffix}")
        else:
            group[suffix] = data
    yield from _sample_from_group(path.stem, key, group, refused)


def _member_limit(suffix: str) -> int:
    """The most bytes that are read of a member; 0 for a type that nobody reads."""
    if suffix in PICTURE_SUFFIXES:
        return MAX_PICTURE_BYTES
    return MAX_TEXT_BYTES if suffix in ("txt", "json") else 0


def _sample_from_group(
    stem: str, name: str | None, group: dict[str, bytes], refused: Counter[str]
) -> Iterator[Sample]:
    if name is None:
        return
    key = f"{stem}/{name}"
    image = next((data for suffix, data in group.items() if suffix in PICTURE_SUFFIXES), None)
    if not image:
        _refuse(refused, "no picture", key)
        return
    columns = _parse_columns(group["json"], key, refused) if "json" in group else {}
    text = _decode_text(group["txt"], key, refused) if "txt" in group else _text_of(columns)
    yield Sample(key, image, text, columns)


def _parse_columns(data: bytes, key: str, refused: Counter[str]) -> dict[str, Any]:
    try:
        columns = json.loads(data)
        if not isinstance(columns, dict):
            raise ValueError("not an object")
        return columns
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not UTF-8
        _refuse(refused, "damaged json", key, error)
        return {}


def _decode_text(data: bytes, key: str, refused: Counter[str]) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(refused, "text is not UTF-8", key, error)
        return None


# ----------------------------------------------------------------------------------------------------------------- folder


def _read_folder(folder: Path, refused: Counter[str]) -> Iterator[Sample]:
    found = False
    for parent, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower().removeprefix(".") not in PICTURE_SUFFIXES:
                continue
            found = True
            key = path.relative_to(folder).with_suffix("").as_posix()
            image = _read_bounded(path, MAX_PICTURE_BYTES, refused)
            if image is None:
                continue
            text_path = path.with_suffix(".txt")
            data = _read_bounded(text_path, MAX_TEXT_BYTES, refused) if os.path.lexists(text_path) else None
            text = None if data is None else _decode_text(data, key, refused)
            has_class = data is None and path.parent != folder
            yield Sample(key, image, text, {"label": path.parent.name} if has_class else {})
    if not found:
        raise FileNotFoundError(f"{folder} holds no .tar, no .parquet and no picture")


def _read_bounded(path: Path, limit: int, refused: Counter[str]) -> bytes | None:
    # A link in a folder that came from elsewhere could carry any file of this machine into the output.
    if path.is_symlink() or not path.is_file():
        _refuse(refused, "not a regular file", str(path))
        return None
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        _refuse(refused, "unreadable file", str(path), error)
        return None
    if len(data) > limit:
        _refuse(refused, "oversized member", str(path))
        return None
    return data


def _refuse(refused: Counter[str], reason: str, what: str, error: BaseException | None = None) -> None:
    refused[reason] += 1
    logger.info("%r left out: %s%s", what, reason, f" ({error})" if error else "")
