"""Encoded faces in memory: codes, labels and texts, and a caption for each (epoch, sample)."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .captions import Caption, contradictions, sample_caption
from .encode import CODE_COLUMNS, PLAN_COLUMNS, code_parts, read_part_table
from .epochs import EpochDataset
from .labels import emotion_of, label_columns, labels_of
from .refusals import refuse
from .sources import TEXT_COLUMNS

logger = logging.getLogger(__name__)

#: What the losses leave out.
IGNORED = -100


def spread_rows(count: int, limit: int | None) -> np.ndarray:
    """
    At most `limit` of `count` row numbers, evenly spread, so that files sorted by label give all of them.

    Raises:
        ValueError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the limit must be at least 1, got {limit}")
    return np.linspace(0, count - 1, count if limit is None else min(count, limit)).astype(int)


@dataclass
class CodeTable:
    """
    Args:
        codes: codes of each face and of its mirror image, [rows, 2, cells] uint16, `ABSENT` where a picture has no
            pixels; without mirror images the same twice.
        labels: what is known of each face (attribute or mention → 0/1, see [`labels_of`]), for captions and their
            contradictions.
        emotions: emotion of each face or None; the labels hold it, too.
        texts: what was written beside each picture, or None: a weak caption that takes the place of one from the
            labels.
        plan_codes: plan codes of the same, [rows, 2, plan tokens] uint16, of an image tokenizer that has a plan.
    """

    codes: np.ndarray
    labels: list[dict[str, int]]
    emotions: list[str | None]
    texts: list[str | None] = field(default_factory=list)
    plan_codes: np.ndarray | None = None

    def __post_init__(self):
        self.texts = self.texts or [None] * len(self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray) -> "CodeTable":
        """The table of these rows."""
        labels, emotions, texts = (
            [column[row] for row in rows] for column in (self.labels, self.emotions, self.texts)
        )
        plan_codes = None if self.plan_codes is None else self.plan_codes[rows]
        return CodeTable(self.codes[rows], labels, emotions, texts, plan_codes)  # type: ignore[arg-type]

    def repeat(self, times: Mapping[str, int]) -> "CodeTable":
        """
        A table in which faces that have an attribute count that many times (the largest number of those that they
        have).

        Raises:
            ValueError: an attribute that no face has.
        """
        for name in times:
            if not any(labels.get(name) == 1 for labels in self.labels):
                raise ValueError(f"repeat: no face of the training rows has {name!r}")
        counts = [max([times[name] for name in times if labels.get(name) == 1], default=1) for labels in self.labels]
        return self.take(np.repeat(np.arange(len(self)), counts)) if times else self

    @staticmethod
    def concatenate(tables: Sequence["CodeTable"]) -> "CodeTable":
        """All rows of the tables, in order."""
        labels: list[Any]
        labels, emotions, texts = (
            [value for table in tables for value in getattr(table, name)] for name in ("labels", "emotions", "texts")
        )
        plans = [table.plan_codes for table in tables if table.plan_codes is not None]
        if plans and len(plans) < len(tables):
            raise ValueError(
                "some of the codes have plan codes and some have none: encode all with one image tokenizer"
            )
        codes = np.concatenate([table.codes for table in tables])
        return CodeTable(codes, labels, emotions, texts, np.concatenate(plans) if plans else None)

    def caption(self, row: int, generator: np.random.Generator, max_mentions: int = 5, plain: float = 0.0) -> Caption:
        """
        A caption of a row: its text if it has one, else a true one with at most `max_mentions` attributes, drawn anew
        for each generator; a share `plain` are lists of committed phrases.
        """
        text = self.texts[row]
        return (
            Caption(text, {}) if text is not None else sample_caption(self.labels[row], generator, max_mentions, plain)
        )

    def contradictions(self, caption: Caption, row: int) -> int:
        """
        How much of a caption is false of a row: its mentions that differ from the labels. Of two weak captions all
        that can be said is whether they are equal: another one than the row's own counts as one contradiction.
        """
        own = self.texts[row]
        if own is not None and not caption.mentions:
            return int(own.casefold() != caption.text.casefold())
        return contradictions(caption.mentions, self.labels[row])


