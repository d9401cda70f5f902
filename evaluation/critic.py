"""`gptface evaluate critic`: how well does the critic tell tokens that the model drew from those of photos?"""

import argparse
from typing import Any

import torch

from gptface.data.code_dataset import CodeTable
from gptface.data.critic_samples import CriticSampleLaw, CriticSampler, CriticSamples
from gptface.data.encode import encode_images, encode_with_plan
from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
from gptface.processing.processing_gptface import GPTFaceProcessor

from .crops import first_crops
from .progress import progress

#: Faces a batch; those of training are larger.
BATCH_SIZE = 32


def run_critic(options: argparse.Namespace) -> dict[str, Any]:
    """
    Figures of [`CriticSamples.figures`] on faces that the critic has not seen, drawn by the model itself with seeds of
    their own; `images` and `grids`, how many.

    Raises:
        ValueError: a checkpoint without a trained critic.
    """
    folder = options.model or DEFAULT_CHECKPOINT
    model = GPTFaceForGuidedGeneration.from_pretrained(folder).eval()
    if not model.config.critic_trained:
        raise ValueError(f"{folder} has no trained critic: train one by `gptface train-critic`")
    tokenizer = model.image_tokenizer
    faces = first_crops(options.data, options.limit, tokenizer.config.image_size, layout=options.layout)
    images, plans = [face.image for face in faces], None
    if model.config.has_plan:
        codes, plans = encode_with_plan(tokenizer, images)
    else:
        codes = encode_images(tokenizer, images)
    codes, plans = codes[:, None].repeat(2, 1), None if plans is None else plans[:, None].repeat(2, 1)
    table = CodeTable(codes, [face.labels for face in faces], [None] * len(faces), plan_codes=plans)
    law, processor = CriticSampleLaw(batch_size=BATCH_SIZE), GPTFaceProcessor.from_pretrained(folder)
    sampler = CriticSampler(model, processor, table, law, seed=1)
    samples = CriticSamples.of_batches(sampler.batch(number) for number in progress(range(options.batches), "batches"))
    logits = torch.cat([model.criticise(grids) for grids in samples.codes.split(BATCH_SIZE)])
    return {**samples.figures(logits), "images": len(faces), "grids": len(samples)}
