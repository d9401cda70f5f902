"""The image tokenizer: pixels ↔ a grid of discrete codes, and a coarser grid of them, the plan.

The plan says what is where; its codes have a way back to the latents of the tokenizer. The compact convolutional
autoencoder has the architecture of TAEF2 (madebyollin/taesd, MIT).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_gptface import GPTFaceImageTokenizerConfig
from .quantization import QUANTIZERS, FiniteScalarQuantizer
from .refiner_gptface import GPTFaceRefiner
from .weight_loading import SafetensorsModel


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


#: Cells of the grid of codes along one side of a cell of the plan.
PLAN_FACTOR = 2


def cells_below(tokens: torch.Tensor) -> torch.Tensor:
    """What the tokens of plans have [B, P] → what the cells below them have [B, 4·P], both in raster order."""
    side = math.isqrt(tokens.shape[1])
    grid = tokens.unflatten(1, (side, side))
    return grid.repeat_interleave(PLAN_FACTOR, 1).repeat_interleave(PLAN_FACTOR, 2).flatten(1)


def with_neighbours(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of a plan [B, P] bool, and those that touch them, at a side or a corner."""
    side = math.isqrt(tokens.shape[1])
    grid = tokens.unflatten(1, (1, side, side)).float()
    return nn.functional.max_pool2d(grid, 3, stride=1, padding=1).flatten(1) > 0


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


#: Parameters without a say in which code a cell gets.
DECODING_ONLY = ("decoder.", "quantizer.up.", "refiner.")
#: Parameters of the plan, and those of them without a say in which code a cell of the plan gets.
PLAN = "plan."
PLAN_DECODING_ONLY = ("plan.decoder.", "plan.quantizer.up.")

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import Decoder, Encoder


