"""`gptface evaluate generation`: do faces made from text show what it says, and do two seeds give two faces?

The prompts are captions of the first faces in file order: up to three true attributes in their committed phrases.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface.data.captions import render_plainly, sample_mentions
from gptface.data.masking import sample_generator
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.image_saving import check_output

from .crops import PerceptualDistance, first_crops
from .judge import DEFAULT_JUDGE, AttributeJudge
from .progress import progress
from .sheet import save_sheet

SEEDS = (0, 1)
MENTIONS = 3


def run_generation(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of the faces made from captions, and their sheet."""
    if options.sheet is not None:
        check_output(options.sheet)
    judge, distance = (
        AttributeJudge.from_file(options.judge or DEFAULT_JUDGE),
        PerceptualDistance(options.lpips_weights),
    )
    pipeline = load_pipeline("text-to-face", options.model)
    size = pipeline.model.config.image_tokenizer_config.image_size
    faces = first_crops(options.data, options.limit, size, layout=options.layout)
    generators = [sample_generator(0, 0, row) for row in range(len(faces))]
    mentions = [
        sample_mentions(face.labels, generator, MENTIONS) for face, generator in zip(faces, generators, strict=True)
    ]
    prompts = [render_plainly(said, generator) for said, generator in zip(mentions, generators, strict=True)]
    start = time.perf_counter()
    images = {
        seed: [results[0]["image"] for results in pipeline(progress(prompts, f"faces, seed {seed}"), seed=seed)]
        for seed in SEEDS
    }
    seconds = (time.perf_counter() - start) / (len(SEEDS) * len(faces))
    first, second = images.values()
    if options.sheet is not None:
        save_sheet({f"seed {seed}": pictures for seed, pictures in images.items()}, options.sheet)
    return {
        "images": len(faces),
        **agreement_figures(judge, first, mentions),
        "lpips_between_seeds": distance.mean(first, second),
        "seconds": seconds,
        "prompts": prompts[:3],
    }


def agreement_figures(
    judge: AttributeJudge, images: Sequence[Image.Image], mentions: Sequence[Mapping[str, int]]
) -> dict[str, float]:
    """
    `agreement`: share of the mentioned attributes whose value the judge sees; `agreement_moved`: with the mentions of
    the next face, what can be had by any face; `attributes`: how many mentions were counted.
    """
    probabilities = judge.probabilities(images)

    def agreement(said: Sequence[Mapping[str, int]]) -> list[bool]:
        return [
            bool((row[judge.index(name)] > 0.5) == bool(value))
            for row, own in zip(probabilities, said, strict=True)
            for name, value in own.items()
            if name in judge.labels
        ]

    own, moved = agreement(mentions), agreement([*mentions[1:], mentions[0]])
    return {"agreement": float(np.mean(own)), "agreement_moved": float(np.mean(moved)), "attributes": len(own)}
