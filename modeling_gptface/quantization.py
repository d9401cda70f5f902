"""Quantizers of the image tokenizer: finite scalar quantization and learned codebooks, behind one interface."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class PointwiseConvolution(nn.Conv2d):
    """1×1 convolution, which always has a bias."""

    bias: torch.Tensor  # type: ignore[assignment]

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)


class Quantizer(nn.Module, ABC):
    """
    Latents [B, C, h, w] → quantized latents of the same shape and codes [B, h, w] (long, 0…K−1), and codes back to
    latents.
    """

    down: PointwiseConvolution
    up: PointwiseConvolution

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any) -> "Quantizer":
        """The quantizer of a [`GPTFaceImageTokenizerConfig`], with random weights."""

    @staticmethod
    @abstractmethod
    def codes_of(config: Any) -> int:
        """Number of different codes K that the quantizer of a [`GPTFaceImageTokenizerConfig`] has."""

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Number of different codes K."""

    @abstractmethod
    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Latents [B, C, h, w] → quantized latents, through which gradients pass straight, and codes [B, h, w].

        Raises:
            FloatingPointError: see [`checked`].
        """

    @abstractmethod
    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [B, h, w] → latents [B, C, h, w], those that `forward` gives for these codes."""

    def checked(self, values: torch.Tensor) -> torch.Tensor:
        """
        What codes are about to be made of, as it is. Raises `FloatingPointError` where it is not finite, outside of
        training (which looks at its losses): any code would be a plausible one.
        """
        if not self.training and not torch.compiler.is_compiling() and not torch.isfinite(values).all():
            raise FloatingPointError("what is to be quantized is not finite: the pixels or the weights are damaged")
        return values

    def training_losses(self, latents: torch.Tensor, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Loss terms by name, besides those of the pixels, for latents [B, C, h, w] and the codes [B, h, w] that they
        were given; none unless a quantizer has its own.
        """
        return {}


class FiniteScalarQuantizer(Quantizer):
    """
    Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505) between 1×1 convolutions.

    Dimension j is squashed to `levels[j]` values and rounded to integers q_j; code = Σ_j (q_j + L_j//2)·∏_{i<j} L_i.
    The integers divided by L_j//2 go through `up`. Gradients pass the rounding straight through.
    """

    def __init__(self, levels: Sequence[int], latent_channels: int):
        super().__init__()
        self.levels = [int(level) for level in levels]
        self.down = PointwiseConvolution(latent_channels, len(levels))
        self.up = PointwiseConvolution(len(levels), latent_channels)

    @classmethod
    def from_config(cls, config: Any) -> "FiniteScalarQuantizer":
        return cls(config.fsq_levels, config.latent_channels)

    @staticmethod
    def codes_of(config: Any) -> int:
        return math.prod(config.fsq_levels)

    @property
    def num_codes(self) -> int:
        return math.prod(self.levels)

    def _column(self, values: list[float], like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)

    def widths(self, like: torch.Tensor) -> torch.Tensor:
        """L_j//2 as [1, D, 1, 1]: integers divided by it go through `up`."""
        return self._column([level // 2 for level in self.levels], like)

    def integers(self, latents: torch.Tensor, rounded: bool = True) -> torch.Tensor:
        """
        Latents [B, C, h, w] → integers q [B, D, h, w] as floats in −(L_j//2)…(L_j−1)//2, straight-through; with
        `rounded=False` as they are before the rounding.
        """
        half = self._column([(level - 1) * (1 + 1e-3) / 2 for level in self.levels], latents)
        offset = self._column([0.5 if level % 2 == 0 else 0.0 for level in self.levels], latents)
        bounded = torch.tanh(self.checked(self.down(latents)) + torch.atanh(offset / half)) * half - offset
        return bounded + (bounded.round() - bounded).detach() if rounded else bounded

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        integers = self.integers(latents)
        width = self.widths(latents)
        # in whole numbers: bfloat16 holds none above 256 exactly
        basis = torch.tensor(self._basis(), device=latents.device).view(1, -1, 1, 1)
        codes = ((integers.detach().round() + width).long() * basis).sum(1)
        return self.up(integers / width), codes

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        levels = code_levels(codes, self.levels).movedim(-1, 1).to(self.up.weight.dtype)
        width = self.widths(levels)
        return self.up((levels - width) / width)

    def _basis(self) -> list[int]:
        basis, product = [], 1
        for level in self.levels:
            basis.append(product)
            product *= level
        return basis


class CodebookQuantizer(Quantizer):
    """
    Learned codebook (van den Oord et al. 2017): each latent is replaced by its nearest vector in Euclidean distance.

    `down` and `up` are taming-transformers' `quant_conv` and `post_quant_conv`. Gradients pass straight through.
    """

    def __init__(self, codebook_size: int, codebook_dim: int, latent_channels: int):
        super().__init__()
        self.down = PointwiseConvolution(latent_channels, codebook_dim)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)
        self.up = PointwiseConvolution(codebook_dim, latent_channels)

    @classmethod
    def from_config(cls, config: Any) -> "CodebookQuantizer":
        return cls(config.codebook_size, config.codebook_dim or config.latent_channels, config.latent_channels)

    @staticmethod
    def codes_of(config: Any) -> int:
        return config.codebook_size

    @property
    def num_codes(self) -> int:
        return self.codebook.num_embeddings

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = self.down(latents).movedim(1, -1)
        # ‖v − e‖² without ‖v‖², which is the same for every entry e
        weight = self.codebook.weight
        distances = weight.pow(2).sum(1) - 2 * vectors @ weight.t()
        codes = self.checked(distances).argmin(-1)
        quantized = self.codebook(codes)
        quantized = vectors + (quantized - vectors).detach()
        return self.up(quantized.movedim(-1, 1)), codes

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        return self.up(self.codebook(codes).movedim(-1, 1))

    def training_losses(self, latents: torch.Tensor, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        `commitment_loss` draws latents to their vectors, `codebook_loss` vectors to their latents (mean squared
        distances).
        """
        vectors, chosen = self.down(latents).movedim(1, -1), self.codebook(codes)
        return {
            "commitment_loss": nn.functional.mse_loss(vectors, chosen.detach()),
            "codebook_loss": nn.functional.mse_loss(chosen, vectors.detach()),
        }


class GumbelQuantizer(CodebookQuantizer):
    """
    Learned codebook whose codes a linear classifier picks (Jang et al. 2017, as in taming-transformers' `GumbelVQ`).

    `proj` scores the codes; the likeliest one is taken, without the Gumbel noise of taming's training, so that
    encoding is repeatable. Gradients pass straight through to the softmax.
    """

    def __init__(self, codebook_size: int, codebook_dim: int, latent_channels: int):
        super().__init__(codebook_size, codebook_dim, latent_channels)
        self.proj = PointwiseConvolution(codebook_dim, codebook_size)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.proj(self.down(latents))
        codes = self.checked(logits).argmax(1)
        soft = logits.softmax(1)
        chosen = nn.functional.one_hot(codes, self.num_codes).movedim(-1, 1) + (soft - soft.detach())
        return self.up(torch.einsum("bkhw,kd->bdhw", chosen, self.codebook.weight)), codes

    def training_losses(self, latents: torch.Tensor, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        """None: the classifier picks the codes, and gradients reach the vectors through its softmax."""
        return {}


#: Kinds of quantizers, by the name that `config.quantizer` gives.
QUANTIZERS: dict[str, type[Quantizer]] = {
    "fsq": FiniteScalarQuantizer,
    "codebook": CodebookQuantizer,
    "gumbel": GumbelQuantizer,
}


def code_levels(codes: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
    """FSQ codes […] (long) → level indices […, D], index j in 0…L_j−1; the inverse of the mixed-radix sum."""
    digits = []
    for level in levels:
        digits.append(codes % level)
        codes = torch.div(codes, level, rounding_mode="floor")
    return torch.stack(digits, -1)
