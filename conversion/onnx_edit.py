"""The steps of an edit by the plan as ONNX graphs, the gradient of the guidance by matching among them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration, log_odds
from gptface.modeling_gptface.guidance import ITMGuidance, classifier_free
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer, PlanTokenizer
from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner

from .onnx_comparison import Outputs
from .onnx_graph import Graph

#: In the place of a code: the cell is to be drawn.
MASKED = -1
#: Of the captions in examples.
WORDS = 5
Example = tuple[torch.Tensor, ...]


class PlanEncoding(nn.Module):
    """Latents [B, C, h, w] → codes of the plan [B, P] and the vectors that they round [B, D, h/2, w/2]."""

    def __init__(self, plan: PlanTokenizer):
        super().__init__()
        self.plan = plan

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = self.plan.encoder(latents)
        return self.plan.quantizer(vectors)[1].flatten(1), vectors


class PlanDecoding(nn.Module):
    """Codes of the plan [B, P] → pixels [B, 3, H, W] clipped to [-1, 1]."""

    def __init__(self, tokenizer: GPTFaceImageTokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, plan_codes: torch.Tensor) -> torch.Tensor:
        return self.tokenizer.decode_plan(plan_codes)


class CaptionReading(nn.Module):
    """Captions [B, T] → their states, read apart from any picture [B, T, H]."""

    def __init__(self, model: GPTFaceForGuidedGeneration):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model.caption_states(len(input_ids), input_ids, attention_mask)


class DecodingStep(nn.Module):
    """
    Logits over the codes of some cells of the plan, or of the fine grid below a plan, with classifier-free guidance.

    Inputs: `image_codes` [1, N], `MASKED` where a cell is to be drawn; `positions` [1, M] of the cells that are asked
    for; `input_ids`, `attention_mask` [C, T] and `caption_states` [C, T, H] of the prompt and, with C = 2, of what to
    move away from; `guidance_scale`, a number; below a plan `plan_codes` [1, P]. Output [M, K].
    """

    code_table: torch.Tensor

    def __init__(self, model: GPTFaceForGuidedGeneration, plan: bool):
        super().__init__()
        self.model, self.plan = model, plan
        cells = model.config.num_plan_tokens if plan else model.config.num_image_tokens
        self.register_buffer("code_table", model.gptface.embeddings.code_table(cells).detach().clone())

    def forward(
        self,
        image_codes: torch.Tensor,
        positions: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        caption_states: torch.Tensor,
        guidance_scale: torch.Tensor,
        plan_codes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        captions, words = input_ids.shape
        vectors = self.model.gptface.embeddings.embed_codes(image_codes, code_table=self.code_table)
        asked = nn.functional.pad(positions + words, (1, 0))  # the state of [CLS] comes first
        outputs = self.model.gptface(
            input_ids,
            attention_mask,
            image_embeds=vectors.expand(captions, -1, -1),
            plan_codes=None if plan_codes is None else plan_codes.expand(captions, -1),
            state_positions=asked.expand(captions, -1),
        )
        states = outputs.last_hidden_state[:, 1:]
        logits = self.model._cell_logits(states, self.code_table, caption_states, attention_mask, self.plan)
        return classifier_free(logits[0], logits[-1], guidance_scale)  # type: ignore[arg-type]  # an input of the graph


class Refinement(nn.Module):
    """
    Decoded codes [B, 3, s, s] in the photo [B, 3, S, S], pixels in [-1, 1] → refined pixels [B, 3, S, S], clipped, and
    their weight [B, 1, S, S]; `alpha` and `likeness` are [B, 1, s, s] in [0, 1], `tone` is [B, 1].
    """

    def __init__(self, refiner: GPTFaceRefiner):
        super().__init__()
        self.refiner = refiner

    def forward(
        self,
        decoded: torch.Tensor,
        photo: torch.Tensor,
        alpha: torch.Tensor,
        likeness: torch.Tensor,
        tone: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.refiner.config.image_size
        mask, alike = (
            nn.functional.interpolate(plane, size=(size, size), mode="bilinear").clamp(0, 1)
            for plane in (alpha, likeness)
        )
        return self.refiner(decoded, photo, mask, alike, tone).clamp(-1, 1), mask


class Parsing(nn.Module):
    """Pixels [B, 3, S, S] in [-1, 1] → probabilities of the classes of the face parser [B, L, S, S]."""

    def __init__(self, parser: nn.Module):
        super().__init__()
        self.parser = parser

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.parser(pixel_values).logits.softmax(1)


def match_loss(
    model: GPTFaceForGuidedGeneration, guidance: ITMGuidance
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """
    The loss L of [`guide_logits`] with the estimator `"soft"` as a function of δ and ℓ [1, P, K], plan codes [1, P],
    `MASKED` where a token is to be drawn, and states [1, T, H] and mask [1, T] of the prompt.
    """
    table = model.gptface.embeddings.code_table(model.config.num_plan_tokens).detach()

    def loss(
        delta: torch.Tensor, logits: torch.Tensor, plan_codes: torch.Tensor, words: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        drawn = plan_codes < 0
        reference = (logits / guidance.temperature).log_softmax(-1)
        log_q = ((logits + delta) / guidance.temperature).log_softmax(-1)
        q = log_q.exp()
        known = nn.functional.embedding(plan_codes.clamp(min=0), table)
        outputs = model.gptface(image_embeds=torch.where(drawn[..., None], q @ table, known))
        score = log_odds(model.match_head(model.split_states(outputs)[1], words, mask))
        divergence = ((q * (log_q - reference)).sum(-1) * drawn).sum() / drawn.sum().clamp(min=1)
        return -nn.functional.logsigmoid(score).sum() + guidance.kl_weight * divergence

    return loss


def traced_gradient(
    model: GPTFaceForGuidedGeneration, guidance: ITMGuidance, example: Example
) -> torch.fx.GraphModule:
    """The gradient of [`match_loss`] with respect to δ as a graph of plain operators, for tensors of these shapes."""
    decompositions: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    decompositions[torch.ops.aten.convolution_backward.default] = _convolution_backward
    # a fused attention has no gradient in ONNX
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with sdpa_kernel(SDPBackend.MATH):
            return make_fx(torch.func.grad(match_loss(model, guidance)), decompositions)(*example)
    finally:
        model.set_attn_implementation(implementation)


def _convolution_backward(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Any,
) -> tuple[torch.Tensor, None, None]:
    """With respect to the inputs alone: weights are constants here."""
    found = torch.ops.aten.convolution(
        gradient, weight, None, stride, padding, dilation, not transposed, output_padding, groups
    )
    return found, None, None


def has_edit_graphs(model: GPTFaceForGuidedGeneration) -> bool:
    """Whether [`edit_graphs`] can write the model: it draws the plan first, and reads captions apart from pictures."""
    trained = model.config.plan_trained and model.config.match_trained
    return trained and not model.match_head.reads_pairs and model.lm_head.caption_reader is not None


def edit_graphs(
    model: GPTFaceForGuidedGeneration, metadata: dict[str, str], words: int | None = None, count: int = 3
) -> Iterator[Graph]:
    """
    What an edit by the plan is made of, one graph after the other.

    Args:
        model: one of which [`has_edit_graphs`] is true.
        metadata: of all files.
        words: T of the captions of the guidance by matching, whose shapes are fixed; the longest caption by default.
        count: of random inputs on which each file is compared.
    """
    examples = _Examples(model, words or model.config.max_text_length, count)
    tokenizer, config = model.image_tokenizer, model.config
    plan = tokenizer.plan
    assert plan is not None
    batch, captions = {0: "batch"}, {0: "captions", 1: "words"}
    yield Graph(
        "plan_encoder",
        PlanEncoding(plan),
        lambda latents: {
            "plan_codes": tokenizer.encode_plan(latents=latents),
            "latents": plan.encoder(latents),
        },
        ("image_latents",),
        ("plan_codes", "latents"),
        [(tokenizer.latents(pixels),) for pixels in examples.pictures(config.image_tokenizer_config.image_size)],
        (batch,),
        metadata,
        plan.quantizer,
    )
    yield Graph(
        "plan_decoder",
        PlanDecoding(tokenizer),
        lambda codes: {"pixel_values": tokenizer.decode_plan(codes)},
        ("plan_codes",),
        ("pixel_values",),
        [(examples.codes(plan=True, batch=2),) for _ in range(count)],
        (batch,),
        metadata,
    )
    yield Graph(
        "caption_reader",
        CaptionReading(model),
        lambda ids, mask: {"caption_states": model.caption_states(len(ids), ids, mask)},
        ("input_ids", "attention_mask"),
        ("caption_states",),
        [examples.captions(2) for _ in range(count)],
        ({0: "batch", 1: "words"}, {0: "batch", 1: "words"}),
        metadata,
    )
    for name, coarse in (("plan_step", True), ("fill_step", False)):
        yield Graph(
            name,
            DecodingStep(model, coarse),
            _step_reference(model, coarse),
            ("image_codes", "positions", "input_ids", "attention_mask", "caption_states", "guidance_scale")
            + (() if coarse else ("plan_codes",)),
            ("logits",),
            [examples.step(coarse, captions=2 - number % 2) for number in range(count)],
            ({}, {1: "cells"}, captions, captions, captions, {}) + (() if coarse else ({},)),
            metadata,
        )
    guidance = ITMGuidance()
    gradients = [examples.gradient() for _ in range(count)]
    yield Graph(
        "match_gradient",
        traced_gradient(model, guidance, gradients[0]),
        lambda *given: {"gradient": torch.func.grad(match_loss(model, guidance))(*given)},
        ("delta", "logits", "plan_codes", "caption_states", "attention_mask"),
        ("gradient",),
        gradients,
        ({},) * 5,
        {**metadata, "kl_weight": json.dumps(guidance.kl_weight), "temperature": json.dumps(guidance.temperature)},
    )


def picture_graphs(model: GPTFaceForGuidedGeneration, metadata: dict[str, str], count: int = 3) -> Iterator[Graph]:
    """The refiner and the face parser, where the model has them; for the arguments see [`edit_graphs`]."""
    refiner, parser = model.image_tokenizer.refiner, model.face_parser
    examples, batch = _Examples(model, 0, count), {0: "batch"}
    if refiner is not None:
        yield Graph(
            "refiner",
            Refinement(refiner),
            lambda decoded, photo, alpha, likeness, tone: _refined(refiner, decoded, photo, alpha, likeness, tone),
            ("decoded", "photo", "alpha", "likeness", "tone"),
            ("pixel_values", "weight"),
            examples.refinements(model.config.image_tokenizer_config.image_size, refiner.config.image_size),
            (batch,) * 5,
            metadata,
        )
    if parser is not None:
        yield Graph(
            "face_parser",
            Parsing(parser),
            lambda pixels: {"probabilities": parser.probabilities(pixels)},
            ("pixel_values",),
            ("probabilities",),
            [(pixels,) for pixels in examples.pictures(parser.config.image_size)],
            (batch,),
            {**metadata, "labels": json.dumps(parser.config.class_names)},
        )


def _refined(refiner: GPTFaceRefiner, *given: torch.Tensor) -> Outputs:
    decoded, photo, alpha, likeness, tone = given
    size = (refiner.config.image_size,) * 2
    mask, alike = (nn.functional.interpolate(plane, size=size, mode="bilinear") for plane in (alpha, likeness))
    return {"pixel_values": refiner(decoded, photo, mask, alike, tone).clamp(-1, 1), "weight": mask}


def _step_reference(model: GPTFaceForGuidedGeneration, plan: bool) -> Callable[..., Outputs]:
    """Logits as `generate` computes them, whatever the shapes of the exported step."""

    def reference(
        codes: torch.Tensor,
        positions: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        words: torch.Tensor,
        scale: torch.Tensor,
        plan_codes: torch.Tensor | None = None,
    ) -> Outputs:
        picture = {
            "image_codes": codes.expand(len(ids), -1).clamp(min=0),
            "image_mask": (codes < 0).expand(len(ids), -1),
        }
        if plan_codes is not None:
            picture["plan_codes"] = plan_codes.expand(len(ids), -1)
        logits = model(ids, mask, **picture).image_logits[:, positions[0]]
        return {"logits": classifier_free(logits[0], logits[-1], float(scale))}

    return reference


class _Examples:
    """Random inputs, the same in each run."""

    def __init__(self, model: GPTFaceForGuidedGeneration, words: int, count: int):
        self.model, self.words, self.count = model, words, count
        self.generator = torch.Generator().manual_seed(0)

    def pixels(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.generator) * 2 - 1

    def pictures(self, size: int) -> list[torch.Tensor]:
        # two: more could decide branches that depend on the batch, one would count as always one
        return [self.pixels(2 - number % 2, 3, size, size) for number in range(self.count)]

    def codes(self, plan: bool, batch: int = 1, masked: float = 0.0) -> torch.Tensor:
        config = self.model.config
        cells = config.num_plan_tokens if plan else config.num_image_tokens
        most = config.num_plan_codes if plan else config.num_codes
        codes = torch.randint(most, (batch, cells), generator=self.generator)
        hidden = torch.rand(batch, cells, generator=self.generator) < masked
        hidden[:, :3] = masked > 0  # some in any case
        return codes.masked_fill(hidden, MASKED)

    def captions(self, batch: int, words: int = WORDS) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, the last caption shorter than the others."""
        ids = torch.randint(5, self.model.config.vocab_size, (batch, words), generator=self.generator)
        mask = torch.ones_like(ids)
        mask[-1, -1] = 0
        return ids, mask

    def step(self, plan: bool, captions: int) -> Example:
        codes = self.codes(plan, masked=0.5)
        positions = (codes[0] < 0).nonzero().T
        ids, mask = self.captions(captions)
        with torch.no_grad():
            words = self.model.caption_states(captions, ids, mask)
        rest = () if plan else (self.codes(plan=True),)
        return codes, positions, ids, mask, words, torch.tensor(1.5), *rest

    def gradient(self) -> Example:
        codes = self.codes(plan=True, masked=0.5)
        shape = (*codes.shape, self.model.config.num_plan_codes)
        logits, delta = (2 * torch.randn(shape, generator=self.generator) for _ in range(2))
        ids, mask = self.captions(1, self.words)
        with torch.no_grad():
            words = self.model.caption_states(1, ids, mask)
        return delta / 4, logits, codes, words, mask

    def refinements(self, decoded: int, size: int) -> list[Example]:
        def planes(batch: int) -> torch.Tensor:
            return self.pixels(batch, 1, decoded, decoded).abs()

        return [
            (
                self.pixels(batch, 3, decoded, decoded),
                self.pixels(batch, 3, size, size),
                planes(batch),
                planes(batch),
                self.pixels(batch, 1).abs(),
            )
            for batch in (2 - number % 2 for number in range(self.count))
        ]
