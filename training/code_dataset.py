"""Encoded faces in memory: codes and labels, and a caption for each (epoch, sample)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from .captions import Caption, emotion_caption, emotion_labels, render, render_plainly, sample_mentions
from .encode import FINGERPRINT_KEY, code_parts

CODE_COLUMNS = ("codes", "codes_flipped")


@dataclass
class CodeTable:
    """
    Args:
        codes: codes of each face and of its mirror image, [rows, 2, cells] uint16; without mirror images the same twice.
        labels: what is known of each face (attribute → 0/1), for captions and their contradictions.
        emotions: emotion of each face or None; such faces are captioned by it.
    """

    codes: np.ndarray
    labels: list[dict[str, int]]
    emotions: list[str | None]

    def __len__(self) -> int:
        return len(self.codes)

    def caption(self, row: int, generator: np.random.Generator, max_mentions: int = 5, plain: float = 0.0) -> Caption:
        """
        A true caption of a row with at most `max_mentions` attributes, drawn anew for each generator; a share `plain` are
        lists of committed phrases.
        """
        emotion = self.emotions[row]
        if emotion is not None:
            return emotion_caption(emotion, generator)
        mentions = sample_mentions(self.labels[row], generator, max_mentions)
        say = render_plainly if mentions and generator.random() < plain else render
        return Caption(say(mentions, generator), mentions)


def load_code_table(folders: Mapping[str, float] | Sequence[str | Path], fingerprint: str) -> CodeTable:
    """
    Reads what `gptface encode` wrote: CelebA-like rows (0/1 columns are attributes) or rows with an `emotion` column.

    Args:
        folders: the folders, or folder → how often its rows count (2 = twice, 0.5 = every other row).
        fingerprint: of the model's image tokenizer.

    Raises:
        ValueError: where the codes were made by another image tokenizer than the one with this fingerprint.
    """
    weights = folders if isinstance(folders, Mapping) else dict.fromkeys(map(str, folders), 1.0)
    codes: list[np.ndarray] = []
    labels: list[dict[str, int]] = []
    emotions: list[str | None] = []
    for folder, weight in weights.items():
        for part in code_parts(Path(folder)):
            part_codes, part_labels, part_emotions = _read_part(part, fingerprint)
            rows = np.floor(np.arange(round(len(part_codes) * weight)) / weight).astype(int)
            codes.append(part_codes[rows])
            labels += [part_labels[row] for row in rows]
            emotions += [part_emotions[row] for row in rows]
    return CodeTable(np.concatenate(codes), labels, emotions)


def _read_part(part: Path, fingerprint: str) -> tuple[np.ndarray, list[dict[str, int]], list[str | None]]:
    import pyarrow.parquet as pq

    table = pq.read_table(part)
    made_by = (table.schema.metadata or {}).get(FINGERPRINT_KEY, b"").decode()
    if made_by != fingerprint:
        raise ValueError(
            f"{part} holds codes of the image tokenizer {made_by or 'unknown'}, this model's is {fingerprint}: "
            "encode the data again"
        )
    columns = [table[name] for name in CODE_COLUMNS if name in table.column_names]
    codes = np.stack([np.stack(column.to_numpy()) for column in columns], 1).repeat(3 - len(columns), axis=1)
    if "emotion" in table.column_names:
        emotions = table["emotion"].to_pylist()
        return codes, [emotion_labels(emotion) for emotion in emotions], emotions
    names = [name for name in table.column_names if name not in (*CODE_COLUMNS, "identity")]
    return codes, table.select(names).to_pylist(), [None] * table.num_rows


class CodeDataset(Dataset):
    """Row numbers with the epoch: all randomness is derived from them in the collator, nothing is drawn here."""

    def __init__(self, table: CodeTable):
        self.table = table
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> dict[str, int]:
        return {"row": int(row), "epoch": self.epoch}
