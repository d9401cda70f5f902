"""The GPTFace transformer: one bidirectional encoder over a caption and the codes of a face picture.

The sequence is `[CLS] caption [SEP]` followed by the codes in raster order. Image positions start at `max_text_length`
whatever the caption's length, so that a cell of the grid always has the same position.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_gptface import PIXEL_READER, GPTFaceConfig
from .face_parser_gptface import GPTFaceParser
from .image_tokenizer_gptface import GPTFaceImageTokenizer
from .quantization import code_levels
from .saved_code import SavesCode
from .weight_loading import SafetensorsModel


def take_positions(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows `positions` [B, M] of states [B, N, H] → [B, M, H]."""
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))


def mask_of_queries(mask: torch.Tensor | None, positions: torch.Tensor) -> torch.Tensor | None:
    """
    Attention mask [B or 1, 1, L or 1, K] → that of the queries at `positions` [B, Q]; one that is the same for all
    queries stays.
    """
    if mask is None or mask.shape[2] == 1:
        return mask
    batch, length = positions.shape
    index = positions[:, None, :, None].expand(batch, 1, length, mask.shape[3])
    return mask.expand(batch, -1, -1, -1).gather(2, index)


class GPTFacePositions(NamedTuple):
    """
    Positions whose states a layer is asked for, as many of each sample: rows are [B, Q, H], and no shape depends on
    the data.

    Attributes:
        positions: [B, Q] long.
    """

    positions: torch.Tensor

    def take(self, states: torch.Tensor) -> torch.Tensor:
        """States [B, L, H] → rows."""
        return take_positions(states, self.positions)

    def pad(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows → queries [B, Q, H]: the same."""
        return rows

    def unpad(self, states: torch.Tensor) -> torch.Tensor:
        """States of queries [B, Q, H] → rows: the same."""
        return states


class GPTFaceQueries(NamedTuple):
    """
    Positions whose states a layer is asked for. All that works on one position at a time runs on them alone, in one
    flat list of rows; attention needs a number of queries that is the same for each sample, and pads.

    Attributes:
        mask: [B, L] bool, True = asked for; its rows M in order are the flat list.
        positions: [B, Q] long, those of the padded queries.
        valid: [B, Q] bool, False = padding.
    """

    mask: torch.Tensor
    positions: torch.Tensor
    valid: torch.Tensor

    @classmethod
    def of(cls, mask: torch.Tensor) -> "GPTFaceQueries":
        """Positions asked for [B, L] bool → the queries."""
        counts = mask.sum(1, keepdim=True)
        most = int(counts.max())
        index = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        return cls(mask, index, torch.arange(most, device=mask.device) < counts)

    def take(self, states: torch.Tensor) -> torch.Tensor:
        """States [B, L, H] → rows [M, H]."""
        return states[self.mask]

    def unpad(self, states: torch.Tensor) -> torch.Tensor:
        """States of padded queries [B, Q, H] → rows [M, H]."""
        return states[self.valid]

    def pad(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [M, H] → padded queries [B, Q, H]."""
        return rows.new_zeros(*self.valid.shape, rows.shape[-1]).masked_scatter(self.valid[..., None], rows)

    def scatter(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [M, H] → states [B, L, H], 0 where they were not asked for."""
        return rows.new_zeros(*self.mask.shape, rows.shape[-1]).masked_scatter(self.mask[..., None], rows)

    def put(self, rows: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Rows [M, H] in the place of those of the states [B, L, H]."""
        return states.masked_scatter(self.mask[..., None], rows)


@dataclass
class GPTFaceKeptLayer:
    """
    What a layer computed in an earlier pass.

    Attributes:
        states: what the layer was given [B, L, H].
        key, value: [B, L, H]; None until its attention has run.
    """

    states: torch.Tensor
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention that returns its weights [B, heads, queries, keys]."""
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class GPTFaceDepthwiseConvolution(nn.Conv2d):
    """3×3, one filter a channel; a class of its own, so that `_init_weights` starts it at zero."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1, groups=channels)


class GPTFaceLowRankChange(nn.Module):
    """
    Low-rank change of a linear layer's weight, up · down (LoRA, Hu et al. 2021, arXiv 2106.09685); none at the start.

    Attributes:
        down: [rank, inputs].
        up: [outputs, rank].
    """

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, linear: nn.Linear, states: torch.Tensor) -> torch.Tensor:
        """States […, inputs] → what the changed layer makes of them […, outputs]."""
        outputs, inputs = len(self.up), self.down.shape[1]
        rows = states.shape[:-1].numel()
        few = not torch.compiler.is_compiling() and rows * (inputs + outputs) < inputs * outputs
        if few or type(linear) is not nn.Linear:
            # for few rows, as of one photo, a changed weight would cost more; and a layer that is quantized or wrapped
            # by LoRA is more than its weight
            change = nn.functional.linear(nn.functional.linear(states, self.down), self.up)
            return linear(states) + change
        return nn.functional.linear(states, linear.weight + self.up @ self.down, linear.bias)


class GPTFaceLayerAdapter(nn.Module):
    """What a layer does differently for another reader of the picture; its own weights stay as they are."""

    def __init__(self, config: GPTFaceConfig, rank: int):
        super().__init__()
        hidden, intermediate = config.hidden_size, config.intermediate_size
        self.query, self.key, self.value, self.output = (GPTFaceLowRankChange(hidden, hidden, rank) for _ in range(4))
        self.up = GPTFaceLowRankChange(hidden, intermediate, rank)
        self.down = GPTFaceLowRankChange(intermediate, hidden, rank)
        self.convolution = GPTFaceDepthwiseConvolution(hidden) if config.grid_convolution else None


def project(linear: nn.Linear, states: torch.Tensor, change: GPTFaceLowRankChange | None) -> torch.Tensor:
    """States […, inputs] → […, outputs], by the layer as it is or changed."""
    return linear(states) if change is None else change(linear, states)


class GPTFaceAttention(nn.Module):
    """Multi-head self-attention."""

    is_causal = False

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        queries: GPTFaceQueries | GPTFacePositions | None = None,
        kept: GPTFaceKeptLayer | None = None,
        adapter: GPTFaceLayerAdapter | None = None,
        **kwargs,
    ):
        """
        States [B, L, H] → states that attended, [B, L, H] or only rows of the `queries`, and the weights. Keys and
        values of other positions than the queries come from `kept`, which a first pass fills.
        """
        of_query, of_key, of_value, of_output = (
            getattr(adapter, name, None) for name in ("query", "key", "value", "output")
        )
        if queries is None:
            rows, query = hidden_states, project(self.query, hidden_states, of_query)
        else:
            rows = queries.take(hidden_states)
            query = queries.pad(project(self.query, rows, of_query))
            attention_mask = mask_of_queries(attention_mask, queries.positions)
        if not isinstance(queries, GPTFaceQueries) or kept is None or kept.key is None or kept.value is None:
            key, value = project(self.key, hidden_states, of_key), project(self.value, hidden_states, of_value)
            if kept is not None:
                kept.key, kept.value = key.detach(), value.detach()
        else:
            key = queries.put(project(self.key, rows, of_key), kept.key)
            value = queries.put(project(self.value, rows, of_value), kept.value)
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for states in (query, key, value)
        )
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        context, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        context = context.flatten(2)
        context = context if queries is None else queries.unpad(context)
        return project(self.output, context, of_output), weights


