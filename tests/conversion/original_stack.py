"""The original training stack in miniature, written from its description alone: random checkpoints and what they
compute.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from taming_files import IMAGE_SIZE, NUM_CODES, write_vqgan

CELLS, TEXT_LENGTH, VOCABULARY, HIDDEN, HEADS, LAYERS, FEED_FORWARD = 16, 7, 107, 30, 5, 2, 37
CLS, SEP, MASK = 101, 102, 103


@dataclass(frozen=True)
class Variant:
    """What released checkpoints differ in."""

    positioning: str = "pre"
    act: str = "gelu_fast"
    embedding_norm: bool = False
    matching: bool = True
    autoregressive: bool = False
    lm_bias: bool = True
    tied: bool = False
    spare_positions: int = 0
    gumbel: bool = False

    def config(self) -> dict:
        targets = ["lm"] if self.autoregressive else ["mlm", "sp"] if self.matching else ["mlm"]
        return {
            "emb_size": HIDDEN,
            "feedforward_size": FEED_FORWARD,
            "hidden_size": HIDDEN,
            "hidden_act": self.act,
            "heads_num": HEADS,
            "layers_num": LAYERS,
            "dropout": 0.1,
            "max_seq_length": TEXT_LENGTH + CELLS + self.spare_positions,
            "embedding": ["word", "pos", "seg"],
            "remove_embedding_layernorm": not self.embedding_norm,
            "layernorm_positioning": self.positioning,
            "encoder": "transformer",
            "mask": "prefix" if self.autoregressive else "fully_visible",
            "target": targets,
            "image_height": IMAGE_SIZE,
            "image_width": IMAGE_SIZE,
            "tokenizer": "text_image",
            "image_tokenizer": {
                "is_gumbel": self.gumbel,
                "is_transformer": False,
                "image_vocab_size": NUM_CODES,
                "frame_size": 2,
            },
            "vocab_size": VOCABULARY,
            **({"tie_weights": True} if self.tied else {}),
            **({"has_lmtarget_bias": self.lm_bias} if self.autoregressive else {}),
        }

    def state(self) -> dict[str, torch.Tensor]:
        """Random tensors, norms included, so that no part can be left out unnoticed."""
        generator = torch.Generator().manual_seed(7)
        state = {}

        def draw(name: str, *shape: int, mean: float = 0.0, std: float = 0.2) -> None:
            state[name] = mean + std * torch.randn(*shape, generator=generator)

        def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
            draw(f"{name}.weight", outputs, inputs)
            if bias:
                draw(f"{name}.bias", outputs)

        def norm(name: str) -> None:
            draw(f"{name}.gamma", HIDDEN, mean=1.0)
            draw(f"{name}.beta", HIDDEN)

        joint = VOCABULARY + NUM_CODES
        draw("embedding.word.embedding.weight", joint, HIDDEN)
        draw("embedding.pos.embedding.weight", TEXT_LENGTH + CELLS + self.spare_positions, HIDDEN)
        draw("embedding.seg.embedding.weight", 3, HIDDEN)
        if self.embedding_norm:
            norm("embedding.layer_norm")
        for index in range(LAYERS):
            layer = f"encoder.transformer.{index}"
            for name in ("linear_layers.0", "linear_layers.1", "linear_layers.2", "final_linear"):
                linear(f"{layer}.self_attn.{name}", HIDDEN, HIDDEN)
            linear(f"{layer}.feed_forward.linear_1", HIDDEN, FEED_FORWARD)
            linear(f"{layer}.feed_forward.linear_2", FEED_FORWARD, HIDDEN)
            norm(f"{layer}.layer_norm_1")
            norm(f"{layer}.layer_norm_2")
        if self.positioning == "pre":
            norm("encoder.layer_norm")
        if self.autoregressive:
            linear("target.lm.output_layer", HIDDEN, joint, self.lm_bias)
            return state
        linear("target.mlm.linear_1", HIDDEN, HIDDEN)
        norm("target.mlm.layer_norm")
        linear("target.mlm.linear_2", HIDDEN, joint)
        if self.tied:
            state["target.mlm.linear_2.weight"] = state["embedding.word.embedding.weight"]
        if self.matching:
            linear("target.sp.linear_1", HIDDEN, HIDDEN)
            linear("target.sp.linear_2", HIDDEN, 2)
        return state


def layer_norm(state: dict, name: str, states: torch.Tensor) -> torch.Tensor:
    """The stack's own: unbiased standard deviation, eps outside of the root."""
    centred = states - states.mean(-1, keepdim=True)
    return state[f"{name}.gamma"] * centred / (states.std(-1, keepdim=True) + 1e-6) + state[f"{name}.beta"]


