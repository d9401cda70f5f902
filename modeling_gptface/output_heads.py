"""Heads on the states of the sequence: words and codes, matching, classification."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_gptface import DEFAULT_READER, GPTFaceConfig


class GPTFaceVectors(nn.Linear):
    """
    A linear layer whose weights are also read as vectors. Of a class of its own, so that `quantize_dynamic` leaves its
    weights tensors.
    """


class GPTFaceLMHead(nn.Module):
    """
    States → logits over words or over codes: linear, activation, norm (these three unless `lm_head_transform` is off),
    then each modality's vectors and bias.
    """

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.has_transform = config.lm_head_transform
        if self.has_transform:
            self.dense = nn.Linear(config.hidden_size, config.hidden_size)
            self.activation = ACT2FN[config.hidden_act]
            self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.text_decoder = nn.Linear(config.hidden_size, config.vocab_size)
        # Tied: the code vectors come from the embeddings (with the level vectors), only the bias is the head's own.
        tied = config.tie_word_embeddings
        self.image_decoder = None if tied else nn.Linear(config.hidden_size, config.num_codes)
        self.image_bias = nn.Parameter(torch.zeros(config.num_codes)) if tied else None
        self.plan_bias = nn.Parameter(torch.zeros(config.num_plan_codes)) if config.has_plan else None
        self.caption_reader = GPTFaceCaptionReader(config) if config.caption_reader else None

    def transform(self, states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.activation(self.dense(states))) if self.has_transform else states

    def text(self, states: torch.Tensor) -> torch.Tensor:
        """States […, H] → logits over words […, V]."""
        return self.text_decoder(self.transform(states))

    def image(self, states: torch.Tensor, code_table: torch.Tensor, plan: bool = False) -> torch.Tensor:
        """
        States […, H] → logits over codes […, K], or over those of the plan; a tied head reads the vectors of the codes
        [K, H].
        """
        states = self.transform(states)
        if plan:
            return nn.functional.linear(states, code_table, self.plan_bias)
        if self.image_decoder is not None:
            return self.image_decoder(states)
        return nn.functional.linear(states, code_table, self.image_bias)


class MatchHead(nn.Module, ABC):
    """
    Does a caption describe a picture? Two logits, class 1 = it does.

    `reads_pairs` says what the transformer reads for the head: caption and picture as one sequence, whose `[CLS]` the
    head looks at; or each by itself, so that one reading of a picture serves many captions.
    """

    reads_pairs: ClassVar[bool]

    @abstractmethod
    def forward(
        self, states: torch.Tensor, words: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            states: of the `[CLS]` of pairs [B, H], or of the cells of pictures [B, N, H].
            words: states of the captions [B, T, H] where they are read by themselves, with their mask [B, T] or None.

        Returns:
            Logits [B, 2].
        """

    def all_pairs(
        self, states: torch.Tensor, words: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        States of the cells of B pictures [B, N, H] and of P captions [P, T, H] → logits [B, P, 2] of each picture with
        each caption.

        Raises:
            ValueError: a head that reads pairs: it would have to read B·P of them.
        """
        raise ValueError(
            "match compares every picture with every caption: this needs match_head='cross' in the configuration"
        )


class GPTFaceMatchHead(MatchHead):
    """State of `[CLS]` → logits: linear, tanh, linear."""

    reads_pairs = True

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, 2)

    def forward(
        self, states: torch.Tensor, words: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.output(torch.tanh(self.dense(states)))


class GPTFaceCrossReading(nn.Module):
    """Vectors of one modality look at those of the other, and each is compared with what it found."""

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.text_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.image_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.combine = GPTFaceVectors(3 * config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    def compare(self, readers: torch.Tensor, read: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Normalised vectors [B, Q, H] that look at others [B, R, H], those where `mask` [B, R] is 1 → [B, Q, H]. Readers
        that are the same for all of the batch may be [1, Q, H].
        """
        query, key, value = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for states in (self.query(readers), self.key(read), self.value(read))
        )
        allowed = None if mask is None else mask.bool()[:, None, None, :]
        query = query.expand(len(key), -1, -1, -1)
        found = nn.functional.scaled_dot_product_attention(query, key, value, allowed).transpose(1, 2).flatten(2)
        # `combine` of [reader, found, reader · found], each part by itself: what is the same for all is computed once
        own, other, product = self.combine.weight.chunk(3, 1)
        compared = nn.functional.linear(found, other) + nn.functional.linear(readers * found, product)
        return self.activation(compared + nn.functional.linear(readers, own, self.combine.bias))


