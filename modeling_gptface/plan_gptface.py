"""The plan of a face: a coarse grid of codes that say what is where, and their way back to the latents of the image
tokenizer.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .quantization import FiniteScalarQuantizer

#: Cells of the grid of codes along one side of a cell of the plan.
PLAN_FACTOR = 2


class CellBlock(nn.Module):
    """Residual MLP on the vector of each cell, [B, h, w, C] → the same shape; no cell sees another."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(2 * channels, channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.project(nn.functional.gelu(self.expand(self.norm(hidden))))


class NeighbourBlock(nn.Module):
    """
    ConvNeXt block (Liu et al. 2022, arXiv 2201.03545), [B, C, h, w] → the same shape: a depthwise 5×5 convolution,
    then an MLP.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(2 * channels, channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        mixed = self.norm(self.depthwise(hidden).movedim(1, -1))
        return hidden + self.project(nn.functional.gelu(self.expand(mixed))).movedim(-1, 1)


class FineBlock(nn.Module):
    """Residual pair of 3×3 convolutions behind a group norm, [B, C, h, w] → the same shape; C is a multiple of 4."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.expand = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.project(nn.functional.gelu(self.expand(self.norm(hidden))))


class PlanEncoder(nn.Module):
    """
    Latents [B, C, 2h, 2w] → a vector for each cell of the plan [B, channels, h, w], which depends on its own four
    latents alone.
    """

    def __init__(self, latent_channels: int, channels: int, depth: int = 2):
        super().__init__()
        self.input = nn.Linear(latent_channels * PLAN_FACTOR**2, channels)
        self.blocks = nn.Sequential(*(CellBlock(channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.pixel_unshuffle(latents, PLAN_FACTOR).movedim(1, -1)
        return self.norm(self.blocks(self.input(cells))).movedim(-1, 1)


class PlanDecoder(nn.Module):
    """
    Vectors of the plan's cells [B, channels, h, w] → latents [B, C, 2h, 2w], in which cells look at their neighbours.
    """

    def __init__(self, latent_channels: int, channels: int):
        super().__init__()
        fine = channels * 3 // 4
        self.coarse = nn.Sequential(*(NeighbourBlock(channels) for _ in range(3)))
        self.expand = nn.Conv2d(channels, fine * PLAN_FACTOR**2, 1)
        self.fine = nn.Sequential(*(FineBlock(fine) for _ in range(2)))
        self.output = nn.Conv2d(fine, latent_channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.pixel_shuffle(self.expand(self.coarse(hidden)), PLAN_FACTOR)
        return self.output(self.fine(hidden))


class PlanTokenizer(nn.Module):
    """
    Latents of an image tokenizer's encoder ↔ a grid of codes of half its side (finite scalar quantization of each
    cell).

    Args:
        levels: of each FSQ dimension; their product is the number of codes.
        latent_channels: of the latents.
        channels: width of the networks on both sides of the codes, a multiple of 16.
    """

    def __init__(self, levels: Sequence[int], latent_channels: int, channels: int):
        super().__init__()
        self.encoder = PlanEncoder(latent_channels, channels)
        self.quantizer = FiniteScalarQuantizer(levels, channels)
        self.decoder = PlanDecoder(latent_channels, channels)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Latents [B, C, 2h, 2w] → those that the plan gives back, through which gradients pass, and its codes [B, h, w].
        """
        quantized, codes = self.quantizer(self.encoder(latents))
        return self.decoder(quantized), codes

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, 2h, 2w] → codes [B, h, w] (long, 0…K−1)."""
        return self.quantizer(self.encoder(latents))[1]

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [B, h, w] → latents [B, C, 2h, 2w], those that `forward` gives for these codes."""
        return self.decoder(self.quantizer.embed(codes))
