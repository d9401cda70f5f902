"""Pictures with texts and labels from untrusted collections: parquet files, webdataset tars, folders, rows of a data
set.

[`read_samples`] is a stream in a fixed order, and the only reader of pictures in this package. What is damaged or
hostile in a collection is counted by reason, named and left out; the rest goes on. Nothing is extracted to disk, no
name from a collection is ever opened as a path, and no picture is decoded here.
"""

import glob
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .refusals import readable, refuse
from .tar_reading import read_groups

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PICTURE_SUFFIXES = frozenset(["jpg", "jpeg", "png", "webp", "gif", "bmp"])
SHARD_SUFFIXES = (".tar", ".parquet")
TEXT_COLUMNS = ("text", "caption")
MAX_PICTURE_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 2**20
#: The most patterns that the braces of a path may stand for: shards are named by five digits.
MAX_PATTERNS = 100_000
# As long as values are of ordinary size: a dictionary can repeat a large one in every row.
_ROWS_PER_BATCH = 32
_MAX_BATCH_BYTES = 256 * 2**20
# Pictures and texts shrink by a few times at most; a page that swells so much more is made to fill the memory.
_MAX_SWELLING = 100
# of a nested column; a run of equal numbers takes no room in the file
_MAX_VALUES_PER_ROW = 10_000

#: A path (see [`read_samples`]), or rows: a `datasets.Dataset`, a list of dictionaries.
Source = str | os.PathLike | Iterable[Mapping[str, Any]]


@dataclass
class Sample:
    """
    Args:
        key: stable name, unique in its collection: `"STEM/ROW"` for a parquet row, `"STEM/MEMBER"` for a member of a
            tar (STEM is the file's name without suffix), the path relative to the folder for a picture in one; never
            with a suffix.
        image: the encoded picture as it was found, at most `MAX_PICTURE_BYTES`; perhaps no picture at all.
        text: what was said of it, uncleaned; `None` where there is nothing.
        columns: all else that is known: the other columns of the row, the fields of `key.json`, `label` in a folder of
            classes. A class of `datasets` is known by its name.
        row: its number in its file, folder or data set; those that are left out have one, too, where they can be
            counted.
    """

    key: str
    image: bytes
    text: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    row: int = 0


def read_samples(
    source: Source, refused: Counter[str] | None = None, columns: Collection[str] | None = None
) -> Iterator[Sample]:
    """
    Streams the samples of a collection; the order is always the same.

    Args:
        source: a parquet file with an `image` column ({"bytes", "path"} or bytes) and, if it has one, `text` or
            `caption`; a tar with `key.jpg` (or .png, .webp, …), `key.txt` and `key.json` as img2dataset writes them;
            several of one kind, as a folder, a glob pattern or braces (`"{00000..00012}.tar"`); or a folder of
            pictures with texts of the same name (`a.jpg`, `a.txt`). A picture in a subfolder that has no text gets the
            subfolder's name as the column `label`. Or rows, whose `image` may be a PIL picture, too.
        refused: gains a count for every reason for which something was left out.
        columns: of a parquet file, those to read beside picture and text; by default all but times and bytes.

    Raises:
        FileNotFoundError: there is no such file, or no file of a known kind.
        ValueError: not one sample could be read; says why.

    ```python
    refused = Counter()
    for sample in read_samples([{"image": open("examples/portrait.jpg", "rb").read(), "Smiling": 1}], refused):
        print(sample.key, sample.columns)
    ```
    """
    refused = Counter() if refused is None else refused
    found = False
    for part in list_sources(source, refused) if isinstance(source, (str, os.PathLike)) else [source]:
        for sample in read_source(part, refused, columns):
            found = True
            yield sample
    if not found:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(refused.items()))
        raise ValueError(f"{name_of(source)} holds no picture: {reasons or 'it is empty'}")


