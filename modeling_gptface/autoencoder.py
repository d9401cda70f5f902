"""The compact convolutional autoencoder of the image tokenizer (the architecture of TAEF2, madebyollin/taesd, MIT)."""

import torch
from torch import nn


class Clamp(nn.Module):
    """Soft clamp to [-3, 3], so that an outlier of the latents cannot saturate the decoder."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.tanh(latents / 3) * 3


class Block(nn.Module):
    """Three 3×3 convolutions with a residual sum; with `pool`, a normalised bottleneck residual in front of them."""

    def __init__(self, channels: int, pool: bool = False):
        super().__init__()
        self.pool = (
            nn.Sequential(
                nn.Conv2d(channels, 4 * channels, 1, bias=False),
                nn.GroupNorm(4, 4 * channels),
                nn.ReLU(),
                nn.Conv2d(4 * channels, channels, 1, bias=False),
            )
            if pool
            else None
        )
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            hidden = hidden + self.pool(hidden)
        return torch.relu(self.conv(hidden) + hidden)


def compact_encoder(channels: int, latent_channels: int, num_channels: int = 3) -> nn.Sequential:
    """Pixels [B, 3, H, W] in [0, 1] → latents [B, latent_channels, H/8, W/8]."""
    layers: list[nn.Module] = [nn.Conv2d(num_channels, channels, 3, padding=1), Block(channels)]
    for stage in range(3):
        layers.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False))
        layers += [Block(channels, pool=stage == 2) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(channels, latent_channels, 3, padding=1))


def compact_decoder(channels: int, latent_channels: int, num_channels: int = 3) -> nn.Sequential:
    """Latents [B, latent_channels, h, w] → pixels [B, 3, 8h, 8w], about in [0, 1] (not clipped)."""
    layers: list[nn.Module] = [Clamp(), nn.Conv2d(latent_channels, channels, 3, padding=1), nn.ReLU()]
    for stage in range(4):
        layers += [Block(channels, pool=stage == 0) for _ in range(3 if stage < 3 else 1)]
        if stage < 3:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, nn.Conv2d(channels, num_channels, 3, padding=1))
