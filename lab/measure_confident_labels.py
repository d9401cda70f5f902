"""How often the attribute head is right where it is sure: `python lab/measure_confident_labels.py DATA_DIR`.

Writes what it finds on DATA_DIR/validation/celeba178.parquet to data/confident_labels.json, which decides of what weak
labels are made.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from gptface import DEFAULT_CHECKPOINT, GPTFaceForFaceAttributeClassification
from gptface.data import confident_labels
from gptface.data.classification_data import face_logits, load_classification_data
from gptface.data.confident_labels import ABSENT_UP_TO, HEAD, PRESENT
from gptface.data.encode import pixels_from_images
from gptface.data.lenses import CLEAR, GLASSES, lens_brightness

#: Rows of which the head is sure against their label, and where the label was looked at and is wrong.
LABEL_ERRORS = {"Eyeglasses": [384], "Black_Hair": [206]}


def sure_cases(sure: np.ndarray, truth: np.ndarray, value: int) -> dict[str, Any]:
    """
    Of one attribute and value.

    Returns:
        cases: how often the head is sure.
        precision: share of these that is right.
        found: share of the faces with this value.
        mistaken: share of the faces with the other value.
    """
    cases, right = int(sure.sum()), int((sure & (truth == value)).sum())
    true, false = int((truth == value).sum()), int((truth == 1 - value).sum())
    return {
        "cases": cases,
        "precision": round(right / cases, 3) if cases else 0.0,
        "found": round(right / true, 3) if true else 0.0,
        "mistaken": round((cases - right) / false, 3) if false else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with validation/celeba178.parquet")
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT, help="folder of a model with an attribute head")
    options = parser.parse_args()
    model = GPTFaceForFaceAttributeClassification.from_pretrained(options.model).eval()
    head = model.config.heads[HEAD]
    names = list(head["labels"])
    file = options.data / "validation/celeba178.parquet"
    data = load_classification_data([file], True, names, names, "celeba", False)
    logits, rows = face_logits(model, data, np.arange(len(data)), 32)
    probabilities = 1 / (1 + np.exp(-np.asarray(logits, np.float64) / head.get("temperature", 1.0)))
    brightness = np.array([float(lens_brightness(pixels_from_images([data.crop(row, 128)]))[0]) for row in rows])
    attributes = {}
    for column, name in enumerate(names):
        truth = data.targets[rows][:, data.names.index(name)].copy()
        truth[LABEL_ERRORS.get(name, [])] ^= 1
        present, absent = probabilities[:, column] >= PRESENT, probabilities[:, column] <= ABSENT_UP_TO
        if name == GLASSES:
            present &= brightness >= CLEAR  # as the label is used
        attributes[name] = {"present": sure_cases(present, truth, 1), "absent": sure_cases(absent, truth, 0)}
    report = {
        "command": "python lab/measure_confident_labels.py DATA_DIR",
        "faces": len(rows),
        "image_tokenizer": model.image_tokenizer.fingerprint(),
        "attributes": attributes,
    }
    target = Path(confident_labels.__file__).with_suffix(".json")
    target.write_text(json.dumps(report, indent=1) + "\n")
    for name, figures in attributes.items():
        print(name, figures)
    print(f"trusted: { {name: sorted(values) for name, values in confident_labels.trusted_values().items()} }")


if __name__ == "__main__":
    main()