def list_sources(path: str | os.PathLike, refused: Counter[str] | None = None) -> list[Path]:
    """
    The parts of a collection that can be read on their own, in order: its tars, its parquet files, or one folder of
    pictures. What is called like one and is no regular file (a folder, a pipe, a link to nothing) is counted as such.

    Raises:
        FileNotFoundError: there is no such file, or no file of a known kind.
    """
    found = Path(path)
    if found.is_file():
        if found.suffix not in SHARD_SUFFIXES:
            raise FileNotFoundError(f"{found} is neither a .tar nor a .parquet file nor a folder")
        return [found]
    if found.is_dir():
        for suffix in SHARD_SUFFIXES:
            if files := _regular(sorted(found.glob(f"*{suffix}")), refused):
                return files
        if next(_walk(found, PICTURE_SUFFIXES), None) is None:
            raise FileNotFoundError(f"{found} holds no .tar, no .parquet and no picture")
        return [found]
    names = [name for pattern in _expand_braces(os.fspath(path)) for name in sorted(glob.glob(pattern))]
    files = _regular([Path(name) for name in names if name.endswith(SHARD_SUFFIXES)], refused)
    if not files:
        raise FileNotFoundError(f"{path} does not exist and matches no .tar or .parquet file")
    return files


def _regular(files: list[Path], refused: Counter[str] | None) -> list[Path]:
    for file in files:
        if not file.is_file():
            refuse(refused, "not a regular file", str(file))
    return [file for file in files if file.is_file()]


def read_source(
    source: Path | Iterable[Mapping[str, Any]], refused: Counter[str], columns: Collection[str] | None = None
) -> Iterator[Sample]:
    """
    The samples of one part that [`list_sources`] names, or of rows; see [`read_samples`]. Never raises for what is
    wrong in it.
    """
    if not isinstance(source, Path):
        yield from _read_rows(source, refused)
    elif source.is_dir():
        yield from _read_folder(source, refused)
    else:
        try:
            tar = source.suffix == ".tar"
            yield from _read_tar(source, refused) if tar else _read_parquet(source, refused, columns)
        except OSError as error:
            refuse(refused, "unreadable file", str(source), error)


def name_of(source: Source) -> str:
    """How messages call a collection."""
    return readable(os.fsdecode(source)) if isinstance(source, (str, os.PathLike)) else "the data set"


def content_hashes(source: Source) -> list[tuple[str, str]]:
    """
    (name, SHA-256 of what is read of it) of every part of a collection: whether it is still what it was. See
    [`read_samples`].
    """
    if not isinstance(source, (str, os.PathLike)):
        digest = hashlib.sha256()
        for sample in _read_rows(source, None):
            known = repr((sample.text, sorted(sample.columns.items())))
            digest.update(hashlib.sha256(sample.image).digest() + hashlib.sha256(known.encode()).digest())
        return [(name_of(source), digest.hexdigest())]
    return [(readable(part.name), _hash_of_part(part)) for part in list_sources(source)]


def file_hash(path: Path) -> str:
    """SHA-256 of a file; an empty string where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _hash_of_part(part: Path) -> str:
    if not part.is_dir():
        return file_hash(part)
    digest = hashlib.sha256()
    for path in _walk(part, {*PICTURE_SUFFIXES, "txt"}):
        if path.is_file() and not path.is_symlink():
            digest.update(os.fsencode(path.relative_to(part)) + b"\0" + file_hash(path).encode())
    return digest.hexdigest()


def class_names(source: Source) -> dict[str, list[str]]:
    """Column → the names of its classes, where it is a `ClassLabel` of datasets, in their order."""
    if not isinstance(source, (str, os.PathLike)):
        features = getattr(source, "features", None) or {}
        return {name: list(feature.names) for name, feature in features.items() if hasattr(feature, "names")}
    import pyarrow.parquet as pq

    names: dict[str, list[str]] = {}
    for part in list_sources(source):
        if part.suffix == ".parquet" and part.is_file():
            try:
                names |= _class_names(pq.read_schema(part))
            except (OSError, ValueError):  # it is counted where it is read
                continue
    return names


def _class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """What datasets writes into the metadata of its parquet files."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(map(str, each["names"])) for name, each in features.items() if each["_type"] == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def picture_bytes(value: Any) -> bytes | None:
    """A cell that holds a picture: {"bytes", "path"}, bytes or a PIL picture → its encoded bytes, if there are any."""
    if isinstance(value, Mapping):  # `path` in it is a claim of whoever made the file: never opened
        value = value.get("bytes")
    if isinstance(value, Image.Image):
        stream = io.BytesIO()
        value.save(stream, "PNG")
        return stream.getvalue()
    return value if isinstance(value, bytes) and value else None


