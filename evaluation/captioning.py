"""`gptface evaluate caption`: are the attributes that captions state the face's? Guided by matching, and not."""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface.data.caption_parsing import stated_attributes
from gptface.data.captions import PHRASES
from gptface.pipelines.pipeline_loading import load_pipeline

from .crops import LabelledCrop, first_crops
from .progress import progress

#: Parameters of the captioning pipeline; where an arm says nothing its defaults hold.
ARMS: dict[str, dict[str, float]] = {"unguided": {"itm_guidance": 0.0}, "guided": {}}


def run_caption(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of each arm, by its name."""
    pipeline = load_pipeline("face-captioning", options.model)
    faces = first_crops(options.data, options.limit, pipeline.face_size, layout=options.layout)
    report: dict[str, Any] = {"images": len(faces)}
    for name, parameters in ARMS.items():
        start = time.perf_counter()
        pictures = progress([face.image for face in faces], f"captions, {name}")
        results = list(pipeline(pictures, aligned=True, seed=0, num_tokens=options.tokens, **parameters))
        seconds = (time.perf_counter() - start) / len(faces)
        captions = [result[0]["caption"] for result in results]
        report[name] = {
            **caption_figures(captions, faces),
            "match_score": float(np.mean([result[0]["match_score"] for result in results])),
            "seconds": seconds,
            "examples": captions[:3],
        }
    return report


def caption_figures(captions: Sequence[str], faces: Sequence[LabelledCrop]) -> dict[str, Any]:
    """
    `precision`, `recall`, `f1` of what the captions state (see [`attribute_f1`]), the same F1 for captions that were
    moved on to the next face (`f1_moved`: what can be had without looking), and the mean number of `statements`.
    """
    stated = [stated_attributes(caption) for caption in captions]
    labels = [face.labels for face in faces]
    moved = attribute_f1(stated[-1:] + stated[:-1], labels)["f1"]
    return {
        **attribute_f1(stated, labels),
        "f1_moved": moved,
        "statements": float(np.mean([len(pairs) for pairs in stated])),
    }


def attribute_f1(stated: Sequence[set[tuple[str, int]]], labels: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """
    Pooled over faces. Precision: share of the statements, absences included, that are true. Recall: share of the
    attributes that a face has (label 1, with a phrase) that are stated. F1: their harmonic mean. 0 where there is
    nothing to count.
    """
    true = named = said = present = 0
    for pairs, known in zip(stated, labels, strict=True):
        judged = [(attribute, value) for attribute, value in pairs if attribute in known]
        said += len(judged)
        true += sum(known[attribute] == value for attribute, value in judged)
        has = {(attribute, 1) for attribute in PHRASES if known.get(attribute) == 1}
        present += len(has)
        named += len(has & pairs)
    precision, recall = true / max(said, 1), named / max(present, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-12)}
