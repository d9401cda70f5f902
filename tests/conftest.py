"""
Fixtures that all tests share. Everything is tiny and seeded; nothing needs the network.

- `tiny_config(**overrides)` → [`GPTFaceConfig`]: hidden 32, 2 layers, 37 words, 60 codes (FSQ 3·4·5), 24 px, so a grid
  of 3×3 cells. `image_tokenizer_config={…}` changes single fields of the tiny image tokenizer.
- `tiny_model(model_class=GPTFaceForPreTraining, **overrides)`: such a model in eval mode. All its parameters are
  random, also those that start at zero, so that no part of it is without effect.
- `tiny_inputs(config, batch=2, text_length=5)`: `input_ids`, `attention_mask`, `image_codes` and `image_mask` for
  `forward`.
- `tiny_tokenizer`: a trained [`GPTFaceTokenizer`] with at most 16 tokens a caption. Read only.
- `tiny_processor`: it and an image processor of 64 px.
- `tiny_checkpoint`: folder of a complete checkpoint that every class and pipeline loads: 64 px, a grid of 8×8 cells,
  so that named regions have cells; a face parser that takes all for skin; `match_trained`, heads `attributes`
  (multi-label) and `expression` (7 labels), both `trained`. Other weights are random. Read only: copy it to change it.
- `planned_checkpoint`: such a folder whose model draws the plan first (8×8 cells, a plan of 4×4), with captions read
  apart from pictures, and a refiner.
- `checkout_on_path`: `benchmarks` can be imported, which is not part of the package.
- `lpips_file`: LPIPS weights of a thin network.
- `face_picture`: an RGB picture of 80×96 px, smooth, in PIL. No detector finds a face in it: use `aligned=True` or
  `landmarks`.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import PreTrainedModel

if importlib.util.find_spec("gptface") is None:  # a checkout that is not installed
    sys.path.append(str(Path(__file__).parent.parent))

from gptface import (
    GPTFaceConfig,
    GPTFaceForPreTraining,
    GPTFaceImageProcessor,
    GPTFaceParser,
    GPTFaceParserConfig,
    GPTFaceProcessor,
    GPTFaceTokenizer,
)
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES

# More threads only get in each other's way with tensors this small.
torch.set_num_threads(1)

ATTRIBUTES = ["Blond_Hair", "Eyeglasses", "Male", "Smiling", "Young"]
EXPRESSIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
CAPTIONS = [
    "a smiling woman with blond hair",
    "a man without a smile",
    "a young man with a beard and glasses",
    "an old woman, not smiling, without glasses",
    "a sad face",
    "a happy young person with a mouth mask",
]
IMAGE_TOKENIZER = {"image_size": 24, "latent_channels": 5, "hidden_channels": 8, "fsq_levels": [3, 4, 5]}
REFINER = {"image_size": 128, "hidden_channels": [4, 6, 8], "dilations": [1]}
FACE_PARSER = {"image_size": 64, "block_out_channels": [8, 8, 16, 16], "dilations": [1]}
TRANSFORMER = {
    "vocab_size": 37,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_text_length": 11,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "mask_token_id": 4,
}


def make_config(image_tokenizer_config: dict | None = None, **overrides) -> GPTFaceConfig:
    return GPTFaceConfig(
        image_tokenizer_config={**IMAGE_TOKENIZER, **(image_tokenizer_config or {})}, **{**TRANSFORMER, **overrides}
    )


def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """
    Gives all parameters random values of a size at which differences show, and codes that differ from cell to cell.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            spread = 0.6 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
            if name.endswith("quantizer.down.weight"):
                parameter.mul_(8)
    return model.eval()


def make_model(model_class: type[PreTrainedModel] = GPTFaceForPreTraining, **overrides) -> PreTrainedModel:
    torch.manual_seed(0)
    return randomize(model_class(make_config(**overrides)))


def make_inputs(config: GPTFaceConfig, batch: int = 2, text_length: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    words = torch.randint(5, config.vocab_size, (batch, text_length), generator=generator)
    words[:, 0], words[:, -1] = config.cls_token_id, config.sep_token_id
    shape = (batch, config.num_image_tokens)
    return {
        "input_ids": words,
        "attention_mask": torch.ones_like(words),
        "image_codes": torch.randint(config.num_codes, shape, generator=generator),
        "image_mask": torch.rand(shape, generator=generator) < 0.5,
    }


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., GPTFaceConfig]:
    return make_config


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    return make_model


