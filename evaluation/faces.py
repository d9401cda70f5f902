"""Labelled faces that a checkpoint is measured on, as codes."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptface.data.captions import PHRASES
from gptface.data.code_dataset import load_code_table
from gptface.data.encode import encode_images, read_crop
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class LabelledFaces:
    """
    Args:
        codes: [faces, cells] int64.
        labels: attribute → 0/1 of each face.
    """

    codes: np.ndarray
    labels: list[dict[str, int]]


def load_faces(path: str | Path, tokenizer: GPTFaceImageTokenizer, layout: str = "celeba") -> LabelledFaces:
    """
    Reads a parquet file with an `image` column, whose pictures are encoded now, or a folder that `gptface encode` wrote.

    Args:
        tokenizer: the image tokenizer of the model that is measured.
        layout: of the parquet file's pictures, see [`gptface.data.encode.project_crop`].

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: a file that is no such table, without a single picture that can be read, or codes of another tokenizer.
    """
    path = Path(path)
    if path.is_dir():
        table = load_code_table([path], tokenizer.fingerprint())
        return LabelledFaces(table.codes[:, 0].astype(np.int64), table.labels)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no parquet file: {error}") from error
    if "image" not in file.schema_arrow.names:
        raise ValueError(f"{path} has no `image` column, only {file.schema_arrow.names}")
    names = [name for name in file.schema_arrow.names if name in PHRASES]
    codes, labels = [], []
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["image", *names]):
        crops = []
        for row in batch.to_pylist():
            try:
                crops.append(read_crop(row.pop("image")["bytes"], layout, tokenizer.config.image_size))
                labels.append(row)
            except (OSError, ValueError) as error:
                logger.warning("%s: a picture is left out: %s", path.name, error)
        if crops:
            codes.append(encode_images(tokenizer, crops))
    if not codes:
        raise ValueError(f"{path} holds no picture that can be read")
    return LabelledFaces(np.concatenate(codes).astype(np.int64), labels)
