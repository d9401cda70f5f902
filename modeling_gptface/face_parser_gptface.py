"""The face parser: pixels of a face → what each of them shows (skin, hair, eyeglasses, …)."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_gptface import GPTFaceParserConfig
from .weight_loading import SafetensorsModel

NORM_GROUPS = 8


class ConvNormActivation(nn.Sequential):
    """A convolution without bias, group norm and, unless it ends a residual branch, SiLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: bool = True,
    ):
        padding = dilation * (kernel_size // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False),
            # Not batch norm: a face looks the same to the parser whatever it is batched with, in training as in use.
            nn.GroupNorm(NORM_GROUPS, out_channels),
        ]
        super().__init__(*layers, *([nn.SiLU(inplace=True)] if activation else []))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity (He et al. 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            ConvNormActivation(channels, channels), ConvNormActivation(channels, channels, activation=False)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.silu(hidden + self.branch(hidden))


class InvertedResidualBlock(nn.Module):
    """
    A wide depthwise 5×5 convolution between two pointwise ones (Sandler et al. 2018), gated by the mean of the whole
    picture (Hu et al. 2018): what a pixel shows depends on where the face is.
    """

    def __init__(self, channels: int, expansion: int, dilation: int):
        super().__init__()
        wide = channels * expansion
        self.expand = ConvNormActivation(channels, wide, 1)
        self.depthwise = ConvNormActivation(wide, wide, 5, dilation=dilation, groups=wide)
        self.gate = nn.Conv2d(channels, wide, 1)
        self.project = ConvNormActivation(wide, channels, 1, activation=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(hidden.mean((2, 3), keepdim=True)))
        return hidden + self.project(self.depthwise(self.expand(hidden)) * gate)


@dataclass
class GPTFaceParserOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*): mean cross-entropy, where labels are given.
        logits (`torch.FloatTensor` of shape `(batch, num_labels, H, W)`): of every class at every pixel.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class GPTFaceParser(SafetensorsModel):
    """
    A small U-Net (Ronneberger et al. 2015) that works at half, quarter, eighth and sixteenth of the resolution. It
    reads an aligned face crop, or one that holds the face's surroundings too (up to twice the crop): pixels in [-1,
    1], sides that are multiples of 16.

    ```python
    parser = GPTFaceParser(GPTFaceParserConfig())
    parser(torch.zeros(1, 3, 256, 256)).logits.shape  # torch.Size([1, 17, 256, 256])
    ```
    """

    config: GPTFaceParserConfig
    config_class = GPTFaceParserConfig
    base_model_prefix = "face_parser"
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = False
    # It has none of transformers' attention; a model that holds it may use any.
    _supports_sdpa = True

    def __init__(self, config: GPTFaceParserConfig):
        super().__init__(config)
        half, quarter, eighth, sixteenth = config.block_out_channels
        self.stem = ConvNormActivation(config.num_channels, half, stride=2)
        self.down_quarter = nn.Sequential(ConvNormActivation(half, quarter, stride=2), ResidualBlock(quarter))
        self.down_eighth = nn.Sequential(ConvNormActivation(quarter, eighth, stride=2), ResidualBlock(eighth))
        self.down_sixteenth = ConvNormActivation(eighth, sixteenth, stride=2)
        self.bottleneck = nn.Sequential(
            *(InvertedResidualBlock(sixteenth, config.expansion, dilation) for dilation in config.dilations)
        )
        self.up_eighth = nn.Conv2d(sixteenth, eighth, 1)
        self.merge_eighth = ResidualBlock(eighth)
        self.up_quarter = nn.Conv2d(eighth, quarter, 1)
        self.merge_quarter = ResidualBlock(quarter)
        self.up_half = nn.Conv2d(quarter, half, 1)
        self.merge_half = ConvNormActivation(half, half)
        self.classifier = nn.Conv2d(half, len(config.class_names), 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def probabilities(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Pixels [B, 3, H, W] in [-1, 1] → probabilities of the classes at each pixel, float32 [B, num_labels, H, W].

        Raises:
            FloatingPointError: where pixels or weights are not finite; any class would be a plausible one.
        """
        logits = self(pixel_values).logits.float()
        if not torch.compiler.is_compiling() and not torch.isfinite(logits).all():
            raise FloatingPointError("the logits of the face parser are not finite: pixels or weights are damaged")
        return logits.softmax(1)

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> GPTFaceParserOutput | tuple:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, 3, H, W)`): RGB in [-1, 1].
            labels (`torch.LongTensor` of shape `(batch, H, W)`, *optional*): the class of each pixel, −100 where it
                does not count.

        Raises:
            ValueError: pixels of another shape, or sides that are no multiples of 16.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values must have shape [B, {self.config.num_channels}, H, W], got {list(pixel_values.shape)}"
            )
        height, width = pixel_values.shape[2:]
        if height % 16 or width % 16:
            raise ValueError(f"the sides of the picture must be multiples of 16, got {height}×{width}")
        # channels last in memory: convolutions take a third less time
        pixel_values = pixel_values.to(self.classifier.weight.dtype, memory_format=torch.channels_last)
        half = self.stem(pixel_values.contiguous(memory_format=torch.channels_last))
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        hidden = self.bottleneck(self.down_sixteenth(eighth))
        hidden = self.merge_eighth(eighth + _doubled(self.up_eighth(hidden)))
        hidden = self.merge_quarter(quarter + _doubled(self.up_quarter(hidden)))
        hidden = self.merge_half(half + _doubled(self.up_half(hidden)))
        logits = _doubled(self.classifier(hidden))
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return GPTFaceParserOutput(loss, logits)


def _doubled(features: torch.Tensor) -> torch.Tensor:
    """Features [B, C, h, w] at twice the resolution [B, C, 2h, 2w]."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
