"""Attributes of a face, from pixels: with the pixel reader or the image tokenizer in front, beside vision
transformers.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from gptface import GPTFaceForImageClassification

from .models import Size, gptface
from .timing import Claim, Comparison, Contender

LABELS = 38
BATCHES = (1, 8)


def comparisons(size: Size, mask_ratio: float = 0.15) -> Iterator[Comparison]:
    """Batch 1 and 8."""
    labels = [f"attribute {index}" for index in range(LABELS)]
    head = {"labels": labels, "problem_type": "multi_label_classification", "trained": True}
    ours = gptface(size, GPTFaceForImageClassification, heads={"attributes": head}).eval()
    reading = {"heads": {"attributes": {**head, "input": "pixels"}}, "image_reader": {}}
    reader = gptface(size, GPTFaceForImageClassification, **reading).eval()
    tokenizer = ours.image_tokenizer
    working = [tokenizer.encoder, tokenizer.quantizer, ours.gptface.layers, ours.classifiers]
    working.append(ours.gptface.embeddings.code_embeddings)
    vit, clip = _vit(size), _clip(size)
    for batch in BATCHES:
        pixels = {side: torch.rand(batch, 3, side, side) * 2 - 1 for side in (8 * size.cells, size.patch * size.cells)}
        small, large = pixels[8 * size.cells], pixels[size.patch * size.cells]
        codes = tokenizer.encode(small)
        yield Comparison(
            f"batch {batch}, {size.tokens} tokens",
            [
                Contender(
                    "GPTFace, pixel reader",
                    _forward(reader, pixel_values=small),
                    [reader.gptface.pixel_reader, reader.gptface.layers, reader.classifiers],
                ),
                Contender("GPTFace, tokenization included", _forward(ours, pixel_values=small), working),
                Contender("GPTFace, codes given", _forward(ours, image_codes=codes), working[2:]),
                Contender("ViTForImageClassification", _forward(vit, pixel_values=large), [vit]),
                Contender("CLIPVisionModel", _forward(clip, pixel_values=large), [clip]),
            ],
            [
                Claim("ViTForImageClassification", "pictures", 1, 1, 1.2),
                Claim("CLIPVisionModel", "pictures", 1, 1, 1.2),
                Claim("GPTFace, tokenization included", "pictures", 1, 1),
                Claim("GPTFace, codes given", "pictures", 1, 1),
            ],
        )


def _forward(model: nn.Module, **inputs: torch.Tensor) -> Callable[[], Any]:
    @torch.inference_mode()
    def forward() -> Any:
        return model(**inputs)

    return forward


def _vit(size: Size) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    picture = {"image_size": size.cells * size.patch, "patch_size": size.patch}
    config = ViTConfig(**size.encoder(), **picture, num_labels=LABELS, attn_implementation="sdpa")
    return ViTForImageClassification(config).eval()


def _clip(size: Size) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    picture = {"image_size": size.cells * size.patch, "patch_size": size.patch}
    return CLIPVisionModel(CLIPVisionConfig(**size.encoder(), **picture, attn_implementation="sdpa")).eval()
