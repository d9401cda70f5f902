"""GPTFace folders: the tensors that one consists of, written from a plan, and the image tokenizer read out of one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig, GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.tokenization_gptface import SPECIAL_TOKENS, GPTFaceTokenizer

from .checkpoint import Shapes, StateDict, read_json, read_model_folder, write_safetensors
from .links import Plan
from .report import ConversionError

#: Where the image tokenizer stands inside a model with heads.
IMAGE_TOKENIZER_PREFIX = "gptface.image_tokenizer."
TIED_DECODER = "lm_head.text_decoder.weight"


def module_shapes(build: Callable[[], nn.Module]) -> Shapes:
    """Shapes of the tensors of the module that `build` makes, without memory for them."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


def model_shapes(config: GPTFaceConfig) -> Shapes:
    """Shapes of the tensors that a folder of this model stores: a tied decoder is stored once, as the embeddings."""
    shapes = dict(module_shapes(lambda: GPTFaceForPreTraining(config)))
    if config.tie_word_embeddings:
        del shapes[TIED_DECODER]
    return shapes


def image_tokenizer_shapes(config: GPTFaceImageTokenizerConfig) -> Shapes:
    """Shapes of the tensors of this image tokenizer. Raises `ImportError` where its backbone needs diffusers."""
    return module_shapes(lambda: GPTFaceImageTokenizer(config))


def write_model(folder: Path, config: PreTrainedConfig, model_class: type, plan: Plan) -> None:
    """Writes config.json and model.safetensors (float32)."""
    config.architectures = [model_class.__name__]
    config.dtype = "float32"
    if isinstance(config, GPTFaceConfig):
        config.image_tokenizer_config.dtype = "float32"
        if config.face_parser_config is not None:
            config.face_parser_config.dtype = "float32"
    config.save_pretrained(folder)
    write_safetensors(folder / "model.safetensors", plan.shapes, plan.tensors())


def write_processor(folder: Path, config: GPTFaceConfig, vocabulary: dict[str, int] | None) -> None:
    """Writes image processor and tokenizer; the image processor alone where there is no vocabulary."""
    side = config.image_tokenizer_config.image_size
    image_processor = GPTFaceImageProcessor(size={"height": side, "width": side})
    if vocabulary is None:
        image_processor.save_pretrained(folder)
        return
    tokenizer = GPTFaceTokenizer.from_vocabulary(vocabulary, config.max_text_length)
    GPTFaceProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)


def special_token_ids(vocabulary: dict[str, int]) -> dict[str, Any]:
    """
    `pad_token_id` and so on, as [`GPTFaceConfig`] takes them.

    Raises:
        ConversionError: lists the special tokens that are missing.
    """
    names = ("pad", "cls", "sep", "mask")
    missing = [token for token in SPECIAL_TOKENS.values() if token not in vocabulary]
    if missing:
        raise ConversionError("the vocabulary lacks special tokens", missing)
    return {f"{name}_token_id": vocabulary[SPECIAL_TOKENS[f"{name}_token"]] for name in names}


def read_config(folder: str | Path) -> GPTFaceConfig:
    """
    Configuration of the GPTFace model in `folder`.

    Raises:
        OSError: where there is no such folder.
        ConversionError: where it holds something else.
    """
    model_type = read_json(Path(folder) / "config.json").get("model_type")
    if model_type != GPTFaceConfig.model_type:
        raise ConversionError(f"{folder} holds a model of type {model_type!r}, no GPTFace model", [])
    return GPTFaceConfig.from_pretrained(folder)


def read_image_tokenizer(folder: str | Path) -> tuple[GPTFaceImageTokenizerConfig, StateDict]:
    """
    Configuration and tensors of the image tokenizer in `folder`, which holds one alone or a whole GPTFace model.

    Raises:
        OSError: where there is no such folder.
        ConversionError: where it holds something else.
    """
    folder = Path(folder)
    if read_json(folder / "config.json").get("model_type") == GPTFaceImageTokenizerConfig.model_type:
        return GPTFaceImageTokenizerConfig.from_pretrained(folder), read_model_folder(folder)
    config, state = read_config(folder), read_model_folder(folder)
    # a bare GPTFaceModel saves its parts without the prefix of the task models
    prefix = IMAGE_TOKENIZER_PREFIX if any(name.startswith("gptface.") for name in state) else "image_tokenizer."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return config.image_tokenizer_config, tensors
