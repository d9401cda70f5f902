"""Encoded faces in memory: codes and labels, and a caption for each (epoch, sample)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from .captions import Caption, emotion_caption, emotion_labels, sample_caption
from .encode import FINGERPRINT_KEY, code_parts

CODE_COLUMNS = ("codes", "codes_flipped")


@dataclass
class CodeTable:
    """
    Args:
        codes: codes of each face and of its mirror image, [rows, 2, cells] uint16.
        labels: what is known of each face (attribute → 0/1), for captions and their contradictions.
        emotions: emotion of each face or None; such faces are captioned by it.
    """

    codes: np.ndarray
    labels: list[dict[str, int]]
    emotions: list[str | None]

    def __len__(self) -> int:
        return len(self.codes)

    def caption(self, row: int, generator: np.random.Generator) -> Caption:
        """A true caption of a row, drawn anew for each generator."""
        emotion = self.emotions[row]
        return sample_caption(self.labels[row], generator) if emotion is None else emotion_caption(emotion, generator)


def load_code_table(folders: list[Path], fingerprint: str) -> CodeTable:
    """
    Reads what `gptface encode` wrote: CelebA-like rows (0/1 columns are attributes) or rows with an `emotion` column.

    Raises:
        ValueError: where the codes were made by another image tokenizer than the one with this fingerprint.
    """
    import pyarrow.parquet as pq

    codes, labels, emotions = [], [], []
    for folder in folders:
        for part in code_parts(Path(folder)):
            table = pq.read_table(part)
            made_by = (table.schema.metadata or {}).get(FINGERPRINT_KEY, b"").decode()
            if made_by != fingerprint:
                raise ValueError(
                    f"{part} holds codes of the image tokenizer {made_by or 'unknown'}, this model's is {fingerprint}: "
                    "encode the data again"
                )
            columns = [np.stack(table[name].to_numpy()) for name in CODE_COLUMNS]
            codes.append(np.stack(columns, 1))
            if "emotion" in table.column_names:
                values = table["emotion"].to_pylist()
                labels += [emotion_labels(value) for value in values]
                emotions += values
            else:
                names = [name for name in table.column_names if name not in (*CODE_COLUMNS, "identity")]
                labels += table.select(names).to_pylist()
                emotions += [None] * table.num_rows
    return CodeTable(np.concatenate(codes), labels, emotions)


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
