"""Decoding of a region of a quarter of the grid beside diffusers' masked generator (aMUSEd)."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from gptface import GPTFaceForGuidedGeneration

from .models import Size, gptface
from .timing import Claim, Comparison, Contender

PROMPT_LENGTH = 16
#: The approximate edits compute all states anew in one of so many steps.
REFRESH = 4


def comparisons(size: Size, mask_ratio: float = 0.15) -> Iterator[Comparison]:
    """Beside a peer of as many parameters and beside one of as many layers."""
    ours = gptface(size, GPTFaceForGuidedGeneration, match_trained=True).eval()
    words = min(PROMPT_LENGTH, size.text_length)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(4, size.words, (1, words), generator=generator)
    codes = torch.randint(size.codes, (1, size.tokens), generator=generator)
    mask = torch.zeros(1, size.cells, size.cells, dtype=torch.bool)
    mask[
        :, size.cells // 4 : size.cells // 4 + size.cells // 2, size.cells // 4 : size.cells // 4 + size.cells // 2
    ] = True
    mask = mask.flatten(1)

    def edit(**options: Any) -> Callable[[], Any]:
        return lambda: ours.generate(
            prompt,
            image_codes=codes,
            image_mask=mask,
            num_inference_steps=size.steps,
            generator=torch.Generator().manual_seed(0),
            **options,
        )

    working = [ours.gptface.embeddings.code_embeddings, ours.gptface.layers, ours.lm_head.dense, ours.match_head]
    for layers in dict.fromkeys((_layers_of_equal_parameters(size, _count(ours.gptface.layers)), size.layers)):
        peer = _uvit(size, layers)
        for guided, options in ((False, {}), (True, {"guidance_scale": 3.0})):
            name = f"UVit2DModel, {layers} layers" + (", CFG" if guided else "")
            case = f"{size.steps} steps, {int(mask.sum())} of {size.tokens} cells, batch 1" + (
                ", guided" if guided else ""
            )
            others = [Contender(name, _amused(peer, size, codes, mask, words, guided), [peer])]
            note = "Parameters without the word table of GPTFace; the peer's text encoder is left out of its time."
            for refresh in (1, REFRESH):
                kept = {"state_refresh": refresh}
                # an approximate edit is reported, but meets no target
                exact = refresh == 1
                approximate = "" if exact else f", states anew each {refresh} steps (approximate)"
                if guided:
                    guidance = {"itm_guidance": {"iterations": 1}}
                    ours_name = f"GPTFace, ITM guidance (m = 1){approximate}"
                    contenders = [Contender(ours_name, edit(**guidance, **kept), working)]
                    cfg_name = f"GPTFace, CFG{approximate}"
                    contenders.append(Contender(cfg_name, edit(**options, **kept), working))
                    claims = [Claim(name, "edits", 1, 1, 1.0 if exact else None), Claim(cfg_name, "edits", 1, 1)]
                else:
                    contenders = [Contender(f"GPTFace{approximate}", edit(**kept), working)]
                    claims = [Claim(name, "edits", 1, 1, 2.0 if exact else None)]
                yield Comparison(case + approximate, contenders + others, claims, [note])


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _layers_of_equal_parameters(size: Size, wanted: int) -> int:
    """Layers with which the peer comes nearest to so many parameters besides its embeddings."""
    one, two = (_count(model) - _count(model.embed) for model in (_uvit(size, 1), _uvit(size, 2)))
    return max(1, 1 + round((wanted - one) / (two - one)))


def _uvit(size: Size, layers: int) -> Any:
    from diffusers import UVit2DModel

    torch.manual_seed(0)
    return UVit2DModel(
        hidden_size=size.width,
        cond_embed_dim=size.width,
        micro_cond_encode_dim=32,
        micro_cond_embed_dim=5 * 32,
        encoder_hidden_size=size.width,
        vocab_size=size.codes + 1,
        codebook_size=size.codes,
        in_channels=size.width,
        block_out_channels=size.width,
        num_res_blocks=1,
        block_num_heads=size.heads,
        num_hidden_layers=layers,
        num_attention_heads=size.heads,
        intermediate_size=size.feed_forward,
        sample_size=size.cells,
    ).eval()


def _amused(
    model: nn.Module, size: Size, codes: torch.Tensor, mask: torch.Tensor, words: int, guided: bool
) -> Callable[[], torch.Tensor]:
    """The loop of diffusers' `AmusedInpaintPipeline` between its encoder and its decoder."""
    from diffusers import AmusedScheduler

    scheduler = AmusedScheduler(mask_token_id=size.codes)
    count = 2 if guided else 1
    text = torch.randn(count, words, size.width, generator=torch.Generator().manual_seed(0))
    pooled = text.mean(1)
    conditions = torch.tensor([[256.0, 256.0, 0.0, 0.0, 6.0]]).expand(count, -1)
    shape = (1, size.cells, size.cells)

    @torch.no_grad()
    def loop() -> torch.Tensor:
        scheduler.set_timesteps(size.steps, (2, 0))
        latents = codes.masked_fill(mask, size.codes).view(shape)
        generator = torch.Generator().manual_seed(0)
        for timestep in scheduler.timesteps:
            logits = model(
                latents.repeat(count, 1, 1),
                micro_conds=conditions,
                pooled_text_emb=pooled,
                encoder_hidden_states=text,
            )
            if guided:
                unconditional, conditional = logits.chunk(2)
                logits = unconditional + 3.0 * (conditional - unconditional)
            latents = scheduler.step(
                logits, timestep, latents, starting_mask_ratio=mask.float().mean(), generator=generator
            ).prev_sample
        return latents

    return loop
