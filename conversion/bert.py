"""A BERT-shaped encoder (Devlin et al. 2018, arXiv 1810.04805) as the start of a GPTFace model: transformer and
vocabulary.
"""

import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.processing.tokenization_gptface import SPECIAL_TOKENS, GPTFaceTokenizer
from gptface.processing.whole_files import whole_folder

from .checkpoint import StateDict, read_json, read_model_folder
from .links import Link, Plan, Tensors, same
from .model_folder import (
    IMAGE_TOKENIZER_PREFIX,
    image_tokenizer_shapes,
    model_shapes,
    read_image_tokenizer,
    special_token_ids,
    write_model,
    write_processor,
)
from .original import read_vocabulary
from .report import ConversionError, ConversionReport, NamedShape

WORDS = "embeddings.word_embeddings.weight"
BERT_SETTINGS = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "vocab_size",
    "type_vocab_size",
    "max_position_embeddings",
]
# Letters, digits and signs, at the start of a word and within one: with these a word outside the list can still be
# spelled.
SPELLING = {
    prefix + sign for sign in string.ascii_lowercase + string.digits + string.punctuation for prefix in ("", "##")
}
LAYER_PARTS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down",
    "output.LayerNorm": "feed_forward_norm",
}


def convert_bert(
    encoder: str | Path,
    image_tokenizer: str | Path,
    output: str | Path,
    words: Iterable[str] | None = None,
    max_text_length: int = 64,
) -> ConversionReport:
    """
    Writes the GPTFace folder `output`, ready for pre-training: on text alone it gives the encoder's states; code
    vectors, image positions and the heads that the encoder has not start fresh.

    Args:
        encoder: folder of a BERT-shaped encoder with its lower-cased WordPiece vocabulary.
        image_tokenizer: folder of a GPTFace image tokenizer, or of a model whose image tokenizer is taken.
        words: keeps of the vocabulary only what these words and phrases need, letters, digits and signs, and the
            special tokens; the whole vocabulary where it is not given.
        max_text_length: most text tokens; at most the encoder's positions.

    Raises:
        OSError: a folder is missing, or `output` exists and is not empty.
        ConversionError: lists what does not fit: another kind of encoder or vocabulary, words that cannot be written.
    """
    encoder = Path(encoder)
    if not encoder.is_dir():
        raise FileNotFoundError(f"{encoder} is no folder")
    source = AutoConfig.from_pretrained(encoder, trust_remote_code=False)
    _check_encoder(encoder, source, max_text_length)
    state = _encoder_state(encoder)
    vocabulary = read_wordpiece_vocabulary(encoder)
    if words is not None:
        vocabulary = pruned_vocabulary(vocabulary, words)
    rows = torch.tensor(sorted(vocabulary.values()))
    if rows[-1] >= source.vocab_size:
        raise ConversionError(
            f"the vocabulary of {encoder} goes up to id {rows[-1]}, its encoder knows {source.vocab_size}", []
        )
    compact = {token: index for index, token in enumerate(sorted(vocabulary, key=vocabulary.__getitem__))}
    image_config, image_state = read_image_tokenizer(image_tokenizer)
    config = GPTFaceConfig(
        image_tokenizer_config=image_config.to_dict(),
        vocab_size=len(compact),
        hidden_size=source.hidden_size,
        num_hidden_layers=source.num_hidden_layers,
        num_attention_heads=source.num_attention_heads,
        intermediate_size=source.intermediate_size,
        hidden_act=source.hidden_act,
        hidden_dropout_prob=source.hidden_dropout_prob,
        attention_probs_dropout_prob=source.attention_probs_dropout_prob,
        layer_norm_eps=source.layer_norm_eps,
        max_text_length=max_text_length,
        norm_position="post",
        embedding_norm=True,
        **special_token_ids(compact),
    )
    plan = Plan(model_shapes(config))
    plan.link(str(encoder), _links(config, source, state, rows), state, _skipped(state))
    image_names = image_tokenizer_shapes(image_config)
    image_links = [same(name, IMAGE_TOKENIZER_PREFIX + name) for name in image_names]
    plan.link(str(image_tokenizer), image_links, image_state)
    _initialise(plan, config, dropped_rows=source.vocab_size - len(rows))
    with whole_folder(output) as folder:
        write_model(folder, config, GPTFaceForPreTraining, plan)
        write_processor(folder, config, compact)
    return plan.report


