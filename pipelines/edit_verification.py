"""How far to trust an edit: what the model's own heads see in faces before and after it, and what stayed as it was."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.heads_gptface import GPTFaceTaskModel
from gptface.processing.edits import Edit, Target

from .face_pipeline import FACES_AT_ONCE

#: Head → its label → how probable that is, [faces] in [0, 1].
HeadScores = Mapping[str, Mapping[str, np.ndarray]]
#: The head whose labels tell what else an edit has changed.
ATTRIBUTES = "attributes"
#: Probability beyond which none is surer than another: float32 of a sigmoid ends there.
SURE = 0.9999
#: Of realness beside the log-odds of match and heads: candidates of one edit differ by tenths of it.
REALNESS_WEIGHT = 5.0


@torch.no_grad()
def read_heads(
    model: GPTFaceTaskModel, pixels: torch.Tensor, edits: Iterable[Edit]
) -> dict[str, dict[str, np.ndarray]]:
    """
    What the model's own heads see in faces: that of attributes, and those that edits are about; without those that are
    not trained.

    Args:
        pixels: aligned faces [B, 3, S, S] in [-1, 1].
    """
    found = {}
    for name in sorted({ATTRIBUTES, *(edit.target.head for edit in edits if edit.target is not None)}):
        head = model.config.heads.get(name)
        if not head or not head.get("trained"):
            continue
        read = (model.read_for(name, part) for part in pixels.split(FACES_AT_ONCE))
        logits = torch.cat([model.classify(name, outputs) for outputs in read]).float() / head.get("temperature", 1.0)
        if not torch.isfinite(logits).all():
            raise FloatingPointError(f"the logits of the head {name!r} are not finite: the checkpoint is damaged")
        multi_label = head["problem_type"] == "multi_label_classification"
        scores = (logits.sigmoid() if multi_label else logits.softmax(-1)).cpu().numpy()
        found[name] = dict(zip(head["labels"], scores.T, strict=True))
    return found


def probability(scores: HeadScores, target: Target | None) -> np.ndarray | None:
    """How probable it is that faces have what an edit asks for, [faces]; None where no head knows it."""
    if target is None or target.label not in scores.get(target.head, {}):
        return None
    found = scores[target.head][target.label]
    return found if target.value else 1 - found


def verify(edits: Sequence[Edit], before: HeadScores, after: HeadScores) -> dict[str, dict[str, float]]:
    """
    Name → how probable what an edit asks for is `before` and `after`, the mean over the faces; of edits that a head
    knows.
    """
    found = {}
    for edit in edits:
        was, becomes = probability(before, edit.target), probability(after, edit.target)
        if was is not None and becomes is not None:
            found[edit.name] = {"before": float(was.mean()), "after": float(becomes.mean())}
    return found


def changes_in_words(verified: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What the heads say of edits, such as `"smiling 3% → 91%"`: of `verified` in a result of the pipeline."""
    return [f"{name.replace('_', ' ')} {each['before']:.0%} → {each['after']:.0%}" for name, each in verified.items()]


def kept_attributes(edits: Sequence[Edit], before: HeadScores, after: HeadScores) -> float | None:
    """
    How far the other attributes stayed: 1 less the mean change of their probabilities.

    Returns:
        in [0, 1]; None where the model has no head that knows others than what the edits are about and entail.
    """
    about = {label for edit in edits for label in edit.entailed}
    about |= {edit.target.label for edit in edits if edit.target is not None}
    was, becomes = (scores.get(ATTRIBUTES, {}) for scores in (before, after))
    changes = [np.abs(becomes[label] - was[label]).mean() for label in was if label not in about]
    return 1 - float(np.mean(changes)) if changes else None


def kept_outside(photo: Image.Image, edited: Image.Image, mask: Image.Image) -> float:
    """
    How far the rest of a photo stayed: of its pixels where the mask of an edit is 0, the share that is the same bit
    for bit.

    Returns:
        in [0, 1]; 1 where the mask leaves nothing out.
    """
    outside = np.asarray(mask) == 0
    same = (np.asarray(photo) == np.asarray(edited)).all(-1)
    return float(same[outside].mean()) if outside.any() else 1.0


def trust(result: Mapping[str, Any]) -> float:
    """
    By what candidates are ranked: the log-odds of the match and, as further evidence, those that the edits are there,
    by the heads, and how real the critic finds what was drawn, where it has a say.

    The match alone takes a broken mouth for one at rest; the heads' log-odds tell such candidates apart even where all
    are above 0.98.
    """
    after = [each["after"] for each in result["verified"].values()]
    odds = [np.log(each / (1 - each)) for each in np.clip(after, 1 - SURE, SURE)]
    return (result["match_score"] or 0.0) + float(np.sum(odds)) + REALNESS_WEIGHT * (result.get("realness") or 0.0)
