"""Accuracy of a classification head on encoded validation faces.

    python benchmarks/heads.py CODES_DIR/validation/celeba178 attributes
    python benchmarks/heads.py CODES_DIR/validation/fer48 expression

Threshold 0.5 for attributes. Balanced accuracy is the mean over the labels with at least 20 faces of both kinds (attributes) or
over the classes (expression).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from gptface import DEFAULT_CHECKPOINT, GPTFaceForPreTraining
from gptface.training.code_dataset import load_code_table
from gptface.training.heads import head_scores, image_states


def recalls(right: np.ndarray, groups: np.ndarray) -> list[float]:
    """Share of right answers in each group."""
    return [float(right[groups == group].mean()) for group in np.unique(groups)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("head", choices=["attributes", "expression"])
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    options = parser.parse_args()

    model = GPTFaceForPreTraining.from_pretrained(options.model).eval()
    table = load_code_table([options.data], model.image_tokenizer.fingerprint())
    names = model.config.heads[options.head]["labels"]
    scores = head_scores(model, options.head, image_states(model, table.codes[:, 0])).numpy()
    if options.head == "expression":
        truth = np.array([names.index(emotion) for emotion in table.emotions])
        right = scores.argmax(1) == truth
        balanced = recalls(right, truth)
    else:
        truth = np.array([[row[name] for name in names] for row in table.labels])
        right = (scores > 0.5) == truth
        frequent = [
            label for label in range(len(names)) if min(truth[:, label].sum(), (1 - truth[:, label]).sum()) >= 20
        ]
        balanced = [float(np.mean(recalls(right[:, label], truth[:, label]))) for label in frequent]
    report = {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(balanced)), "images": len(table)}
    print(json.dumps({**report, "balanced_over": len(balanced)}))


if __name__ == "__main__":
    main()
