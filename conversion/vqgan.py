"""taming-transformers' VQGAN (Esser et al. 2021, arXiv 2012.09841) ↔ the GPTFace image tokenizer with
`backbone="vqgan"`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptface.modeling_gptface.configuration_gptface import GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.whole_files import whole_folder

from .checkpoint import StateDict, check_entries, read_state_dict, read_yaml
from .links import Link, Plan, pointwise, same
from .model_folder import image_tokenizer_shapes, write_model
from .report import ConversionError, ConversionReport

QUANTIZERS = {"VQModel": "codebook", "GumbelVQ": "gumbel"}
# Entries of the configuration that are read, and their types.
PARAMS = {"n_embed": int, "embed_dim": int}
DDCONFIG = {
    **dict.fromkeys(("z_channels", "resolution", "in_channels", "out_ch", "ch", "num_res_blocks"), int),
    **dict.fromkeys(("ch_mult", "attn_resolutions"), list),
}

# Names of the image tokenizer (diffusers' names) as patterns, and what taming calls the same part.
TAMING_NAMES = [
    (r"\.down_blocks\.(\d+)\.", r".down.\1."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.resnets\.(\d+)\.", r".block.\1."),
    (r"\.attentions\.(\d+)\.", r".attn.\1."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"^quantizer\.down\.", "quant_conv."),
    (r"^quantizer\.up\.", "post_quant_conv."),
    (r"^quantizer\.proj\.", "quantize.proj."),
]


def taming_links(config: GPTFaceImageTokenizerConfig, prefix: str = "") -> list[Link]:
    """Links from taming's names to those of the image tokenizer; `prefix` stands before the latter."""
    codebook = "quantize.embed.weight" if config.quantizer == "gumbel" else "quantize.embedding.weight"
    last = len(config.block_out_channels) - 1
    links = []
    for name, shape in image_tokenizer_shapes(config).items():
        taming = name
        for pattern, replacement in TAMING_NAMES:
            taming = re.sub(pattern, replacement, taming)
        # taming counts the decoder's levels from the finest, diffusers from the coarsest
        taming = re.sub(r"\.up_blocks\.(\d+)\.", lambda match: f".up.{last - int(match[1])}.", taming)
        if name == "quantizer.codebook.weight":
            taming = codebook
        attends = ".to_" in name and len(shape) == 2
        links.append((pointwise if attends else same)(taming, prefix + name))
    return links


@dataclass(frozen=True)
class TamingVQGAN:
    """
    A VQGAN as taming saves it.

    Args:
        config: of the image tokenizer that it becomes.
        state: its tensors by taming's names.
        skip: prefixes of tensors that are no part of it, and why.
        inside_transformer: whether it came inside a Net2NetTransformer checkpoint.
    """

    config: GPTFaceImageTokenizerConfig
    state: StateDict
    skip: dict[str, str]
    inside_transformer: bool


def read_taming(checkpoint: str | Path, config: str | Path, image_size: int | None = None) -> TamingVQGAN:
    """
    Reads a VQModel or GumbelVQ, or the one inside a Net2NetTransformer checkpoint.

    Args:
        image_size: side of the pictures in pixels; the configuration's resolution where it is not given.

    Raises:
        FileNotFoundError: where a file is missing.
        ConversionError: where the model is of another class, or of a form that the image tokenizer has not.
    """
    model = _section(read_yaml(config), "model", config)
    params = _section(model, "params", config)
    inside = _class_name(model) == "Net2NetTransformer"
    state, skip = read_state_dict(checkpoint), {"loss.": "loss of the VQGAN's training"}
    if inside:
        model = _section(params, "first_stage_config", config)
        params = _section(model, "params", config)
        prefix = "first_stage_model."
        skip |= {
            "transformer.": "code transformer of taming",
            "cond_stage_model.": "conditioning of taming's transformer",
        }
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    name = _class_name(model)
    if name not in QUANTIZERS:
        raise ConversionError(
            f"{config} describes a {name}, not one of {sorted(QUANTIZERS)} or a Net2NetTransformer", []
        )
    return TamingVQGAN(_tokenizer_config(params, QUANTIZERS[name], image_size, config), state, skip, inside)


def _class_name(model: dict[str, Any]) -> str:
    return str(model.get("target")).rsplit(".", 1)[-1]


def _section(parent: dict[str, Any], key: str, path: str | Path) -> dict[str, Any]:
    if not isinstance(parent.get(key), dict):
        raise ConversionError(f"{path} lacks the section {key!r} of a taming configuration", [])
    return parent[key]


