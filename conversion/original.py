"""Checkpoints of the original training stack → GPTFace folders, and GPTFace folders → that stack's files."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.processing.tokenization_gptface import GPTFaceTokenizer
from gptface.processing.whole_files import whole_folder

from .checkpoint import StateDict, read_json, read_model_folder, read_state_dict, write_safetensors
from .links import Link, Plan
from .model_folder import (
    IMAGE_TOKENIZER_PREFIX,
    TIED_DECODER,
    model_shapes,
    read_config,
    special_token_ids,
    write_model,
    write_processor,
)
from .original_layout import POSITIONS, gptface_config, original_config, original_links
from .report import ConversionError, ConversionReport, NamedShape
from .vqgan import read_taming, taming_config, taming_links

# Names of the files that the reverse writes.
TRANSFORMER, TRANSFORMER_CONFIG = "transformer.bin", "transformer_config.json"
VQGAN, VQGAN_CONFIG, VOCABULARY = "vqgan.ckpt", "vqgan.yaml", "vocab.txt"
DECODER_BIASES = ("lm_head.text_decoder.bias", "lm_head.image_decoder.bias", "lm_head.image_bias")
# What a GPTFace model has no place for, kept beside it so that the reverse gives the same checkpoint again.
SOURCE_CONFIG, SPARE_POSITIONS = "original_config.json", "original_positions.safetensors"


def convert_original(
    transformer: str | Path,
    config: str | Path,
    vqgan: str | Path,
    vqgan_config: str | Path,
    output: str | Path,
    vocab: str | Path | None = None,
    max_text_length: int | None = None,
) -> ConversionReport:
    """
    Writes the GPTFace folder `output` from a checkpoint of the original stack. Hidden states, logits, codes and pixels
    (in [-1, 1]) are those of the source for sequences of a text part of `max_text_length` ids, padded, and the codes.

    Args:
        transformer: state dict of the transformer.
        config: its JSON configuration.
        vqgan: checkpoint of its VQGAN in taming's layout.
        vqgan_config: the VQGAN's YAML configuration.
        vocab: the text vocabulary, one entry a line; without it the folder has no tokenizer.
        max_text_length: positions of the text part; max_seq_length less the number of cells where it is not given.

    Raises:
        OSError: a file is missing, or `output` exists and is not empty.
        ConversionError: lists what does not fit (keys, shapes, options); nothing is written.
        ImportError: where diffusers is missing.
    """
    original = read_json(config)
    picture = original.get("image_height")
    image = read_taming(vqgan, vqgan_config, picture if isinstance(picture, int) else None)
    vocabulary = None if vocab is None else read_vocabulary(vocab)
    special_tokens = None if vocabulary is None else special_token_ids(vocabulary)
    target = gptface_config(original, image.config, max_text_length, special_tokens)
    if vocabulary is not None and len(vocabulary) != target.vocab_size:
        raise ConversionError(f"{vocab} has {len(vocabulary)} entries, the model's vocabulary {target.vocab_size}", [])
    state = read_state_dict(transformer)
    used = target.max_text_length + target.num_image_tokens
    spare = torch.empty(original["max_seq_length"] - used, target.hidden_size, device="meta")
    lm_bias = target.lm_head_transform or original.get("has_lmtarget_bias", "target.lm.output_layer.bias" in state)

    plan = Plan(model_shapes(target))
    plan.link(str(transformer), original_links(target, spare, lm_bias), state)
    image_links = taming_links(target.image_tokenizer_config, IMAGE_TOKENIZER_PREFIX)
    plan.link(str(vqgan), image_links, image.state, image.skip)
    if len(spare):
        behind = NamedShape(f"{POSITIONS}, rows from {used}", tuple(spare.shape))
        plan.report.skipped.append((behind, f"behind the image; kept in {SPARE_POSITIONS} for the way back"))
    _initialise_rest(plan, target, lm_bias)
    with whole_folder(output) as folder:
        write_model(folder, target, GPTFaceForPreTraining, plan)
        write_processor(folder, target, vocabulary)
        _write_json(folder / SOURCE_CONFIG, original)
        if len(spare):
            rows = state[POSITIONS][used:]
            write_safetensors(folder / SPARE_POSITIONS, {POSITIONS: tuple(rows.shape)}, [(POSITIONS, rows)])
    return plan.report


def _initialise_rest(plan: Plan, config: GPTFaceConfig, lm_bias: bool) -> None:
    """Starts what the source has not: a match head, a bias of the decoder."""
    if not config.match_trained:
        for layer in ("dense", "output"):
            plan.initialise_normal(f"match_head.{layer}.weight", config.initializer_range)
            plan.initialise_constant(f"match_head.{layer}.bias", 0.0)
    if not lm_bias:
        for name in DECODER_BIASES:
            if name in plan.shapes:
                plan.initialise_constant(name, 0.0)


def read_vocabulary(path: str | Path) -> dict[str, int]:
    """
    Ids by entry of a vocabulary with one entry a line.

    Raises:
        FileNotFoundError: where there is no such file.
        ConversionError: lists entries that stand there more than once.
    """
    entries = Path(path).read_text(encoding="utf-8").split("\n")
    if entries[-1] == "":
        entries.pop()
    entries = [entry.rstrip("\r") for entry in entries]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    if len(vocabulary) < len(entries):
        twice = sorted({entry for index, entry in enumerate(entries) if vocabulary[entry] != index})
        raise ConversionError(f"{path} has entries more than once", [repr(entry) for entry in twice])
    return vocabulary


def export_original(source: str | Path, output: str | Path) -> ConversionReport:
    """
    Writes a GPTFace folder as files of the original stack: `transformer.bin`, `transformer_config.json`, `vqgan.ckpt`,
    `vqgan.yaml`, and `vocab.txt` where the folder has a tokenizer. What [`convert_original`] made comes back as it
    was, layer norm scales up to rounding.

    Raises:
        OSError: `source` is missing, or `output` exists and is not empty.
        ConversionError: lists what does not fit or what the original stack cannot hold; nothing is written.
    """
    source = Path(source)
    config = read_config(source)
    state = read_model_folder(source)
    kept: dict[str, Any] = read_json(source / SOURCE_CONFIG) if (source / SOURCE_CONFIG).is_file() else {}
    spare = _spare_positions(source, config)
    used = config.max_text_length + config.num_image_tokens
    lm_bias = config.lm_head_transform or kept.get("has_lmtarget_bias", False) or _has_decoder_bias(state)
    described = {**kept, **original_config(config, lm_bias, used + len(spare))}
    image_config = taming_config(config.image_tokenizer_config)

    transformer_links = original_links(config, spare, lm_bias)
    image_links = taming_links(config.image_tokenizer_config, IMAGE_TOKENIZER_PREFIX)
    shapes = model_shapes(config)
    plan = Plan(
        {name: s for link in transformer_links + image_links for name, s in link.source_shapes(shapes).items()}
    )
    reverse = [link.reversed() for link in transformer_links + image_links]
    plan.link(str(source), reverse, state, _no_place(config, lm_bias))
    tensors = {name: tensor.float().contiguous() for name, tensor in plan.tensors()}
    with whole_folder(output) as folder:
        torch.save(_part(tensors, transformer_links), folder / TRANSFORMER)
        torch.save({"state_dict": _part(tensors, image_links)}, folder / VQGAN)
        _write_json(folder / TRANSFORMER_CONFIG, described)
        (folder / VQGAN_CONFIG).write_text(yaml.safe_dump(image_config, sort_keys=False), encoding="utf-8")
        if (source / "tokenizer.json").is_file():
            ids = GPTFaceTokenizer.from_pretrained(source).get_vocab()
            entries = "".join(f"{entry}\n" for entry in sorted(ids, key=ids.__getitem__))
            (folder / VOCABULARY).write_text(entries, encoding="utf-8")
    return plan.report


def _spare_positions(source: Path, config: GPTFaceConfig) -> torch.Tensor:
    """Rows of the original's position table behind the last one that the model uses; none where none were kept."""
    if not (source / SPARE_POSITIONS).is_file():
        return torch.empty(0, config.hidden_size)
    return read_state_dict(source / SPARE_POSITIONS)[POSITIONS]


def _has_decoder_bias(state: StateDict) -> bool:
    """
    Whether a decoder's bias says anything: the autoregressive sibling may have none, which is a bias of zeros here.
    """
    return any(bool(state[name].any()) for name in DECODER_BIASES if name in state)


def _no_place(config: GPTFaceConfig, lm_bias: bool) -> dict[str, str]:
    """Prefixes of tensors that the original stack has no place for, and why."""
    skip = {"classifiers.": "the original stack has no classification heads"}
    if not config.match_trained:
        skip["match_head."] = "not trained"
    if config.tie_word_embeddings:
        skip[TIED_DECODER] = "tied to the words"
    if not lm_bias:
        skip |= dict.fromkeys(DECODER_BIASES, "the original's LM head has no bias")
    return skip


def _part(tensors: StateDict, links: list[Link]) -> StateDict:
    return {name: tensors[name] for link in links for name in link.sources}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
