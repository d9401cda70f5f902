"""
Parquet files from anybody, unpacked within bounds: a few kilobytes can hold one picture for a million rows, or zeros for gigabytes.

What the file says of its own sizes is believed here. Strings and pictures stay what they are in the file, a dictionary and numbers into
it, so that their lengths are known before there is a copy for each row.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

#: How many times larger a column may be than what is stored of it: pictures are compressed already, texts shrink to a tenth.
MAX_EXPANSION = 200
#: The least size from which it counts.
MIN_BOMB_BYTES = 64 * 2**20
#: Most values of a row of nested columns.
MAX_VALUES_PER_ROW = 10_000


def open_parquet(path: Path) -> "pq.ParquetFile":
    """
    Opens a file whose columns of strings and bytes come as dictionaries.

    Raises:
        OSError: the file is missing.
        pyarrow.ArrowInvalid: it is no parquet file, or unpacks to much more than is stored.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    texts = []
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            limit = max(MIN_BOMB_BYTES, MAX_EXPANSION * column.total_compressed_size)
            if column.total_uncompressed_size > limit:
                raise pa.ArrowInvalid(
                    f"{path} stores {column.total_uncompressed_size} bytes of the column {column.path_in_schema} in "
                    f"{column.total_compressed_size}: {MAX_EXPANSION} times as many is the most"
                )
            if column.num_values > MAX_VALUES_PER_ROW * max(rows, 1):
                raise pa.ArrowInvalid(
                    f"{path} has {column.num_values} values of {column.path_in_schema} in {rows} rows: "
                    f"{MAX_VALUES_PER_ROW} a row is the most"
                )
            if group == 0 and column.physical_type == "BYTE_ARRAY":
                texts.append(column.path_in_schema)
    return pq.ParquetFile(path, read_dictionary=texts, metadata=metadata)


def lengths(values: "pa.Array") -> list[int]:
    """Bytes of each value of an array of strings or bytes, or of a dictionary of such; 0 where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(values.type):
        sizes = pc.take(pc.binary_length(values.dictionary), values.indices)
    else:
        sizes = pc.binary_length(values)
    return [size or 0 for size in sizes.to_pylist()]


def without_long_texts(batch: "pa.RecordBatch", limit: int) -> tuple["pa.RecordBatch", int]:
    """A batch with nothing in the place of texts of more than `limit` bytes, and how many there were. Dictionaries become plain columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns, count = [], 0
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            is_long = pa.array([size > limit for size in lengths(column)], pa.bool_())
            count += is_long.true_count
            indices = pc.if_else(is_long, pa.scalar(None, column.indices.type), column.indices)
            column = pc.take(column.dictionary, indices)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, batch.schema.names), count


def read_pictures(column: "pa.Array", limit: int) -> Iterator[bytes | int | None]:
    """
    The encoded pictures of an `image` column ({"bytes", "path"} or bytes), one after another; where one is longer than `limit`, its
    length; None where there is none. Repeated pictures are one object.
    """
    import pyarrow as pa

    # `path` is a claim of whoever made the file: never opened
    values = column.field("bytes") if pa.types.is_struct(column.type) else column
    plain = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_binary(plain) or pa.types.is_large_binary(plain)):
        yield from [None] * len(values)
        return
    last: bytes | None = None
    for row, size in enumerate(lengths(values)):
        if size > limit:
            yield size
        elif not size or not column[row].is_valid:
            yield None
        else:
            data = values[row].as_py()
            last = last if last == data else data
            yield last
