"""LPIPS, the learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924), as a loss and as a figure."""

from pathlib import Path

import torch
from torch import nn

# Stride of each AlexNet convolution, and padding; a 3/2 max-pool stands before the second and third.
STRIDES, PADDINGS, POOLED = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1), (1, 2)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """
    LPIPS v0.1 on AlexNet, from a safetensors file with `convs.N.weight`, `convs.N.bias` and `lin.N` for N = 0…4.

    All weights are buffers: nothing here is trained. Pictures need at least 31 pixels on each side.

    Raises:
        FileNotFoundError: where the file is missing.
        ValueError: where the file lacks a tensor.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weights: str | Path):
        super().__init__()
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not Path(weights).is_file():
            raise FileNotFoundError(f"{weights} does not exist: give the safetensors file of LPIPS (AlexNet)")
        try:
            state = load_file(weights)
            for layer in range(len(STRIDES)):
                self.register_buffer(f"weight_{layer}", state[f"convs.{layer}.weight"].float())
                self.register_buffer(f"bias_{layer}", state[f"convs.{layer}.bias"].float())
                self.register_buffer(f"channels_{layer}", state[f"lin.{layer}"].float().view(1, -1, 1, 1))
        except (KeyError, SafetensorError) as error:
            raise ValueError(
                f"{weights} is no file of LPIPS weights (convs.N.weight, convs.N.bias, lin.N): {error}"
            ) from error
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Pixels [B, 3, H, W] in [-1, 1] → unit feature vectors of each layer, [B, C, h, w]."""
        hidden, features = (pixels - self.shift) / self.scale, []
        for layer, (stride, padding) in enumerate(zip(STRIDES, PADDINGS, strict=True)):
            if layer in POOLED:
                hidden = nn.functional.max_pool2d(hidden, 3, 2)
            weight, bias = self.get_buffer(f"weight_{layer}"), self.get_buffer(f"bias_{layer}")
            hidden = nn.functional.conv2d(hidden, weight, bias, stride, padding).relu()
            features.append(hidden / (hidden.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
        return features

    def forward(
        self, pictures: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Two batches [B, 3, H, W] in [-1, 1] → distances [B]; gradients flow into `pictures` alone. With `weights` [B,
        1, H, W] in 0…1 each layer's mean is weighted by them at its resolution; 0 where all of a picture's weights are
        0.
        """
        with torch.no_grad():
            wanted = self.features(targets)
        distances = []
        for layer, (given, want) in enumerate(zip(self.features(pictures), wanted, strict=True)):
            distance = ((given - want).pow(2) * self.get_buffer(f"channels_{layer}")).sum(1, keepdim=True)
            if weights is None:
                distances.append(distance.mean((1, 2, 3)))
            else:
                share = nn.functional.adaptive_avg_pool2d(weights, (distance.shape[-2], distance.shape[-1]))
                distances.append((distance * share).sum((1, 2, 3)) / share.sum((1, 2, 3)).clamp(min=1e-3))
        return torch.stack(distances).sum(0)


class PackagedLPIPS(nn.Module):
    """The same distance by the `lpips` package, which brings (or downloads) its own weights."""

    def __init__(self) -> None:
        super().__init__()
        try:
            import lpips
        except ImportError as error:
            raise ImportError(
                'LPIPS needs its weights as a safetensors file, or the package: pip install "gptface[lpips]"'
            ) from error
        self.network = lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False)

    def forward(self, pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Two batches [B, 3, H, W] in [-1, 1] → distances [B]."""
        return self.network(pictures, targets).flatten()


def load_lpips(weights: str | Path | None = None) -> nn.Module:
    """LPIPS (AlexNet) from a file, or from the `lpips` package where no file is given."""
    return (PackagedLPIPS() if weights is None else LPIPS(weights)).eval()
