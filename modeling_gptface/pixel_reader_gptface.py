"""The pixel reader: aligned pixels → vectors of the tokens of a coarse grid, for recognition.

Codes are made to draw a face, and hide what tells expressions apart; understanding and generation may read a picture
differently (Wu et al. 2024, "Janus", arXiv 2410.13848). The transformer between is the same: adapters let its layers
read these tokens, and leave what they make of codes as it is.
"""

import torch
from torch import nn

from .configuration_gptface import PIXEL_READER, GPTFaceConfig
from .layers import GPTFaceLayerAdapter

NORM_GROUPS = 8


class GPTFacePixelPositionEmbedding(nn.Embedding):
    """Positions of the tokens of the pixel reader; a class of its own, so that `_init_weights` knows it."""


class GPTFaceClosedConvolution(nn.Conv2d):
    """A class of its own, so that `_init_weights` starts it at zero."""


class GPTFacePixelBlock(nn.Module):
    """Residual block of two 3×3 convolutions without norms, [B, C, h, w] → the same shape; no change at the start."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = GPTFaceClosedConvolution(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.second(torch.relu(self.first(torch.relu(hidden))))


def make_stage(inputs: int, channels: int, blocks: int) -> nn.Sequential:
    """Part of the stem at one resolution, [B, inputs, 2h, 2w] → [B, channels, h, w]."""
    # One norm a stage is enough for a stem this shallow, and is what keeps it fast; over groups of channels, not over
    # the batch: what is seen in a face does not depend on the faces beside it.
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(NORM_GROUPS, channels),
        *(GPTFacePixelBlock(channels) for _ in range(blocks)),
        nn.ReLU(),
    )


class GPTFacePixelReader(nn.Module):
    """
    A small convolutional stem, the positions of its tokens, and for each layer of the transformer what it does
    differently with them.

    At 128 pixels the stem of the default size takes 0.7 GFLOP and makes 64 tokens.
    """

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.image_size = config.image_tokenizer_config.image_size
        widths, blocks, rank = {**PIXEL_READER, **(config.image_reader or {})}.values()
        self.stem = nn.Sequential(*map(make_stage, (3, *widths), widths, blocks))
        self.output = nn.Conv2d(widths[-1], config.hidden_size, 2, stride=2)
        self.position_embeddings = GPTFacePixelPositionEmbedding(config.pixel_grid_size**2, config.hidden_size)
        self.adapters = nn.ModuleList(GPTFaceLayerAdapter(config, rank) for _ in range(config.num_hidden_layers))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Aligned pixels [B, 3, S, S] in [-1, 1] → vectors of tokens in raster order, with their positions [B, (S / 16)²,
        H].

        Raises:
            ValueError: pixels of another size.
        """
        expected = (3, self.image_size, self.image_size)
        if pixel_values.shape[1:] != expected:
            raise ValueError(
                f"pixel_values {list(pixel_values.shape)} must be [batch, {', '.join(map(str, expected))}]"
            )
        pixels = pixel_values.to(self.output.weight.dtype, memory_format=torch.channels_last)
        return self.output(self.stem(pixels)).flatten(2).mT + self.position_embeddings.weight