class GPTFaceFeedForward(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, adapter: GPTFaceLayerAdapter | None = None) -> torch.Tensor:
        raised = self.activation(project(self.up, hidden_states, getattr(adapter, "up", None)))
        return project(self.down, raised, getattr(adapter, "down", None))


class GPTFaceGridConvolution(nn.Module):
    """Adds a depthwise 3×3 convolution over the grid to the image states (conditional position encoding)."""

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.conv = GPTFaceDepthwiseConvolution(config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, text_length: int, change: GPTFaceDepthwiseConvolution | None = None
    ) -> torch.Tensor:
        """States [B, L, H] of text and image → the same shape; the filters of `change` are added to its own."""
        if hidden_states.shape[1] == text_length:
            return hidden_states
        # a split, for the gradient of a slice is a whole sequence of zeros
        text, image = hidden_states.split([text_length, hidden_states.shape[1] - text_length], 1)
        side = math.isqrt(image.shape[1])
        grid = image.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if change is None:
            seen = self.conv(grid)
        else:
            assert self.conv.bias is not None and change.bias is not None
            weight, bias = self.conv.weight + change.weight, self.conv.bias + change.bias
            seen = nn.functional.conv2d(grid, weight, bias, padding=1, groups=len(weight))
        return torch.cat([text, image + seen.permute(0, 2, 3, 1).flatten(1, 2)], 1)


class GPTFaceLayer(GradientCheckpointingLayer):
    """Attention and feed-forward with residual sums, normalised before (`"pre"`) or after (`"post"`) each."""

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.grid_convolution = GPTFaceGridConvolution(config) if config.grid_convolution else None
        self.attention = GPTFaceAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.feed_forward = GPTFaceFeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        text_length: int,
        queries: GPTFaceQueries | GPTFacePositions | None = None,
        kept: GPTFaceKeptLayer | None = None,
        adapter: GPTFaceLayerAdapter | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """States [B, L, H] → states [B, L, H], or only rows of the `queries`; for `kept` see [`GPTFaceAttention`]."""
        if self.grid_convolution is not None:
            hidden_states = self.grid_convolution(hidden_states, text_length, getattr(adapter, "convolution", None))
        attended, _ = self.attention(
            self.attention_norm(hidden_states) if self.pre_norm else hidden_states,
            attention_mask,
            queries,
            kept,
            adapter,
            **kwargs,
        )
        if queries is not None:
            hidden_states = queries.take(hidden_states)
        hidden_states = hidden_states + self.dropout(attended)
        if self.pre_norm:
            return hidden_states + self.dropout(self.feed_forward(self.feed_forward_norm(hidden_states), adapter))
        hidden_states = self.attention_norm(hidden_states)
        return self.feed_forward_norm(hidden_states + self.dropout(self.feed_forward(hidden_states, adapter)))


NORM_GROUPS = 8


