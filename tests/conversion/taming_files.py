"""A small VQGAN in taming's layout, made by renaming a diffusers `VQModel`: the names are taming's, the pixels
diffusers'.
"""

import functools
from pathlib import Path

import torch
import yaml
from diffusers.models.autoencoders.vq_model import VQModel

IMAGE_SIZE, CHANNELS, MULTIPLES, LATENTS, NUM_CODES, CODE_SIZE = 8, 32, (1, 2), 6, 11, 4
LEVELS = len(MULTIPLES)


@functools.cache
def diffusers_model(attending: tuple[bool, ...] = (True, False), code_size: int = CODE_SIZE) -> VQModel:
    """
    Random weights, norms and codebook included; `attending` says for each level from the finest whether it attends.
    """
    torch.manual_seed(0)
    model = VQModel(
        down_block_types=["AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D" for attends in attending],
        up_block_types=["AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D" for attends in attending[::-1]],
        block_out_channels=[CHANNELS * multiple for multiple in MULTIPLES],
        layers_per_block=1,
        latent_channels=LATENTS,
        sample_size=IMAGE_SIZE,
        num_vq_embeddings=NUM_CODES,
        vq_embed_dim=code_size,
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += 0.2 * torch.randn_like(parameter)
        # the codes of random pictures must differ, or tests would not see which one is taken
        model.quantize.embedding.weight.normal_(std=0.5)
        model.quant_conv.weight.normal_()
        model.quant_conv.bias.zero_()
    return model


def resnet_names(taming: str, diffusers: str) -> dict[str, str]:
    names = {f"{taming}.{part}": f"{diffusers}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")}
    return names | {f"{taming}.nin_shortcut": f"{diffusers}.conv_shortcut"}


def attention_names(taming: str, diffusers: str) -> dict[str, str]:
    parts = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    return {f"{taming}.{part}": f"{diffusers}.{name}" for part, name in parts.items()}


def taming_names() -> dict[str, str]:
    """taming's names of the layers and diffusers'; layers that a model has not are there too."""
    names = {
        "quant_conv": "quant_conv",
        "post_quant_conv": "post_quant_conv",
        "quantize.embedding": "quantize.embedding",
    }
    for half, plural, direction, blocks in (("encoder", "down_blocks", "down", 1), ("decoder", "up_blocks", "up", 2)):
        names |= {f"{half}.conv_in": f"{half}.conv_in", f"{half}.conv_out": f"{half}.conv_out"}
        names[f"{half}.norm_out"] = f"{half}.conv_norm_out"
        names |= resnet_names(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0")
        names |= resnet_names(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1")
        names |= attention_names(f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0")
        for level in range(LEVELS):
            taming = f"{half}.{direction}.{level}"
            diffusers = f"{half}.{plural}.{level if direction == 'down' else LEVELS - 1 - level}"
            names[f"{taming}.{direction}sample.conv"] = f"{diffusers}.{direction}samplers.0.conv"
            for block in range(blocks):
                names |= resnet_names(f"{taming}.block.{block}", f"{diffusers}.resnets.{block}")
                names |= attention_names(f"{taming}.attn.{block}", f"{diffusers}.attentions.{block}")
    return names


def taming_state(model: VQModel) -> dict[str, torch.Tensor]:
    """The model's tensors under taming's names; its attention layers are 1×1 convolutions there."""
    source, state = model.state_dict(), {}
    for taming, name in taming_names().items():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in source:
                tensor = source.pop(f"{name}.{kind}")
                linear = "attentions" in name and tensor.ndim == 2
                state[f"{taming}.{kind}"] = tensor[:, :, None, None] if linear else tensor
    assert not source, f"no taming name for {list(source)}"
    return state


def taming_config(
    attention: tuple[int, ...] = (IMAGE_SIZE,), resolution: int = IMAGE_SIZE, gumbel: bool = False
) -> dict:
    params = {
        "embed_dim": LATENTS if gumbel else CODE_SIZE,
        "n_embed": NUM_CODES,
        "ddconfig": {
            "double_z": False,
            "z_channels": LATENTS,
            "resolution": resolution,
            "in_channels": 3,
            "out_ch": 3,
            "ch": CHANNELS,
            "ch_mult": list(MULTIPLES),
            "num_res_blocks": 1,
            "attn_resolutions": list(attention),
            "dropout": 0.0,
        },
        "lossconfig": {"target": "torch.nn.Identity"},
    }
    return {"model": {"target": f"taming.models.vqgan.{'GumbelVQ' if gumbel else 'VQModel'}", "params": params}}


def write_vqgan(folder: Path, gumbel: bool = False) -> tuple[VQModel, Path, Path]:
    """Writes checkpoint and configuration; the model that was written comes back (a GumbelVQ's quantizer aside)."""
    model = diffusers_model(code_size=LATENTS if gumbel else CODE_SIZE)
    state = taming_state(model)
    if gumbel:
        state["quantize.embed.weight"] = state.pop("quantize.embedding.weight")
        state["quantize.proj.weight"] = torch.randn(NUM_CODES, LATENTS, 1, 1)
        state["quantize.proj.bias"] = torch.randn(NUM_CODES) / 8
    return model, *write_files(folder, state, taming_config(gumbel=gumbel))


def write_files(folder: Path, state: dict, config: dict) -> tuple[Path, Path]:
    checkpoint, configuration = folder / "vqgan.ckpt", folder / "vqgan.yaml"
    torch.save({"state_dict": state}, checkpoint)
    configuration.write_text(yaml.safe_dump(config))
    return checkpoint, configuration
