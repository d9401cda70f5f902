"""The original training stack's layout: its configuration and its tensors' names, in both directions."""

import math
from typing import Any

import torch

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig, GPTFaceImageTokenizerConfig

from .checkpoint import check_entries
from .links import Link, Tensors, same, scaled, split
from .report import ConversionError

POSITIONS = "embedding.pos.embedding.weight"
MATCH_TARGET, MASKED_TARGET, AUTOREGRESSIVE_TARGET = "sp", "mlm", "lm"

# GPTFace names a mask by what it lets attend, an activation by transformers' name (the reverse takes the first that
# fits).
MASKS = {"fully_visible": "bidirectional", "prefix": "prefix"}
ACTIVATIONS = {"gelu": ("gelu",), "gelu_fast": ("gelu_pytorch_tanh", "gelu_fast", "gelu_new"), "relu": ("relu",)}

# Keys that the configuration must have, and what they hold.
REQUIRED_KEYS: dict[str, type] = {
    **dict.fromkeys(("emb_size", "feedforward_size", "hidden_size", "heads_num", "layers_num", "max_seq_length"), int),
    **dict.fromkeys(("image_height", "image_width", "vocab_size"), int),
    **dict.fromkeys(("hidden_act", "layernorm_positioning", "encoder", "mask"), str),
    **dict.fromkeys(("embedding", "target"), list),
    "image_tokenizer": dict,
}

# The stack adds its eps of 1e-6 to the standard deviation s, torch to the variance: sqrt(s² + e) is s + 1e-6 for e =
# 2e-6·s. The difference only shows where s is small, as in the sum of embeddings of a model that has just been
# initialised (0.02).
LAYER_NORM_EPS = 4e-8

# Options of the stack that change what is computed, and the values of those that a GPTFace model computes.
FIXED_OPTIONS: dict[str, tuple[Any, ...]] = {
    "embedding": (["word", "pos", "seg"],),
    "encoder": ("transformer",),
    "feed_forward": ("dense",),
    "layernorm": ("normal",),
    "layernorm_positioning": ("pre", "post"),
    "hidden_act": tuple(ACTIVATIONS),
    "mask": tuple(MASKS),
    "factorized_embedding_parameterization": (False,),
    "parameter_sharing": (False,),
    "relative_position_embedding": (False,),
    "rotary_position_embedding": (False,),
    "has_residual_attention": (False,),
    "remove_attention_scale": (False,),
    "remove_transformer_bias": (False,),
}


def gptface_config(
    original: dict[str, Any],
    image_tokenizer: GPTFaceImageTokenizerConfig,
    max_text_length: int | None = None,
    special_tokens: dict[str, Any] | None = None,
) -> GPTFaceConfig:
    """
    The configuration of the GPTFace model that computes what `original` describes.

    Args:
        original: the stack's configuration, as in its JSON file.
        image_tokenizer: configuration of the converted VQGAN.
        max_text_length: positions of the text part, padding included; everything in front of the image where it is not
            given, that is max_seq_length less the number of cells.
        special_tokens: `pad_token_id` and so on; BERT's where they are not given.

    Raises:
        ConversionError: lists missing keys, options that a GPTFace model has not, and contradictions to the VQGAN.
    """
    check_entries(original, REQUIRED_KEYS, "this is no configuration of the original stack")
    problems = [
        f"{key} is {original[key]!r}, not {' or '.join(map(repr, values))}"
        for key, values in FIXED_OPTIONS.items()
        if key in original and original[key] not in values
    ]
    if original["emb_size"] != original["hidden_size"]:
        problems.append(f"emb_size {original['emb_size']} is not hidden_size {original['hidden_size']}")
    targets = sorted(original["target"])
    if targets not in ([MASKED_TARGET], [MASKED_TARGET, MATCH_TARGET], [AUTOREGRESSIVE_TARGET]):
        problems.append(f"target is {original['target']!r}, not ['mlm', 'sp'], ['mlm'] or ['lm']")
    dropout = original.get("dropout", 0.0)
    if not isinstance(dropout, int | float):
        problems.append(f"dropout is {dropout!r}, no number")
    problems += _contradictions(original, image_tokenizer)
    cells = image_tokenizer.grid_size**2
    text_length = original["max_seq_length"] - cells if max_text_length is None else max_text_length
    if not 0 < text_length <= original["max_seq_length"] - cells:
        problems.append(
            f"a text of {text_length} and an image of {cells} cells do not fit into "
            f"max_seq_length {original['max_seq_length']}"
        )
    if special_tokens is None and original["vocab_size"] <= GPTFaceConfig.mask_token_id:
        problems.append(f"BERT's special tokens are not in a vocabulary of {original['vocab_size']}: give --vocab")
    if problems:
        raise ConversionError("the original configuration cannot be converted", problems)
    return GPTFaceConfig(
        image_tokenizer_config=image_tokenizer.to_dict(),
        vocab_size=original["vocab_size"],
        hidden_size=original["hidden_size"],
        num_hidden_layers=original["layers_num"],
        num_attention_heads=original["heads_num"],
        intermediate_size=original["feedforward_size"],
        hidden_act=ACTIVATIONS[original["hidden_act"]][0],
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        layer_norm_eps=LAYER_NORM_EPS,
        max_text_length=text_length,
        norm_position=original["layernorm_positioning"],
        embedding_norm=not original.get("remove_embedding_layernorm", False),
        attention_pattern=MASKS[original["mask"]],
        lm_head_transform=AUTOREGRESSIVE_TARGET not in targets,
        match_trained=MATCH_TARGET in targets,
        tie_word_embeddings=bool(original.get("tie_weights", False)),
        **(special_tokens or {}),
    )


