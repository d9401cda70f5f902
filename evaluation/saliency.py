"""`gptface evaluate saliency`: does region="auto" look where the prompt is about?

For each prompt the share of the gradient of the match (norms of the cells, or of the tokens of the plan where a model
draws that first) that falls into the expected region, averaged over faces, beside the share of the grid that the
region takes: a gradient that knows nothing of the prompt reaches no more.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.regions import region_cells

from .crops import LabelledCrop, first_crops
from .progress import progress

#: Prompt → a caption of faces without the attribute, and the region where it shows.
PROMPTS: dict[str, tuple[str, str]] = {
    "smiling": ("not smiling", "smile"),
    "eyeglasses": ("no eyeglasses", "glasses"),
    "blond hair": ("black hair", "hair"),
}


def run_saliency(options: argparse.Namespace) -> dict[str, Any]:
    """Shares of the gradient for each prompt."""
    pipeline = load_pipeline("guided-face-editing", options.model)
    faces = first_crops(options.data, options.limit, pipeline.face_size, layout=options.layout)
    return {"images": len(faces), **saliency_shares(pipeline, faces)}


def saliency_shares(pipeline: Any, faces: Sequence[LabelledCrop], batch_size: int = 16) -> dict[str, dict[str, Any]]:
    """
    Prompt → `region`, `area` (its share of the grid), `share` (of the gradient inside it, for the prompt alone) and
    `share_with_source` (for the difference to the contrary caption).

    Args:
        pipeline: of the task guided-face-editing.
        faces: crops of its size.

    Raises:
        ValueError: where the matching head is not trained.
    """
    model, processor = pipeline.model, pipeline.processor
    tokenizer = model.image_tokenizer
    grid, encode = model.config.grid_size, tokenizer.encode
    if model.config.plan_trained:
        grid, encode = model.config.plan_grid_size, tokenizer.encode_plan
    shares: dict[str, dict[str, list[float]]] = {prompt: {"share": [], "share_with_source": []} for prompt in PROMPTS}
    for start in progress(range(0, len(faces), batch_size), "faces"):
        images = [face.image for face in faces[start : start + batch_size]]
        with torch.no_grad():
            codes = encode(processor(images=images)["pixel_values"].to(model.dtype))
        for prompt, (source, region) in PROMPTS.items():
            inside = torch.from_numpy(region_cells(region, grid).reshape(-1))
            caption = _captions(processor, prompt, len(images))
            contrary = {f"source_{name}": ids for name, ids in _captions(processor, source, len(images)).items()}
            for name, extra in (("share", {}), ("share_with_source", contrary)):
                saliency = model.saliency(codes, **caption, **extra)
                shares[prompt][name] += (saliency[:, inside].sum(1) / saliency.sum(1)).tolist()
    return {
        prompt: {
            "region": region,
            "area": float(region_cells(region, grid).mean()),
            **{name: float(np.mean(values)) for name, values in shares[prompt].items()},
        }
        for prompt, (_, region) in PROMPTS.items()
    }


def _captions(processor: Any, text: str, count: int) -> dict[str, torch.Tensor]:
    return dict(processor(text=[text] * count))
