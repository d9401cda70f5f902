"""Prompts, seeds and parameters of the decoding as the generating pipelines take them."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import BatchFeature

from gptface.processing.processing_gptface import GPTFaceProcessor

#: Parameters of a call that go on to `generate` or `generate_text` as they are.
DECODING = ("num_inference_steps", "temperature", "decoding", "top_k", "guidance_scale", "itm_guidance")


def encode_prompt(processor: GPTFaceProcessor, name: str, text: str) -> BatchFeature:
    """
    One text → its `input_ids` and `attention_mask` [1, T]; warns where it is cut.

    Args:
        name: how messages call the text, such as `"prompt"`.

    Raises:
        ValueError: what is no text, not valid Unicode, or holds no word that the checkpoint knows.
    """
    tokenizer = processor.tokenizer
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a text, got {text!r}")
    shown = repr(text if len(text) <= 80 else text[:79] + "…")
    try:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    except (TypeError, UnicodeError) as error:  # a lone surrogate
        raise ValueError(f"{name} {shown} is not valid Unicode") from error
    if text.strip() and not set(ids) - {tokenizer.unk_token_id}:
        raise ValueError(f"{name} {shown} has no word that this checkpoint knows: describe the face in plain English")
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if len(ids) > room:
        warnings.warn(
            f"{name} has {len(ids)} tokens and this checkpoint reads {room}: the rest is ignored", stacklevel=2
        )
    return processor(text=[text])


def split_parameters(given: Mapping[str, Any], *stages: Collection[str]) -> tuple[dict[str, Any], ...]:
    """
    The parameters of a call → those of each stage, whose names are given; one that is None is left to its default.

    Raises:
        TypeError: a name that is none of them.
    """
    unknown = set(given) - {name for stage in stages for name in stage}
    if unknown:
        raise TypeError(f"unknown parameters {sorted(unknown)}")
    return tuple({name: given[name] for name in stage if given.get(name) is not None} for stage in stages)


def candidate_seeds(seed: int | None, generator: torch.Generator | None, count: int) -> list[int]:
    """
    Seeds of the candidates: candidate j uses seed + j; without a seed it is drawn from the generator, or fresh.

    Raises:
        ValueError: both a seed and a generator, or a list of generators.
    """
    if seed is not None and generator is not None:
        raise ValueError("give seed or generator, not both")
    if isinstance(generator, list | tuple):
        raise ValueError("give one generator: candidate j uses the seed drawn from it + j")
    if seed is None:
        seed = int(torch.randint(2**31, (1,), generator=generator))
    return [seed + index for index in range(count)]