def _expand_braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise ImportError('braces in a path need braceexpand: pip install "gptface[prepare]"') from error
    if _count_names(pattern) > MAX_PATTERNS:
        raise ValueError(f"{pattern:.200} stands for more than {MAX_PATTERNS} names: name a folder, or use *")
    return list(braceexpand(pattern))


def _count_names(pattern: str) -> int:
    """For how many names the braces stand, at most."""
    count, inside = 1, re.compile(r"\{([^{}]*)\}")
    while groups := inside.findall(pattern):
        for group in groups:
            numbers = re.fullmatch(r"([+-]?\d+)\.\.([+-]?\d+)(\.\.[+-]?\d+)?", group)
            ends = (
                [int(numbers[1][:30]), int(numbers[2][:30])]
                if numbers
                else [0, max(group.count(","), 255 * (".." in group))]
            )
            count = min(count * (abs(ends[1] - ends[0]) + 1), MAX_PATTERNS + 1)
        pattern = inside.sub("", pattern)
    return count


# -------------------------------------------------------------------------------------------------------------------
# rows


def _read_rows(rows: Iterable[Mapping[str, Any]], refused: Counter[str] | None) -> Iterator[Sample]:
    classes = class_names(rows)
    if hasattr(rows, "cast_column"):
        from datasets import Image as Picture

        if isinstance((getattr(rows, "features", None) or {}).get("image"), Picture):
            rows = rows.cast_column("image", Picture(decode=False))  # a damaged one would end the stream
    for number, row in enumerate(rows):
        columns = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
        sample = _sample_from_row(f"{number:08d}", number, columns.pop("image", None), columns, classes, refused)
        if sample is not None:
            yield sample


def _sample_from_row(
    key: str,
    row: int,
    picture: Any,
    columns: dict[str, Any],
    classes: Mapping[str, list[str]],
    refused: Counter[str] | None,
) -> Sample | None:
    try:
        image = picture_bytes(picture)
    except (OSError, ValueError) as error:
        refuse(refused, "damaged picture", key, error)
        return None
    if image is None:
        refuse(refused, "no picture", key)
        return None
    if len(image) > MAX_PICTURE_BYTES:
        refuse(refused, "oversized member", key)
        return None
    for name, known in classes.items():
        value = columns.get(name)
        if isinstance(value, int):  # -1: unknown
            columns[name] = known[value] if 0 <= value < len(known) else None
    return Sample(key, image, _text_of(columns), columns, row)


def _text_of(columns: dict[str, Any]) -> str | None:
    """Takes the text out of the columns: the first of `TEXT_COLUMNS` that holds one."""
    for name in TEXT_COLUMNS:
        if isinstance(columns.get(name), str):
            return columns.pop(name)
    return None


# ----------------------------------------------------------------------------------------------------------------
# parquet


