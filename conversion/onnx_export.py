"""A model as ONNX files, each compared with torch before it is kept."""

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gptface.modeling_gptface.configuration_gptface import GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
from gptface.modeling_gptface.heads_gptface import GPTFaceTaskModel
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
from gptface.processing.whole_files import whole_folder

from .checkpoint import read_json
from .model_folder import read_config
from .onnx_comparison import Outputs
from .onnx_edit import edit_graphs, has_edit_graphs, picture_graphs
from .onnx_graph import Graph, check_graph, write_graph
from .report import ConversionError

logger = logging.getLogger(__name__)

#: Codes that are compared at least: among fewer, a code that happens to lie between two would weigh too much.
COMPARED_CODES = 1024
FREE_BATCH = ({0: "batch"},)


def export_onnx(source: str | Path, output: str | Path) -> list[str]:
    """
    Writes the image tokenizer in the folder `source` (alone or inside a GPTFace model), each trained classification
    head and what edits are made of as ONNX files of opset 18. Every file is compared with torch on random input.

    - image_tokenizer_encoder.onnx: `pixel_values` [B, 3, H, W] in [-1, 1] → `image_codes` [B, N] (int64) and `latents`
      [B, C, h, w], the continuous ones before the quantizer.
    - image_tokenizer_decoder.onnx: `image_codes` [B, N] → `pixel_values` [B, 3, H, W], clipped to [-1, 1].
    - HEAD.onnx, such as attributes.onnx: `image_codes` [B, N], or of a head that reads them `pixel_values`, → `logits`
      [B, L], before temperature and sigmoid or softmax.
    - refiner.onnx and face_parser.onnx, of a model that has them: see [`Refinement`] and [`Parsing`] in onnx_edit.py.
    - Of a model that draws the plan first: plan_encoder.onnx, from latents to plan codes, and plan_decoder.onnx;
      caption_reader.onnx; plan_step.onnx and fill_step.onnx, the logits of a decoding step, see [`DecodingStep`]; and
      match_gradient.onnx, what guidance by matching descends, see [`match_loss`]. Their `image_codes` are −1 where a
      cell is to be drawn; captions are padded at will, those of match_gradient.onnx to the longest that is read.

    Each file's metadata says how pictures are prepared and to which image tokenizer (by fingerprint) its codes belong;
    that of a head its labels, problem type, temperature and thresholds. Numbers and lists are written as JSON.

    Returns:
        The names of the files in `output`, sorted.

    Raises:
        OSError: `source` is missing, or `output` exists and is not empty.
        ConversionError: `source` holds something else or lacks weights, or a file gives other numbers than torch;
            nothing is left then.
        ImportError: where onnx, onnxscript or onnxruntime is missing.
    """
    require_packages()
    tokenizer, model = _load(Path(source))
    with whole_folder(output) as folder:
        for graph in _graphs(tokenizer, model):
            path = folder / f"{graph.name}.onnx"
            write_graph(graph, path)
            check_graph(graph, path)
    return sorted(file.name for file in Path(output).iterdir())