class GPTFacePixelPositionEmbedding(nn.Embedding):
    """Positions of the tokens of the pixel reader; a class of its own, so that `_init_weights` knows it."""


class GPTFaceClosedConvolution(nn.Conv2d):
    """A class of its own, so that `_init_weights` starts it at zero."""


class GPTFacePixelBlock(nn.Module):
    """Residual block of two 3×3 convolutions without norms, [B, C, h, w] → the same shape; no change at the start."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = GPTFaceClosedConvolution(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.second(torch.relu(self.first(torch.relu(hidden))))


def make_stage(inputs: int, channels: int, blocks: int) -> nn.Sequential:
    """Part of the stem at one resolution, [B, inputs, 2h, 2w] → [B, channels, h, w]."""
    # One norm a stage is enough for a stem this shallow, and is what keeps it fast; over groups of channels, not over
    # the batch: what is seen in a face does not depend on the faces beside it.
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(NORM_GROUPS, channels),
        *(GPTFacePixelBlock(channels) for _ in range(blocks)),
        nn.ReLU(),
    )


class GPTFacePixelReader(nn.Module):
    """
    Aligned pixels → vectors of the tokens of a coarse grid, for recognition: a small convolutional stem, the positions
    of its tokens, and for each layer of the transformer what it does differently with them.

    Codes are made to draw a face, and hide what tells expressions apart; understanding and generation may read a
    picture differently (Wu et al. 2024, "Janus", arXiv 2410.13848). The transformer between is the same: adapters let
    its layers read these tokens, and leave what they make of codes as it is.

    At 128 pixels the stem of the default size takes 0.7 GFLOP and makes 64 tokens.
    """

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.image_size = config.image_tokenizer_config.image_size
        widths, blocks, rank = {**PIXEL_READER, **(config.image_reader or {})}.values()
        self.stem = nn.Sequential(*map(make_stage, (3, *widths), widths, blocks))
        self.output = nn.Conv2d(widths[-1], config.hidden_size, 2, stride=2)
        self.position_embeddings = GPTFacePixelPositionEmbedding(config.pixel_grid_size**2, config.hidden_size)
        self.adapters = nn.ModuleList(GPTFaceLayerAdapter(config, rank) for _ in range(config.num_hidden_layers))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Aligned pixels [B, 3, S, S] in [-1, 1] → vectors of tokens in raster order, with their positions [B, (S / 16)²,
        H].

        Raises:
            ValueError: pixels of another size.
        """
        expected = (3, self.image_size, self.image_size)
        if pixel_values.shape[1:] != expected:
            raise ValueError(
                f"pixel_values {list(pixel_values.shape)} must be [batch, {', '.join(map(str, expected))}]"
            )
        pixels = pixel_values.to(self.output.weight.dtype, memory_format=torch.channels_last)
        return self.output(self.stem(pixels)).flatten(2).mT + self.position_embeddings.weight


TOKEN_TYPE_PADDING, TOKEN_TYPE_TEXT, TOKEN_TYPE_IMAGE = 0, 1, 2


