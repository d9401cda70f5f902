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

from .code_dataset import check_fingerprint
from .encode import ABSENT, code_parts, write_part
from .lenses import DARK, GLASSES, lens_brightness

logger = logging.getLogger(__name__)

#: Faces that are decoded at once.
BATCH = 32


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
        if GLASSES not in table.column_names:
            raise ValueError(f"{part} has no column {GLASSES!r}")
        labels = table[GLASSES].to_pylist()
        rows = np.flatnonzero(np.array(labels) == 1)
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            codes = torch.from_numpy(np.stack(table["codes"].take(some).to_numpy()).astype(np.int64))
            codes[codes == ABSENT] = 0  # at the edges, where no lenses are
            dark = lens_brightness(tokenizer.decode(codes.to(tokenizer.device)).cpu()) < DARK
            for row in some[dark.numpy()]:
                labels[row] = None
                forgotten += 1
        index = table.column_names.index(GLASSES)
        table = table.set_column(index, GLASSES, pa.array(labels, table.schema.field(GLASSES).type))
        write_part(table, target / part.name)
        logger.info("%s: %d labels of dark glasses forgotten so far", target, forgotten)
    return forgotten
