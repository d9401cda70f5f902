"""Heads on the states of the sequence, and the task models: pre-training, image-text matching, classification.

Every task model holds all heads (they are small), so that one folder serves every class and saving one keeps the
others. The parts that a class does not train are frozen.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import MaskedLMOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_gptface import DEFAULT_READER, GPTFaceConfig
from .face_parser_gptface import GPTFaceParser
from .image_tokenizer_gptface import GPTFaceImageTokenizer
from .modeling_gptface import GPTFaceModel, GPTFaceModelOutput, GPTFacePreTrainedModel, take_positions


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
        self,
        states: torch.Tensor,
        words: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        States of the cells of B pictures [B, N, H] and of P captions [P, T, H] → logits [B, P, 2] of each picture with
        each caption.

        Args:
            places: of captions that are packed into rows, [rows, T, H], where in these, one behind the other, each
                word stands [P, T].

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
        self,
        states: torch.Tensor,
        words: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        evidence = self._evidence(self.text_norm(words).flatten(0, 1)[None], states)
        if places is not None:
            evidence = evidence.index_select(1, places.flatten())
        return self._logits(evidence.unflatten(1, (words if places is None else places).shape[:2]), attention_mask)

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


class GPTFaceCritic(nn.Module):
    """
    For every token of a whole grid the logit that it is a photo's and not drawn (Token-Critic, Lezama et al. 2022).

    Convolutions over the grid, on the states of the tokens behind a quarter of the layers and behind the last one:
    whether neighbours fit is told best by early states, whether a part fits the face by late ones.
    """

    def __init__(self, config: GPTFaceConfig):
        super().__init__()
        assert config.critic_channels is not None
        channels = config.critic_channels
        self.layers = (config.num_hidden_layers // 4, config.num_hidden_layers)
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden_size, config.layer_norm_eps) for _ in self.layers)
        self.project = nn.Linear(len(self.layers) * config.hidden_size, channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
            for _ in range(2)
        )
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(channels, 1)

    def forward(self, hidden_states: Sequence[torch.Tensor], cells: int) -> torch.Tensor:
        """
        Hidden states of a sequence [B, T+N, H], those in front of the first layer and behind each, whose last `cells`
        are the tokens of a grid → logits [B, N].
        """
        return self.of_states([hidden_states[layer][:, -cells:] for layer in self.layers])

    def of_states(self, states: Sequence[torch.Tensor]) -> torch.Tensor:
        """States of the tokens [B, N, H] behind each of `layers` → logits [B, N]."""
        normalised = [norm(each) for norm, each in zip(self.norms, states, strict=True)]
        tokens = self.project(self.dropout(torch.cat(normalised, -1)))
        side = math.isqrt(tokens.shape[1])
        grid = tokens.mT.unflatten(-1, (side, side))
        for block in self.blocks:
            grid = grid + block(self.dropout(grid))
        return self.output(nn.functional.silu(grid.flatten(2).mT)).squeeze(-1)


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


def masked_mean_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [rows, classes] × [rows] averaged over labels that are not −100; 0 where there are none."""
    total = nn.functional.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
    return total / (labels != -100).sum().clamp(min=1)


