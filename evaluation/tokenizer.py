"""`gptface evaluate tokenizer`: how faithfully an image tokenizer's codes carry faces, and what they cost."""

import argparse
import time
from collections.abc import Sequence
from statistics import median

import torch
from PIL import Image
from torch import nn

from gptface.data.encode import pixels_from_images
from gptface.metrics.lpips_distance import load_lpips
from gptface.metrics.reconstruction import code_usage, psnr
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
from gptface.training.image_tokenizer_init import load_image_tokenizer

from .crops import first_crops
from .progress import progress

TIMED_FACES = 10


def run_tokenizer(options: argparse.Namespace) -> dict[str, float]:
    """Figures of the image tokenizer of a checkpoint."""
    perceptual = load_lpips(options.lpips_weights)
    tokenizer = load_image_tokenizer(options.model or DEFAULT_CHECKPOINT)
    crops = first_crops(options.data, options.limit, tokenizer.config.image_size, layout=options.layout)
    return evaluate_tokenizer(tokenizer, [crop.image for crop in crops], perceptual)


@torch.no_grad()
def evaluate_tokenizer(
    tokenizer: GPTFaceImageTokenizer, faces: Sequence[Image.Image], perceptual: nn.Module, batch_size: int = 16
) -> dict[str, float]:
    """
    Figures of the reconstructions of aligned faces.

    Args:
        faces: RGB pictures of the tokenizer's size.
        perceptual: LPIPS, (pictures, targets) → [B].

    Returns:
        `psnr` (dB), `l1` (both on the [0, 1] scale) and `lpips`, means of the values of each picture; `codes_used`,
        `num_codes` and `perplexity` of all codes; `milliseconds_per_face`, the median time to encode and decode one
        face; `images`.
    """
    tokenizer = tokenizer.eval().to(memory_format=torch.channels_last)
    distances, codes = [], []
    for start in progress(range(0, len(faces), batch_size), "faces"):
        pixels = pixels_from_images(list(faces[start : start + batch_size]))
        codes.append(tokenizer.encode(pixels))
        decoded = tokenizer.decode(codes[-1])
        absolute = (decoded - pixels).abs().mean((1, 2, 3)) / 2
        distances.append(torch.stack([psnr(decoded, pixels), perceptual(decoded, pixels), absolute], 1))
    means = torch.cat(distances).mean(0).tolist()
    return {
        **dict(zip(("psnr", "lpips", "l1"), means, strict=True)),
        **code_usage(torch.cat(codes), tokenizer.config.num_codes),
        "num_codes": tokenizer.config.num_codes,
        "milliseconds_per_face": median(_milliseconds(tokenizer, face) for face in faces[:TIMED_FACES]),
        "images": len(faces),
    }


def _milliseconds(tokenizer: GPTFaceImageTokenizer, face: Image.Image) -> float:
    pixels = pixels_from_images([face])
    start = time.perf_counter()
    tokenizer.decode(tokenizer.encode(pixels))
    return 1000 * (time.perf_counter() - start)
