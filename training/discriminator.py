"""Patch discriminator of VQGAN (Esser et al. 2021, arXiv 2012.09841), its hinge loss and the adaptive weight."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class DiscriminatorConfig:
    """
    Args:
        start: training step from which the discriminator learns and is heard.
        weight: factor of the generator's loss, on top of the adaptive weight.
        channels: of the first layer; they double up to eight times as many.
        layers: strided layers behind the first; with 3 a patch spans 70 pixels.
        learning_rate: of the discriminator's AdamW, constant.
    """

    start: int = 10_000
    weight: float = 0.8
    channels: int = 64
    layers: int = 3
    learning_rate: float = 1e-4


class PatchDiscriminator(nn.Module):
    """
    Convolutions that judge overlapping patches (Isola et al. 2017).

    Group norms in place of pix2pix's batch norms: with those, real and made pictures of one batch, and the GPUs of one
    run, would see different statistics.
    """

    def __init__(self, channels: int = 64, layers: int = 3, num_channels: int = 3):
        super().__init__()
        width = channels
        modules: list[nn.Module] = [nn.Conv2d(num_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            previous, width = width, channels * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            modules += [
                nn.Conv2d(previous, width, 4, stride, 1, bias=False),
                nn.GroupNorm(4, width),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*modules, nn.Conv2d(width, 1, 4, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, H, W] in [-1, 1] → logits [B, 1, h, w], positive = a photo."""
        return self.layers(pixels)


def hinge_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Loss of the discriminator from its logits: ½·(mean max(0, 1 − real) + mean max(0, 1 + fake))."""
    return 0.5 * ((1 - real).relu().mean() + (1 + fake).relu().mean())


def adaptive_weight(reconstruction: torch.Tensor, adversarial: torch.Tensor, layer: torch.Tensor) -> torch.Tensor:
    """
    ‖∇ reconstruction loss‖ / (‖∇ adversarial loss‖ + 1e-4) at the decoder's last layer, clipped to 10⁴: both losses
    pull equally hard there, whatever their units.
    """
    (wanted,) = torch.autograd.grad(reconstruction, layer, retain_graph=True)
    (given,) = torch.autograd.grad(adversarial, layer, retain_graph=True)
    return (wanted.norm() / (given.norm() + 1e-4)).clamp(0, 1e4).detach()


def last_convolution(decoder: nn.Module) -> torch.Tensor:
    """Weight of the decoder's last convolution."""
    return [module for module in decoder.modules() if isinstance(module, nn.Conv2d)][-1].weight