def vqgan_backbone(config: GPTFaceImageTokenizerConfig) -> "tuple[Encoder, Decoder]":
    """Encoder and decoder of diffusers' `VQModel`. Raises `ImportError` where diffusers is missing."""
    try:
        from diffusers.models.autoencoders.vae import Decoder, Encoder
    except ImportError as error:
        raise ImportError('backbone="vqgan" needs diffusers: pip install "gptface[vqgan]"') from error
    resolutions = [config.image_size // 2**stage for stage in range(len(config.block_out_channels))]
    attends = [resolution in config.attention_resolutions for resolution in resolutions]
    shared: dict[str, Any] = {
        "block_out_channels": tuple(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_num_groups,
    }
    encoder = Encoder(
        in_channels=config.num_channels,
        out_channels=config.latent_channels,
        down_block_types=tuple("AttnDownEncoderBlock2D" if attend else "DownEncoderBlock2D" for attend in attends),
        double_z=False,
        **shared,
    )
    decoder = Decoder(
        in_channels=config.latent_channels,
        out_channels=config.num_channels,
        up_block_types=tuple("AttnUpDecoderBlock2D" if attend else "UpDecoderBlock2D" for attend in attends[::-1]),
        **shared,
    )
    return encoder, decoder


@dataclass
class GPTFaceImageTokenizerOutput(ModelOutput):
    """
    Args:
        reconstruction (`torch.FloatTensor` of shape `(batch, 3, H, W)`): decoded picture, about in [-1, 1], not
            clipped.
        codes (`torch.LongTensor` of shape `(batch, cells)`): codes in raster order, 0…K−1.
        latents (`torch.FloatTensor` of shape `(batch, latent_channels, h, w)`): encoder output before the quantizer.
    """

    reconstruction: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    latents: torch.Tensor | None = None


class GPTFaceImageTokenizer(SafetensorsModel):
    """
    Convolutional encoder → quantizer → decoder. All pixels are in [-1, 1]; codes are in raster order.

    With `config.plan_levels` it has a plan too: codes of a grid of half the side, from the same encoder, that say what
    is where in the face. They have a decoder of their own to latents, from which the same decoder makes pixels.

    Example:

    ```python
    >>> tokenizer = GPTFaceModel.from_pretrained(DEFAULT_CHECKPOINT).image_tokenizer
    >>> faces = torch.zeros(2, 3, 128, 128)  # aligned, RGB in [-1, 1]
    >>> tokenizer.encode(faces).shape, tokenizer.encode_plan(faces).shape
    (torch.Size([2, 256]), torch.Size([2, 64]))
    >>> tokenizer.decode(tokenizer.encode(faces)).shape
    torch.Size([2, 3, 128, 128])

    ```
    """

    config: GPTFaceImageTokenizerConfig
    config_class = GPTFaceImageTokenizerConfig
    base_model_prefix = "image_tokenizer"
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = False
    # It has none of transformers' attention; a model that holds it may use any.
    _supports_sdpa = True

    def __init__(self, config: GPTFaceImageTokenizerConfig):
        super().__init__(config)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.backbone == "compact":
            self.encoder = compact_encoder(config.hidden_channels, config.latent_channels, config.num_channels)
            self.decoder = compact_decoder(config.hidden_channels, config.latent_channels, config.num_channels)
        else:
            self.encoder, self.decoder = vqgan_backbone(config)
        self.quantizer = QUANTIZERS[config.quantizer].from_config(config)
        self.plan: PlanTokenizer | None = None
        if config.plan_levels is not None:
            self.plan = PlanTokenizer(config.plan_levels, config.latent_channels, config.plan_channels)
        #: draws a decoded picture at a larger size so that it fits a photo; None where the configuration has none
        self.refiner = None if config.refiner_config is None else GPTFaceRefiner(config.refiner_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -1.0 / module.num_embeddings, 1.0 / module.num_embeddings)

    def latents(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Pixels [B, 3, H, W] of any float dtype in [-1, 1] → continuous latents [B, C, h, w]; H and W multiples of the
        factor.
        """
        pixel_values = pixel_values.to(self.quantizer.down.weight.dtype)
        if self.config.backbone == "compact":  # this backbone wants [0, 1]
            pixel_values = (pixel_values + 1) / 2
        # channels last in memory: convolutions take a third less time
        return self.encoder(pixel_values.contiguous(memory_format=torch.channels_last))

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Pixels [B, 3, H, W] in [-1, 1] → codes [B, N] (long, raster order). Raises what [`checked_latents`] raises.
        """
        return self.quantizer(self.checked_latents(pixel_values))[1].flatten(1)

    def checked_latents(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Pixels [B, 3, H, W] in [-1, 1] → latents [B, C, h, w] that may be quantized.

        Raises:
            ValueError: where the shape is not that of a square picture of `config.image_size`.
            FloatingPointError: where pixels or weights are not finite; any code would be a plausible one.
        """
        size = self.config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (self.config.num_channels, size, size):
            raise ValueError(
                f"pixel_values must have shape [B, {self.config.num_channels}, {size}, {size}], "
                f"got {list(pixel_values.shape)}"
            )
        latents = self.latents(pixel_values)
        if not torch.compiler.is_compiling() and not torch.isfinite(latents).all():
            raise FloatingPointError(
                "the latents of the picture are not finite: the pixels or the weights are damaged"
            )
        return latents

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """
        Codes [B, N] → quantized latents [B, C, h, w] for a square grid of N cells. Raises what [`decode`] raises.
        """
        return self.quantizer.embed(_grid_of_codes(codes, self.config.num_codes))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """
        Codes [B, N] (long, 0…K−1) → pixels [B, 3, H, W] clipped to [-1, 1].

        Raises:
            ValueError: codes of another shape, no whole numbers, or out of range (looked at on the CPU alone): any
                would be a plausible picture.
        """
        return self.decode_latents(self.embed(codes)).clamp(-1, 1)

    def decode_refined(self, codes: torch.Tensor) -> torch.Tensor:
        """
        Codes [B, N] of faces that are in no photo → pixels clipped to [-1, 1], [B, 3, S, S] of the refiner's
        size, which invents what codes do not say; without a refiner as [`decode`].
        """
        decoded = self.decode(codes)
        if self.refiner is None:
            return decoded
        size = self.refiner.config.image_size
        photo, mask = decoded.new_zeros(len(decoded), 3, size, size), decoded.new_ones(len(decoded), 1, size, size)
        return self.refiner(decoded, photo, mask, tone=decoded.new_zeros(len(decoded), 1)).clamp(-1, 1)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Quantized latents [B, C, h, w] → pixels [B, 3, H, W], about in [-1, 1], not clipped."""
        pixels = self.decoder(latents.contiguous(memory_format=torch.channels_last))
        return pixels * 2 - 1 if self.config.backbone == "compact" else pixels

    def encode_plan(
        self, pixel_values: torch.Tensor | None = None, *, latents: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Codes of the plan [B, num_plan_tokens] (long, 0…num_plan_codes−1, raster order). Autocast has no influence on
        them.

        Args:
            pixel_values: pixels [B, 3, H, W] in [-1, 1].
            latents: what [`latents`] gave for the pixels [B, C, h, w], in their place.

        Raises:
            ValueError: without a plan; with both arguments or none; pixels of another shape.
            FloatingPointError: as in [`checked_latents`].
        """
        plan = self._required_plan()
        if (pixel_values is None) == (latents is None):
            raise ValueError("encode_plan needs pixel_values or latents, one of them")
        with torch.autocast(self.device.type, enabled=False):
            if latents is None:
                assert pixel_values is not None
                latents = self.checked_latents(pixel_values)
            return plan.encode(latents.to(self.dtype)).flatten(1)

    def embed_plan(self, plan_codes: torch.Tensor) -> torch.Tensor:
        """
        Codes of a plan [B, N] (long) of a square grid → latents [B, C, 2·√N, 2·√N]. Raises `ValueError` without a
        plan, and what [`decode`] raises.
        """
        return self._required_plan().embed(_grid_of_codes(plan_codes, self.config.num_plan_codes))

    def decode_plan(self, plan_codes: torch.Tensor) -> torch.Tensor:
        """
        Codes of a plan [B, N] (long) → pixels [B, 3, H, W] clipped to [-1, 1]. Raises what [`embed_plan`] raises.
        """
        return self.decode_latents(self.embed_plan(plan_codes)).clamp(-1, 1)

    def _required_plan(self) -> PlanTokenizer:
        if self.plan is None:
            raise ValueError(
                "this image tokenizer has no plan: its configuration has no plan_levels (see `gptface train-plan`)"
            )
        return self.plan

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> GPTFaceImageTokenizerOutput | tuple:
        """Pixels [B, 3, H, W] in [-1, 1] → reconstruction, codes and latents; gradients pass the quantizer."""
        latents = self.latents(pixel_values)
        quantized, codes = self.quantizer(latents)
        return GPTFaceImageTokenizerOutput(self.decode_latents(quantized), codes.flatten(1), latents)

    def fingerprint(self) -> str:
        """
        Hash of the weights that decide the codes, as fp16: codes of one tokenizer must not be read with another.
        Neither the decoder nor the plan is among them: they may get better while the codes stay what they are.
        """
        return self._digest((*DECODING_ONLY, PLAN)).hexdigest()[:16]

    def plan_fingerprint(self) -> str:
        """Such a hash of what decides the codes of the plan. Raises `ValueError` without a plan."""
        self._required_plan()
        digest = self._digest((*DECODING_ONLY, "quantizer.", *PLAN_DECODING_ONLY))
        digest.update(str(self.config.plan_levels).encode())  # no weight tells 7 levels from 8
        return digest.hexdigest()[:16]

    def _digest(self, left_out: tuple[str, ...]) -> "hashlib._Hash":
        """SHA-256 of the names and values of all weights but those whose names start with one of `left_out`."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            if name.startswith(left_out):
                continue
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
        return digest


def _grid_of_codes(codes: torch.Tensor, count: int) -> torch.Tensor:
    """
    Codes [B, N] → [B, √N, √N]. Raises `ValueError` where N is no square number, and for what is none of `count` codes.
    """
    side = round(codes.shape[-1] ** 0.5)
    if codes.ndim != 2 or side * side != codes.shape[-1]:
        raise ValueError(f"codes must have shape [B, N] with N a square number, got {list(codes.shape)}")
    if codes.is_floating_point():
        raise ValueError(f"codes must be whole numbers, got {codes.dtype}")
    # Elsewhere than on the CPU the look at the values would wait for the device.
    if codes.device.type == "cpu" and not torch.compiler.is_compiling() and codes.numel():
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= count:
            raise ValueError(f"codes lie in {low}…{high}, this image tokenizer's in 0…{count - 1}")
    return codes.view(-1, side, side)
