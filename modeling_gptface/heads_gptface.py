"""Task models of GPTFace: pre-training, image-text matching, classification."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import MaskedLMOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .caption_contrast import caption_contrast_loss
from .configuration_gptface import GPTFaceConfig
from .layers import take_positions
from .modeling_gptface import GPTFaceModelOutput
from .task_model import GPTFaceTaskModel, masked_mean_cross_entropy

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
        text_positions: torch.Tensor | None = None,
        image_positions: torch.Tensor | None = None,
        match_labels: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        match: Mapping[str, torch.Tensor] | None = None,
        contrast: Mapping[str, torch.Tensor] | None = None,
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
                [`~caption_contrast.caption_contrast_loss`]; needs `caption_reader` and `image_labels`. `input_ids` and
                `attention_mask` `(phrases, text_length)`; `phrases` `(pairs, 2)`, the numbers of those for value 0 and
                1; `pictures` `(pairs,)`, numbers in the batch; `positions` `(pairs, budget)`, the cells that the
                phrases speak of, −1 = none; `labels` `(pairs,)`, which phrase is true, −100 = ignored.
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
            len(text_states), input_ids, attention_mask, inputs_embeds, match, contrast, has_image=cells > 0
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
        match: Mapping[str, torch.Tensor] | None,
        contrast: Mapping[str, torch.Tensor] | None,
        has_image: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """
        States of the captions that are read apart from the pictures, all in one pass: those of the pictures themselves
        [B, T, H], where a head asks for them, those of `match` and of `contrast`.
        """
        single = match is None and not self.match_head.reads_pairs
        own = (self.lm_head.caption_reader is not None and has_image) or single
        if inputs_embeds is None and input_ids is None:
            input_ids = self.gptface.empty_caption(batch)
        embed = self.gptface.embeddings.word_embeddings
        read: list[tuple[torch.Tensor, torch.Tensor | None] | None] = [None, None, None]
        if own:
            assert input_ids is not None or inputs_embeds is not None
            read[0] = (embed(input_ids) if inputs_embeds is None else inputs_embeds, attention_mask)  # type: ignore[arg-type]
        for place, captions in ((1, match), (2, contrast)):
            if captions is not None:
                read[place] = (embed(captions["input_ids"]), captions.get("attention_mask"))
        asked = [part for part in read if part is not None]
        if not asked:
            return None, None, None
        longest = max(vectors.shape[1] for vectors, _ in asked)
        vectors = torch.cat([nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part, _ in asked])
        masks = None
        if len(asked) > 1 or asked[0][1] is not None:
            masks = torch.cat(
                [
                    nn.functional.pad(
                        part.new_ones(part.shape[:2]) if mask is None else mask.to(part.dtype),
                        (0, longest - part.shape[1]),
                    )
                    for part, mask in asked
                ]
            ).long()
        states = iter(
            self.gptface(None, masks, inputs_embeds=vectors).last_hidden_state.split([len(part) for part, _ in asked])
        )
        own_states, match_states, contrast_states = (
            None if part is None else next(states)[:, : part[0].shape[1]] for part in read
        )
        return own_states, match_states, contrast_states

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
        match_words: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        match: Mapping[str, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Logits [B, 2] of each picture with its caption, or [B, P, 2] with each caption of `match`."""
        if match is not None:
            assert match_words is not None
            return self.match_head.all_pairs(image_states, match_words, match.get("attention_mask"))
        states = outputs.pooler_output if self.match_head.reads_pairs else image_states
        return self.match_head(states, words, attention_mask)


class GPTFaceForMaskedLM(GPTFaceTaskModel):
    """
    Masked words of captions, with or without the picture that they describe.

    `pipeline("fill-mask")` asks it without one; captions of a picture are written by `pipeline("face-captioning")`.
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
    saved with (`config.classification_head`), or the first one. With `head`, as with the subclasses, it takes the head
    of that name, with new labels where others were asked for (which needs `ignore_mismatched_sizes=True` in
    `from_pretrained`).

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
            name = "labels" if asked else saved or next(iter(config.heads), "labels")
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
            labels (`torch.LongTensor` of shape `(batch,)` or `torch.FloatTensor` of shape `(batch, num_labels)`,
                *optional*): class indices, or 0/1 for each label of a multi-label head (negative or NaN = ignored), or
                values for a regression.
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
    """Face attributes, several at once: the head `"attributes"`."""

    head_name = "attributes"
    default_problem_type = "multi_label_classification"


class GPTFaceForFacialExpression(GPTFaceForImageClassification):
    """Facial expression, one of several: the head `"expression"`."""

    head_name = "expression"
