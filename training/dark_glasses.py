"""Which of the glasses in a data set are dark.

CelebA's "Eyeglasses" are sunglasses in half of its sharp pictures: a model that is told so paints a dark bar over the eyes when it is
asked for eyeglasses. Where lenses are dark the label becomes unknown: captions made from labels then say nothing of glasses, and neither
matching nor the attribute head learns from them what eyeglasses are.
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch

from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.alignment import CROP_LANDMARKS, CROP_SIZE

from .code_dataset import check_fingerprint
from .encode import code_parts

logger = logging.getLogger(__name__)

LABEL = "Eyeglasses"
#: Lenses are dark whose brightness is less than this share of that of the cheeks; 7 % of CelebA's glasses lie
#: between 0.5 and 0.65, where both kinds occur.
DARK = 0.55


def lens_brightness(faces: torch.Tensor) -> torch.Tensor:
    """
    Crops [B, 3, S, S] in [-1, 1] → brightness [B] of the area of the lenses (its upper quartile: frames are dark, too) as a
    share of that of the cheeks.
    """
    size = faces.shape[-1]
    grey = faces.float().mean(1).add(1).div(2)
    (left, eyes), (right, _), (_, nose), *_ = CROP_LANDMARKS.tolist()
    lenses = _ellipse(size, left, eyes + 2, 12, 8) | _ellipse(size, right, eyes + 2, 12, 8)
    cheeks = _ellipse(size, left - 4, nose + 4, 10, 8) | _ellipse(size, right + 4, nose + 4, 10, 8)
    return grey[:, lenses].quantile(0.75, dim=1) / grey[:, cheeks].median(dim=1).values.clamp(min=0.02)


def _ellipse(size: int, x: float, y: float, half_width: float, half_height: float) -> torch.Tensor:
    """Pixels [size, size] bool of a crop in an ellipse, whose centre and half axes are in pixels of the 128-pixel crop."""
    points = (torch.arange(size) + 0.5) * CROP_SIZE / size
    return ((points - x) / half_width).square() + ((points[:, None] - y) / half_height).square() <= 1


@torch.inference_mode()
def forget_dark_glasses(source: Path, target: Path, tokenizer: GPTFaceImageTokenizer) -> int:
    """
    Copies a folder of codes; where a face's glasses are dark, "Eyeglasses" becomes null. Parts that are there stay. Returns the
    labels that were forgotten in the others.

    Raises:
        FileNotFoundError: no codes in `source`.
        ValueError: a part without the label, or codes of another image tokenizer.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts, fingerprint = list(code_parts(source)), tokenizer.fingerprint()
    target.mkdir(parents=True, exist_ok=True)
    forgotten = 0
    for part in parts:
        if (target / part.name).exists():
            continue
        table = pq.read_table(part)
        check_fingerprint(table.schema.metadata, part, fingerprint)
        if LABEL not in table.column_names:
            raise ValueError(f"{part} has no column {LABEL!r}")
        labels = table[LABEL].to_pylist()
        rows = np.flatnonzero(np.array(labels) == 1)
        for some in np.array_split(rows, -(-len(rows) // 32)) if len(rows) else []:
            codes = torch.from_numpy(np.stack(table["codes"].take(some).to_numpy()).astype(np.int64))
            dark = lens_brightness(tokenizer.decode(codes.to(tokenizer.device)).cpu()) < DARK
            for row in some[dark.numpy()]:
                labels[row] = None
                forgotten += 1
        index = table.column_names.index(LABEL)
        table = table.set_column(index, LABEL, pa.array(labels, table.schema.field(LABEL).type))
        unfinished = (target / part.name).with_suffix(".tmp")
        pq.write_table(table, unfinished)
        os.replace(unfinished, target / part.name)
        logger.info("%s: %d labels of dark glasses forgotten so far", target, forgotten)
    return forgotten