@pytest.fixture(scope="session")
def tiny_inputs() -> Callable[..., dict[str, torch.Tensor]]:
    return make_inputs


@pytest.fixture(scope="session")
def tiny_tokenizer() -> GPTFaceTokenizer:
    return GPTFaceTokenizer.train(CAPTIONS, vocab_size=300, max_length=16)


@pytest.fixture(scope="session")
def tiny_processor(tiny_tokenizer: GPTFaceTokenizer) -> GPTFaceProcessor:
    return GPTFaceProcessor(GPTFaceImageProcessor(size={"height": 64, "width": 64}), tiny_tokenizer)


def make_checkpoint(folder: Path, processor: GPTFaceProcessor, image_tokenizer_config: dict, **overrides) -> Path:
    tokenizer = processor.tokenizer
    model = make_model(
        image_tokenizer_config={"image_size": 64, **image_tokenizer_config},
        vocab_size=len(tokenizer),
        max_text_length=tokenizer.model_max_length,
        code_embedding="levels",
        position_init="sine",
        grid_convolution=True,
        match_trained=True,
        heads={
            "attributes": {"labels": ATTRIBUTES, "problem_type": "multi_label_classification", "trained": True},
            "expression": {"labels": EXPRESSIONS, "problem_type": "single_label_classification", "trained": True},
        },
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        mask_token_id=tokenizer.mask_token_id,
        **overrides,
    )
    parser = GPTFaceParser(GPTFaceParserConfig(**FACE_PARSER))
    with torch.no_grad():  # or chance would say what faces wear and lack, and so what is done to them
        parser.classifier.bias[FACE_CLASSES.index("skin")] = 12.0
    model.gptface.face_parser, model.config.face_parser_config = parser, parser.config
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_processor: GPTFaceProcessor) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny-gptface"), tiny_processor, {})


@pytest.fixture(scope="session")
def planned_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_processor: GPTFaceProcessor) -> Path:
    tokenizer = {"plan_levels": [3, 4, 2], "plan_channels": 16, "refiner_config": REFINER}
    parts = {"plan_trained": True, "match_head": "cross", "caption_reader": True, "text_attention_bias": 1.0}
    return make_checkpoint(tmp_path_factory.mktemp("planned-gptface"), tiny_processor, tokenizer, **parts)


@pytest.fixture(scope="session")
def lpips_file(tmp_path_factory):
    """LPIPS weights of a thin network: the same layers with few channels."""
    generator, state, channels = torch.Generator().manual_seed(0), {}, 3
    for layer, (width, kernel) in enumerate([(12, 11), (12, 5), (10, 3), (10, 3), (10, 3)]):
        state[f"convs.{layer}.weight"] = torch.randn(width, channels, kernel, kernel, generator=generator) * 0.2
        state[f"convs.{layer}.bias"] = torch.full((width,), 0.1)
        state[f"lin.{layer}"] = torch.rand(1, width, 1, 1, generator=generator)
        channels = width
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="session")
def face_picture() -> Image.Image:
    rows, columns = np.mgrid[0:96, 0:80] / 96
    channels = [np.sin(7 * rows + 3 * columns), np.cos(5 * columns - rows), np.sin(9 * rows * columns + 1)]
    return Image.fromarray(np.rint((np.stack(channels, -1) + 1) * 127.5).astype(np.uint8))


@pytest.fixture
def checkout_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def moving_portrait() -> Callable[..., list[Image.Image]]:
    """Makes frames of a film: an example portrait that shifts, turns and comes nearer."""

    def make(count: int = 10, name: str = "serious.jpg", size: tuple[int, int] = (168, 206)) -> list[Image.Image]:
        portrait = Image.open(Path(__file__).parents[1] / "examples" / name).convert("RGB")
        frames = []
        for phase in np.linspace(0, 2, count):
            scale, angle = 2 - 0.1 * phase, 0.05 * np.sin(3 * phase)
            turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            shift = np.array(portrait.size) / 2 - turn @ (np.array(size) / 2 + [6 * np.sin(4 * phase), 5 * phase])
            matrix = tuple(np.column_stack([turn, shift]).ravel())
            frames.append(portrait.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))
        return frames

    return make
