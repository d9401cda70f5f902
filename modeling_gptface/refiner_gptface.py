"""The refiner: decoded codes and the photo around a mask → a picture of twice the side that fits into the photo."""

import itertools

import torch
from torch import nn
from transformers import initialization as init

from .configuration_gptface import GPTFaceRefinerConfig
from .weight_loading import SafetensorsModel

#: decoded 3, error outside 3, its fill 3, mask 1, high frequencies 1, tone 1
NUM_INPUTS = 12
# Errors and high frequencies are small beside pixels in [-1, 1]; weights of one spread serve all inputs.
ERROR_SCALE, DETAIL_SCALE = 2.0, 8.0
# At a soft edge the photo still shows what the edit takes away: from a mask of 1 over this on nothing is known of it.
EDGE = 8.0
# Side of the squares whose means are what is not high-pass: about what codes of 16 such pixels a cell lose.
DETAIL_CELL = 4
GREY = (0.299, 0.587, 0.114)


def push_pull_fill(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """
    Spreads values smoothly to where they are not known (the pull-push pyramid of Gortler et al. 1996, "The
    Lumigraph").

    Args:
        values: [B, C, H, W], H = W a power of two.
        weights: [B, 1, H, W] in 0…1, how well each value is known.

    Returns:
        [B, C, H, W]: the values where the weight is 1, blends of what is known around, the nearer the more, where it
        is 0; zeros where nothing is known in the whole picture.
    """
    known, weight = values * weights, weights
    levels = []
    while known.shape[-1] > 1:
        levels.append((known, weight))
        # one known pixel of four is enough: a coarse value is then as good as it gets
        total = 4 * nn.functional.avg_pool2d(weight, 2)
        weight = total.clamp(max=1)
        known = 4 * nn.functional.avg_pool2d(known, 2) * (weight / total.clamp(min=1e-6))
    filled = known / weight.clamp(min=1e-6)
    for known, weight in reversed(levels):
        coarse = nn.functional.interpolate(filled, scale_factor=2, mode="bilinear")
        filled = known + (1 - weight) * coarse
    return filled


def high_pass(picture: torch.Tensor) -> torch.Tensor:
    """Pixels [B, 3, H, W] → what their grey values [B, 1, H, W] have beyond the means of small squares."""
    grey = (picture * picture.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    smooth = nn.functional.avg_pool2d(grey, DETAIL_CELL)
    return grey - nn.functional.interpolate(smooth, scale_factor=DETAIL_CELL, mode="bilinear")


def refiner_inputs(
    decoded: torch.Tensor, photo: torch.Tensor, mask: torch.Tensor, likeness: torch.Tensor, tone: torch.Tensor
) -> torch.Tensor:
    """
    What the refiner's network sees, [B, 12, S, S]. Of the photo inside of the mask nothing gets in but its high
    frequencies, as far as `likeness` lets them.

    Args:
        decoded: [B, 3, S, S] in [-1, 1], the decoded codes at the photo's size.
        photo: [B, 3, S, S] in [-1, 1].
        mask: [B, 1, S, S] in 0…1, 1 = may change.
        likeness: [B, 1, S, S] in 0…1, how much of the photo's high frequencies is still true inside of the mask.
        tone: [B, 1] in 0…1, how much the tone inside should be made to fit the photo around it.

    Returns:
        By channel: `decoded` (3); its error outside of the mask (3); that error spread into the mask (3); the mask in
            [-1, 1] (1);
        high frequencies inside (1); `tone` as a plane (1).
    """
    outside = (1 - EDGE * mask).clamp(min=0)
    error = (photo - decoded) * outside
    # Half the side: four times cheaper, and the noise of single pixels at the edge does not bleed into the mask.
    weight = nn.functional.avg_pool2d(outside, 2)
    mean = nn.functional.avg_pool2d(error, 2) / weight.clamp(min=1e-6)
    fill = nn.functional.interpolate(push_pull_fill(mean, weight), scale_factor=2, mode="bilinear") * mask
    return torch.cat(
        [
            decoded,
            ERROR_SCALE * error,
            ERROR_SCALE * fill,
            2 * mask - 1,
            DETAIL_SCALE * high_pass(photo) * likeness * mask,
            tone[:, :, None, None].expand_as(mask),
        ],
        1,
    )


class ResidualBlock(nn.Module):
    """x + conv3(ReLU(conv3(ReLU(x)))), the first convolution dilated."""

    def __init__(self, channels: int, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.conv2(torch.relu(self.conv1(torch.relu(hidden))))


class GPTFaceRefiner(SafetensorsModel):
    """
    A small U-Net behind the frozen decoder that sees the photo (the idea of the asymmetric VQGAN, Zhu et al. 2023,
    arXiv 2306.04632): it draws what the codes lost, and makes tone and edges fit to what stays.

    Its picture is `decoded · (1 + gain) + offset + residual`, gain and offset smooth. Before training it is `decoded`.

    Example:

    ```python
    >>> refiner = GPTFaceRefiner(GPTFaceRefinerConfig())  # with random weights
    >>> photo, mask = torch.zeros(1, 3, 256, 256), torch.ones(1, 1, 256, 256)
    >>> refiner(torch.zeros(1, 3, 128, 128), photo, mask).shape
    torch.Size([1, 3, 256, 256])

    ```
    """

    config: GPTFaceRefinerConfig
    config_class = GPTFaceRefinerConfig
    base_model_prefix = "refiner"
    main_input_name = "decoded"
    input_modalities = "image"
    supports_gradient_checkpointing = False
    # It has none of transformers' attention; a model that holds it may use any.
    _supports_sdpa = True

    def __init__(self, config: GPTFaceRefinerConfig):
        super().__init__(config)
        widths = config.hidden_channels
        self.stem = nn.Conv2d(NUM_INPUTS, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in itertools.pairwise(widths)
        )
        # none at full size, where a block costs as much as all of the coarsest
        self.down_blocks = nn.ModuleList(ResidualBlock(width) for width in widths[1:-1])
        self.middle = nn.Sequential(*(ResidualBlock(widths[-1], dilation) for dilation in config.dilations))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths))
        self.up_blocks = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        self.tone = nn.Conv2d(widths[-1], 6, 3, padding=1)
        self.residual = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Conv2d):
            return
        if module is self.tone or module is self.residual:
            init.zeros_(module.weight)
        else:
            init.kaiming_uniform_(module.weight, a=5**0.5)
        if module.bias is not None:
            init.zeros_(module.bias)

    def forward(
        self,
        decoded: torch.Tensor,
        photo: torch.Tensor,
        mask: torch.Tensor,
        likeness: torch.Tensor | None = None,
        tone: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            decoded: [B, 3, s, s] in [-1, 1], the decoded codes; enlarged bicubically where s is not S =
                `config.image_size`.
            photo: [B, 3, S, S] in [-1, 1]; what it shows inside of the mask counts by its high frequencies at most.
            mask: [B, 1, S, S] in 0…1, 1 = may change; 1 everywhere for a face made from text.
            likeness: [B, 1, S, S] in 0…1, how much of the photo's high frequencies is still true inside of the mask; 0
                by default.
            tone: [B, 1] in 0…1, how much the tone inside should be made to fit the photo around it: 1 for what leaves
                tones as they are (an expression), 0 where a tone is what was asked for (hair, beard, make-up). 1 by
                default.

        Returns:
            The refined picture [B, 3, S, S], about in [-1, 1], not clipped, and of use inside of the mask: outside is
            the photo.

        Raises:
            ValueError: where a shape is another.
        """
        size = self.config.image_size
        if likeness is None:
            likeness = torch.zeros_like(mask)
        if tone is None:
            tone = mask.new_ones(len(mask), 1)
        batch = len(decoded)
        for name, tensor, shape in (
            ("photo", photo, (batch, 3, size, size)),
            ("mask", mask, (batch, 1, size, size)),
            ("likeness", likeness, (batch, 1, size, size)),
            ("tone", tone, (batch, 1)),
        ):
            if tensor.shape != shape:
                raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
        if decoded.ndim != 4 or decoded.shape[1] != 3:
            raise ValueError(f"decoded must have shape [B, 3, s, s], got {list(decoded.shape)}")
        if decoded.shape[-2:] != (size, size):
            decoded = nn.functional.interpolate(decoded, (size, size), mode="bicubic", align_corners=False)
        return self.refine(decoded, refiner_inputs(decoded, photo, mask, likeness, tone))

    def refine(self, decoded: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """
        The network alone: `decoded` [B, 3, H, W] and what `refiner_inputs` makes of it, [B, 12, H, W] → refined
        picture [B, 3, H, W]; H and W multiples of 8, of a whole picture or of a crop.
        """
        # channels last in memory: convolutions take a third less time
        hidden = self.stem(inputs.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, down in enumerate(self.down):
            skips.append(hidden)
            hidden = down(torch.relu(hidden))
            if level < len(self.down_blocks):
                hidden = self.down_blocks[level](hidden)
        hidden = self.middle(hidden)
        gain, offset = nn.functional.interpolate(
            self.tone(torch.relu(hidden)).float(), decoded.shape[-2:], mode="bicubic", align_corners=False
        ).chunk(2, 1)
        for level in reversed(range(len(self.up))):
            # bilinear, not pixel shuffle: that left a grid; the 1×1 convolution commutes with it and is cheaper in
            # front
            hidden = nn.functional.interpolate(self.up[level](hidden), scale_factor=2, mode="bilinear")
            hidden = self.up_blocks[level](hidden + skips[level])
        return decoded * (1 + gain) + offset + self.residual(torch.relu(hidden))
