"""Generation with guidance: masked cells of a face are filled under a caption."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers.utils import ModelOutput

from .decoding import DecodingSchedule, parallel_step
from .guidance import ITMGuidance, cell_saliency, classifier_free, guide_logits
from .heads_gptface import GPTFaceForPreTraining


@dataclass
class GPTFaceGenerationOutput(ModelOutput):
    """
    Args:
        codes (`torch.LongTensor` of shape `(batch, cells)`): the filled grid; given cells are as they were.
        match_scores (`torch.FloatTensor` of shape `(batch,)`): log-odds that caption and result match.
    """

    codes: torch.Tensor
    match_scores: torch.Tensor | None = None


def as_guidance(value: "ITMGuidance | dict | float | None") -> ITMGuidance:
    """None or 0 → no guidance; a number → the default guidance with that step size; a dict → its fields."""
    if value is None or value is False:
        return ITMGuidance(iterations=0)
    if isinstance(value, ITMGuidance):
        return value
    if isinstance(value, dict):
        return ITMGuidance(**value)
    return ITMGuidance(step_size=float(value)) if value else ITMGuidance(iterations=0)


def per_sample_generators(
    generator: "torch.Generator | Sequence[torch.Generator] | None", batch: int
) -> list[torch.Generator]:
    """
    One generator for each sample. A single generator gives each sample a seed of its own; None draws fresh seeds.

    Raises:
        ValueError: where a list is not as long as the batch.
    """
    if isinstance(generator, list | tuple):
        if len(generator) != batch:
            raise ValueError(f"{len(generator)} generators for a batch of {batch}: give one for each sample")
        return list(generator)
    device = "cpu" if generator is None else generator.device  # type: ignore[union-attr]
    seeds = torch.randint(2**62, (batch,), generator=generator, device=device)  # type: ignore[arg-type]
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


class GPTFaceForGuidedGeneration(GPTFaceForPreTraining):
    """
    Fills masked cells of a face under a caption: text to face (all cells masked), inpainting and editing (a region masked).
    """

    def match_log_odds(self, input_ids=None, attention_mask=None, **inputs) -> torch.Tensor:
        """Caption and picture (see [`GPTFaceModel.forward`]) → log-odds [B] that they match."""
        outputs = self.gptface(input_ids, attention_mask, **inputs)
        logits = self.match_head(outputs.pooler_output).float()
        return logits[:, 1] - logits[:, 0]

    def _match_score(
        self,
        prompt: dict[str, torch.Tensor | None],
        source: dict[str, torch.Tensor | None] | None,
        known: torch.Tensor,
        mask: torch.Tensor,
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Score of a grid's vectors under the prompt; with a source caption, the difference to the source's score."""

        def score(vectors: torch.Tensor) -> torch.Tensor:
            grid = torch.where(mask[..., None], vectors, known)
            odds = self.match_log_odds(**prompt, image_embeds=grid)
            return odds if source is None else odds - self.match_log_odds(**source, image_embeds=grid)

        return score

    def saliency(
        self, image_codes: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """How much each cell moves the match with the caption [B, N], ≥ 0: the norm of the gradient of the log-odds."""
        self._check_match_head()
        known = self.gptface.embeddings.embed_codes(image_codes)
        everywhere = torch.ones_like(image_codes, dtype=torch.bool)
        prompt = {"input_ids": input_ids, "attention_mask": attention_mask}
        return cell_saliency(self._match_score(prompt, None, known, everywhere), known)

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        *,
        negative_input_ids: torch.Tensor | None = None,
        negative_attention_mask: torch.Tensor | None = None,
        source_input_ids: torch.Tensor | None = None,
        source_attention_mask: torch.Tensor | None = None,
        num_inference_steps: int = 12,
        temperature: float = 1.0,
        confidence_temperature: float = 4.5,
        guidance_scale: float = 1.0,
        itm_guidance: ITMGuidance | dict | float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback_on_step_end: Callable[[int, dict[str, Any]], None] | None = None,
        progress_bar: bool = False,
    ) -> GPTFaceGenerationOutput:
        r"""
        Args:
            input_ids, attention_mask: the prompt [B, T].
            image_codes: [B, N]; not needed where all cells are masked.
            image_mask: [B, N] bool, True = to be filled; all cells where it is missing.
            negative_input_ids, negative_attention_mask: what to move away from, instead of the empty caption, in
                classifier-free guidance.
            source_input_ids, source_attention_mask: a caption of the picture as it is; ITM guidance then raises the
                difference of both captions' log-odds.
            num_inference_steps: forward passes.
            temperature, confidence_temperature: see [`DecodingSchedule`].
            guidance_scale: of classifier-free guidance; 1 = off.
            itm_guidance: step size, fields of [`ITMGuidance`], or None = off.
            generator: one for each sample, or one that seeds them all.
            callback_on_step_end: called with (step, {"codes": [B, N], "mask": [B, N]}) after each step.

        Raises:
            ValueError: shapes that do not fit, or a guidance that was asked for and cannot act.
            FloatingPointError: where logits, gradients or match scores are not finite; names the step.
        """
        config = self.config
        batch, cells = input_ids.shape[0], config.num_image_tokens
        if image_codes is None:
            if image_mask is not None:
                raise ValueError("image_mask without image_codes: give the codes of the cells that are kept")
            image_codes = torch.zeros(batch, cells, dtype=torch.long, device=input_ids.device)
        mask = torch.ones_like(image_codes, dtype=torch.bool) if image_mask is None else image_mask.bool()
        if image_codes.shape != (batch, cells) or mask.shape != (batch, cells):
            raise ValueError(
                f"image_codes {list(image_codes.shape)} and image_mask {list(mask.shape)} must be [{batch}, {cells}]"
            )
        guidance = as_guidance(itm_guidance)
        if guidance.iterations:
            self._check_match_head()
        if guidance_scale == 1 and negative_input_ids is not None:
            raise ValueError("a negative prompt acts through guidance_scale: set it to another value than 1")
        schedule = DecodingSchedule(num_inference_steps, temperature, confidence_temperature)
        generators = per_sample_generators(generator, batch)
        prompt = {"input_ids": input_ids, "attention_mask": attention_mask}
        negative = {"input_ids": negative_input_ids, "attention_mask": negative_attention_mask}
        source = None
        if source_input_ids is not None:
            source = {"input_ids": source_input_ids, "attention_mask": source_attention_mask}

        codes, total = image_codes.clone(), mask.sum(-1)
        for step in tqdm(range(num_inference_steps), disable=not progress_bar, desc="decoding"):
            logits = self._image_logits(prompt, codes, mask)
            if guidance_scale != 1:
                logits = classifier_free(logits, self._image_logits(negative, codes, mask), guidance_scale)
            try:
                if guidance.iterations:
                    known = self.gptface.embeddings.embed_codes(codes)
                    score = self._match_score(prompt, source, known, mask)
                    logits = guide_logits(logits, mask, score, self.gptface.embeddings.code_table(), guidance)
                codes, mask = parallel_step(logits, codes, mask, step, total, schedule, generators)
            except FloatingPointError as error:
                raise FloatingPointError(f"decoding step {step + 1} of {num_inference_steps}: {error}") from error
            if callback_on_step_end is not None:
                callback_on_step_end(step, {"codes": codes, "mask": mask})
            if not mask.any():
                break
        match_scores = self.match_log_odds(**prompt, image_codes=codes)
        if not torch.isfinite(match_scores).all():
            raise FloatingPointError("after the last decoding step: the match scores are not finite")
        return GPTFaceGenerationOutput(codes, match_scores)

    def _image_logits(self, caption: dict[str, torch.Tensor | None], codes: torch.Tensor, mask: torch.Tensor):
        """Logits over codes [B, N, K] in float32; a caption without ids is the empty one."""
        outputs = self.gptface(**caption, image_codes=codes, image_mask=mask)
        return self.lm_head.image(self.split_states(outputs)[1], self.gptface.embeddings).float()

    def _check_match_head(self) -> None:
        if not self.config.match_trained:
            raise ValueError(
                "the image-text matching head of this checkpoint is not trained (config.match_trained is false): "
                "ITM guidance cannot act; use itm_guidance=None or pre-train with match_labels"
            )
