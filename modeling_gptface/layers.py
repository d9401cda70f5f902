"""The layers of the transformer: attention, feed-forward and the convolution over the grid of cells."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_gptface import GPTFaceConfig


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
        text, image = hidden_states[:, :text_length], hidden_states[:, text_length:]
        if image.shape[1] == 0:
            return hidden_states
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
