"""Faces in memory, from whatever collection: their pictures as they were found, or their codes, and all that is said
of them.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .code_dataset import both_sides
from .encode import CODE_COLUMNS, MEASURED_COLUMNS, PLAN_COLUMNS, code_parts, read_part_table
from .sources import Source, class_names, read_samples


@dataclass
class ImageTable:
    """
    Args:
        columns: name → a value for each face, `None` where it has none.
        row_numbers: of each face in its own file [rows].
        pictures: encoded pictures, as they lie in the files; empty where there are codes.
        codes: [rows, 2, cells] uint16 of each face and its mirror image; None where there are pictures.
        classes: name → all classes of a column, in the order of the data, where they say it.
    """

    columns: dict[str, list[Any]]
    row_numbers: np.ndarray
    pictures: list[bytes] = field(default_factory=list)
    codes: np.ndarray | None = None
    classes: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row_numbers)

    @classmethod
    def read(
        cls, source: Source, refused: Counter[str] | None = None, columns: Collection[str] | None = None
    ) -> "ImageTable":
        """All samples of a collection; arguments and errors are those of [`~gptface.data.sources.read_samples`]."""
        samples = list(read_samples(source, refused, columns))
        names = dict.fromkeys(name for sample in samples for name in sample.columns)
        return cls(
            {name: [sample.columns.get(name) for sample in samples] for name in names},
            np.array([sample.row for sample in samples]),
            [sample.image for sample in samples],
            classes=class_names(source),
        )

    @classmethod
    def read_codes(cls, folder: Path, fingerprint: str) -> "ImageTable":
        """
        All rows of a folder that `gptface encode` wrote.

        Raises:
            FileNotFoundError: a folder without parts.
            ValueError: a damaged part, or codes of another image tokenizer than that with this fingerprint.
        """
        import pyarrow as pa

        tables = [read_part_table(part, fingerprint) for part in code_parts(folder)]
        table = pa.concat_tables(tables, promote_options="permissive")
        own = (*CODE_COLUMNS, *PLAN_COLUMNS, *MEASURED_COLUMNS, "key", "text", "source_row")
        columns = {name: table[name].to_pylist() for name in table.column_names if name not in own}
        numbers = table["source_row"].to_numpy() if "source_row" in table.column_names else np.arange(table.num_rows)
        return cls(columns, numbers, codes=both_sides(table, CODE_COLUMNS))
