"""Labelled faces that a checkpoint is measured on, as codes."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from gptface.data.code_dataset import load_code_table
from gptface.data.encode import encode_images
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer

from .crops import labelled_crops

FACES_AT_ONCE = 256


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
    Reads what [`~gptface.data.sources.read_samples`] reads, whose pictures are encoded now, or a folder that `gptface
    encode` wrote.

    Args:
        tokenizer: the image tokenizer of the model that is measured.
        layout: of the pictures, see [`gptface.data.encode.project_crop`].

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: not a single picture that can be read, or codes of another tokenizer.
    """
    if any(Path(path).glob("part-*.parquet")):
        table = load_code_table([path], tokenizer.fingerprint())
        return LabelledFaces(table.codes[:, 0].astype(np.int64), table.labels)
    crops = labelled_crops(path, tokenizer.config.image_size, layout=layout)
    codes, labels = [], []
    while chunk := list(islice(crops, FACES_AT_ONCE)):
        codes.append(encode_images(tokenizer, [face.image for face in chunk]))
        labels += [face.labels for face in chunk]
    if not codes:
        raise ValueError(f"{path} holds no picture that can be read")
    return LabelledFaces(np.concatenate(codes).astype(np.int64), labels)