def _contradictions(original: dict[str, Any], image_tokenizer: GPTFaceImageTokenizerConfig) -> list[str]:
    """What the two configurations say differently."""
    options = original["image_tokenizer"]
    pairs = {
        "image_height": (original["image_height"], image_tokenizer.image_size),
        "image_width": (original["image_width"], image_tokenizer.image_size),
        "image_tokenizer.image_vocab_size": (options.get("image_vocab_size"), image_tokenizer.num_codes),
        "image_tokenizer.frame_size": (options.get("frame_size"), image_tokenizer.downsample_factor),
        "image_tokenizer.is_gumbel": (options.get("is_gumbel"), image_tokenizer.quantizer == "gumbel"),
    }
    return [
        f"{key} is {said!r}, the VQGAN's is {found!r}"
        for key, (said, found) in pairs.items()
        if said is not None and said != found
    ]


def original_config(config: GPTFaceConfig, lm_bias: bool, max_seq_length: int) -> dict[str, Any]:
    """
    The stack's configuration of a GPTFace model.

    Raises:
        ConversionError: lists what the stack has not.
    """
    activation = next((name for name, aliases in ACTIVATIONS.items() if config.hidden_act in aliases), None)
    unsupported = [
        what
        for what, present in {
            f"hidden_act={config.hidden_act!r}": activation is None,
            "code_embedding='levels'": config.code_embedding == "levels",
            "grid_convolution": config.grid_convolution,
            "different dropout rates": config.hidden_dropout_prob != config.attention_probs_dropout_prob,
            "a match head beside an untransformed LM head": config.match_trained and not config.lm_head_transform,
        }.items()
        if present
    ]
    if unsupported:
        raise ConversionError("the original stack cannot hold this model", unsupported)
    tokenizer = config.image_tokenizer_config
    targets = [MASKED_TARGET] if config.lm_head_transform else [AUTOREGRESSIVE_TARGET]
    return {
        "emb_size": config.hidden_size,
        "feedforward_size": config.intermediate_size,
        "hidden_size": config.hidden_size,
        "hidden_act": activation,
        "heads_num": config.num_attention_heads,
        "layers_num": config.num_hidden_layers,
        "dropout": config.hidden_dropout_prob,
        "max_seq_length": max_seq_length,
        "embedding": ["word", "pos", "seg"],
        "remove_embedding_layernorm": not config.embedding_norm,
        "layernorm_positioning": config.norm_position,
        "encoder": "transformer",
        "mask": next(name for name, pattern in MASKS.items() if pattern == config.attention_pattern),
        "target": targets + ([MATCH_TARGET] if config.match_trained else []),
        "image_height": tokenizer.image_size,
        "image_width": tokenizer.image_size,
        "tokenizer": "text_image",
        "image_tokenizer": {
            "is_gumbel": tokenizer.quantizer == "gumbel",
            "is_transformer": False,
            "image_vocab_size": tokenizer.num_codes,
            "frame_size": tokenizer.downsample_factor,
        },
        "vocab_size": config.vocab_size,
        **({"tie_weights": True} if config.tie_word_embeddings else {}),
        **({} if config.lm_head_transform else {"has_lmtarget_bias": lm_bias}),
    }


