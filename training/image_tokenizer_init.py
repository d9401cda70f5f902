"""What an image tokenizer's training starts from: nothing, an autoencoder, or an older tokenizer with another
quantizer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig, GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.modeling_gptface.modeling_gptface import GPTFaceModel
from gptface.modeling_gptface.quantization import FiniteScalarQuantizer, Quantizer
from gptface.pipelines.pipeline_loading import find_checkpoint

# Standard deviations of a latent direction that the outer levels of an FSQ dimension lie at.
SPREAD = 1.3


def load_image_tokenizer(folder: str | Path) -> GPTFaceImageTokenizer:
    """
    The fp32 image tokenizer of a folder or Hub name, be it one alone or inside a whole model.

    Raises:
        OSError: there is no such folder, and no such model on the Hub.
        ValueError: where it holds another kind of model.
    """
    config = AutoConfig.from_pretrained(find_checkpoint(folder))
    if isinstance(config, GPTFaceImageTokenizerConfig):
        return GPTFaceImageTokenizer.from_pretrained(folder, dtype=torch.float32)
    if isinstance(config, GPTFaceConfig):
        return GPTFaceModel.from_pretrained(folder, dtype=torch.float32).image_tokenizer
    raise ValueError(f"{folder} holds a {config.model_type}, neither an image tokenizer nor a GPTFace model")


def initial_image_tokenizer(
    init: str | Sequence[str] | None, fields: dict[str, Any], pixels: torch.Tensor
) -> GPTFaceImageTokenizer:
    """
    The tokenizer that training starts from.

    Args:
        init: folder of an image tokenizer or a whole model; or the safetensors files of an encoder and a decoder of
            the compact backbone; or nothing for random weights around a quantizer that fits them.
        fields: of [`GPTFaceImageTokenizerConfig`]; those that replace the config's of the folder.
        pixels: training pictures [B, 3, H, W] in [-1, 1], from which a new quantizer, or what is new in it, is set.

    Raises:
        ValueError: where the weights do not fit the configuration.
    """
    if init is None:
        tokenizer = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**fields)).eval()
        # random convolutions would give nearly every cell the same code
        fit_quantizer(tokenizer.quantizer, latents_of(tokenizer, pixels))
        return tokenizer
    if isinstance(init, str):
        source = load_image_tokenizer(init).eval()
        tokenizer = GPTFaceImageTokenizer(merged_config(source.config, fields)).eval()
        load_part(tokenizer.encoder, source.encoder.state_dict(), init)
        load_part(tokenizer.decoder, source.decoder.state_dict(), init)
        if tokenizer.plan is not None and source.plan is not None:
            tokenizer.plan.load_state_dict(source.plan.state_dict())
        adapt_quantizer(tokenizer, source, pixels)
        return tokenizer
    from safetensors.torch import load_file

    if len(init) != 2:
        raise ValueError(f"init must be one folder or two files (encoder, decoder), got {list(init)}")
    tokenizer = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**fields)).eval()
    for part, file in zip((tokenizer.encoder, tokenizer.decoder), init, strict=True):
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file} does not exist: give the safetensors files of an encoder and a decoder")
        load_part(part, load_file(file), file)
    fit_quantizer(tokenizer.quantizer, latents_of(tokenizer, pixels))
    return tokenizer


def merged_config(config: GPTFaceImageTokenizerConfig, fields: dict[str, Any]) -> GPTFaceImageTokenizerConfig:
    """The configuration with some fields replaced."""
    return GPTFaceImageTokenizerConfig(**{**config.to_diff_dict(), **fields})


def load_part(module: nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Loads an encoder or decoder; `name` says in the error where it came from."""
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in state.items()}
    wrong = sorted(key for key in shapes.keys() | given.keys() if shapes.get(key) != given.get(key))
    if wrong:
        raise ValueError(f"{name} does not fit the backbone of this configuration; first differences: {wrong[:3]}")
    module.load_state_dict({key: tensor.float() for key, tensor in state.items()})