def _check_encoder(folder: Path, source: PreTrainedConfig, max_text_length: int) -> None:
    """Raises `ConversionError` where the configuration is not that of a BERT, or of one that is too short."""
    problems = [f"its configuration lacks {name}" for name in BERT_SETTINGS if not hasattr(source, name)]
    if not problems:
        kind = getattr(source, "position_embedding_type", "absolute")
        if kind != "absolute":
            problems.append(f"position_embedding_type is {kind!r}, not 'absolute'")
        if not 2 < max_text_length <= source.max_position_embeddings:
            problems.append(f"max_text_length {max_text_length} is not in 3…{source.max_position_embeddings}")
    if problems:
        raise ConversionError(f"{folder} cannot start a GPTFace model", problems)


def _encoder_state(folder: Path) -> StateDict:
    """Tensors of the folder, the encoder's without the prefix of a task model and with the norms' names of today."""
    state = read_model_folder(folder)
    prefix = next((name.removesuffix(WORDS) for name in state if name.endswith(WORDS)), None)
    if prefix is None:
        raise ConversionError(f"{folder} holds no BERT-shaped encoder: it lacks {WORDS}", [])
    names = {".gamma": ".weight", ".beta": ".bias"}
    renamed = {}
    for name, tensor in state.items():
        stem, _, kind = name.removeprefix(prefix).rpartition(".")
        renamed[stem + names.get(f".{kind}", f".{kind}")] = tensor
    return renamed


def read_wordpiece_vocabulary(folder: str | Path) -> dict[str, int]:
    """
    Ids by entry, from a folder's tokenizer.json or vocab.txt.

    Raises:
        FileNotFoundError: where there is neither.
        ConversionError: where it is no WordPiece vocabulary, or one that tells capitals from small letters.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        tokenizer: dict[str, Any] = read_json(folder / "tokenizer.json")
        kind, lower = tokenizer["model"].get("type"), (tokenizer.get("normalizer") or {}).get("lowercase", False)
        vocabulary = tokenizer["model"].get("vocab")
    else:
        settings = folder / "tokenizer_config.json"
        kind, lower = "WordPiece", not settings.is_file() or read_json(settings).get("do_lower_case", True)
        vocabulary = read_vocabulary(folder / "vocab.txt")
    if kind != "WordPiece" or not lower:
        raise ConversionError(
            f"{folder} has a {'cased ' * (not lower)}{kind} vocabulary, not a lower-cased WordPiece one", []
        )
    return vocabulary


def pruned_vocabulary(vocabulary: dict[str, int], words: Iterable[str]) -> dict[str, int]:
    """
    The entries that `words` need, with their ids in `vocabulary`. A word in the list is split as before; any other can
    be spelled.

    Raises:
        ConversionError: lists words that the vocabulary cannot write.
    """
    tokenizer = GPTFaceTokenizer.from_vocabulary(vocabulary).backend_tokenizer
    kept, unknown = set(SPECIAL_TOKENS.values()) | SPELLING, []
    for word in words:
        pieces = tokenizer.encode(word, add_special_tokens=False).tokens
        kept.update(pieces)
        if SPECIAL_TOKENS["unk_token"] in pieces:
            unknown.append(json.dumps(word, ensure_ascii=False))
    if unknown:
        raise ConversionError("the vocabulary cannot write these words", unknown)
    return {token: index for token, index in vocabulary.items() if token in kept}


def _links(config: GPTFaceConfig, source: PreTrainedConfig, state: StateDict, rows: torch.Tensor) -> list[Link]:
    """Links from the encoder's names; the way back gives shapes only, as tables are cut and filled up."""
    size, length = config.hidden_size, config.max_text_length
    generator = torch.Generator().manual_seed(0)
    cells = torch.randn(config.num_image_tokens, size, generator=generator) * config.initializer_range

    def table(name: str, target: str, entries: tuple[int, ...], forward: Any) -> Link:
        return Link((name,), (target,), forward, lambda _: (torch.empty(entries, device="meta"),))

    def positions(vectors: torch.Tensor) -> Tensors:
        return (torch.cat([vectors[:length].float(), cells]),)

    def token_types(vectors: torch.Tensor) -> Tensors:
        # padding is never seen; the picture is BERT's second segment, where there is one
        text, image = vectors[0].float(), vectors[-1].float()
        return (torch.stack([torch.zeros(size), text, image]),)

    def part(name: str, target: str) -> list[Link]:
        return [same(f"{name}.{kind}", f"{target}.{kind}") for kind in ("weight", "bias")]

    embeddings = "gptface.embeddings"
    links = [
        table(WORDS, f"{embeddings}.word_embeddings.weight", (source.vocab_size, size), lambda t: (t[rows],)),
        table(
            "embeddings.position_embeddings.weight",
            f"{embeddings}.position_embeddings.weight",
            (source.max_position_embeddings, size),
            positions,
        ),
        table(
            "embeddings.token_type_embeddings.weight",
            f"{embeddings}.token_type_embeddings.weight",
            (source.type_vocab_size, size),
            token_types,
        ),
        *part("embeddings.LayerNorm", f"{embeddings}.norm"),
    ]
    for index in range(config.num_hidden_layers):
        for name, target in LAYER_PARTS.items():
            links += part(f"encoder.layer.{index}.{name}", f"gptface.layers.{index}.{target}")
    if _has_masked_head(state):
        links += part("cls.predictions.transform.dense", "lm_head.dense")
        links += part("cls.predictions.transform.LayerNorm", "lm_head.norm")
        bias = (source.vocab_size,)
        links.append(table("cls.predictions.bias", "lm_head.text_decoder.bias", bias, lambda t: (t[rows],)))
    if "pooler.dense.weight" in state:
        links += part("pooler.dense", "match_head.dense")
    return links