def original_links(config: GPTFaceConfig, spare_positions: torch.Tensor, lm_bias: bool) -> list[Link]:
    """
    Links from the stack's tensors to those of [`GPTFaceForPreTraining`], the image tokenizer aside.

    Args:
        spare_positions: rows of the position table [rows, hidden_size] behind the last one that the model uses; a meta
            tensor where only the shape matters.
        lm_bias: whether `target.lm.output_layer` has a bias.
    """
    # The stack divides by the unbiased standard deviation, torch's layer norm by the biased one.
    factor = math.sqrt((config.hidden_size - 1) / config.hidden_size)

    def layer_norm(source: str, target: str) -> list[Link]:
        return [scaled(f"{source}.gamma", f"{target}.weight", factor), same(f"{source}.beta", f"{target}.bias")]

    def linear(source: str, target: str) -> list[Link]:
        return [same(f"{source}.{kind}", f"{target}.{kind}") for kind in ("weight", "bias")]

    embeddings = "gptface.embeddings"
    rows = config.max_text_length + config.num_image_tokens
    links = [
        Link(
            (POSITIONS,),
            (f"{embeddings}.position_embeddings.weight",),
            lambda table: (table[:rows],),
            lambda used: (torch.cat([used, spare_positions.to(used.device)]),),
        ),
        same("embedding.seg.embedding.weight", f"{embeddings}.token_type_embeddings.weight"),
    ]
    if config.embedding_norm:
        links += layer_norm("embedding.layer_norm", f"{embeddings}.norm")
    for index in range(config.num_hidden_layers):
        source, target = f"encoder.transformer.{index}", f"gptface.layers.{index}"
        for number, name in enumerate(("query", "key", "value")):
            links += linear(f"{source}.self_attn.linear_layers.{number}", f"{target}.attention.{name}")
        links += linear(f"{source}.self_attn.final_linear", f"{target}.attention.output")
        links += linear(f"{source}.feed_forward.linear_1", f"{target}.feed_forward.up")
        links += linear(f"{source}.feed_forward.linear_2", f"{target}.feed_forward.down")
        links += layer_norm(f"{source}.layer_norm_1", f"{target}.attention_norm")
        links += layer_norm(f"{source}.layer_norm_2", f"{target}.feed_forward_norm")
    if config.norm_position == "pre":
        links += layer_norm("encoder.layer_norm", "gptface.norm")
    decoder = "target.lm.output_layer"
    if config.lm_head_transform:
        decoder = "target.mlm.linear_2"
        links += linear("target.mlm.linear_1", "lm_head.dense")
        links += layer_norm("target.mlm.layer_norm", "lm_head.norm")
    links += _vocabulary_links(config, decoder, lm_bias)
    if config.match_trained:
        links += linear("target.sp.linear_1", "match_head.dense")
        links += linear("target.sp.linear_2", "match_head.output")
    return links


def _vocabulary_links(config: GPTFaceConfig, decoder: str, bias: bool) -> list[Link]:
    """The stack has one table of words and codes, GPTFace one of each; likewise in the decoder, unless it is tied."""
    words, codes = (f"gptface.embeddings.{kind}_embeddings.weight" for kind in ("word", "code"))
    table, rows = "embedding.word.embedding.weight", config.vocab_size
    image_bias = "lm_head.image_bias" if config.tie_word_embeddings else "lm_head.image_decoder.bias"
    links = [split(f"{decoder}.bias", ("lm_head.text_decoder.bias", image_bias), rows)] if bias else []
    if not config.tie_word_embeddings:
        targets = ("lm_head.text_decoder.weight", "lm_head.image_decoder.weight")
        return [*links, split(table, (words, codes), rows), split(f"{decoder}.weight", targets, rows)]

    def untie(vectors: torch.Tensor, tied: torch.Tensor) -> Tensors:
        if vectors.device.type != "meta" and not torch.equal(vectors, tied):
            raise ConversionError(f"tie_weights is true, but {decoder}.weight is not equal to {table}", [])
        return vectors[:rows], vectors[rows:]

    def tie(*parts: torch.Tensor) -> Tensors:
        joint = torch.cat(parts)
        return joint, joint

    return [*links, Link((table, f"{decoder}.weight"), (words, codes), untie, tie)]
