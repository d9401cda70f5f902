"""The base of the task models: the transformer with all of its heads.

Every task model holds all heads (they are small), so that one folder serves every class and saving one keeps the
others. The parts that a class does not train are frozen.
"""

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init

from .configuration_gptface import GPTFaceConfig
from .face_parser_gptface import GPTFaceParser
from .image_tokenizer_gptface import GPTFaceImageTokenizer
from .modeling_gptface import GPTFaceModel, GPTFaceModelOutput, GPTFacePreTrainedModel
from .output_heads import GPTFaceLMHead, GPTFaceZeroLinear, make_classifier, make_match_head


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
        for head in self.config.heads:
            if any(name.startswith(f"classifiers.{head}.") for name in self.missing_weights):
                self.config.heads[head] = {**self.config.heads[head], "trained": False}

    def freeze_unused_parts(self) -> None:
        """
        Freezes the image tokenizer, the face parser and the heads that this class does not train: they get no gradient
        from its loss.
        """
        self.image_tokenizer.requires_grad_(False)
        if self.gptface.pixel_reader is not None:
            self.gptface.pixel_reader.requires_grad_(False)
        if self.face_parser is not None:
            self.face_parser.requires_grad_(False)
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
        return states[:, : states.shape[1] - cells], states[:, states.shape[1] - cells :]

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