class GPTFaceTaskModel(GPTFacePreTrainedModel):
    """The transformer with all of its heads; the base of the task models."""

    _tied_weights_keys = {"lm_head.text_decoder.weight": "gptface.embeddings.word_embeddings.weight"}
    # The Trainer must divide the loss by the accumulation steps: the model does not take `num_items_in_batch`.
    accepts_loss_kwargs = False
    trained_heads: ClassVar[tuple[str, ...]] = ()
    #: Names of the parameters that `from_pretrained` did not find and drew at random.
    missing_weights: frozenset[str] = frozenset()

    def __init__(self, config: GPTFaceConfig):
        super().__init__(config)
        self.gptface = GPTFaceModel(config)
        self.lm_head = GPTFaceLMHead(config)
        self.match_head = make_match_head(config)
        self.classifiers = nn.ModuleDict({name: make_classifier(config, name) for name in config.heads})
        self.critic = GPTFaceCritic(config) if config.critic_channels is not None else None
        self.post_init()
        self.freeze_unused_parts()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        As [`SafetensorsModel.from_pretrained`]; a head whose weights are missing counts as not trained, whatever the
        configuration says.
        """
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        mismatched = {name for name, *_ in info["mismatched_keys"]}
        model.missing_weights = frozenset(info["missing_keys"]) | mismatched
        model.distrust_missing_heads()
        # loading makes every parameter trainable again
        model.freeze_unused_parts()
        return (model, info) if output_loading_info else model

    def distrust_missing_heads(self) -> None:
        """Marks the heads as not trained whose weights were not in the checkpoint."""
        if any(name.startswith("match_head.") for name in self.missing_weights):
            self.config.match_trained = False
        if any(name.startswith("critic.") for name in self.missing_weights):
            self.config.critic_trained = False
        for head in self.config.heads:
            if any(name.startswith(f"classifiers.{head}.") for name in self.missing_weights):
                self.config.heads[head] = {**self.config.heads[head], "trained": False}

    def freeze_unused_parts(self) -> None:
        """
        Freezes the image tokenizer, the face parser, the critic and the heads that this class does not train: they get
        no gradient from its loss.
        """
        self.image_tokenizer.requires_grad_(False)
        if self.gptface.pixel_reader is not None:
            self.gptface.pixel_reader.requires_grad_(False)
        for part in (self.face_parser, self.critic):
            if part is not None:
                part.requires_grad_(False)
        for name in {"lm_head", "match_head", "classifiers"} - set(self.trained_heads):
            for key, parameter in getattr(self, name).named_parameters():
                # the tied decoder weight belongs to the embeddings
                if key != "text_decoder.weight" and key.split(".")[0] != self.config.auxiliary_head:
                    parameter.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GPTFaceLMHead):
            for bias in (module.image_bias, module.plan_bias):
                if bias is not None:
                    init.zeros_(bias)
        elif isinstance(module, GPTFaceZeroLinear):
            init.zeros_(module.weight)
            init.zeros_(module.bias)

    @property
    def image_tokenizer(self) -> GPTFaceImageTokenizer:
        """The image tokenizer inside the model."""
        return self.gptface.image_tokenizer

    @property
    def face_parser(self) -> GPTFaceParser | None:
        """The face parser inside the model; None where its checkpoint has none."""
        return self.gptface.face_parser

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.text_decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head.text_decoder = value

    def split_states(self, outputs: GPTFaceModelOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the sequence → (text states [B, T, H], image states [B, N, H]; N = 0 without a picture)."""
        states = outputs.last_hidden_state
        cells = 0 if outputs.image_embeds is None else outputs.image_embeds.shape[1]
        text, image = states.split([states.shape[1] - cells, cells], 1)
        return text, image

    def caption_states(
        self,
        batch: int,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        States [B, T, H] of captions that are read apart from any picture; without words those of the empty caption.
        """
        if input_ids is None and inputs_embeds is None:
            input_ids = self.gptface.empty_caption(batch)
        return self.gptface(input_ids, attention_mask, inputs_embeds=inputs_embeds).last_hidden_state

    def match(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **inputs: Any,
    ) -> tuple[torch.Tensor, GPTFaceModelOutput]:
        """
        Caption and picture (see [`GPTFaceModel.forward`]) → logits [B, 2], class 1 = they match, and the model's
        output: that of the pair, or of the picture where the head has the two read apart.
        """
        if self.match_head.reads_pairs:
            # the state of [CLS] and no other
            none = torch.zeros(1, 1, dtype=torch.bool, device=self.device)
            outputs = self.gptface(
                input_ids, attention_mask, inputs_embeds=inputs_embeds, text_state_mask=none, **inputs
            )
            return self.match_head(outputs.pooler_output), outputs
        outputs = self.gptface(**inputs)
        states = self.split_states(outputs)[1]
        words = self.caption_states(len(states), input_ids, attention_mask, inputs_embeds)
        return self.match_head(states, words, attention_mask), outputs

    def read_for(
        self,
        head: str,
        pixel_values: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        **inputs: Any,
    ) -> GPTFaceModelOutput:
        """
        Pixels [B, 3, H, W] or codes [B, N], and other inputs of [`GPTFaceModel.forward`] → what the transformer makes
        of them for a head: the input that the head was trained on is read, the codes of the pixels or the pixels
        themselves.

        Raises:
            ValueError: codes for a head that reads pixels.
        """
        if not self.config.reads_pixels(head):
            return self.gptface(pixel_values=pixel_values, image_codes=image_codes, **inputs)
        if image_codes is not None:
            raise ValueError(f"the head {head!r} reads pixels, not codes: give pixel_values")
        return self.gptface(pixel_values=pixel_values, read_pixels=True, **inputs)

    def classify(self, head: str, outputs: GPTFaceModelOutput) -> torch.Tensor:
        """What the transformer made of pictures → logits of a head [B, L]."""
        return self.classifiers[head](self.split_states(outputs)[1], outputs.image_embeds)

    def classification_loss(self, head: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """
        Loss of a head by its problem type; labels that are negative or NaN do not count (in a regression only NaN:
        there are negative values).
        """
        problem_type = self.config.heads[head]["problem_type"]
        if problem_type == "single_label_classification":
            return masked_mean_cross_entropy(logits, labels)
        if problem_type == "regression":
            labels = labels.reshape(logits.shape).float()
            known = ~labels.isnan()
            return ((logits.float() - torch.where(known, labels, 0)).square() * known).sum() / known.sum().clamp(min=1)
        known = labels >= 0
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits.float(), torch.where(known, labels, 0).float(), reduction="none"
        )
        return (losses * known).sum() / known.sum().clamp(min=1)


def caption_contrast_loss(
    cell_logits: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
    image_states: torch.Tensor,
    image_labels: torch.Tensor,
    words: torch.Tensor,
    contrast: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """
    The masked codes of a picture must be likelier under the phrase that is true of it than under its opposite:
    cross-entropy of the log-likelihood ratio (a generative classifier, trained to discriminate), averaged over pairs
    of a picture and an attribute.

    A phrase changes the loss of a single code by hundredths of a nat, which drown in what the code says about the
    picture; whole regions, compared with their opposites, tell.

    Args:
        cell_logits: (states of cells [Q, M, H], words [Q, T, H], their mask [Q, T] or None) → logits over codes [Q, M,
            K].
        image_states: [B, N, H].
        image_labels: codes [B, N], −100 = not masked.
        words: states of the phrases [P, T, H].
        contrast: the pairs, see [`GPTFaceForPreTraining.forward`].

    Returns:
        A scalar; 0 where nothing is asked for.
    """
    pictures, positions, labels = contrast["pictures"], contrast["positions"], contrast["labels"]
    placed = positions.clamp(min=0)
    states = take_positions(image_states[pictures], placed)
    codes = image_labels[pictures].gather(1, placed).masked_fill(positions < 0, -100)
    phrases = contrast["phrases"].mT.flatten()
    mask = contrast.get("attention_mask")
    logits = cell_logits(states.repeat(2, 1, 1), words[phrases], None if mask is None else mask[phrases])
    losses = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), codes.repeat(2, 1).flatten(), ignore_index=-100, reduction="none"
    )
    without, with_ = losses.view(2, *codes.shape).sum(2)
    asked = labels >= 0
    losses = nn.functional.binary_cross_entropy_with_logits(
        without - with_, labels.clamp(min=0).float(), reduction="none"
    )
    return (losses * asked).sum() / asked.sum().clamp(min=1)


class GPTFaceCaptionRows(NamedTuple):
    """
    Captions in rows, a caption a row or, packed, several: most captions are short beside the longest.

    Attributes:
        vectors: of the words, or their states [R, L, H].
        position_ids: [R, L], see [`GPTFaceModel.forward`].
        places: where in the rows, one behind the other, each word stands [P, T]; of padding anywhere.
    """

    vectors: torch.Tensor
    position_ids: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(
        cls,
        vectors: torch.Tensor,
        attention_mask: torch.Tensor | None,
        packing: torch.Tensor | None,
        row_length: int,
    ) -> "GPTFaceCaptionRows":
        """
        Vectors of padded captions [P, T, H] and their mask [P, T] or None → rows [R, L]; `packing` [R, ≤ L] numbers
        the words that stand in them, −1 = none.
        """
        count, length = vectors.shape[:2]
        if packing is None:
            packing = torch.arange(count * length, device=vectors.device).view(count, length)
            packing = packing if attention_mask is None else packing.masked_fill(attention_mask == 0, -1)
        packing = nn.functional.pad(packing, (0, row_length - packing.shape[1]), value=-1)
        # what no word stands in is told to the place in front of them all
        places = packing.new_zeros(count * length + 1)
        places = places.scatter(0, packing.flatten() + 1, torch.arange(packing.numel(), device=packing.device))
        numbers = packing.clamp(min=0)
        rows = nn.functional.embedding(numbers, vectors.flatten(0, 1))
        return cls(rows, numbers % length, places[1:].view(count, length))

    def captions(self) -> torch.Tensor:
        """A caption a row [P, T, H]."""
        return nn.functional.embedding(self.places, self.vectors.flatten(0, 1))


#: The terms of the pre-training loss, in the order of `loss_weights`.
LOSS_TERMS = ("text_loss", "image_loss", "match_loss", "label_loss", "contrast_loss")


@dataclass
class GPTFaceForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*): weighted sum of the terms below.
        text_loss, image_loss, match_loss, label_loss, contrast_loss (`torch.FloatTensor`, *optional*): each term, a
            mean over what it counts.
        text_logits (`torch.FloatTensor` of shape `(batch, text_length, vocab_size)`): over words; with
            `text_positions`, of these alone.
        image_logits (`torch.FloatTensor` of shape `(batch, cells, K)`): over codes; with `image_positions`, of these
            cells alone.
        match_logits (`torch.FloatTensor` of shape `(batch, 2)`): class 1 = caption and picture match; `(batch,
            captions, 2)` where captions were given apart.
    """

    loss: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    image_loss: torch.Tensor | None = None
    match_loss: torch.Tensor | None = None
    label_loss: torch.Tensor | None = None
    contrast_loss: torch.Tensor | None = None
    text_logits: torch.Tensor | None = None
    image_logits: torch.Tensor | None = None
    match_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class GPTFaceMatchingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*): cross-entropy where `match_labels` were given.
        match_logits (`torch.FloatTensor` of shape `(batch, 2)`): class 1 = caption and picture match; `(pictures,
            captions, 2)` where every picture was compared with every caption.
        logits_per_image (`torch.FloatTensor` of shape `(pictures, captions)`, *optional*): log-odds of a match, where
            every picture was compared with every caption.
    """

    loss: torch.Tensor | None = None
    match_logits: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class GPTFaceClassificationOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*): cross-entropy or binary cross-entropy where `labels` were given.
        logits (`torch.FloatTensor` of shape `(batch, num_labels)`): scores before softmax or sigmoid.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class GPTFaceForPreTraining(GPTFaceTaskModel):
    """
    Masked image and language modelling (MILM) with image-text matching (ITM).

    Example:

    ```python
    >>> model = GPTFaceForPreTraining.from_pretrained(DEFAULT_CHECKPOINT)
    >>> codes = torch.zeros(1, 256, dtype=torch.long)
    >>> mask = torch.arange(256)[None] < 64
    >>> labels = codes.masked_fill(~mask, -100)
    >>> outputs = model(image_codes=codes, image_mask=mask, image_labels=labels)
    >>> outputs.image_logits.shape, bool(outputs.loss == outputs.image_loss)
    (torch.Size([1, 256, 4096]), True)

    ```
    """

    trained_heads = ("lm_head", "match_head")

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        text_labels: torch.Tensor | None = None,
        image_labels: torch.Tensor | None = None,
        text_positions: torch.Tensor | None = None,
        image_positions: torch.Tensor | None = None,
        match_labels: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        match: Mapping[str, torch.Tensor] | None = None,
        contrast: Mapping[str, torch.Tensor] | None = None,
        packing: torch.Tensor | None = None,
        loss_weights: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPTFaceForPreTrainingOutput:
        r"""
        No shape depends on the data, so that it is one graph for `torch.compile(fullgraph=True)`. See
        [`GPTFaceModel.forward`] for the inputs, `plan_codes` among them.

        Args:
            text_labels (`torch.LongTensor` of shape `(batch, text_length)`, *optional*): word ids, −100 = ignored.
            image_labels (`torch.LongTensor` of shape `(batch, cells)`, *optional*): codes, −100 = ignored.
            text_positions, image_positions (`torch.LongTensor` of shape `(batch, budget)`, *optional*): words and
                cells that are predicted, as many of each sample; what is left of the budget names some without a
                label. All where they are not given.
            match_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): 1 = matches, 0 = does not, −100 =
                ignored.
            labels (`torch.Tensor`, *optional*): of the head `config.auxiliary_head`, see
                [`GPTFaceForImageClassification`].
            match (mapping, *optional*): captions that are matched with every picture, in the place of `match_labels`;
                needs `match_head="cross"`. `input_ids` and `attention_mask` `(captions, text_length)`, and, for the
                loss, `labels` `(batch, captions)`, −100 = ignored.
            contrast (mapping, *optional*): pairs of a picture and an attribute, see
                [`caption_contrast_loss`]; needs `caption_reader` and `image_labels`. `input_ids` and
                `attention_mask` `(phrases, text_length)`; `phrases` `(pairs, 2)`, the numbers of those for value 0 and
                1; `pictures` `(pairs,)`, numbers in the batch; `positions` `(pairs, budget)`, the cells that the
                phrases speak of, −1 = none; `labels` `(pairs,)`, which phrase is true, −100 = ignored.
            packing (`torch.LongTensor` of shape `(rows, row_length)`, *optional*): the caption reader and
                `match_head="cross"` read captions apart from the picture. So that no padding is read, their words may
                stand one behind the other in few rows: these are the numbers of the words, those of all padded
                captions counted through, −1 = none; a caption keeps to one row. `match` and `contrast` may each hold
                a `packing` of their own captions.
            loss_weights (`torch.FloatTensor` of shape `(5,)`, *optional*): of the terms text, image, match, label and
                contrast; 1 where it is not given.

        Raises:
            ValueError: labels that the configuration has no head for.
        """
        state_positions = None
        apart = labels is None and contrast is None and self.match_head.reads_pairs
        if apart and not self._is_recorded(kwargs):
            # no term reads other states than those of [CLS] and of what is predicted
            state_positions = self._state_positions(text_positions, image_positions, input_ids, inputs_embeds)
        outputs = self.gptface(
            input_ids,
            attention_mask,
            pixel_values,
            image_codes,
            image_mask,
            inputs_embeds,
            image_embeds,
            state_positions=state_positions,
            **kwargs,
        )
        cells = 0 if outputs.image_embeds is None else outputs.image_embeds.shape[1]
        if state_positions is None:
            text_states, image_states = self.split_states(outputs)
            predicted = image_states if image_positions is None else take_positions(image_states, image_positions)
            text_states = text_states if text_positions is None else take_positions(text_states, text_positions)
        else:
            assert image_positions is not None
            text_states, predicted = outputs.last_hidden_state[:, 1:].tensor_split([-image_positions.shape[1]], 1)
            image_states = predicted
        words, match_words, contrast_words = self._read_captions(
            len(text_states), input_ids, attention_mask, inputs_embeds, packing, match, contrast, has_image=cells > 0
        )
        terms: dict[str, torch.Tensor] = {}
        text_logits = self.lm_head.text(text_states)
        if text_labels is not None:
            wanted = text_labels if text_positions is None else text_labels.gather(1, text_positions)
            terms["text_loss"] = masked_mean_cross_entropy(text_logits.flatten(0, 1), wanted.flatten())
        table = self.gptface.embeddings.code_table(cells)
        plan = self.config.is_plan(cells)
        image_logits = self._cell_logits(predicted, table, words, attention_mask, plan)
        if image_labels is not None:
            wanted = image_labels if image_positions is None else image_labels.gather(1, image_positions)
            terms["image_loss"] = masked_mean_cross_entropy(image_logits.flatten(0, 1), wanted.flatten())
        match_logits = self._match_logits(outputs, image_states, words, match_words, attention_mask, match)
        if match is not None:
            match_labels = match.get("labels")
        if match_labels is not None:
            terms["match_loss"] = masked_mean_cross_entropy(match_logits.flatten(0, -2), match_labels.flatten())
        if labels is not None:
            head = self.config.auxiliary_head
            if head is None:
                raise ValueError("labels need a head: name it in config.auxiliary_head")
            terms["label_loss"] = self.classification_loss(head, self.classify(head, outputs), labels)
        if contrast is not None:
            if self.lm_head.caption_reader is None or image_labels is None or contrast_words is None:
                raise ValueError("contrast needs image_labels, and caption_reader in the configuration")
            terms["contrast_loss"] = caption_contrast_loss(
                lambda states, spoken, mask: self._cell_logits(states, table, spoken, mask, plan),
                image_states,
                image_labels,
                contrast_words,
                contrast,
            )
        loss = None
        if terms:
            weights = [1.0] * len(LOSS_TERMS) if loss_weights is None else loss_weights
            weighted = [weights[LOSS_TERMS.index(name)] * value for name, value in terms.items()]
            loss = functools.reduce(torch.add, weighted)
        return GPTFaceForPreTrainingOutput(
            loss=loss,
            **terms,
            text_logits=text_logits,
            image_logits=image_logits,
            match_logits=match_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _state_positions(
        self,
        text_positions: torch.Tensor | None,
        image_positions: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """
        Places in the sequence [B, 1 + words + cells] of `[CLS]` and of what is predicted; None where all cells are.
        """
        if image_positions is None:
            return None
        captions = input_ids if inputs_embeds is None else inputs_embeds
        length = 2 if captions is None else captions.shape[1]
        if text_positions is None:
            text_positions = torch.arange(length, device=image_positions.device).expand(len(image_positions), -1)
        return torch.cat([torch.zeros_like(image_positions[:, :1]), text_positions, image_positions + length], 1)

    def _read_captions(
        self,
        batch: int,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        packing: torch.Tensor | None,
        match: Mapping[str, torch.Tensor] | None,
        contrast: Mapping[str, torch.Tensor] | None,
        has_image: bool,
    ) -> tuple[torch.Tensor | None, GPTFaceCaptionRows | None, torch.Tensor | None]:
        """
        States of the captions that are read apart from the pictures, all in one pass: those of the pictures themselves
        [B, T, H], where a head asks for them, those of `match`, in rows, and those of `contrast` [P, T, H].
        """
        single = match is None and not self.match_head.reads_pairs
        own = (self.lm_head.caption_reader is not None and has_image) or single
        if inputs_embeds is None and input_ids is None:
            input_ids = self.gptface.empty_caption(batch)
        embed = self.gptface.embeddings.word_embeddings
        padded: dict[str, tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]] = {}
        if own:
            vectors = embed(input_ids) if inputs_embeds is None else inputs_embeds
            padded["own"] = vectors, attention_mask, packing
        for name, captions in (("match", match), ("contrast", contrast)):
            if captions is not None:
                vectors = embed(captions["input_ids"])
                padded[name] = vectors, captions.get("attention_mask"), captions.get("packing")
        if not padded:
            return None, None, None
        longest = max((part if packed is None else packed).shape[1] for part, _, packed in padded.values())
        asked = {name: GPTFaceCaptionRows.of(*part, longest) for name, part in padded.items()}
        vectors, positions = (
            torch.cat([getattr(rows, part) for rows in asked.values()]) for part in ("vectors", "position_ids")
        )
        states = self.gptface(inputs_embeds=vectors, position_ids=positions).last_hidden_state
        parts = states.split([len(rows.vectors) for rows in asked.values()])
        read = {name: rows._replace(vectors=part) for (name, rows), part in zip(asked.items(), parts, strict=True)}
        own_words, contrast_words = (read[name].captions() if name in read else None for name in ("own", "contrast"))
        return own_words, read.get("match"), contrast_words

    def _cell_logits(
        self,
        image_states: torch.Tensor,
        code_table: torch.Tensor,
        words: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        plan: bool,
    ) -> torch.Tensor:
        """
        States of cells [B, M, H], or of tokens of the `plan` → logits over codes [B, M, K]. A head with a caption
        reader reads the `words` [B, T, H], see [`caption_states`].
        """
        if self.lm_head.caption_reader is not None and words is not None:
            image_states = self.lm_head.caption_reader(image_states, words, attention_mask)
        return self.lm_head.image(image_states, code_table, plan)

    def _match_logits(
        self,
        outputs: GPTFaceModelOutput,
        image_states: torch.Tensor,
        words: torch.Tensor | None,
        match_words: GPTFaceCaptionRows | None,
        attention_mask: torch.Tensor | None,
        match: Mapping[str, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Logits [B, 2] of each picture with its caption, or [B, P, 2] with each caption of `match`."""
        if match is not None:
            assert match_words is not None
            mask = match.get("attention_mask")
            return self.match_head.all_pairs(image_states, match_words.vectors, mask, match_words.places)
        states = outputs.pooler_output if self.match_head.reads_pairs else image_states
        return self.match_head(states, words, attention_mask)