def linear(state: dict, name: str, states: torch.Tensor) -> torch.Tensor:
    return states @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)


def activation(name: str, states: torch.Tensor) -> torch.Tensor:
    if name == "gelu":
        return states * 0.5 * (1.0 + torch.erf(states / math.sqrt(2.0)))
    return 0.5 * states * (1 + torch.tanh(states * 0.7978845608 * (1 + 0.044715 * states * states)))


def attention(state: dict, layer: str, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    query, key, value = (
        linear(state, f"{layer}.self_attn.linear_layers.{part}", states).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for part in range(3)
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(HIDDEN // HEADS) + mask
    return linear(state, f"{layer}.self_attn.final_linear", (scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


def forward(variant: Variant, state: dict, src: torch.Tensor, seg: torch.Tensor) -> dict[str, torch.Tensor]:
    """Ids and segments [B, T] → hidden [B, T, H], logits [B, T, V + K] and, with matching, match [B, 2]."""
    length = src.shape[1]
    visible = (seg > 0)[:, None, :].expand(-1, length, -1)
    if variant.autoregressive:
        visible = (seg == 1)[:, None, :] | (visible & torch.ones(length, length).tril().bool())
    mask = (1.0 - visible[:, None].float()) * -10000.0
    states = (
        state["embedding.word.embedding.weight"][src]
        + state["embedding.pos.embedding.weight"][:length]
        + state["embedding.seg.embedding.weight"][seg]
    )
    if variant.embedding_norm:
        states = layer_norm(state, "embedding.layer_norm", states)

    def feed_forward(layer: str, states: torch.Tensor) -> torch.Tensor:
        inner = activation(variant.act, linear(state, f"{layer}.feed_forward.linear_1", states))
        return linear(state, f"{layer}.feed_forward.linear_2", inner)

    for index in range(LAYERS):
        layer = f"encoder.transformer.{index}"
        if variant.positioning == "pre":
            states = states + attention(state, layer, layer_norm(state, f"{layer}.layer_norm_1", states), mask)
            states = states + feed_forward(layer, layer_norm(state, f"{layer}.layer_norm_2", states))
        else:
            states = layer_norm(state, f"{layer}.layer_norm_1", states + attention(state, layer, states, mask))
            states = layer_norm(state, f"{layer}.layer_norm_2", states + feed_forward(layer, states))
    if variant.positioning == "pre":
        states = layer_norm(state, "encoder.layer_norm", states)
    outputs = {"hidden": states}
    if variant.autoregressive:
        return outputs | {"logits": linear(state, "target.lm.output_layer", states)}
    inner = activation(variant.act, linear(state, "target.mlm.linear_1", states))
    outputs["logits"] = linear(state, "target.mlm.linear_2", layer_norm(state, "target.mlm.layer_norm", inner))
    if variant.matching:
        pooled = torch.tanh(linear(state, "target.sp.linear_1", states[:, 0]))
        outputs["match"] = linear(state, "target.sp.linear_2", pooled)
    return outputs


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and segments [2, T]: a full text and a padded one, masked words and cells among them."""
    generator = torch.Generator().manual_seed(3)
    codes = VOCABULARY + torch.randint(NUM_CODES, (2, CELLS), generator=generator)
    codes[0, 2:5] = codes[1, -1] = MASK
    text = torch.tensor([[CLS, 5, 17, MASK, 9, 60, SEP], [CLS, 44, SEP, 0, 0, 0, 0]])
    types = torch.tensor([[1] * 7, [1, 1, 1, 0, 0, 0, 0]])
    return torch.cat([text, codes], 1), torch.cat([types, torch.full_like(codes, 2)], 1)


def write_checkpoint(folder: Path, variant: Variant) -> dict[str, Path]:
    """Writes the four files; the keys are those of `convert_original`'s arguments."""
    files = {"transformer": folder / "transformer.bin", "config": folder / "transformer_config.json"}
    torch.save(variant.state(), files["transformer"])
    files["config"].write_text(json.dumps(variant.config()))
    _, files["vqgan"], files["vqgan_config"] = write_vqgan(folder, gumbel=variant.gumbel)
    return files