@dataclass
class GPTFaceModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, text_length + cells, hidden_size)`): states of the
            sequence; those that were not asked for are 0. With `state_positions` `(batch, positions, hidden_size)`,
            these states alone.
        pooler_output (`torch.FloatTensor` of shape `(batch, hidden_size)`): state of `[CLS]`.
        image_codes (`torch.LongTensor` of shape `(batch, cells)`, *optional*): the codes that were read.
        hidden_states, attentions: those of each layer, where asked for.
        image_embeds (`torch.FloatTensor` of shape `(batch, cells, hidden_size)`, *optional*): the vectors that the
            cells were read as.
    """

    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor | None = None
    image_codes: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_embeds: torch.Tensor | None = None


class GPTFaceKeptStates:
    """
    What a pass over a sequence computed, for later passes over the same sequence that differ in few cells: these alone
    (and `[CLS]`) are computed anew, all others keep the states of the first pass, as if they had not read what has
    changed. An approximation, as prefix caches are for bidirectional diffusion models of language.

    Args:
        changing: cells that may differ from pass to pass [B, N] bool.
    """

    def __init__(self, changing: torch.Tensor):
        self.changing = changing
        self.layers: tuple[GPTFaceKeptLayer, ...] = ()
        #: States behind the last layer [B, L, H], 0 where the first pass was not asked for them; None before it.
        self.last: torch.Tensor | None = None
        #: What is computed anew: the changing cells and `[CLS]`.
        self.queries: GPTFaceQueries | None = None

    def fill(self, layers: list[GPTFaceKeptLayer], last: torch.Tensor) -> None:
        """Keeps what a whole pass computed."""
        words = self.changing.new_zeros(len(last), last.shape[1] - self.changing.shape[1])
        words[:, 0] = True
        self.queries = GPTFaceQueries.of(torch.cat([words, self.changing], 1))
        self.layers, self.last = tuple(layers), last.detach()

    def check(self, shape: torch.Size) -> None:
        """Raises `ValueError` where a sequence [B, L, H] is not the one that was filled, or has no such cells."""
        batch, length = shape[:2]
        if self.changing.dtype != torch.bool or len(self.changing) != batch or self.changing.shape[1] >= length:
            raise ValueError(
                f"kept_states: changing cells {list(self.changing.shape)} ({self.changing.dtype}) are no mask of "
                f"a sequence {[batch, length]}"
            )
        if self.last is not None and self.last.shape != shape:
            raise ValueError(f"kept_states were filled by states {list(self.last.shape)}, these are {list(shape)}")


def sine_positions(length: int, size: int, step: int = 1) -> torch.Tensor:
    """
    1-D sine and cosine positions [length, size] (Vaswani et al. 2017); with a `step`, of the middles of so many
    positions each.
    """
    frequency = torch.exp(-torch.arange(0, size, 2, dtype=torch.float) * (9.21 / size))
    angle = (torch.arange(length, dtype=torch.float) * step + (step - 1) / 2)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :size]


def grid_sine_positions(side: int, size: int, step: int = 1) -> torch.Tensor:
    """2-D sine positions [side·side, size] in raster order: the first half encodes the row, the second the column."""
    line = sine_positions(side, size // 2, step)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    grid = torch.cat([rows, columns], -1).flatten(0, 1)
    return nn.functional.pad(grid, (0, size - grid.shape[1]))


class GPTFacePositionEmbedding(nn.Embedding):
    """Positions of the words, then of the cells; a class of its own, so that `_init_weights` knows it."""


class GPTFacePlanPositionEmbedding(GPTFacePositionEmbedding):
    """Positions of the tokens of the plan."""


class GPTFaceClosedEmbedding(nn.Embedding):
    """A class of its own, so that `_init_weights` starts it at zero."""


def level_sums(free: torch.Tensor, vectors: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
    """
    Vector of every FSQ code [K, H]: its free vector [K, H] plus one for each of its levels, out of `vectors` [Σ
    levels, H].
    """
    # The first level runs fastest through the codes: as a grid with one axis a level, the last level first, the sums
    # are broadcasts, whose gradients cost little.
    grid = free.unflatten(0, tuple(levels)[::-1])
    for dimension, level_vectors in enumerate(vectors.split(tuple(levels))):
        grid = grid + level_vectors.view(-1, *[1] * dimension, free.shape[1])
    return grid.reshape(free.shape)


class GPTFacePlanEmbeddings(nn.Module):
    """
    The coarse scale in the space of the words and codes: plan codes with positions of their own, and what a plan token
    tells the 2×2 codes below it.
    """

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        tokenizer = config.image_tokenizer_config
        self.levels = tuple(tokenizer.plan_levels)
        self.side = tokenizer.plan_grid_size
        self.code_embeddings = nn.Embedding(tokenizer.num_plan_codes, config.hidden_size)
        self.level_embeddings = nn.Embedding(sum(self.levels), config.hidden_size)
        self.position_embeddings = GPTFacePlanPositionEmbedding(self.side**2, config.hidden_size)
        # one vector for each place among the 2×2 and each level of the parent's code
        self.parent_embeddings = GPTFaceClosedEmbedding(4 * sum(self.levels), config.hidden_size)

    def code_table(self) -> torch.Tensor:
        """Vector of every plan code [K, H]."""
        return level_sums(self.code_embeddings.weight, self.level_embeddings.weight, self.levels)

    def parents(self, plan_codes: torch.Tensor) -> torch.Tensor:
        """
        Plan codes [B, P] → what is added to the vectors of the codes below them [B, 4·P, H], raster order; nothing
        where a plan code is negative (not known).
        """
        offsets = torch.tensor([0, *self.levels[:-1]], device=plan_codes.device).cumsum(0)
        rows = code_levels(plan_codes.clamp(min=0), self.levels) + offsets  # [B, P, D]
        places = torch.arange(4, device=plan_codes.device)[:, None] * sum(self.levels)
        vectors = self.parent_embeddings(rows[:, :, None] + places).sum(3)  # [B, P, 4, H]
        vectors = vectors * (plan_codes >= 0)[..., None, None]
        grid = vectors.unflatten(1, (self.side, self.side)).unflatten(3, (2, 2))
        return grid.permute(0, 1, 3, 2, 4, 5).flatten(1, 4)


class GPTFaceEmbeddings(nn.Module):
    """Words and image codes in one space, plus learned positions and token types."""

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.code_embeddings = nn.Embedding(config.num_codes, config.hidden_size)
        levels = config.image_tokenizer_config.fsq_levels
        self.level_embeddings = (
            nn.Embedding(sum(levels), config.hidden_size) if config.code_embedding == "levels" else None
        )
        self.plan = GPTFacePlanEmbeddings(config) if config.has_plan else None
        self.position_embeddings = GPTFacePositionEmbedding(
            config.max_text_length + config.num_image_tokens, config.hidden_size
        )
        self.token_type_embeddings = nn.Embedding(3, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def code_table(self, cells: int | None = None) -> torch.Tensor:
        """
        Vector of every code [K, H]: the free vector plus, with `code_embedding="levels"`, one for each FSQ level. Of
        the plan's codes where `cells`, the size of a grid, is the plan's.
        """
        if self.plan is not None and cells is not None and self.config.is_plan(cells):
            return self.plan.code_table()
        table = self.code_embeddings.weight
        if self.level_embeddings is None:
            return table
        return level_sums(table, self.level_embeddings.weight, self.config.image_tokenizer_config.fsq_levels)

    def embed_codes(
        self,
        image_codes: torch.Tensor,
        image_mask: torch.Tensor | None = None,
        code_table: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Codes [B, N] → vectors [B, N, H]; where `image_mask` is True or a code is −1 (absent), the vector of `[MASK]`.
        Who has the `code_table` [K, H] gives it.
        """
        if code_table is None:
            code_table = self.code_table(image_codes.shape[1])
        absent = image_codes < 0
        vectors = nn.functional.embedding(image_codes.clamp(min=0), code_table)
        return self.mask_cells(vectors, absent if image_mask is None else image_mask | absent)

    def mask_cells(self, vectors: torch.Tensor, image_mask: torch.Tensor) -> torch.Tensor:
        """Vectors of cells [B, N, H] → those of `[MASK]` where `image_mask` [B, N] is True."""
        return torch.where(image_mask[..., None], self.mask_vector(), vectors)

    def mask_vector(self) -> torch.Tensor:
        """Vector [H] of `[MASK]`, which masks words and cells alike."""
        return self.word_embeddings.weight[self.config.mask_token_id]

    def forward(
        self,
        word_vectors: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_vectors: torch.Tensor | None = None,
        has_positions: bool = False,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Word vectors [B, T, H], text mask [B, T], image vectors [B, N, H] or None → embeddings [B, T+N, H].
        `has_positions`: the image vectors say already where they are. `position_ids`: positions of the words [B, T]
        where they are others than 0 … T−1.
        """
        length = word_vectors.shape[1]
        if length > self.config.max_text_length:
            raise ValueError(
                f"the text has {length} tokens, more than max_text_length = {self.config.max_text_length}: truncate it"
            )
        types = self.token_type_embeddings.weight
        text_type = types[TOKEN_TYPE_TEXT]
        if attention_mask is not None:
            text_type = torch.where(attention_mask[..., None].bool(), text_type, types[TOKEN_TYPE_PADDING])
        positions = self.position_embeddings.weight
        places = positions[:length] if position_ids is None else nn.functional.embedding(position_ids, positions)
        embeddings = word_vectors + places + text_type
        if image_vectors is not None:
            if not has_positions:
                coarse = self.plan is not None and self.config.is_plan(image_vectors.shape[1])
                cells = self.plan.position_embeddings.weight if coarse else positions[self.config.max_text_length :]  # type: ignore[union-attr]
                image_vectors = image_vectors + cells
            embeddings = torch.cat([embeddings, image_vectors + types[TOKEN_TYPE_IMAGE]], 1)
        return self.dropout(self.norm(embeddings))


class GPTFacePreTrainedModel(SavesCode, SafetensorsModel):
    """Weight initialisation and loading, shared by all GPTFace models."""

    config: GPTFaceConfig
    config_class = GPTFaceConfig
    base_model_prefix = "gptface"
    main_input_name = "input_ids"
    input_modalities = ["text", "image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["GPTFaceLayer", "GPTFaceEmbeddings", "GPTFaceImageTokenizer", "GPTFaceParser"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GPTFaceLayer, "attentions": GPTFaceAttention}

    def _is_recorded(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether hidden states or attentions are asked for, in the arguments of a call or in the configuration."""
        names = ("output_hidden_states", "output_attentions")
        return any(kwargs.get(name) or getattr(self.config, name, False) for name in names)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Only modules that own parameters come here: transformers leaves the others out for classes outside of it.
        super()._init_weights(module)
        if isinstance(module, GPTFaceDepthwiseConvolution):
            # starts as the identity: the sum adds nothing until it has learned to
            init.zeros_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, GPTFaceClosedEmbedding):
            init.zeros_(module.weight)
        elif isinstance(module, GPTFaceClosedConvolution):
            init.zeros_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, GPTFaceLowRankChange):
            init.normal_(module.down, std=self.config.initializer_range)
            init.zeros_(module.up)
        elif isinstance(module, GPTFacePixelPositionEmbedding):
            if self.config.position_init == "sine":
                # a token lies in the middle of its 2×2 codes
                side = self.config.pixel_grid_size
                table = grid_sine_positions(side, self.config.hidden_size, step=max(1, self.config.grid_size // side))
                init.copy_(module.weight, table * (self.config.initializer_range / table.std()))
        elif isinstance(module, GPTFacePositionEmbedding) and self.config.position_init == "sine":
            text = sine_positions(self.config.max_text_length, self.config.hidden_size)
            scale = self.config.initializer_range / text.std()
            if isinstance(module, GPTFacePlanPositionEmbedding):
                # a plan token lies in the middle of its 2×2 codes
                table = grid_sine_positions(self.config.plan_grid_size, self.config.hidden_size, step=2)
            else:
                table = torch.cat([text, grid_sine_positions(self.config.grid_size, self.config.hidden_size)])
            init.copy_(module.weight, table * scale)


class GPTFaceModel(GPTFacePreTrainedModel):
    """
    The bare transformer with its image tokenizer and face parser: states of the joint sequence, no head.

    Example:

    ```python
    >>> model = GPTFaceModel.from_pretrained(DEFAULT_CHECKPOINT)
    >>> words = GPTFaceTokenizer.from_pretrained(DEFAULT_CHECKPOINT)("a smiling woman", return_tensors="pt").input_ids
    >>> face = torch.zeros(1, 3, 128, 128)  # aligned, RGB in [-1, 1]
    >>> model(words, pixel_values=face).last_hidden_state.shape[1] - words.shape[1]  # the cells of the face
    256

    ```
    """

    # One folder serves every class: the heads in it are not for this one.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^match_head\.", r"^classifiers\.", r"^critic\."]

    def __init__(self, config: GPTFaceConfig):
        super().__init__(config)
        self.image_tokenizer = GPTFaceImageTokenizer(config.image_tokenizer_config)
        parser = config.face_parser_config
        self.face_parser = None if parser is None else GPTFaceParser(parser)
        self.embeddings = GPTFaceEmbeddings(config)
        self.layers = nn.ModuleList([GPTFaceLayer(config) for _ in range(config.num_hidden_layers)])
        self.pixel_reader = GPTFacePixelReader(config) if config.image_reader is not None else None
        pre_norm = config.norm_position == "pre"
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps) if pre_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.embeddings.word_embeddings = value

    def empty_caption(self, batch: int) -> torch.Tensor:
        """`[CLS] [SEP]` as ids [batch, 2]: the caption of a picture that has none."""
        ids = [self.config.cls_token_id, self.config.sep_token_id]
        return torch.tensor(ids, device=self.embeddings.word_embeddings.weight.device).expand(batch, -1)

    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        plan_codes: torch.Tensor | None = None,
        text_state_mask: torch.Tensor | None = None,
        image_state_mask: torch.Tensor | None = None,
        state_positions: torch.Tensor | None = None,
        kept_states: GPTFaceKeptStates | None = None,
        read_pixels: bool = False,
        position_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPTFaceModelOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, text_length)`, *optional*): `[CLS] caption [SEP]`, padded;
                the empty caption where neither this nor `inputs_embeds` is given.
            attention_mask (`torch.Tensor` of shape `(batch, text_length)`, *optional*): 1 = word, 0 = padding.
            pixel_values (`torch.FloatTensor` of shape `(batch, 3, H, W)`, *optional*): aligned faces in [-1, 1].
            image_codes (`torch.LongTensor` of shape `(batch, cells)`, *optional*): codes 0…K−1 instead of pixels; −1 =
                the picture has no pixels there: masked, and no key of attention (where `attention_mask` is given). Of
                a model with a plan also plan codes of shape `(batch, plan tokens)`: the same network then reads the
                coarse scale.
            image_mask (`torch.BoolTensor` of shape `(batch, cells)`, *optional*): True = the cell is masked.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, text_length, hidden_size)`, *optional*): vectors of
                the words.
            image_embeds (`torch.FloatTensor` of shape `(batch, cells, hidden_size)`, *optional*): vectors of the
                cells, for example a mixture of codes; takes the place of `image_codes` and `image_mask`.
            plan_codes (`torch.LongTensor` of shape `(batch, plan tokens)`, *optional*): the coarse picture that the
                cells below belong to, −1 = not known; is added to their vectors.
            text_state_mask, image_state_mask (`torch.BoolTensor`, *optional*): True = the state is needed; they
                broadcast to `(batch, text_length)` and `(batch, cells)`. Where either is given, the last layer leaves
                out all others but that of `[CLS]`; they come back as 0. All are computed where hidden states or
                attentions are asked for, and under `torch.compile`.
            state_positions (`torch.LongTensor` of shape `(batch, positions)`, *optional*): places in the sequence
                whose states are needed, that of `[CLS]`, 0, first: the last layer leaves out all others, and these
                come back in this order. As many of each sample, so that no shape depends on the data, under
                `torch.compile` too; in the place of the masks.
            kept_states ([`GPTFaceKeptStates`], *optional*): the first pass that is given it fills it, later ones
                compute what has changed and take the rest from it, whatever states they ask for. Under `torch.compile`
                all passes are whole.
            read_pixels (`bool`, *optional*, defaults to `False`): the pixels are read by the pixel reader, for
                recognition, in the place of their codes; the cells are then those of its coarser grid.
            position_ids (`torch.LongTensor` of shape `(batch, text_length)`, *optional*): several captions stand one
                behind the other in a row, without a picture; these are the positions of the words in their captions,
                and where they are 0 another caption begins. No caption sees another; what is left of a row is 0.

        Raises:
            ValueError: nothing to read, both pixels and codes, a grid or caption of another size, codes out of range,
                `position_ids` with a picture or a mask;
                `kept_states` of another sequence, with hidden states or attentions (they would not be those of a whole
                pass), or with gradient checkpointing.
        """
        if input_ids is not None and inputs_embeds is not None:
            raise ValueError("give input_ids or inputs_embeds, not both")
        if pixel_values is not None and image_codes is not None:
            raise ValueError("give pixel_values or image_codes, not both")
        if position_ids is not None and any(
            part is not None for part in (pixel_values, image_codes, image_embeds, attention_mask)
        ):
            raise ValueError("position_ids are for captions without a picture, and take no attention_mask with them")
        adapters: Sequence[GPTFaceLayerAdapter] | None = None
        if read_pixels:
            if pixel_values is None or any(
                part is not None for part in (image_mask, image_embeds, plan_codes, kept_states)
            ):
                raise ValueError(
                    "read_pixels needs pixel_values, and takes no mask, vectors, plan or kept states with them"
                )
            reader = self._reader()
            image_embeds = reader(pixel_values)
            adapters = list(reader.adapters)  # type: ignore[arg-type]
        elif pixel_values is not None:
            image_codes = self.image_tokenizer.encode(pixel_values)
        if image_codes is not None:
            self.check_codes(image_codes, image_mask)
        elif image_embeds is None and image_mask is not None:
            raise ValueError("image_mask without a picture: give image_codes (or pixel_values) with it")
        if image_embeds is None and image_codes is not None:
            image_embeds = self.embeddings.embed_codes(image_codes, image_mask)
        if not read_pixels and image_embeds is not None and image_embeds.shape[1] not in self.config.grid_tokens:
            raise ValueError(
                f"the image part has {image_embeds.shape[1]} cells, the model's grid "
                + " or ".join(map(str, self.config.grid_tokens))
            )
        if plan_codes is not None:
            image_embeds = self._below_plan(image_embeds, plan_codes)
        if inputs_embeds is None:
            if input_ids is None:
                if image_embeds is None:
                    raise ValueError("give a text (input_ids), a picture (pixel_values or image_codes) or both")
                input_ids = self.empty_caption(image_embeds.shape[0])
                attention_mask = None
            inputs_embeds = self.embeddings.word_embeddings(input_ids)

        text_length = inputs_embeds.shape[1]
        hidden_states = self.embeddings(inputs_embeds, attention_mask, image_embeds, read_pixels, position_ids)
        if position_ids is None:
            mask = self._attention_mask(hidden_states, attention_mask, text_length, image_codes)
        else:
            mask = self._captions_apart(hidden_states, position_ids)
        recorded = self._is_recorded(kwargs)
        if torch.compiler.is_compiling():
            kept_states = None
        if kept_states is not None:
            if recorded or (self.gradient_checkpointing and self.training):
                raise ValueError(
                    "kept_states go with neither hidden states, nor attentions, nor gradient checkpointing"
                )
            kept_states.check(hidden_states.shape)
        if torch.compiler.is_compiling() or recorded:
            text_state_mask = image_state_mask = None
        queries: GPTFaceQueries | GPTFacePositions | None = None
        if kept_states is not None and kept_states.last is not None:
            hidden_states = self._changed_states(hidden_states, mask, text_length, kept_states, **kwargs)
        else:
            if state_positions is not None and not recorded and kept_states is None and self.layers:
                queries = GPTFacePositions(state_positions)
            else:
                queries = self._queries(text_state_mask, image_state_mask, hidden_states, text_length)
            last = len(self.layers) - 1
            filled: list[GPTFaceKeptLayer] = []
            for number, layer in enumerate(self.layers):
                kept = None if kept_states is None else GPTFaceKeptLayer(hidden_states.detach())
                asked = queries if number == last else None
                adapter = None if adapters is None else adapters[number]
                hidden_states = layer(hidden_states, mask, text_length, asked, kept, adapter, **kwargs)
                if kept is not None:
                    filled.append(kept)
            hidden_states = self.norm(hidden_states)
            if isinstance(queries, GPTFaceQueries):
                hidden_states = queries.scatter(hidden_states)
            if kept_states is not None:
                kept_states.fill(filled, hidden_states)
        if state_positions is not None and not isinstance(queries, GPTFacePositions):
            hidden_states = take_positions(hidden_states, state_positions)
        return GPTFaceModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=hidden_states[:, 0],
            image_codes=image_codes,
            image_embeds=image_embeds,
        )

    def _reader(self) -> GPTFacePixelReader:
        """The pixel reader. Raises `ValueError` where there is none."""
        if self.pixel_reader is None:
            raise ValueError("this model reads codes alone: it has no pixel reader (config: image_reader)")
        return self.pixel_reader

    def _changed_states(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None,
        text_length: int,
        kept_states: GPTFaceKeptStates,
        **kwargs,
    ) -> torch.Tensor:
        """Embeddings [B, L, H] → last states [B, L, H], those that do not change as they were kept."""
        queries = kept_states.queries
        assert queries is not None and kept_states.last is not None
        rows = queries.take(hidden_states)
        for layer, kept in zip(self.layers, kept_states.layers, strict=True):
            rows = layer(queries.put(rows, kept.states), mask, text_length, queries, kept, **kwargs)
        return queries.put(self.norm(rows), kept_states.last)

    def _queries(
        self,
        text_state_mask: torch.Tensor | None,
        image_state_mask: torch.Tensor | None,
        hidden_states: torch.Tensor,
        text_length: int,
    ) -> GPTFaceQueries | None:
        """What the last layer is asked for; None = everything."""
        if (text_state_mask is None and image_state_mask is None) or not self.layers:
            return None
        needed = torch.zeros(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
        needed[:, 0] = True
        if text_state_mask is not None:
            needed[:, :text_length] |= text_state_mask
        if image_state_mask is not None:
            needed[:, text_length:] |= image_state_mask
        return None if needed.all() else GPTFaceQueries.of(needed)

    def check_codes(self, image_codes: torch.Tensor, image_mask: torch.Tensor | None = None) -> None:
        """
        Raises `ValueError` where codes are out of range (looked at on the CPU alone) or the mask has another shape.
        """
        if image_mask is not None and image_mask.shape != image_codes.shape:
            raise ValueError(f"image_mask {list(image_mask.shape)} must have the shape {list(image_codes.shape)}")
        # Elsewhere than on the CPU the look at the values would wait for the device.
        if image_codes.device.type != "cpu" or torch.compiler.is_compiling() or image_codes.numel() == 0:
            return
        low, high = int(image_codes.min()), int(image_codes.max())
        coarse = self.config.is_plan(image_codes.shape[1])
        count = self.config.num_plan_codes if coarse else self.config.num_codes
        if low < -1 or high >= count:
            raise ValueError(f"image_codes lie in {low}…{high}, this model's in 0…{count - 1} (−1 = absent)")

    def _below_plan(self, image_embeds: torch.Tensor | None, plan_codes: torch.Tensor) -> torch.Tensor:
        """Vectors of the fine grid [B, N, H] with what their plan [B, P] tells them."""
        plan = self.embeddings.plan
        if plan is None:
            raise ValueError("plan_codes need a model whose image tokenizer has a plan (config: plan_levels)")
        if plan_codes.shape[1] != self.config.num_plan_tokens:
            raise ValueError(f"plan_codes have {plan_codes.shape[1]} tokens, the plan {self.config.num_plan_tokens}")
        if image_embeds is None or image_embeds.shape[1] != self.config.num_image_tokens:
            raise ValueError(
                "plan_codes stand above a fine grid: give image_codes, pixel_values or image_embeds with them"
            )
        return image_embeds + plan.parents(plan_codes)

    def _attention_mask(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        text_length: int,
        image_codes: torch.Tensor | None = None,
    ):
        """
        Text mask [B, T] or None → what the attention function takes; neither padding nor an absent cell is a key.
        """
        if attention_mask is not None:
            cells = hidden_states.shape[1] - text_length
            if image_codes is None:
                attention_mask = nn.functional.pad(attention_mask, (0, cells), value=1)
            else:
                attention_mask = torch.cat([attention_mask, (image_codes >= 0).to(attention_mask.dtype)], 1)
        if self.config.attention_pattern == "bidirectional" and self.config.text_attention_bias != 0:
            keys = None if attention_mask is None else attention_mask.bool()[:, None, None]
            return self._favour_words(keys, hidden_states, text_length)
        prefix = None
        if self.config.attention_pattern == "prefix":

            def prefix(batch_idx, head_idx, q_idx, kv_idx):
                return (kv_idx < text_length) | ((q_idx >= text_length) & (kv_idx <= q_idx))

        # Whether all are keys, so that no mask is needed, is a look at the values: elsewhere than on the CPU it would
        # wait for the device.
        skip = attention_mask is None or attention_mask.device.type == "cpu"
        mask = create_bidirectional_mask(
            self.config,
            hidden_states,
            attention_mask,
            and_mask_function=prefix,
            allow_is_bidirectional_skip=skip,
        )
        return self._favour_words(mask, hidden_states, text_length)  # type: ignore[arg-type]

    @staticmethod
    def _captions_apart(hidden_states: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """
        Positions [B, T] that begin anew with each caption → additive mask [B, 1, T, T]: a word sees those of its own
        caption. Where all keys are words, `config.text_attention_bias` changes nothing.
        """
        captions = (position_ids == 0).cumsum(1)
        apart = captions[:, None, :, None] != captions[:, None, None]
        lowest = torch.finfo(hidden_states.dtype).min
        return torch.zeros_like(apart, dtype=hidden_states.dtype).masked_fill(apart, lowest)

    def _favour_words(self, mask: torch.Tensor | None, hidden_states: torch.Tensor, text_length: int):
        """
        Adds `config.text_attention_bias` to the scores of words: mask (or None) → additive mask [B or 1, 1, Q or 1,
        K].
        """
        if self.config.text_attention_bias == 0:
            return mask
        if self.config._attn_implementation not in ("eager", "sdpa"):
            raise ValueError(
                "text_attention_bias needs additive attention masks: load the model with attn_implementation='sdpa' "
                f"or 'eager', not {self.config._attn_implementation!r}"
            )
        is_word = torch.arange(hidden_states.shape[1], device=hidden_states.device) < text_length
        bias = is_word.to(hidden_states.dtype)[None, None, None] * self.config.text_attention_bias
        if mask is None:
            return bias
        if mask.dtype == torch.bool:
            return bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
        return mask + bias
