"""A pre-training step (forward, backward, AdamW) of matching and masked modelling beside encoders that learn
comparable things.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .models import Size, bert, gptface, joint_batch, masked_batch
from .timing import Claim, Comparison, Contender


def training_step(model: nn.Module, inputs: Callable[[], dict[str, Any]]) -> Callable[[], None]:
    """One step of AdamW on the same batch, again and again."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        model(**inputs()).loss.backward()
        optimizer.step()

    return step


def comparisons(size: Size, mask_ratio: float = 0.15) -> Iterator[Comparison]:
    """One for each batch size."""
    for batch in size.batches:
        ours = gptface(size)
        inputs = masked_batch(size, batch, mask_ratio)
        joint = joint_batch(inputs, size)
        peers = {"BertForMaskedLM": (bert(size), lambda joint=joint: joint)}
        peers["ViltForMaskedLM"] = _vilt(size, inputs)
        peers["FlavaForPreTraining"] = _flava(size, inputs)
        trained = [module for name, module in ours.named_children() if name != "gptface"]
        trained += [module for name, module in ours.gptface.named_children() if name != "image_tokenizer"]
        contenders = [Contender("GPTFaceForPreTraining", training_step(ours, lambda inputs=inputs: inputs), trained)]
        contenders += [Contender(name, training_step(model, make), [model]) for name, (model, make) in peers.items()]
        carrying = float((inputs["match_labels"] == 1).sum())
        yield Comparison(
            f"batch {batch}, {size.text_length} words + {size.tokens} cells, {mask_ratio:.0%} masked",
            contenders,
            [
                Claim("BertForMaskedLM", "sequences", batch, batch, 1.3),
                Claim("BertForMaskedLM", "sequences that carry MILM loss", carrying, batch, 1.0),
                Claim("ViltForMaskedLM", "sequences", batch, batch, 2.0),
                Claim("FlavaForPreTraining", "sequences", batch, batch, 2.0),
            ],
            ["ViLT and FLAVA have no sdpa attention in transformers: theirs is plain."],
        )


def _pixels(size: Size, batch: int) -> torch.Tensor:
    side = size.cells * size.patch
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _vilt(size: Size, inputs: dict[str, torch.Tensor]) -> tuple[nn.Module, Callable[[], dict[str, Any]]]:
    from transformers import ViltConfig, ViltForMaskedLM

    torch.manual_seed(0)
    config = ViltConfig(
        vocab_size=size.words,
        max_position_embeddings=size.text_length,
        image_size=size.cells * size.patch,
        patch_size=size.patch,
        **size.encoder(),
    )
    words = inputs["input_ids"]
    given = {
        "input_ids": words,
        "attention_mask": inputs["attention_mask"],
        "pixel_values": _pixels(size, len(words)),
        "labels": torch.where(words == 3, words, -100),
    }
    return ViltForMaskedLM(config), lambda: given


def _flava(size: Size, inputs: dict[str, torch.Tensor]) -> tuple[nn.Module, Callable[[], dict[str, Any]]]:
    from transformers import FlavaConfig, FlavaForPreTraining

    torch.manual_seed(0)
    shape = size.encoder()
    config = FlavaConfig(
        image_config={
            **shape,
            "image_size": size.cells * size.patch,
            "patch_size": size.patch,
            "vocab_size": size.codes,
        },
        text_config={**shape, "vocab_size": size.words, "max_position_embeddings": size.text_length},
        # half as deep as the others, as in the published model
        multimodal_config={**shape, "num_hidden_layers": max(1, size.layers // 2)},
        hidden_size=size.width,
        projection_dim=size.width,
        init_codebook=False,
    )
    words = inputs["input_ids"]
    pixels = _pixels(size, len(words))

    def make() -> dict[str, Any]:
        # the model writes into its labels
        return {
            "input_ids": words,
            "input_ids_masked": words,
            "attention_mask": inputs["attention_mask"],
            "pixel_values": pixels,
            "bool_masked_pos": inputs["image_mask"].clone(),
            "mlm_labels": torch.where(words == 3, words, -100),
            "mim_labels": inputs["image_codes"].clone(),
            "itm_labels": inputs["match_labels"],
        }

    return FlavaForPreTraining(config), make
