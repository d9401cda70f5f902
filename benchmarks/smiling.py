"""How much `smiling` edits raise the probability of "Smiling" on faces that do not smile.

    python benchmarks/smiling.py DATA_DIR/validation/celeba178.parquet [--limit 50] [--sheet SHEET.png]

For the first faces in file order whose label Smiling is 0: the mean probability by the checkpoint's own attribute head of the
encoded-decoded face and of the edited one (default parameters of the pipeline, one candidate, seed 0). The head shares the
backbone with the editor, so this is a check that the parts work together, not a judge's verdict.
"""

import argparse
import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import pipeline

from gptface import DEFAULT_CHECKPOINT
from gptface.training.encode import read_crop

LABEL = "Smiling"


def probabilities(classify, faces: list[Image.Image]) -> list[float]:
    """Probability of the label for aligned faces."""
    results = classify(faces, aligned=True)
    return [next(entry["score"] for entry in result if entry["label"] == LABEL) for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--prompt", default="smiling")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--sheet", type=Path, help="picture of faces before and after; do not publish it")
    parser.add_argument("--edit", default="{}", help="JSON with parameters of the edit")
    options = parser.parse_args()

    rows = [row for row in pq.read_table(options.data).to_pylist() if row[LABEL] == 0][: options.limit]
    edit = pipeline("guided-face-editing", model=options.model)
    classify = pipeline("face-attribute-classification", model=options.model)
    faces = [read_crop(row["image"]["bytes"], "celeba", edit.face_size) for row in rows]

    tokenizer = edit.model.image_tokenizer
    with torch.no_grad():
        decoded = [
            edit.processor.decode_codes(tokenizer.encode(edit.processor(images=face)["pixel_values"]), tokenizer)[0]
            for face in faces
        ]
    start = time.perf_counter()
    results = edit(faces, prompt=options.prompt, seed=0, aligned=True, **json.loads(options.edit))
    seconds = (time.perf_counter() - start) / len(faces)
    edited = [result[0]["image"] for result in results]
    before, after = probabilities(classify, decoded), probabilities(classify, edited)
    report = {
        "images": len(faces),
        "before": sum(before) / len(before),
        "after": sum(after) / len(after),
        "risen": sum(b < a for b, a in zip(before, after, strict=True)),
        "crossed": sum(b < 0.5 < a for b, a in zip(before, after, strict=True)),
        "seconds_per_edit": seconds,
    }
    print(json.dumps(report))
    if options.sheet:
        columns = 10
        sheet = Image.new("RGB", (columns * 128, -(-len(faces) // columns) * 256))
        for index, (face, result) in enumerate(zip(faces, edited, strict=True)):
            row, column = divmod(index, columns)
            sheet.paste(face.resize((128, 128)), (column * 128, row * 256))
            sheet.paste(result.resize((128, 128)), (column * 128, row * 256 + 128))
        sheet.save(options.sheet)


if __name__ == "__main__":
    main()
