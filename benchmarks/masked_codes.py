"""Loss on masked codes of the mouth, beside what counting alone reaches.

    python benchmarks/masked_codes.py CODES_DIR/validation/celeba178 --unigram CODES_DIR/train/celeba178

Rows 10–13 and columns 4–11 of the 16×16 grid are masked, the rest is given, under the empty caption: mean cross-entropy in nats.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from gptface import DEFAULT_CHECKPOINT, GPTFaceForPreTraining
from gptface.training.code_dataset import load_code_table

ROWS, COLUMNS = slice(10, 14), slice(4, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="encoded validation faces")
    parser.add_argument("--unigram", type=Path, required=True, help="encoded training faces that are counted")
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    options = parser.parse_args()

    model = GPTFaceForPreTraining.from_pretrained(options.model).eval()
    fingerprint = model.image_tokenizer.fingerprint()
    codes = load_code_table([options.data], fingerprint).codes[:, 0].astype(np.int64)
    counted = load_code_table([options.unigram], fingerprint).codes[:, 0].astype(np.int64)
    side = model.config.grid_size
    mask = np.zeros((side, side), bool)
    mask[ROWS, COLUMNS] = True
    mask = mask.reshape(-1)

    # add one: a code that was never seen in a cell still has a probability
    counts = np.ones((mask.size, model.config.num_codes))
    np.add.at(counts, (np.arange(mask.size), counted), 1)
    frequencies = counts / counts.sum(1, keepdims=True)
    per_cell = -np.log(frequencies[np.arange(mask.size), codes])[:, mask].mean()

    losses = []
    for rows in torch.from_numpy(codes).split(32):
        image_mask = torch.from_numpy(mask).expand(len(rows), -1)
        with torch.no_grad():
            labels = torch.where(image_mask, rows, -100)
            losses.append(
                float(model(image_codes=rows, image_mask=image_mask, image_labels=labels).image_loss) * len(rows)
            )
    report = {"mouth_loss": sum(losses) / len(codes), "per_cell_unigram": float(per_cell), "images": len(codes)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
