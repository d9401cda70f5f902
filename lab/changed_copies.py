"""Slightly changed copies of the faces, so that long runs see none too often."""

from pathlib import Path

import numpy as np
from PIL import Image

from gptface.data.augmentation import FaceAugmentation
from gptface.data.encode import encode_dataset
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer

#: Less than a classifier stands: the model reads aligned faces, and what hair and skin are called hangs on their
#: colour.
SLIGHT_CHANGES = FaceAugmentation(flip=0.0, colour=0.08, rotation=3.0, scale=0.03, shift=0.015, erasing=0.0, grey=0.0)


def encode_changed_copy(
    source: Path,
    layout: str,
    tokenizer: GPTFaceImageTokenizer,
    target: Path,
    copy: int,
    changes: FaceAugmentation | None = SLIGHT_CHANGES,
    flips: bool = True,
) -> int:
    """
    Encodes copy number `copy` of every face of a parquet file into the folder `target`, as
    [`~gptface.data.encode.encode_dataset`] does; returns the rows written. What changes derives from the copy's number
    and the row alone; without `changes` the faces are as they are.
    """

    def changed(face: Image.Image, row: int) -> Image.Image:
        assert changes is not None
        return changes(face, np.random.default_rng([copy, row]))

    change = None if changes is None else changed
    return encode_dataset(
        source, target, tokenizer, layout, flips, change=change, change_name=f"copy {copy}: {changes}"
    )
