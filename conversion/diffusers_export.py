"""The image tokenizer as a diffusers `VQModel`."""

from pathlib import Path
from typing import Any

import torch

from gptface.modeling_gptface.configuration_gptface import GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.image_tokenizer_gptface import vqgan_backbone
from gptface.processing.whole_files import whole_folder

from .checkpoint import write_safetensors
from .links import Link, Plan, Tensors, same
from .model_folder import image_tokenizer_shapes, module_shapes, read_image_tokenizer
from .report import ConversionError, ConversionReport

# The vectors of a GumbelVQ's codebook are shrunk beside the classifier's, so that they cost the distances no
# precision; a power of two is exact.
SHRINK = 2.0**-8


def export_diffusers(source: str | Path, output: str | Path) -> ConversionReport:
    """
    Writes the image tokenizer in the folder `source` (alone or inside a GPTFace model) as a folder that
    `diffusers.VQModel.from_pretrained` opens; it gives the same pixels.

    Raises:
        OSError: `source` is missing, or `output` exists and is not empty.
        ConversionError: where the image tokenizer is no VQGAN with a learned codebook.
        ImportError: where diffusers is missing.
    """
    config, state = read_image_tokenizer(source)
    if config.backbone != "vqgan" or config.quantizer == "fsq":
        raise ConversionError(
            f"a diffusers VQModel cannot hold an image tokenizer with backbone={config.backbone!r} and "
            f"quantizer={config.quantizer!r}: it needs backbone='vqgan' and a learned codebook",
            [],
        )
    from diffusers.models.autoencoders.vq_model import VQModel

    arguments = vqmodel_arguments(config)
    plan = Plan(module_shapes(lambda: VQModel(**arguments)))
    plan.link(str(source), diffusers_links(config), state)
    with torch.device("meta"):
        model = VQModel(**arguments)
    with whole_folder(output) as folder:
        model.save_config(folder)
        write_safetensors(folder / "diffusion_pytorch_model.safetensors", plan.shapes, plan.tensors())
    return plan.report


def vqmodel_arguments(config: GPTFaceImageTokenizerConfig) -> dict[str, Any]:
    """Arguments of the diffusers `VQModel` that holds this image tokenizer."""
    with torch.device("meta"):
        encoder, decoder = vqgan_backbone(config)
    width = config.codebook_dim or config.latent_channels
    return {
        "in_channels": config.num_channels,
        "out_channels": config.num_channels,
        "down_block_types": tuple(type(block).__name__ for block in encoder.down_blocks),
        "up_block_types": tuple(type(block).__name__ for block in decoder.up_blocks),
        "block_out_channels": tuple(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_num_groups,
        "latent_channels": config.latent_channels,
        "sample_size": config.image_size,
        "num_vq_embeddings": config.codebook_size,
        "vq_embed_dim": 2 * width + 1 if config.quantizer == "gumbel" else width,
    }


def diffusers_links(config: GPTFaceImageTokenizerConfig) -> list[Link]:
    """Links from the image tokenizer's names to those of the `VQModel`."""
    names = [name for name in image_tokenizer_shapes(config) if not name.startswith("quantizer.")]
    links = [same(name, name) for name in names]
    if config.quantizer == "gumbel":
        return links + _gumbel_links(config.codebook_dim or config.latent_channels)
    return [
        *links,
        same("quantizer.codebook.weight", "quantize.embedding.weight"),
        *(same(f"quantizer.down.{kind}", f"quant_conv.{kind}") for kind in ("weight", "bias")),
        *(same(f"quantizer.up.{kind}", f"post_quant_conv.{kind}") for kind in ("weight", "bias")),
    ]


def _gumbel_links(width: int) -> list[Link]:
    """
    A classifier argmax_c w_c·z + b_c over codes with vectors e_c, written as a nearest-neighbour codebook.

    The codebook holds (w_c, r_c, e_c) and the latents become (z, 0, 0). Their squared distance is
    ‖z‖² − 2 w_c·z + ‖w_c‖² + r_c² + ‖e_c‖², so with r_c² = R − 2 b_c − ‖w_c‖² − ‖e_c‖² it is smallest where the
    classifier is largest; R is the least constant that keeps every r_c² ≥ 0. The decoder reads e_c alone.
    """
    fill = width + 1

    def pad_rows(tensor: torch.Tensor) -> Tensors:
        return (torch.cat([tensor, tensor.new_zeros(fill, *tensor.shape[1:])]),)

    def pad_columns(kernel: torch.Tensor) -> Tensors:
        return (torch.cat([kernel.new_zeros(kernel.shape[0], fill, 1, 1), kernel / SHRINK], 1),)

    def codebook(weight: torch.Tensor, bias: torch.Tensor, vectors: torch.Tensor) -> Tensors:
        weight, bias, vectors = weight.flatten(1).double(), bias.double(), vectors.double() * SHRINK
        rest = 2 * bias + weight.pow(2).sum(1) + vectors.pow(2).sum(1)
        return (torch.cat([weight, (rest.max() - rest).sqrt()[:, None], vectors], 1).float(),)

    return [
        *(
            Link((f"quantizer.down.{kind}",), (f"quant_conv.{kind}",), pad_rows, lambda padded: (padded[:width],))
            for kind in ("weight", "bias")
        ),
        Link(
            ("quantizer.proj.weight", "quantizer.proj.bias", "quantizer.codebook.weight"),
            ("quantize.embedding.weight",),
            codebook,
            # for the shapes: the bias itself cannot be told from r_c
            lambda table: (table[:, :width, None, None], table[:, width], table[:, fill:]),
        ),
        Link(("quantizer.up.weight",), ("post_quant_conv.weight",), pad_columns, lambda k: (k[:, fill:] * SHRINK,)),
        same("quantizer.up.bias", "post_quant_conv.bias"),
    ]
