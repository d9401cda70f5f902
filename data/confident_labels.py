"""Weak labels by a model's attribute head, only where it is sure and has been shown to be right when it is.

What is sure and right stands in `confident_labels.json`, measured by `python lab/measure_confident_labels.py
DATA_DIR`: wrong words hurt more than missing ones, so an answer is never used that was wrong in more than one of
twenty sure cases, that was sure too seldom to tell, or that was given of too many faces of which the opposite is true:
"not bald" is right nearly always, but not where it matters.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from gptface.modeling_gptface.heads_gptface import GPTFaceTaskModel
from gptface.processing.provenance import weights_hash

from .phrase_contrast import cells_of_regions, phrase_regions

#: The head is sure that something is there from this probability on, and that it is not up to that one.
PRESENT, ABSENT_UP_TO = 0.95, 0.05
#: Least share of the sure answers that are right, and least number of them that shows it.
LEAST_PRECISION, LEAST_CASES = 0.95, 5
#: Most of the faces with the opposite value of which the head may be sure by mistake.
MOST_MISTAKEN = 0.15
#: A word about a place counts only where the picture has at least this share of that place's cells.
LEAST_SEEN = 0.75
#: All that counts of pictures that have less than that of the whole crop. Without the hair the head is sure of the
#: wrong gender in a tenth of the cases, and sees make-up on children; these words hold.
SAID_OF_TIGHT = frozenset({"Eyeglasses", "Mouth_Slightly_Open", "No_Beard", "Smiling"})
HEAD = "attributes"


def trusted_values() -> dict[str, frozenset[int]]:
    """Attribute → the values (0, 1) in which the head is trusted where it is sure."""
    measured = json.loads(Path(__file__).with_suffix(".json").read_text())["attributes"]
    return {
        name: frozenset(value for value, key in enumerate(("absent", "present")) if _is_trusted(figures[key]))
        for name, figures in measured.items()
    }


def _is_trusted(figures: Mapping[str, float]) -> bool:
    enough, right = figures["cases"] >= LEAST_CASES, figures["precision"] >= LEAST_PRECISION
    return enough and right and figures["mistaken"] <= MOST_MISTAKEN


def confident_labels(
    probabilities: np.ndarray, labels: Sequence[str], trusted: Mapping[str, frozenset[int]] | None = None
) -> list[dict[str, int]]:
    """
    What is sure of each face: attribute → 1 at `PRESENT` or more, 0 at `ABSENT_UP_TO` or less; all else is left out.

    Args:
        probabilities: [B, L] in 0…1, NaN never sure.
        labels: names of the L attributes.
        trusted: the values that count, by default those of [`trusted_values`].

    Raises:
        ValueError: where the shapes differ.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(labels):
        raise ValueError(f"expected probabilities [faces, {len(labels)}], got {list(probabilities.shape)}")
    trusted = trusted_values() if trusted is None else trusted
    sure = np.full(probabilities.shape, -1)
    sure[probabilities >= PRESENT] = 1
    sure[probabilities <= ABSENT_UP_TO] = 0
    return [
        {name: value for name, value in zip(labels, row, strict=True) if value in trusted.get(name, frozenset())}
        for row in sure.tolist()
    ]


def seen_labels(labels: Mapping[str, int], covered: np.ndarray) -> dict[str, int]:
    """
    Without the words about places that a tight picture does not show (hair above its edge is neither there nor
    absent), and those that cannot be told without them.

    Args:
        labels: attribute → 0/1, as [`confident_labels`] gives them.
        covered: which cells have pixels of the picture, boolean [grid, grid].
    """
    is_tight = covered.mean() < LEAST_SEEN

    def is_seen(name: str) -> bool:
        if is_tight and name not in SAID_OF_TIGHT:
            return False
        regions = phrase_regions(name, 1)
        return not regions or covered[cells_of_regions(regions, len(covered))].mean() >= LEAST_SEEN

    return {name: value for name, value in labels.items() if is_seen(name)}


class ConfidentLabeller:
    """
    Labels faces with a model's attribute head.

    Args:
        model: with a trained head `attributes`.

    Raises:
        ValueError: a model without.
    """

    def __init__(self, model: GPTFaceTaskModel):
        head = model.config.heads.get(HEAD)
        if head is None or not head.get("trained"):
            raise ValueError(f"the model has no trained head {HEAD!r}: labels of random weights are none")
        self.model, self.head, self.trusted = model.eval(), head, trusted_values()
        #: All that it may say, in a fixed order.
        self.names = [name for name in head["labels"] if self.trusted.get(name)]
        #: Of the model that says it.
        self.fingerprint = weights_hash(model)

    @torch.inference_mode()
    def __call__(self, codes: np.ndarray, covered: Sequence[np.ndarray]) -> list[dict[str, int]]:
        """
        What is sure of each face: attribute → 0/1.

        Args:
            codes: [B, N], those of repeated pixels too.
            covered: which cells of each have pixels of its picture, boolean [grid, grid].
        """
        if not len(codes):
            return []
        inputs = torch.from_numpy(codes.astype(np.int64)).to(self.model.device)
        logits = self.model.classify(HEAD, self.model.gptface(image_codes=inputs))
        probabilities = (logits.float() / self.head.get("temperature", 1.0)).sigmoid().cpu().numpy()
        sure = confident_labels(probabilities, self.head["labels"], self.trusted)
        return [seen_labels(labels, cells) for labels, cells in zip(sure, covered, strict=True)]