def load_code_table(folders: Mapping[str, float] | Sequence[str | Path], fingerprint: str) -> CodeTable:
    """
    Reads what `gptface encode` wrote, see [`read_part`].

    Args:
        folders: the folders, or folder → how often its rows count (2 = twice, 0.5 = every other row).
        fingerprint: of the model's image tokenizer.

    Raises:
        ValueError: where the codes were made by another image tokenizer than the one with this fingerprint.
    """
    tables = []
    for folder, weight in folder_weights(folders).items():
        for part in code_parts(Path(folder)):
            table = read_part(part, fingerprint)
            tables.append(table.take(repeated_rows(len(table), weight)))
    return CodeTable.concatenate(tables)


def folder_weights(folders: Mapping[str, float] | Sequence[str | Path]) -> Mapping[str, float]:
    """Folder → how often its rows count."""
    return folders if isinstance(folders, Mapping) else dict.fromkeys(map(str, folders), 1.0)


def repeated_rows(count: int, weight: float) -> np.ndarray:
    """Row numbers below `count`, each about `weight` times, evenly spread."""
    return np.floor(np.arange(round(count * weight)) / weight).astype(int)


def read_part(part: Path, fingerprint: str) -> CodeTable:
    """
    One part of an encoded data set. `text` or `caption` is a weak caption; the columns that [`labels_of`] reads are
    labels; all others are left aside.

    A row whose labels are none (an emotion that is none of the seven, a negative age) is named in a warning and has
    none.

    Raises:
        ValueError: a damaged part, or codes of another image tokenizer.
    """
    table = read_part_table(part, fingerprint)
    names = table.column_names
    codes, plan_codes = (both_sides(table, columns) for columns in (CODE_COLUMNS, PLAN_COLUMNS))
    text_column = next((name for name in TEXT_COLUMNS if name in names), None)
    texts = table[text_column].to_pylist() if text_column else [None] * table.num_rows
    texts = [text.strip() or None if isinstance(text, str) else None for text in texts]
    rows = table.select(label_columns(names)).to_pylist() or [{} for _ in range(table.num_rows)]
    labels, emotions = _known_labels(rows, part)
    assert codes is not None  # it is read or refused
    return CodeTable(codes, labels, emotions, texts, plan_codes)


def _known_labels(rows: list[dict[str, Any]], part: Path) -> tuple[list[dict[str, int]], list[str | None]]:
    """Labels and emotion of each row; of one that holds something else than labels nothing is known."""
    refused: Counter[str] = Counter()
    labels: list[dict[str, int]] = []
    emotions: list[str | None] = []
    for number, row in enumerate(rows):
        try:
            known, emotion = labels_of(row), emotion_of(row)
            if not set(known.values()) <= {0, 1}:
                raise ValueError(f"labels are 0 or 1, got {known}")
        except (ValueError, TypeError, OverflowError) as error:
            refuse(refused, "labels that are none", f"{part}, row {number}, labels", error)
            known, emotion = {}, None
        labels.append(known)
        emotions.append(emotion)
    if refused:
        logger.warning("%s: %d rows without usable labels", part, refused.total())
    return labels, emotions


def both_sides(table: Any, names: Sequence[str]) -> np.ndarray | None:
    """
    Columns of codes of faces and their mirror images → [rows, 2, cells]; the same twice where there are no mirror
    images.
    """
    columns = [table[name] for name in names if name in table.column_names]
    if not columns:
        return None
    return np.stack([np.stack(column.to_numpy()) for column in columns], 1).repeat(3 - len(columns), axis=1)


class CodeDataset(EpochDataset):
    """Row numbers with the epoch: all randomness is derived from them in the collator, nothing is drawn here."""

    def __init__(self, table: CodeTable):
        super().__init__()
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"row": int(row), "id": int(row), "epoch": self.epoch, "table": self.table}