class ImageTokenizerEncoder(nn.Module):
    """Pixels [B, 3, H, W] → codes [B, N] and latents [B, C, h, w]."""

    def __init__(self, tokenizer: GPTFaceImageTokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latents = self.tokenizer.latents(pixel_values)
        return self.tokenizer.quantizer(latents)[1].flatten(1), latents


class ImageTokenizerDecoder(nn.Module):
    """Codes [B, N] → pixels [B, 3, H, W] clipped to [-1, 1]."""

    def __init__(self, tokenizer: GPTFaceImageTokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, image_codes: torch.Tensor) -> torch.Tensor:
        return self.tokenizer.decode(image_codes)


class ClassificationHead(nn.Module):
    """
    Codes [B, N] → logits [B, L]. The vectors of the empty caption and of the codes are constants, so that a file holds
    neither the vocabulary nor sums that are always the same.
    """

    caption: torch.Tensor
    code_vectors: torch.Tensor

    def __init__(self, model: GPTFaceTaskModel, head: str):
        super().__init__()
        self.gptface = model.gptface
        self.classifier = model.classifiers[head]
        embeddings = model.gptface.embeddings
        caption = embeddings.word_embeddings(model.gptface.empty_caption(1))
        self.register_buffer("caption", caption.detach())
        self.register_buffer("code_vectors", embeddings.code_table().detach().clone())

    def forward(self, image_codes: torch.Tensor) -> torch.Tensor:
        caption = self.caption.expand(image_codes.shape[0], -1, -1)
        vectors = nn.functional.embedding(image_codes, self.code_vectors)
        states = self.gptface(inputs_embeds=caption, image_embeds=vectors).last_hidden_state
        return self.classifier(states[:, caption.shape[1] :], vectors)


class PixelClassificationHead(nn.Module):
    """
    Aligned pixels [B, 3, H, W] in [-1, 1] → logits [B, L], by the pixel reader; the vectors of the empty caption are a
    constant.
    """

    caption: torch.Tensor

    def __init__(self, model: GPTFaceTaskModel, head: str):
        super().__init__()
        self.gptface = model.gptface
        self.classifier = model.classifiers[head]
        caption = model.gptface.embeddings.word_embeddings(model.gptface.empty_caption(1))
        self.register_buffer("caption", caption.detach())

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        caption = self.caption.expand(pixel_values.shape[0], -1, -1)
        outputs = self.gptface(inputs_embeds=caption, pixel_values=pixel_values, read_pixels=True)
        return self.classifier(outputs.last_hidden_state[:, caption.shape[1] :], outputs.image_embeds)


def _load(source: Path) -> tuple[GPTFaceImageTokenizer, GPTFaceForGuidedGeneration | None]:
    options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    if read_json(source / "config.json").get("model_type") == GPTFaceImageTokenizerConfig.model_type:
        loaded: Any = GPTFaceImageTokenizer.from_pretrained(source, **options)
        tokenizer, info = loaded
        _refuse_random_weights(source, info["missing_keys"])
        return tokenizer.eval(), None
    read_config(source)  # complains where it is another model
    model, _ = GPTFaceForGuidedGeneration.from_pretrained(source, **options)
    # a head that is missing counts as not trained
    _refuse_random_weights(source, [name for name in model.missing_weights if name.startswith("gptface.")])
    return model.image_tokenizer, model.eval()


def _refuse_random_weights(source: Path, missing: Iterable[str]) -> None:
    if missing := sorted(missing):
        raise ConversionError(f"{source} is not complete; missing", missing)


def _graphs(tokenizer: GPTFaceImageTokenizer, model: GPTFaceForGuidedGeneration | None) -> Iterator[Graph]:
    heads = [] if model is None else _trained_heads(model)
    pixels, codes = _examples(tokenizer.config)
    yield from tokenizer_graphs(tokenizer)
    if model is None:
        return
    shared = _image_metadata(tokenizer)
    yield from (_head_graph(model, name, codes, pixels, shared) for name in heads)
    yield from picture_graphs(model, shared)
    if has_edit_graphs(model):
        yield from edit_graphs(model, shared)


def tokenizer_graphs(tokenizer: GPTFaceImageTokenizer) -> Iterator[Graph]:
    """Encoder and decoder of an image tokenizer."""
    pixels, codes = _examples(tokenizer.config)
    shared = _image_metadata(tokenizer)
    yield Graph(
        "image_tokenizer_encoder",
        ImageTokenizerEncoder(tokenizer),
        lambda pixels: {"image_codes": tokenizer.encode(pixels), "latents": tokenizer.latents(pixels)},
        ("pixel_values",),
        ("image_codes", "latents"),
        _batches(pixels),
        FREE_BATCH,
        metadata=shared,
        quantizer=tokenizer.quantizer,
    )
    yield Graph(
        "image_tokenizer_decoder",
        ImageTokenizerDecoder(tokenizer),
        lambda codes: {"pixel_values": tokenizer.decode(codes)},
        ("image_codes",),
        ("pixel_values",),
        _batches(codes),
        FREE_BATCH,
        metadata=shared,
    )


def _examples(config: GPTFaceImageTokenizerConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pixels [B, 3, H, W] in [-1, 1] and codes [B, N], the same in each run."""
    cells, size = config.grid_size**2, config.image_size
    batch = max(4, math.ceil(COMPARED_CODES / cells))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(batch, config.num_channels, size, size, generator=generator) * 2 - 1
    return pixels, torch.randint(config.num_codes, (batch, cells), generator=generator)


def _batches(inputs: torch.Tensor) -> list[tuple[torch.Tensor]]:
    """
    Inputs [B, …] in batches of different sizes. The first, which is traced, has two: more could decide branches that
    depend on the batch, one would count as always one.
    """
    return [(inputs[:2],), (inputs[:1],), (inputs[2:],)]


def _trained_heads(model: GPTFaceTaskModel) -> list[str]:
    """Heads to export: as in the pipelines, none that was not trained."""
    heads = model.config.heads
    trained = [name for name, head in heads.items() if head.get("trained")]
    unusable = [
        repr(name) for name in trained if not re.fullmatch(r"[\w-]+", name) or name.startswith("image_tokenizer")
    ]
    if unusable:
        raise ConversionError("these names of heads cannot be names of files: rename them in config.json", unusable)
    left_out = [name for name in heads if name not in trained]
    if left_out:
        logger.warning("not trained, so not exported: %s", ", ".join(left_out))
    return trained


def _head_graph(
    model: GPTFaceTaskModel, name: str, codes: torch.Tensor, pixels: torch.Tensor, shared: dict[str, str]
) -> Graph:
    head = model.config.heads[name]
    reads_pixels = model.config.reads_pixels(name)
    read = "pixel_values" if reads_pixels else "image_codes"

    def reference(picture: torch.Tensor) -> Outputs:
        return {"logits": model.classify(name, model.read_for(name, **{read: picture}))}

    described = {
        "temperature": 1.0,
        **{key: head[key] for key in ("labels", "temperature", "thresholds") if key in head},
    }
    return Graph(
        name,
        (PixelClassificationHead if reads_pixels else ClassificationHead)(model, name),
        reference,
        (read,),
        ("logits",),
        _batches(pixels if reads_pixels else codes),
        FREE_BATCH,
        metadata={
            **shared,
            "problem_type": head["problem_type"],
            **{key: json.dumps(value) for key, value in described.items()},
        },
    )


def _image_metadata(tokenizer: GPTFaceImageTokenizer) -> dict[str, str]:
    """How an aligned face becomes `pixel_values`, and what the codes are."""
    side = tokenizer.config.image_size
    processor = GPTFaceImageProcessor(size={"height": side, "width": side})
    numbers = {
        "image_size": side,
        "rescale_factor": processor.rescale_factor,
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
        "num_codes": tokenizer.config.num_codes,
        "grid_size": tokenizer.config.grid_size,
    }
    return {
        "image_tokenizer": tokenizer.fingerprint(),
        "channels": "RGB",
        "resample": "bicubic",
        **{key: json.dumps(value) for key, value in numbers.items()},
    }


def require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('ONNX files need onnx, onnxscript and onnxruntime: pip install "gptface[onnx]"') from error
