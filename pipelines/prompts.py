"""Prompts, seeds and parameters of the decoding as the generating pipelines take them."""

import operator
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import BatchFeature

from gptface.processing.processing_gptface import GPTFaceProcessor

#: Parameters of a call that go on to `generate` or `generate_text` as they are.
DECODING = ("num_inference_steps", "temperature", "decoding", "top_k", "guidance_scale", "itm_guidance")

#: Parameters that say which of all results is drawn.
SEEDING = ("seed", "generator")
#: Candidates are one batch of the model: the memory for more than these is not to be had.
MAX_CANDIDATES = 256


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


def candidate_seeds(seed: int | None, generator: Any, count: int) -> list[int]:
    """
    Seeds of the candidates: candidate j uses seed + j; without a seed it is drawn from the generator, or fresh. A list
    of generators gives each candidate a seed of its own.

    Raises:
        ValueError: both a seed and a generator, a seed that is no whole number or has more than 63 bits, or as many
            generators as there are no candidates.
    """
    if seed is not None and generator is not None:
        raise ValueError("give seed or generator, not both")
    if isinstance(generator, list | tuple):
        if len(generator) != count:
            raise ValueError(
                f"{len(generator)} generators for {count} candidates: give one, or one for each candidate"
            )
        return [_drawn_seed(each) for each in generator]
    if seed is None:
        seed = _drawn_seed(generator)
    try:
        first = operator.index(seed)
    except TypeError:
        raise ValueError(f"seed must be a whole number, got {seed!r}") from None
    if not -(2**63) <= first <= 2**63 - count:
        raise ValueError(f"seed must lie within 63 bits, -2**63…2**63 - {count} for {count} candidates, got {seed}")
    return [first + index for index in range(count)]


def _drawn_seed(generator: Any) -> int:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or a list of them, got {generator!r}")
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**31, (1,), generator=generator, device=device))


def checked_count(name: str, count: Any) -> int:
    """
    How many candidates are drawn at once.

    Raises:
        ValueError: no whole number from 1 to `MAX_CANDIDATES`.
    """
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if not 1 <= number <= MAX_CANDIDATES:
        raise ValueError(
            f"{name} must be at least 1 and at most {MAX_CANDIDATES}, a whole number, got {count!r}: "
            "all are drawn at once; for more call again with another seed"
        )
    return number