class GPTFaceCrossMatchHead(GPTFaceCrossReading, MatchHead):
    """
    Each word looks at the cells and says how well what it finds fits; the sum over the words is the log-odds of a
    match.

    Caption and picture are read apart (late interaction, as ColBERT, Khattab and Zaharia 2020), so that a batch of
    pictures can be compared with many captions for the price of a few words: a pair at a time, few pairs teach
    nothing.
    """

    reads_pairs = False

    def __init__(self, config: GPTFaceConfig):
        super().__init__(config)
        self.evidence = nn.Linear(config.hidden_size, 1)

    def forward(
        self, states: torch.Tensor, words: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert words is not None
        return self._logits(self._evidence(self.text_norm(words), states), attention_mask)

    def all_pairs(
        self, states: torch.Tensor, words: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        flat = self.text_norm(words).flatten(0, 1)[None]
        return self._logits(self._evidence(flat, states).unflatten(1, words.shape[:2]), attention_mask)

    def _evidence(self, words: torch.Tensor, image_states: torch.Tensor) -> torch.Tensor:
        """Normalised words [B or 1, Q, H] that look at cells [B, N, H] → log-odds of each word [B, Q]."""
        return self.evidence(self.compare(words, self.image_norm(image_states))).squeeze(-1)

    @staticmethod
    def _logits(evidence: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        if attention_mask is not None:
            evidence = evidence * attention_mask
        log_odds = evidence.sum(-1)
        return torch.stack([-log_odds / 2, log_odds / 2], -1)


#: Kinds of match heads, by the name that `config.match_head` gives.
MATCH_HEADS: dict[str, type[MatchHead]] = {"cls": GPTFaceMatchHead, "cross": GPTFaceCrossMatchHead}


def make_match_head(config: GPTFaceConfig) -> MatchHead:
    """The match head of the configuration, with random weights. Raises `ValueError` for a kind that there is not."""
    if config.match_head not in MATCH_HEADS:
        raise ValueError(f"match_head must be one of {tuple(MATCH_HEADS)}, got {config.match_head!r}")
    return MATCH_HEADS[config.match_head](config)


class GPTFaceZeroLinear(nn.Linear):
    """A class of its own, so that `_init_weights` starts it at zero."""


class GPTFaceCaptionReader(GPTFaceCrossReading):
    """
    Each cell looks at the words of the caption, read apart from the picture, before its code is predicted.

    Among 256 cells a few words are hardly heard: through the layers alone the loss of the codes came out the same
    under a true caption and a false one. This is the short way. It begins as no change.
    """

    def __init__(self, config: GPTFaceConfig):
        super().__init__(config)
        self.output = GPTFaceZeroLinear(config.hidden_size, config.hidden_size)

    def forward(
        self, image_states: torch.Tensor, text_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """States of cells [B, N, H] and of words [B, T, H], text mask [B, T] or None → states of cells [B, N, H]."""
        read = self.compare(self.image_norm(image_states), self.text_norm(text_states), attention_mask)
        return image_states + self.output(read)


class GPTFaceClassifier(nn.Module, ABC):
    """
    The head `name` of the configuration: what was made of a picture → a logit for each of its labels.

    The last layer is `output`, with a bias for each label.
    """

    output: nn.Linear

    def __init__(self, config: GPTFaceConfig, name: str):
        super().__init__()

    @abstractmethod
    def forward(self, image_states: torch.Tensor, image_vectors: torch.Tensor | None = None) -> torch.Tensor:
        """States of the cells [B, N, H] and the vectors that they were read as [B, N, H] → logits [B, L]."""


class GPTFaceAttentionClassifier(GPTFaceClassifier):
    """
    One query a label attends over the image states; its pooled state gives the label's logit.

    A label looks at its own place (glasses at the eyes, a beard at the chin), which a mean over all cells would
    dilute.
    """

    def __init__(self, config: GPTFaceConfig, name: str):
        super().__init__(config, name)
        num_labels = len(config.heads[name]["labels"])
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.query = nn.Linear(config.hidden_size, num_labels, bias=False)
        self.output = GPTFaceVectors(config.hidden_size, num_labels)

    def forward(self, image_states: torch.Tensor, image_vectors: torch.Tensor | None = None) -> torch.Tensor:
        states = self.norm(image_states)
        attention = self.query(states).softmax(1)
        pooled = torch.einsum("bnl,bnh->blh", attention, states)
        return (pooled * self.output.weight).sum(-1) + self.output.bias


class GPTFaceConvolutionClassifier(GPTFaceClassifier):
    """
    Convolutions over the grid of cells, on their states and, beside these, on the vectors that the cells were read as.

    An expression is told by shapes of a few cells, which pooling single cells loses and which the states, made to
    predict masked codes, hold less sharply than the codes themselves. It has some 300,000 parameters: for labels with
    thousands of faces.
    """

    def __init__(self, config: GPTFaceConfig, name: str, channels: int = 64):
        super().__init__(config, name)
        grid_size = config.pixel_grid_size if config.reads_pixels(name) else config.grid_size
        self.state_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.vector_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.project = nn.Linear(2 * config.hidden_size, channels)
        # norms over groups of channels, not over the batch: a face's logits do not depend on the faces beside it
        self.blocks = nn.Sequential(
            self._block(channels, channels),
            nn.MaxPool2d(2, ceil_mode=True),
            self._block(channels, 2 * channels),
            self._block(2 * channels, 2 * channels),
            nn.AvgPool2d(2, ceil_mode=True),
        )
        side = -(-grid_size // 4)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(2 * channels * side**2, len(config.heads[name]["labels"]))

    @staticmethod
    def _block(channels: int, made: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Dropout2d(0.1), nn.Conv2d(channels, made, 3, padding=1), nn.GroupNorm(8, made), nn.ReLU()
        )

    def forward(self, image_states: torch.Tensor, image_vectors: torch.Tensor | None = None) -> torch.Tensor:
        if image_vectors is None:
            raise ValueError("this head reads the vectors of the cells beside their states: give both")
        cells = self.project(torch.cat([self.state_norm(image_states), self.vector_norm(image_vectors)], -1))
        side = math.isqrt(cells.shape[1])
        grid = self.blocks(cells.mT.unflatten(-1, (side, side)))
        return self.output(self.dropout(grid.flatten(1)))


#: Kinds of classification heads, by the name that "reader" in an entry of `config.heads` gives.
CLASSIFIERS: dict[str, type[GPTFaceClassifier]] = {
    "attention": GPTFaceAttentionClassifier,
    "convolution": GPTFaceConvolutionClassifier,
}


def make_classifier(config: GPTFaceConfig, name: str) -> GPTFaceClassifier:
    """The head `name` of the configuration, with random weights. Raises `ValueError` for a kind that there is not."""
    reader = config.heads[name].get("reader", DEFAULT_READER)
    if reader not in CLASSIFIERS:
        raise ValueError(f"heads[{name!r}]['reader'] must be one of {tuple(CLASSIFIERS)}, got {reader!r}")
    return CLASSIFIERS[reader](config, name)
