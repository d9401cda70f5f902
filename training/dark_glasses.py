"""Which of the glasses in a data set are dark.

CelebA's "Eyeglasses" are sunglasses in half of its sharp pictures: a model that is told so paints a dark bar over the eyes when it is
asked for eyeglasses. Where lenses are dark the label becomes unknown: captions made from labels then say nothing of glasses, and neither
matching nor the attribute head learns from them what eyeglasses are.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.alignment import CROP_LANDMARKS
from gptface.processing.regions import Region, area_pixels, ellipse

from .code_dataset import check_fingerprint
from .encode import code_parts, write_part

logger = logging.getLogger(__name__)

LABEL = "Eyeglasses"
#: Lenses are dark whose brightness is less than this share of that of the cheeks; 7 % of CelebA's glasses lie
#: between 0.5 and 0.65, where both kinds occur.
DARK = 0.55

(_LEFT_EYE_X, _EYE_Y), (_RIGHT_EYE_X, _), (_, _NOSE_Y), *_ = CROP_LANDMARKS.tolist()
LENSES = Region((ellipse(_LEFT_EYE_X, _EYE_Y + 2, 12, 8), ellipse(_RIGHT_EYE_X, _EYE_Y + 2, 12, 8)))
CHEEKS = Region((ellipse(_LEFT_EYE_X - 4, _NOSE_Y + 4, 10, 8), ellipse(_RIGHT_EYE_X + 4, _NOSE_Y + 4, 10, 8)))
#: Faces that are decoded at once.
BATCH = 32


def lens_brightness(faces: torch.Tensor) -> torch.Tensor:
    """
    Crops [B, 3, S, S] in [-1, 1] → brightness [B] of the area of the lenses (its upper quartile: frames are dark, too) as a
    share of that of the cheeks.
    """
    grey = faces.float().mean(1).add(1).div(2)
    lenses, cheeks = (grey[:, torch.from_numpy(area_pixels(area, faces.shape[-1]))] for area in (LENSES, CHEEKS))
    return lenses.quantile(0.75, dim=1) / cheeks.median(dim=1).values.clamp(min=0.02)


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
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            codes = torch.from_numpy(np.stack(table["codes"].take(some).to_numpy()).astype(np.int64))
            dark = lens_brightness(tokenizer.decode(codes.to(tokenizer.device)).cpu()) < DARK
            for row in some[dark.numpy()]:
                labels[row] = None
                forgotten += 1
        index = table.column_names.index(LABEL)
        table = table.set_column(index, LABEL, pa.array(labels, table.schema.field(LABEL).type))
        write_part(table, target / part.name)
        logger.info("%s: %d labels of dark glasses forgotten so far", target, forgotten)
    return forgotten