def _tokenizer_config(
    params: dict[str, Any], quantizer: str, image_size: int | None, path: str | Path
) -> GPTFaceImageTokenizerConfig:
    ddconfig = _section(params, "ddconfig", path)
    check_entries(params, PARAMS, f"{path}, params")
    check_entries(ddconfig, DDCONFIG, f"{path}, ddconfig")
    unsupported = [
        what
        for what, present in {
            "ddconfig.double_z: a VQGAN has no variance": ddconfig.get("double_z", False),
            "ddconfig.resamp_with_conv: false": not ddconfig.get("resamp_with_conv", True),
            "ddconfig.ch_mult that does not start with 1": ddconfig["ch_mult"][:1] != [1],
            "ddconfig.in_channels other than out_ch": ddconfig["in_channels"] != ddconfig["out_ch"],
            "remap: a subset of the codes": params.get("remap") is not None,
            "embed_dim other than z_channels in a GumbelVQ": quantizer == "gumbel"
            and params["embed_dim"] != ddconfig["z_channels"],
        }.items()
        if present
    ]
    if unsupported:
        raise ConversionError(f"{path} asks for what the image tokenizer has not", unsupported)
    side = image_size or ddconfig["resolution"]
    # taming names the resolutions it attends at for its own picture size; the level is what counts
    attending = [
        level
        for level in range(len(ddconfig["ch_mult"]))
        if ddconfig["resolution"] // 2**level in ddconfig["attn_resolutions"]
    ]
    return GPTFaceImageTokenizerConfig(
        image_size=side,
        num_channels=ddconfig["in_channels"],
        backbone="vqgan",
        quantizer=quantizer,
        latent_channels=ddconfig["z_channels"],
        codebook_size=params["n_embed"],
        codebook_dim=params["embed_dim"],
        block_out_channels=[ddconfig["ch"] * factor for factor in ddconfig["ch_mult"]],
        layers_per_block=ddconfig["num_res_blocks"],
        attention_resolutions=[side // 2**level for level in attending],
    )


def taming_config(config: GPTFaceImageTokenizerConfig) -> dict[str, Any]:
    """
    taming's configuration of an image tokenizer.

    Raises:
        ConversionError: lists what taming's models have not.
    """
    channels = config.block_out_channels
    quantizers = {quantizer: name for name, quantizer in QUANTIZERS.items()}
    unsupported = [
        what
        for what, present in {
            f"backbone={config.backbone!r}": config.backbone != "vqgan",
            f"quantizer={config.quantizer!r}": config.quantizer not in quantizers,
            f"norm_num_groups={config.norm_num_groups}, not 32": config.norm_num_groups != 32,
            f"block_out_channels={channels}, no multiples of the first": any(c % channels[0] for c in channels),
        }.items()
        if present
    ]
    if unsupported:
        raise ConversionError("a VQGAN of taming-transformers cannot hold this image tokenizer", unsupported)
    ddconfig = {
        "double_z": False,
        "z_channels": config.latent_channels,
        "resolution": config.image_size,
        "in_channels": config.num_channels,
        "out_ch": config.num_channels,
        "ch": channels[0],
        "ch_mult": [channel // channels[0] for channel in channels],
        "num_res_blocks": config.layers_per_block,
        "attn_resolutions": config.attention_resolutions,
        "dropout": 0.0,
    }
    nothing = {"target": "torch.nn.Identity"}
    params = {
        "embed_dim": config.codebook_dim,
        "n_embed": config.codebook_size,
        "ddconfig": ddconfig,
        "lossconfig": nothing,
        **({"temperature_scheduler_config": nothing} if config.quantizer == "gumbel" else {}),
    }
    return {"model": {"target": f"taming.models.vqgan.{quantizers[config.quantizer]}", "params": params}}


def convert_vqgan(
    vqgan: str | Path, vqgan_config: str | Path, output: str | Path, image_size: int | None = None
) -> ConversionReport:
    """
    Writes the image tokenizer folder `output` ([`GPTFaceImageTokenizer.from_pretrained`] opens it) from a taming
    checkpoint. Pixels are in [-1, 1] on both sides.

    Args:
        vqgan: checkpoint of a VQModel, a GumbelVQ or a Net2NetTransformer.
        vqgan_config: its YAML configuration.
        image_size: side of the pictures in pixels; the configuration's resolution where it is not given.

    Raises:
        OSError: a file is missing, or `output` exists and is not empty.
        ConversionError: lists what does not fit; nothing is written.
        ImportError: where diffusers is missing.
    """
    source = read_taming(vqgan, vqgan_config, image_size)
    plan = Plan(image_tokenizer_shapes(source.config))
    plan.link(str(vqgan), taming_links(source.config), source.state, source.skip)
    with whole_folder(output) as folder:
        write_model(folder, source.config, GPTFaceImageTokenizer, plan)
    return plan.report
