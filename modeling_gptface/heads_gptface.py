"""Task models of GPTFace: pre-training, image-text matching, classification."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .caption_contrast import caption_contrast_loss
from .configuration_gptface import GPTFaceConfig
from .layers import GPTFaceQueries
from .output_heads import GPTFaceMatchHead
from .task_model import GPTFaceTaskModel, masked_mean_cross_entropy


@dataclass
class GPTFaceForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*): weighted sum of the terms below.
        text_loss, image_loss, match_loss, label_loss, contrast_loss (`torch.FloatTensor`, *optional*): each term, a mean over
            what it counts.
        text_logits (`torch.FloatTensor` of shape `(batch, text_length, vocab_size)`): over words; with `text_labels`,
            only the rows that count: `(labels that are not −100, vocab_size)`.
        image_logits (`torch.FloatTensor` of shape `(batch, cells, K)`): over codes; with `image_labels` likewise.
        match_logits (`torch.FloatTensor` of shape `(batch, 2)`): class 1 = caption and picture match; `(batch, captions, 2)`
            where captions were given apart.
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
        match_logits (`torch.FloatTensor` of shape `(batch, 2)`): class 1 = caption and picture match.
    """

    loss: torch.Tensor | None = None
    match_logits: torch.Tensor | None = None
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
    """Masked image and language modelling (MILM) with image-text matching (ITM)."""

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
        match_labels: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        match_input_ids: torch.Tensor | None = None,
        match_attention_mask: torch.Tensor | None = None,
        contrast_input_ids: torch.Tensor | None = None,
        contrast_attention_mask: torch.Tensor | None = None,
        contrast_cells: torch.Tensor | None = None,
        contrast_labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPTFaceForPreTrainingOutput:
        r"""
        See [`GPTFaceModel.forward`] for the inputs.

        Args:
            text_labels (`torch.LongTensor` of shape `(batch, text_length)`, *optional*): word ids, −100 = ignored.
            image_labels (`torch.LongTensor` of shape `(batch, cells)`, *optional*): codes, −100 = ignored.
            match_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): 1 = matches, 0 = does not, −100 = ignored; with
                `match_input_ids` of shape `(batch, captions)`.
            labels (`torch.Tensor`, *optional*): of the head `config.auxiliary_head`, see [`GPTFaceForImageClassification`].
            match_input_ids, match_attention_mask (`torch.LongTensor` of shape `(captions, text_length)`, *optional*): captions
                that are matched with every picture; needs `match_head="cross"`.
            contrast_input_ids, contrast_attention_mask (`torch.LongTensor` of shape `(2 * attributes, text_length)`, *optional*):
                of each attribute the phrase for value 0, then that for value 1; needs `caption_reader`.
            contrast_cells (`torch.BoolTensor` of shape `(attributes, cells)`, *optional*): the region each of them speaks of.
            contrast_labels (`torch.LongTensor` of shape `(batch, attributes)`, *optional*): which phrase is true, negative =
                not asked for; see [`~caption_contrast.caption_contrast_loss`].
        """
        # A matching head that compares words with cells and the auxiliary head read every cell.
        needed: dict[str, torch.Tensor] = {}
        if image_labels is not None and labels is None and isinstance(self.match_head, GPTFaceMatchHead):
            every_word = image_labels.new_ones(1, 1, dtype=torch.bool)
            needed["text_state_mask"] = every_word if text_labels is None else text_labels != -100
            needed["image_state_mask"] = image_labels != -100
        outputs = self.gptface(
            input_ids,
            attention_mask,
            pixel_values,
            image_codes,
            image_mask,
            inputs_embeds,
            image_embeds,
            **needed,
            **kwargs,
        )
        has_image = any(part is not None for part in (pixel_values, image_codes, image_embeds))
        text_states, image_states = self.split_states(outputs, has_image)
        terms = {}
        if labels is not None:
            head = self.config.auxiliary_head
            if head is None:
                raise ValueError("labels need a head: name it in config.auxiliary_head")
            terms["label_loss"] = self.classification_loss(head, self.classify(head, outputs), labels)
        # Logits of positions that carry no label would be most of the work of the heads, for nothing.
        if text_labels is not None:
            counted = text_labels != -100
            text_states, text_labels = text_states[counted], text_labels[counted]
        text_logits = self.lm_head.text(text_states)
        if text_labels is not None:
            terms["text_loss"] = masked_mean_cross_entropy(text_logits, text_labels)
        words = None
        if self.lm_head.caption_reader is not None and has_image:
            words = self.caption_states(len(image_states), input_ids, attention_mask, inputs_embeds)
        table = self.gptface.embeddings.code_table()
        if image_labels is None:
            image_logits = self._cell_logits(image_states, table, words, attention_mask)
        else:
            counted = image_labels != -100
            image_logits = self._cell_logits(image_states, table, words, attention_mask, counted)
            terms["image_loss"] = masked_mean_cross_entropy(image_logits, image_labels[counted])
        if match_input_ids is not None:
            match_logits = self._match_all(image_states, match_input_ids, match_attention_mask)
        elif isinstance(self.match_head, GPTFaceMatchHead):
            match_logits = self.match_head(outputs.pooler_output)
        else:
            if words is None:
                words = self.caption_states(len(image_states), input_ids, attention_mask, inputs_embeds)
            match_logits = self.match_head(words, image_states, attention_mask)
        if match_labels is not None:
            terms["match_loss"] = masked_mean_cross_entropy(match_logits.flatten(0, -2), match_labels.flatten())
        if contrast_labels is not None:
            if self.lm_head.caption_reader is None or image_labels is None:
                raise ValueError("contrast_labels need image_labels, and caption_reader in the configuration")
            if contrast_input_ids is None or contrast_cells is None:
                raise ValueError("contrast_labels need the phrases, contrast_input_ids, and their contrast_cells")
            terms["contrast_loss"] = caption_contrast_loss(
                lambda states, spoken, mask, cells: self._cell_logits(states, table, spoken, mask, cells),
                image_states,
                image_labels,
                self.caption_states(len(contrast_input_ids), contrast_input_ids, contrast_attention_mask),
                contrast_attention_mask,
                contrast_cells,
                contrast_labels,
            )
        loss = None
        if terms:
            loss = sum(getattr(self.config, f"{name}_weight") * value for name, value in terms.items())
        return GPTFaceForPreTrainingOutput(
            loss=loss,
            **terms,
            text_logits=text_logits,
            image_logits=image_logits,
            match_logits=match_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _cell_logits(
        self,
        image_states: torch.Tensor,
        code_table: torch.Tensor,
        words: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        States of cells [B, N, H] → logits over codes [B, N, K], or [M, K] of the cells in `mask` [B, N] alone. A head with a
        caption reader reads the `words` [B, T, H], see [`caption_states`].
        """
        reader = self.lm_head.caption_reader
        if mask is None:
            if reader is not None and words is not None:
                image_states = reader(image_states, words, attention_mask)
            return self.lm_head.image(image_states, code_table)
        states = image_states[mask]
        if reader is not None and words is not None and len(states):
            queries = GPTFaceQueries.of(mask)
            states = reader(queries.pad(states), words, attention_mask)[queries.valid]
        return self.lm_head.image(states, code_table)

    def _match_all(
        self, image_states: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """States of B pictures and P captions → logits [B, P, 2]."""
        if isinstance(self.match_head, GPTFaceMatchHead):
            raise ValueError(
                "match_input_ids compares every picture with every caption: this needs match_head='cross' in the configuration"
            )
        words = self.caption_states(len(input_ids), input_ids, attention_mask)
        return self.match_head.all_pairs(words, image_states, attention_mask)


class GPTFaceForImageTextMatching(GPTFaceTaskModel):
    """Does the caption describe the picture? Two logits, class 1 = matches."""

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
            match_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): 1 = matches, 0 = does not, −100 = ignored.
        """
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


class GPTFaceForImageClassification(GPTFaceTaskModel):
    """
    Named classification heads over the states of the picture.

    `config.id2label` and `config.num_labels` mean what they mean everywhere: the base class takes the head with these labels,
    and makes one named `"labels"` where they are nobody's; without them it takes the first head. The subclasses take the head of
    their name, with new labels where others were asked for (which needs `ignore_mismatched_sizes=True` in `from_pretrained`).
    """

    trained_heads = ("classifiers",)
    main_input_name = "pixel_values"
    head_name: str = ""
    default_problem_type = "single_label_classification"

    def __init__(self, config: GPTFaceConfig):
        id2label: dict[Any, str] = config.id2label or {}
        labels = [id2label[index] for index in sorted(id2label)]
        known = [
            name
            for name, head in config.heads.items()
            if list(head["labels"]) == labels and config.problem_type in (None, head["problem_type"])
        ]
        asked = bool(labels) and not known
        if self.head_name:
            name = self.head_name
        elif known:
            name = known[0]
        else:
            name = "labels" if asked else next(iter(config.heads), "labels")
        if asked or name not in config.heads:
            labels = labels or ["LABEL_0", "LABEL_1"]  # the default of transformers
            problem_type = config.problem_type or self.default_problem_type
            config.heads = {**config.heads, name: {"labels": labels, "problem_type": problem_type, "trained": False}}
        head = config.heads[name]
        config.id2label = dict(enumerate(head["labels"]))
        config.label2id = {label: index for index, label in config.id2label.items()}
        config.problem_type = head["problem_type"]
        self.head_name = name
        super().__init__(config)

    def freeze_unused_parts(self) -> None:
        super().freeze_unused_parts()
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
            labels (`torch.LongTensor` of shape `(batch,)` or `torch.FloatTensor` of shape `(batch, num_labels)`,
                *optional*): class indices, or 0/1 for each label of a multi-label head (negative or NaN = ignored), or values
                for a regression.
        """
        if pixel_values is None and image_codes is None:
            raise ValueError("classification needs a picture: give pixel_values or image_codes")
        outputs = self.gptface(
            input_ids, attention_mask, pixel_values, image_codes, image_mask, inputs_embeds, **kwargs
        )
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
    """Face attributes, several at once: the head `"attributes"`."""

    head_name = "attributes"
    default_problem_type = "multi_label_classification"


class GPTFaceForFacialExpression(GPTFaceForImageClassification):
    """Facial expression, one of several: the head `"expression"`."""

    head_name = "expression"
