"""What generation takes, brought into one form: captions, guidance, generators."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .guidance import ITMGuidance


def as_guidance(value: "ITMGuidance | dict | float | None") -> ITMGuidance:
    """None or 0 → no guidance; a number → the default guidance with that step size; a dict → its fields."""
    if value is None or value is False:
        return ITMGuidance(iterations=0)
    if isinstance(value, ITMGuidance):
        return value
    if isinstance(value, dict):
        return ITMGuidance(**value)
    return ITMGuidance(step_size=float(value)) if value else ITMGuidance(iterations=0)


def per_sample_generators(
    generator: "torch.Generator | Sequence[torch.Generator] | None", batch: int
) -> list[torch.Generator]:
    """
    One generator for each sample. A single generator gives each sample a seed of its own; None draws fresh seeds.

    Raises:
        ValueError: where a list is not as long as the batch.
    """
    if isinstance(generator, list | tuple):
        if len(generator) != batch:
            raise ValueError(f"{len(generator)} generators for a batch of {batch}: give one for each sample")
        return list(generator)
    device = "cpu" if generator is None else generator.device  # type: ignore[union-attr]
    seeds = torch.randint(2**62, (batch,), generator=generator, device=device)  # type: ignore[arg-type]
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def outside_inference_mode(method: Callable[..., Any]) -> Callable[..., Any]:
    """
    Lets a method that follows gradients work where its caller is in `torch.inference_mode()`: tensors made there can
    have none, so it runs outside, on copies of them.
    """

    @functools.wraps(method)
    def outside(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return method(*args, **kwargs)

        def ordinary(value: Any) -> Any:
            return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value

        with torch.inference_mode(False):
            return method(
                *(ordinary(value) for value in args), **{name: ordinary(value) for name, value in kwargs.items()}
            )

    return outside


@dataclass(frozen=True)
class Captions:
    """
    Captions of a batch as arguments for the model.

    Args:
        input_ids: [B, T].
        attention_mask: [B, T], 1 = word, or None.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None = None

    def arguments(self) -> dict[str, torch.Tensor | None]:
        """Keyword arguments of the model."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    @staticmethod
    def stack(captions: "Sequence[Captions]", padding: int) -> "Captions":
        """
        Several captions for each sample → one batch of them all, the first of all samples first; padded with the id
        `padding`.
        """
        if len(captions) == 1:
            return captions[0]
        length = max(each.input_ids.shape[1] for each in captions)
        masks = [
            torch.ones_like(each.input_ids) if each.attention_mask is None else each.attention_mask
            for each in captions
        ]
        ids, mask = (
            torch.cat([nn.functional.pad(part, (0, length - part.shape[1]), value=value) for part in parts])
            for parts, value in (([each.input_ids for each in captions], padding), (masks, 0))
        )
        return Captions(ids, mask)