@torch.no_grad()
def latents_of(tokenizer: GPTFaceImageTokenizer, pixels: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Pixels [B, 3, H, W] → latents in front of the quantizer [B, C, h, w]."""
    return torch.cat([tokenizer.latents(part) for part in pixels.split(batch_size)])


def rows_of(latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, C, h, w] → vectors [B·h·w, C]."""
    return latents.movedim(1, -1).flatten(0, 2)


@torch.no_grad()
def adapt_quantizer(tokenizer: GPTFaceImageTokenizer, source: GPTFaceImageTokenizer, pixels: torch.Tensor) -> None:
    """
    Sets the new tokenizer's quantizer so that it says what the source's says. FSQ dimensions are kept, rescaled to
    their new levels, and what they leave over gives further dimensions; another kind of quantizer is fitted to the
    latents anew.
    """
    new, old = tokenizer.quantizer, source.quantizer
    shapes = [{key: tensor.shape for key, tensor in part.state_dict().items()} for part in (new, old)]
    levels = [part.levels if isinstance(part, FiniteScalarQuantizer) else None for part in (new, old)]
    if type(new) is type(old) and shapes[0] == shapes[1] and levels[0] == levels[1]:
        new.load_state_dict(old.state_dict())
        return
    latents = latents_of(source, pixels)
    if not (isinstance(new, FiniteScalarQuantizer) and isinstance(old, FiniteScalarQuantizer)):
        fit_quantizer(new, latents)
        return
    kept = min(len(new.levels), len(old.levels))
    new.down.weight[:kept] = old.down.weight[:kept]
    new.down.bias[:kept] = old.down.bias[:kept]
    new.up.bias.copy_(old.up.bias)
    # The line by which the new values of a dimension best give its unrounded old ones goes into `up`.
    wanted = rows_of(old.integers(latents, rounded=False) / old.widths(latents))
    given = _values(new, latents)
    for dimension in range(kept):
        slope, offset = _line(given[:, dimension], wanted[:, dimension])
        column = old.up.weight[:, dimension, 0, 0]
        new.up.weight[:, dimension, 0, 0] = slope * column
        new.up.bias += offset * column
    _add_dimensions(new, latents, kept)


@torch.no_grad()
def fit_quantizer(quantizer: Quantizer, latents: torch.Tensor) -> None:
    """
    Sets a quantizer's 1×1 convolutions by the principal components of the latents [B, C, h, w] that it will quantize.
    """
    if isinstance(quantizer, FiniteScalarQuantizer):
        quantizer.up.bias.copy_(rows_of(latents).mean(0))
        _add_dimensions(quantizer, latents, 0)
        return
    rows = rows_of(latents)
    directions = principal_directions(rows, quantizer.down.out_channels)
    quantizer.down.weight.copy_(directions.t()[:, :, None, None])
    quantizer.down.bias.copy_(-directions.t() @ rows.mean(0))
    quantizer.up.weight.copy_(directions[:, :, None, None])
    quantizer.up.bias.copy_(rows.mean(0))


def principal_directions(rows: torch.Tensor, count: int) -> torch.Tensor:
    """
    Vectors [N, C] → unit directions of most variance [C, count], the strongest first; zeros where `count` is above C.
    """
    centred = rows - rows.mean(0)
    directions = torch.linalg.eigh(centred.t() @ centred / len(rows))[1].flip(1)[:, :count]
    return nn.functional.pad(directions, (0, count - directions.shape[1]))


def _add_dimensions(quantizer: FiniteScalarQuantizer, latents: torch.Tensor, kept: int) -> None:
    """Sets the dimensions from `kept` on by what those before them leave over; `up` by least squares."""
    count = len(quantizer.levels)
    if kept == count:
        return
    quantizer.up.weight[:, kept:] = 0
    rest = rows_of(latents - quantizer(latents)[0])
    directions = principal_directions(rest, count - kept)
    rows = rows_of(latents) @ directions
    spread = SPREAD * rows.std(0).clamp(min=1e-6)
    quantizer.down.weight[kept:, :, 0, 0] = (directions / spread).t()
    quantizer.down.bias[kept:] = -rows.mean(0) / spread
    values = _values(quantizer, latents)[:, kept:]
    values -= (middle := values.mean(0))
    # Centred on both sides: a trained decoder may want latents that are, on average, not the encoder's.
    slopes = torch.linalg.lstsq(values, rest - rest.mean(0)).solution
    quantizer.up.weight[:, kept:, 0, 0] = slopes.t()
    quantizer.up.bias -= middle @ slopes


def _values(quantizer: FiniteScalarQuantizer, latents: torch.Tensor) -> torch.Tensor:
    """What goes through `up`, [B·h·w, D]."""
    return rows_of(quantizer.integers(latents) / quantizer.widths(latents))


def _line(given: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Slope and offset of the least-squares line from `given` [N] to `wanted` [N]; the offset alone where all are equal.
    """
    variance = given.var().clamp(min=1e-12)
    slope = ((given - given.mean()) * (wanted - wanted.mean())).mean() / variance
    return slope, wanted.mean() - slope * given.mean()