class GPTFaceForMaskedLM(GPTFaceTaskModel):
    """
    Masked words of captions, with or without the picture that they describe.

    `pipeline("fill-mask")` asks it without one; captions of a picture are written by `pipeline("face-captioning")`.

    Example:

    ```python
    >>> model = GPTFaceForMaskedLM.from_pretrained(DEFAULT_CHECKPOINT)
    >>> tokenizer = GPTFaceTokenizer.from_pretrained(DEFAULT_CHECKPOINT)
    >>> words = tokenizer("a [MASK] woman", return_tensors="pt")
    >>> model(**words).logits.shape == (1, words.input_ids.shape[1], len(tokenizer))
    True

    ```
    """

    trained_heads = ("lm_head",)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedLMOutput:
        r"""
        See [`GPTFaceModel.forward`] for the inputs.

        Args:
            labels (`torch.LongTensor` of shape `(batch, text_length)`, *optional*): word ids, −100 = ignored.

        Returns:
            [`~transformers.modeling_outputs.MaskedLMOutput`] with `logits` `(batch, text_length, vocab_size)`.
        """
        outputs = self.gptface(
            input_ids, attention_mask, pixel_values, image_codes, image_mask, inputs_embeds, image_embeds, **kwargs
        )
        logits = self.lm_head.text(self.split_states(outputs)[0])
        loss = None
        if labels is not None:
            loss = masked_mean_cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class GPTFaceForImageTextMatching(GPTFaceTaskModel):
    """
    Does the caption describe the picture? Two logits, class 1 = matches.

    Captions and pictures of the same number are pairs. One caption and one picture, or captions and pictures of other
    numbers, are compared each with each, as `pipeline("zero-shot-image-classification")` asks for.

    Example:

    ```python
    >>> model = GPTFaceForImageTextMatching.from_pretrained(DEFAULT_CHECKPOINT)
    >>> processor = GPTFaceProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    >>> words = processor(text=["smiling", "not smiling", "eyeglasses"])
    >>> faces = torch.zeros(2, 3, 128, 128)  # aligned, RGB in [-1, 1]
    >>> model(**words, pixel_values=faces).logits_per_image.shape
    torch.Size([2, 3])

    ```
    """

    trained_heads = ("match_head",)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        match_labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPTFaceMatchingOutput:
        r"""
        See [`GPTFaceModel.forward`] for the inputs.

        Args:
            match_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): 1 = matches, 0 = does not, −100 =
                ignored. With them captions and pictures are pairs.
        """
        captions = input_ids if inputs_embeds is None else inputs_embeds
        pictures = next((each for each in (pixel_values, image_codes, image_embeds) if each is not None), None)
        if match_labels is None and captions is not None and pictures is not None:
            sizes = len(pictures), len(captions)
            if sizes[0] != sizes[1] or sizes == (1, 1):
                return self._each_with_each(
                    sizes,
                    input_ids,
                    attention_mask,
                    inputs_embeds,
                    pixel_values,
                    image_codes,
                    image_mask,
                    image_embeds,
                    **kwargs,
                )
        picture = {
            "pixel_values": pixel_values,
            "image_codes": image_codes,
            "image_mask": image_mask,
            "image_embeds": image_embeds,
        }
        logits, outputs = self.match(input_ids, attention_mask, inputs_embeds, **picture, **kwargs)
        loss = None
        if match_labels is not None:
            loss = masked_mean_cross_entropy(logits, match_labels)
            if self.training and not torch.compiler.is_compiling():
                self.config.match_trained = True
        return GPTFaceMatchingOutput(
            loss=loss, match_logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _each_with_each(
        self,
        sizes: tuple[int, int],
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        image_codes: torch.Tensor | None,
        image_mask: torch.Tensor | None,
        image_embeds: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPTFaceMatchingOutput:
        """P captions and B pictures, `sizes` (B, P) → logits [B, P, 2]."""
        pictures, captions = sizes
        words = self.gptface.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if pixel_values is not None:
            image_codes = self.image_tokenizer.encode(pixel_values)
        picture = {"image_codes": image_codes, "image_mask": image_mask, "image_embeds": image_embeds}
        if self.match_head.reads_pairs:
            spread = {
                name: None if each is None else each.repeat_interleave(captions, 0) for name, each in picture.items()
            }
            mask = None if attention_mask is None else attention_mask.repeat(pictures, 1)
            logits, outputs = self.match(None, mask, words.repeat(pictures, 1, 1), **spread, **kwargs)
            logits = logits.unflatten(0, sizes)
        else:
            outputs = self.gptface(**picture, **kwargs)
            read = self.caption_states(captions, None, attention_mask, words)
            logits = self.match_head.all_pairs(self.split_states(outputs)[1], read, attention_mask)
        return GPTFaceMatchingOutput(
            match_logits=logits.squeeze(0) if sizes == (1, 1) else logits,
            logits_per_image=logits[..., 1] - logits[..., 0],
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class GPTFaceForImageClassification(GPTFaceTaskModel):
    """
    Named classification heads over the states of the picture.

    `config.id2label` and `config.num_labels` mean what they mean everywhere: the base class takes the head with these
    labels, and makes one named `"labels"` where they are nobody's; without them it takes the head that the folder was
    saved with, else `"attributes"`, else the first one (`config.default_head`). With `head`, as with the subclasses,
    it takes the head of that name, with new labels where others were asked for (which needs
    `ignore_mismatched_sizes=True` in `from_pretrained`).

    Args:
        head: name of the head, of `config.heads` or a new one.

    Example:

    ```python
    >>> heads = {"mood": {"labels": ["merry", "sad"], "problem_type": "single_label_classification"}}
    >>> model = GPTFaceForImageClassification(GPTFaceConfig(heads=heads), head="mood")  # with random weights
    >>> model.config.id2label
    {0: 'merry', 1: 'sad'}

    ```
    """

    trained_heads = ("classifiers",)
    main_input_name = "pixel_values"
    head_name: str = ""
    default_problem_type = "single_label_classification"

    def __init__(self, config: GPTFaceConfig, head: str | None = None):
        self.head_name = head or self.head_name
        id2label: dict[Any, str] = config.id2label or {}
        labels = [id2label[index] for index in sorted(id2label)]
        known = [
            name
            for name, entry in config.heads.items()
            if list(entry["labels"]) == labels and config.problem_type in (None, entry["problem_type"])
        ]
        asked = bool(labels) and not known
        saved = config.classification_head
        if self.head_name:
            name = self.head_name
        elif known:
            name = saved if saved in known else known[0]
        else:
            name = "labels" if asked else config.default_head or "labels"
        if asked or name not in config.heads:
            labels = labels or ["LABEL_0", "LABEL_1"]  # the default of transformers
            problem_type = config.problem_type or self.default_problem_type
            config.heads = {**config.heads, name: {"labels": labels, "problem_type": problem_type, "trained": False}}
        entry = config.heads[name]
        config.id2label = dict(enumerate(entry["labels"]))
        config.label2id = {label: index for index, label in config.id2label.items()}
        config.problem_type = entry["problem_type"]
        self.head_name = name
        if not type(self).head_name:
            # a class for one head leaves it: a pipeline for that head can tell that the folder is about another one
            config.classification_head = name
        super().__init__(config)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers; the folder opens with this model's head again."""
        self.config.classification_head = self.head_name
        super().save_pretrained(*args, **kwargs)

    def freeze_unused_parts(self) -> None:
        super().freeze_unused_parts()
        if self.config.reads_pixels(self.head_name):
            self.gptface.pixel_reader.requires_grad_(True)  # type: ignore[union-attr]
        for other, classifier in self.classifiers.items():
            if other != self.head_name:
                classifier.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPTFaceClassificationOutput:
        r"""
        See [`GPTFaceModel.forward`] for the inputs.

        Args:
            labels (`torch.Tensor`, *optional*): class indices, long of shape `(batch,)` (−100 = ignored); or float of
                shape `(batch, num_labels)`: 0/1 for each label of a multi-label head (negative or NaN = ignored), or
                values for a regression (NaN = ignored).

        Raises:
            ValueError: neither pixels nor codes; or codes for a head that reads pixels.
        """
        if pixel_values is None and image_codes is None:
            raise ValueError("classification needs a picture: give pixel_values or image_codes")
        words = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        outputs = self.read_for(self.head_name, pixel_values, image_codes, image_mask=image_mask, **words, **kwargs)
        logits = self.classify(self.head_name, outputs)
        loss = None
        if labels is not None:
            loss = self.classification_loss(self.head_name, logits, labels)
            if self.training and not torch.compiler.is_compiling():
                self.config.heads[self.head_name]["trained"] = True
        return GPTFaceClassificationOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class GPTFaceForFaceAttributeClassification(GPTFaceForImageClassification):
    """
    Face attributes, several at once: the head `"attributes"`. See [`GPTFaceForImageClassification`].

    Example:

    ```python
    >>> model = GPTFaceForFaceAttributeClassification.from_pretrained(DEFAULT_CHECKPOINT)
    >>> scores = model(pixel_values=torch.zeros(1, 3, 128, 128)).logits.sigmoid()
    >>> scores.shape[1] == len(model.config.id2label)
    True

    ```
    """

    head_name = "attributes"
    default_problem_type = "multi_label_classification"


class GPTFaceForFacialExpression(GPTFaceForImageClassification):
    """
    Facial expression, one of several: the head `"expression"`. See [`GPTFaceForImageClassification`].

    Example:

    ```python
    >>> model = GPTFaceForFacialExpression.from_pretrained(DEFAULT_CHECKPOINT)
    >>> model(pixel_values=torch.zeros(1, 3, 128, 128)).logits.softmax(-1).shape
    torch.Size([1, 7])
    >>> sorted(model.config.id2label.values())
    ['angry', 'disgust', 'fear', 'happy', 'neutral', 'sad', 'surprise']

    ```
    """

    head_name = "expression"