def _has_masked_head(state: StateDict) -> bool:
    return any(name.startswith("cls.predictions.") for name in state)


def _skipped(state: StateDict) -> dict[str, str]:
    """Prefixes of what the encoder's folder may hold besides, and why it is left out."""
    skip = {"embeddings.position_ids": "indices, no weights", "cls.predictions.decoder.": "tied to the words"}
    for name in state:
        top = name.split(".")[0]
        if top not in ("embeddings", "encoder", "pooler") and not name.startswith("cls.predictions."):
            skip.setdefault(name, "head of another task")
    return skip


def _initialise(plan: Plan, config: GPTFaceConfig, dropped_rows: int) -> None:
    """Starts what the encoder has not, and reports the rows that are cut or filled up."""
    std, size, words = config.initializer_range, config.hidden_size, "gptface.embeddings"
    plan.initialise_normal(f"{words}.code_embeddings.weight", std)
    cells = NamedShape(f"{words}.position_embeddings.weight, image rows", (config.num_image_tokens, size))
    plan.report.initialised.append((cells, f"normal, standard deviation {std:g}"))
    plan.report.initialised.append((NamedShape(f"{words}.token_type_embeddings.weight, padding row", (1, size)), "0"))
    if dropped_rows:
        plan.report.skipped.append((NamedShape(f"{WORDS}, rows", (dropped_rows, size)), "not in the vocabulary kept"))
    coarse = f"{words}.plan."
    for name in plan.unplanned():
        if name == f"{coarse}parent_embeddings.weight":
            plan.initialise_constant(name, 0.0)  # the plan tells nothing until it has learned to
        elif name.startswith(coarse):
            plan.initialise_normal(name, std)
        elif name.endswith("norm.weight"):
            plan.initialise_constant(name, 1.0)
        elif name.endswith("bias"):
            plan.initialise_constant(name, 0.0)
        elif name.startswith(("lm_head.", "match_head.")):
            plan.initialise_normal(name, std)