def _read_parquet(path: Path, refused: Counter[str], wanted: Collection[str] | None) -> Iterator[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            if "image" not in schema.names:
                names = ", ".join(map(str, schema.names))
                refuse(refused, "no column `image`", f"{path} (its columns are {names:.1000})")
                return
            columns = ["image", *(name for name in schema.names if name != "image" and _is_read(schema, name, wanted))]
            classes, row = _class_names(schema), 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if _swells(file, group):
                    refuse(refused, "oversized member", f"{path}, row group {group}", count=rows)
                    row += rows
                    continue
                for number, values in _read_row_group(file, path, group, columns, refused):
                    key = f"{readable(path.stem)}/{row + number:08d}"
                    image = values.pop("image")
                    sample = _sample_from_row(key, row + number, image, values, classes, refused)
                    if sample is not None:
                        yield sample
                row += rows
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a schema that is not UTF-8
        refuse(refused, "damaged file", f"the rest of {path}", error)


def _is_read(schema: "pa.Schema", name: str, wanted: Collection[str] | None) -> bool:
    """Times and bytes are nothing that a label, a text or JSON can be."""
    import pyarrow as pa

    if wanted is not None:
        return name in wanted or name in TEXT_COLUMNS
    kind = schema.field(schema.names.index(name)).type
    others = (pa.types.is_temporal, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return not any(test(kind) for test in (*others, pa.types.is_decimal))


def _read_row_group(
    file: "pq.ParquetFile", path: Path, group: int, columns: list[str], refused: Counter[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    (number in the group, values of the columns). A column with a damaged page is left out from there on; where it is
    the picture's, the rest of the group is.
    """
    import pyarrow as pa

    done, rows = 0, file.metadata.row_group(group).num_rows
    names = list(columns)
    while True:
        seen = 0
        try:
            for batch in file.iter_batches(_rows_at_once(file, group), [group], _paths(file, names)):
                seen += batch.num_rows
                if seen <= done:
                    continue
                table = {name: _values(batch[name], refused, f"{path}, column {name}") for name in names}
                for number in range(batch.num_rows):
                    yield done + number, {name: values[number] for name, values in table.items()}
                done = seen
            return
        except (pa.ArrowException, OSError, ValueError) as error:
            intact = [name for name in names if _is_intact(file, group, name)]
            if "image" not in intact or intact == names:
                place = f"{path}, rows {done} to {rows - 1} of row group {group}"
                refuse(refused, "damaged page", place, error, rows - done)
                return
            for name in set(names) - set(intact):
                refuse(refused, "damaged column", f"{path}, row group {group}, {name}", error)
            names = intact


def _paths(file: "pq.ParquetFile", names: list[str]) -> list[str]:
    """Of a picture ({"bytes", "path"}) the bytes alone."""
    import pyarrow as pa

    kinds = {name: file.schema_arrow.field(file.schema_arrow.names.index(name)).type for name in names}
    return [
        f"{name}.bytes" if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else name
        for name, kind in kinds.items()
    ]


def _is_intact(file: "pq.ParquetFile", group: int, name: str) -> bool:
    import pyarrow as pa

    try:
        for _ in file.iter_batches(_rows_at_once(file, group), [group], _paths(file, [name])):
            pass
        return True
    except (pa.ArrowException, OSError, ValueError):
        return False


def _rows_at_once(file: "pq.ParquetFile", group: int) -> int:
    """So few that a batch is no larger than `_MAX_BATCH_BYTES` even if each row repeats all that the group holds."""
    metadata = file.metadata.row_group(group)
    largest = max(metadata.column(index).total_uncompressed_size for index in range(metadata.num_columns))
    return max(1, min(_ROWS_PER_BATCH, _MAX_BATCH_BYTES // max(largest, 1)))


def _swells(file: "pq.ParquetFile", group: int) -> bool:
    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(index) for index in range(metadata.num_columns)]
    return any(
        chunk.total_uncompressed_size > max(_MAX_BATCH_BYTES, _MAX_SWELLING * chunk.total_compressed_size)
        or chunk.num_values > _MAX_VALUES_PER_ROW * metadata.num_rows
        for chunk in chunks
    )


def _values(column: "pa.Array", refused: Counter[str], what: str) -> list[Any]:
    """The Python values; `None` in the place of those that are none, such as strings that are not UTF-8."""
    try:
        return column.to_pylist()
    except Exception:  # OverflowError, UnicodeDecodeError, unknown time zones: each kind of value has its own
        values = []
        for scalar in column:
            try:
                values.append(scalar.as_py())
            except Exception as error:
                refuse(refused, "unreadable value", what, error)
                values.append(None)
        return values


# --------------------------------------------------------------------------------------------------------------------
# tar


def _read_tar(path: Path, refused: Counter[str]) -> Iterator[Sample]:
    """Members that share a name up to the first dot of the file name are one sample."""
    expected = _expected_hash(path)
    if expected and expected != file_hash(path):
        refuse(refused, "damaged shard", f"{path} (it is not what {path.stem}_stats.json says)")
        return
    for row, (name, group) in enumerate(read_groups(path, _member_limit, refused)):
        key = f"{readable(path.stem)}/{name}"
        image = next((data for suffix, data in group.items() if suffix in PICTURE_SUFFIXES), None)
        if not image:
            refuse(refused, "no picture", key)
            continue
        columns = _parse_columns(group["json"], key, refused) if "json" in group else {}
        text = _decode_text(group["txt"], key, refused) if "txt" in group else _text_of(columns)
        yield Sample(key, image, text, columns, row)


def _expected_hash(path: Path) -> str | None:
    """The SHA-256 that `gptface prepare` writes beside its shards."""
    statistics = path.with_name(f"{path.stem}_stats.json")
    try:
        return json.loads(statistics.read_bytes())["sha256"] if statistics.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _member_limit(suffix: str) -> int:
    """The most bytes that are read of a member; 0 for a type that nobody reads."""
    if suffix in PICTURE_SUFFIXES:
        return MAX_PICTURE_BYTES
    return MAX_TEXT_BYTES if suffix in ("txt", "json") else 0


def _parse_columns(data: bytes, key: str, refused: Counter[str]) -> dict[str, Any]:
    try:
        columns = json.loads(data)
        if not isinstance(columns, dict):
            raise ValueError("not an object")
        if b"\\u" in data:  # halves of a pair are no text, though JSON can spell them
            columns = json.loads(json.dumps(columns, ensure_ascii=False).encode("utf-8", "replace"))
        return columns
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not UTF-8
        refuse(refused, "damaged json", key, error)
        return {}


def _decode_text(data: bytes, key: str, refused: Counter[str]) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(refused, "text is not UTF-8", key, error)
        return None


# -----------------------------------------------------------------------------------------------------------------
# folder


def _walk(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """The files of a folder and its subfolders with these suffixes, in order."""
    for parent, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower().removeprefix(".") in suffixes:
                yield Path(parent, name)


def _read_folder(folder: Path, refused: Counter[str]) -> Iterator[Sample]:
    for row, path in enumerate(_walk(folder, PICTURE_SUFFIXES)):
        key = readable(path.relative_to(folder).with_suffix("").as_posix())
        image = _read_bounded(path, MAX_PICTURE_BYTES, refused)
        if image is None:
            continue
        text_path = path.with_suffix(".txt")
        data = _read_bounded(text_path, MAX_TEXT_BYTES, refused) if os.path.lexists(text_path) else None
        text = None if data is None else _decode_text(data, key, refused)
        has_class = data is None and path.parent != folder
        yield Sample(key, image, text, {"label": readable(path.parent.name)} if has_class else {}, row)


def _read_bounded(path: Path, limit: int, refused: Counter[str]) -> bytes | None:
    # A link in a folder that came from elsewhere could carry any file of this machine into the output.
    if path.is_symlink() or not path.is_file():
        refuse(refused, "not a regular file", str(path))
        return None
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        refuse(refused, "unreadable file", str(path), error)
        return None
    if len(data) > limit:
        refuse(refused, "oversized member", str(path))
        return None
    return data
