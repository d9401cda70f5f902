"""Generation with guidance: masked cells of a face are filled under a caption, masked words under a face."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers.utils import ModelOutput

from .decoding import DecodingMode, DecodingSchedule, fill_masked
from .guidance import ITMGuidance, Judgement, cell_saliency, classifier_free, guidance_divergence, guide_logits
from .heads_gptface import GPTFaceCritic, GPTFaceForPreTraining
from .image_tokenizer_gptface import cells_below, with_neighbours
from .modeling_gptface import GPTFaceKeptStates, GPTFaceQueries


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


def outside_inference_mode(method: Callable[..., Any]) -> Callable[..., Any]:
    """
    Lets a method that follows gradients work where its caller is in `torch.inference_mode()`: tensors made there can
    have none, so it runs outside, on copies of them.
    """

    @functools.wraps(method)
    def outside(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return method(*args, **kwargs)

        def ordinary(value: Any) -> Any:
            return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value

        with torch.inference_mode(False):
            return method(
                *(ordinary(value) for value in args), **{name: ordinary(value) for name, value in kwargs.items()}
            )

    return outside


@dataclass(frozen=True)
class Captions:
    """
    Captions of a batch as arguments for the model.

    Args:
        input_ids: [B, T].
        attention_mask: [B, T], 1 = word, or None.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None = None

    def arguments(self) -> dict[str, torch.Tensor | None]:
        """Keyword arguments of the model."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    @staticmethod
    def stack(captions: "Sequence[Captions]", padding: int) -> "Captions":
        """
        Several captions for each sample → one batch of them all, the first of all samples first; padded with the id
        `padding`.
        """
        if len(captions) == 1:
            return captions[0]
        length = max(each.input_ids.shape[1] for each in captions)
        masks = [
            torch.ones_like(each.input_ids) if each.attention_mask is None else each.attention_mask
            for each in captions
        ]
        ids, mask = (
            torch.cat([nn.functional.pad(part, (0, length - part.shape[1]), value=value) for part in parts])
            for parts, value in (([each.input_ids for each in captions], padding), (masks, 0))
        )
        return Captions(ids, mask)


#: Called with (model, step, timestep, {"codes": [B, N], "mask": [B, N]}) after each step; `timestep` counts down to 0.
#: Codes or masks in the mapping that it gives back, if any, are those with which decoding goes on.
StepCallback = Callable[[Any, int, int, dict[str, torch.Tensor]], Mapping[str, torch.Tensor] | None]

#: Of so many tokens of a grid the least real one counts for its realness: what is broken is a small part of a face.
LEAST_REAL = 16


@dataclass
class GPTFaceGenerationOutput(ModelOutput):
    """
    Args:
        codes (`torch.LongTensor` of shape `(batch, cells)`): the filled grid; given cells are as they were.
        match_scores (`torch.FloatTensor` of shape `(batch,)`): log-odds that caption and result match.
        guidance_kl (`torch.FloatTensor` of shape `(batch,)`): how far ITM guidance moved the distributions, the mean
            of KL(guided ‖ unguided) over masked cells and steps, in nats; 0 where it is off.
        plan_codes (`torch.LongTensor` of shape `(batch, plan tokens)`, *optional*): the plan, where it was drawn
            first.
        filled (`torch.BoolTensor` of shape `(batch, cells)`, *optional*): the cells that were filled below it.
        realness (`torch.FloatTensor` of shape `(batch,)`, *optional*): how real the result looks to the critic, the
            mean logit of the least real sixteenth of its tokens; where the checkpoint has a trained critic that reads
            such a grid.
    """

    codes: torch.Tensor
    match_scores: torch.Tensor | None = None
    guidance_kl: torch.Tensor | None = None
    plan_codes: torch.Tensor | None = None
    filled: torch.Tensor | None = None
    realness: torch.Tensor | None = None


@dataclass
class GPTFaceTextGenerationOutput(ModelOutput):
    """
    Args:
        sequences (`torch.LongTensor` of shape `(batch, text_length)`): ids of the filled caption; given words are as
            they were.
        match_scores (`torch.FloatTensor` of shape `(batch,)`): log-odds that caption and face match.
        guidance_kl (`torch.FloatTensor` of shape `(batch,)`): see [`GPTFaceGenerationOutput`].
    """

    sequences: torch.Tensor
    match_scores: torch.Tensor | None = None
    guidance_kl: torch.Tensor | None = None


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Logits of the matching head [B, 2] → log-odds [B] that caption and picture match."""
    logits = logits.float()
    return logits[:, 1] - logits[:, 0]


def _repeated(rows: torch.Tensor | None, times: int) -> torch.Tensor | None:
    """Rows [B, …] so many times one after the other."""
    return None if rows is None else rows.repeat(times, *[1] * (rows.ndim - 1))


class _Guide:
    """ITM guidance inside a decoding loop: guides the logits of a step and keeps count of how far it moved them."""

    def __init__(self, guidance: ITMGuidance, table: torch.Tensor, generators: Sequence[torch.Generator]):
        self.guidance, self.table, self.generators = guidance, table, generators
        self._total = torch.zeros(len(generators), device=table.device)
        self._steps = torch.zeros(len(generators), device=table.device)

    def __call__(
        self,
        logits: torch.Tensor,
        mask: torch.Tensor,
        score: Judgement,
    ) -> torch.Tensor:
        """Logits [M, K] of the cells that are masked in `mask` [B, N] → guided logits; see [`guide_logits`]."""
        guided = guide_logits(logits, mask, score, self.table, self.guidance, self.generators)
        if guided is not logits:
            self._total += guidance_divergence(guided, logits, mask, self.guidance.temperature)
            self._steps += mask.any(-1)
        return guided

    @property
    def divergence(self) -> torch.Tensor:
        """Mean over the steps so far [B], nats."""
        return self._total / self._steps.clamp(min=1)


class _StateRefresh:
    """
    Which states the passes of a decoding step may take from earlier ones.

    Args:
        changing: cells that decoding fills, as these passes have them [B, N] bool.
        interval: a step out of so many computes everything anew; 1 = each does, and nothing is kept.
    """

    def __init__(self, changing: torch.Tensor, interval: int):
        self.changing, self.interval = changing, interval
        self._step = -1
        self._kept: GPTFaceKeptStates | None = None

    def next_step(self) -> None:
        self._step += 1

    def states(self) -> GPTFaceKeptStates | None:
        """For one pass: those to fill, in a step that computes everything anew, or filled ones."""
        if self.interval > 1 and self._step % self.interval == 0:
            self._kept = GPTFaceKeptStates(self.changing)
        return self._kept


class GPTFaceForGuidedGeneration(GPTFaceForPreTraining):
    """
    Fills masked cells of a face under a caption (`generate`): text to face (all cells masked), inpainting and editing
    (a region masked). Fills masked words under a face (`generate_text`): captioning, where all words are masked.

    `can_generate()` is False, and a `GenerationConfig` is not read: what transformers calls generation writes from
    left to right, a token a pass with cached keys, while here all masked places are drawn in a few passes, in the
    order of their certainty. The parameters of that are [`DecodingSchedule`]'s.

    Example:

    ```python
    >>> model = GPTFaceForGuidedGeneration.from_pretrained(DEFAULT_CHECKPOINT)
    >>> processor = GPTFaceProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    >>> seed = torch.Generator().manual_seed(0)
    >>> words = processor(text=["a smiling woman"])
    >>> output = model.generate(**words, num_inference_steps=2, itm_guidance=4.0, generator=seed)
    >>> processor.decode_codes(output.codes, model.image_tokenizer)[0].size
    (128, 128)

    ```
    """

    def match_log_odds(self, input_ids=None, attention_mask=None, **inputs) -> torch.Tensor:
        """Caption and picture (see [`GPTFaceModel.forward`]) → log-odds [B] that they match."""
        return log_odds(self.match(input_ids, attention_mask, **inputs)[0])

    @torch.no_grad()
    def criticise(
        self,
        image_codes: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        For every token of a whole grid the logit [B, N] that it is a photo's and not drawn.

        Args:
            image_codes: [B, N], the plan codes of a model that has a plan, else codes.
            input_ids, attention_mask: a caption [B, T] that is read beside the grid; the empty one by default, under
                which the critic was trained.

        Raises:
            ValueError: where there is no trained critic, or a grid of another size.
        """
        critic = self._trained_critic(image_codes.shape[-1])
        outputs = self.gptface(input_ids, attention_mask, image_codes=image_codes, output_hidden_states=True)
        return critic(outputs.hidden_states, image_codes.shape[1]).float()

    def _trained_critic(self, cells: int) -> GPTFaceCritic:
        """The critic of grids of so many cells; raises `ValueError` where there is none that is trained."""
        if self.critic is None or not self.config.critic_trained:
            raise ValueError(
                "this checkpoint has no trained critic of drawn tokens (config: critic_channels, critic_trained): "
                "train one by `gptface train-critic`"
            )
        if cells != self.config.num_critic_tokens:
            raise ValueError(
                f"the critic reads grids of {self.config.num_critic_tokens} tokens, not of {cells}"
                + (": draw the plan first (generate_plan_first, plan_first=True)" if self.config.has_plan else "")
            )
        return self.critic

    def _match_score(
        self,
        captions: Sequence[Captions],
        plan_codes: torch.Tensor | None = None,
        critic: GPTFaceCritic | None = None,
    ) -> Callable[..., Any]:
        """
        Vectors of a grid [B, N, H], and the states kept of it → its score [B] under the first caption, the prompt;
        with a second one, that of the source, the difference to that caption's. `plan_codes` [B, P] stand above the
        grid. With a `critic` beside the score the logits [B, N] that the grid's cells are real.
        """
        if self.match_head.reads_pairs:
            together = self._stack(captions).arguments()

            def odds(grid: torch.Tensor, kept: GPTFaceKeptStates | None) -> tuple[tuple[torch.Tensor, ...], Any]:
                grids, plans = (_repeated(each, len(captions)) for each in (grid, plan_codes))
                inputs = {"image_embeds": grids, "plan_codes": plans, "kept_states": kept}
                return self.match_log_odds(**together, **inputs).chunk(len(captions)), None

        else:
            # Captions are read apart from the picture: once for all steps, and both on the same reading of the
            # picture.
            words = [
                self.caption_states(len(caption.input_ids), **caption.arguments()).detach() for caption in captions
            ]

            def odds(grid: torch.Tensor, kept: GPTFaceKeptStates | None) -> tuple[tuple[torch.Tensor, ...], Any]:
                # the critic reads what the match reads, if that is all of the grid
                shared = critic is not None and kept is None
                outputs = self.gptface(
                    image_embeds=grid, plan_codes=plan_codes, kept_states=kept, output_hidden_states=shared
                )
                states = self.split_states(outputs)[1]
                found = tuple(
                    log_odds(self.match_head(states, text, caption.attention_mask))
                    for text, caption in zip(words, captions, strict=True)
                )
                return found, outputs.hidden_states if shared else None

        def score(
            grid: torch.Tensor, kept: GPTFaceKeptStates | None = None
        ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            (target, *rest), hidden = odds(grid, kept)
            matched = target - rest[0] if rest else target
            if critic is None:
                return matched
            if hidden is None:
                hidden = self.gptface(image_embeds=grid, output_hidden_states=True).hidden_states
            return matched, critic(hidden, grid.shape[1]).float()

        return score

    @outside_inference_mode
    def saliency(
        self,
        image_codes: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        source_input_ids: torch.Tensor | None = None,
        source_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        How much each cell moves the match with the caption [B, N], ≥ 0: the norm of the gradient of the log-odds; with
        a caption of the picture as it is (`source_input_ids`), of the difference of both captions' log-odds. Of plan
        codes [B, P] in the place of `image_codes`, how much each token of the plan does.

        Raises:
            ValueError: where the matching head is not trained.
        """
        self._check_match_head()
        known = self.gptface.embeddings.embed_codes(image_codes)
        captions = [Captions(input_ids, attention_mask)]
        if source_input_ids is not None:
            captions.append(Captions(source_input_ids, source_attention_mask))
        return cell_saliency(self._match_score(captions), known)

    @outside_inference_mode
    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        plan_codes: torch.Tensor | None = None,
        *,
        negative_input_ids: torch.Tensor | None = None,
        negative_attention_mask: torch.Tensor | None = None,
        source_input_ids: torch.Tensor | None = None,
        source_attention_mask: torch.Tensor | None = None,
        num_inference_steps: int = 12,
        temperature: float = 1.0,
        confidence_temperature: float = 4.5,
        decoding: DecodingMode = "parallel",
        top_k: int | None = None,
        corrections: int = 0,
        guidance_scale: float = 1.0,
        itm_guidance: ITMGuidance | dict | float | None = None,
        state_refresh: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress_bar: bool | Mapping[str, Any] = False,
    ) -> GPTFaceGenerationOutput:
        r"""
        Args:
            input_ids, attention_mask: the prompt [B, T].
            image_codes: [B, N]; not needed where all cells are masked. Plan codes [B, P] where it is the plan that is
                to be filled.
            image_mask: [B, N] bool, True = to be filled; all cells where it is missing.
            plan_codes: [B, P], the plan that the cells follow.
            negative_input_ids, negative_attention_mask: what to move away from, instead of the empty caption, in
                classifier-free guidance.
            source_input_ids, source_attention_mask: a caption of the picture as it is; ITM guidance then raises the
                difference of both captions' log-odds.
            num_inference_steps: most forward passes.
            temperature, confidence_temperature, decoding, top_k, corrections: see [`DecodingSchedule`]; `decoding` is
                its mode, of which `"critic"` needs a checkpoint with a trained critic.
            guidance_scale: of classifier-free guidance; 1 = off.
            itm_guidance: step size, fields of [`ITMGuidance`], or None = off; its `critic_weight` needs a checkpoint
                with a trained critic that reads such a grid.
            state_refresh: the states of words and given cells are computed anew in one of so many decoding steps and
                kept in between, see [`GPTFaceKeptStates`]; 1 = exact. More is an approximation that saves time where a
                part of the grid is filled.
            generator: one for each sample, or one that seeds them all.
            callback_on_step_end: called with (model, step, timestep, {"codes": [B, N], "mask": [B, N]}) after each
                step, see `StepCallback`.
            progress_bar: whether there is a bar of the steps; parameters of `tqdm`.

        Raises:
            ValueError: shapes that do not fit, or a guidance that was asked for and cannot act.
            FloatingPointError: where logits, gradients or match scores are not finite; names the step.
        """
        batch, cells = input_ids.shape[0], self.config.num_image_tokens
        if image_codes is None:
            if image_mask is not None:
                raise ValueError("image_mask without image_codes: give the codes of the cells that are kept")
            image_codes = torch.zeros(batch, cells, dtype=torch.long, device=input_ids.device)
        elif image_codes.shape[-1] in self.config.grid_tokens:
            cells = image_codes.shape[-1]
        initial = torch.ones_like(image_codes, dtype=torch.bool) if image_mask is None else image_mask.bool()
        if image_codes.shape != (batch, cells) or initial.shape != (batch, cells):
            raise ValueError(
                f"image_codes {list(image_codes.shape)} and image_mask {list(initial.shape)} "
                f"must be [{batch}, {cells}]"
            )
        guidance = self._checked_guidance(itm_guidance)
        if guidance_scale == 1 and negative_input_ids is not None:
            raise ValueError("a negative prompt acts through guidance_scale: set it to another value than 1")
        if state_refresh < 1:
            raise ValueError(f"state_refresh must be at least 1, got {state_refresh}")
        schedule = DecodingSchedule(
            num_inference_steps, temperature, confidence_temperature, decoding, top_k, corrections
        )
        if decoding == "critic":
            self._trained_critic(cells)
        generators = per_sample_generators(generator, batch)
        self.gptface.check_codes(image_codes)
        prompt = Captions(input_ids, attention_mask)
        read, judged = [prompt], [prompt]
        if guidance_scale != 1 and negative_input_ids is None:
            read.append(Captions(self.gptface.empty_caption(batch)))
        elif negative_input_ids is not None:
            read.append(Captions(negative_input_ids, negative_attention_mask))
        if source_input_ids is not None:
            judged.append(Captions(source_input_ids, source_attention_mask))
        # What is the same in every step is computed once.
        table = self.gptface.embeddings.code_table(cells)
        guide = _Guide(guidance, table, generators)
        critic = self._trained_critic(cells) if guidance.iterations and guidance.critic_weight else None
        score = self._match_score(judged, plan_codes, critic) if guidance.iterations else None
        image_logits = self._image_logits(read, table, plan_codes)
        # captions read apart from the picture share one reading of it
        joint = len(judged) if self.match_head.reads_pairs else 1
        predicting = _StateRefresh(initial.repeat(len(read), 1), state_refresh)
        judging = _StateRefresh(initial.repeat(joint, 1), state_refresh)

        def predict(codes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            known = self.gptface.embeddings.embed_codes(codes, code_table=table)
            predicting.next_step()
            conditional, *unconditional = image_logits(known, mask, predicting.states())
            logits = classifier_free(conditional, unconditional[0], guidance_scale) if unconditional else conditional
            if score is None:
                return logits
            judging.next_step()
            return guide(
                logits, mask, lambda vectors: score(torch.where(mask[..., None], vectors, known), judging.states())
            )

        shown = dict(progress_bar) if isinstance(progress_bar, Mapping) else {"disable": not progress_bar}
        with tqdm(**{"total": schedule.most_passes, "desc": "decoding", **shown}) as bar:

            def on_step(step: int, codes: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                bar.update()
                if callback_on_step_end is None:
                    return codes, mask
                timestep = schedule.most_passes - 1 - step
                changed = callback_on_step_end(self, step, timestep, {"codes": codes, "mask": mask})
                return self._changed(codes, mask, changed or {})

            codes = fill_masked(image_codes.clone(), initial, predict, schedule, generators, on_step, self.criticise)
        match_scores = self._finite_match_scores(**prompt.arguments(), image_codes=codes, plan_codes=plan_codes)
        realness = None
        if self.config.critic_trained and codes.shape[1] == self.config.num_critic_tokens:
            least = self.criticise(codes).sort(1).values[:, : max(1, codes.shape[1] // LEAST_REAL)]
            realness = least.mean(1)
        return GPTFaceGenerationOutput(codes, match_scores, guide.divergence, realness=realness)

    def _changed(
        self, codes: torch.Tensor, mask: torch.Tensor, changed: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Codes and mask [B, N] of a step as a callback wants them. Raises `ValueError` where its tensors do not fit.
        """
        if not isinstance(changed, Mapping):
            raise ValueError(f"callback_on_step_end must give a dict of tensors or None, got {type(changed).__name__}")
        wanted = [changed.get(name, given) for name, given in (("codes", codes), ("mask", mask))]
        for each, given in zip(wanted, (codes, mask), strict=True):
            if each.shape != given.shape or each.dtype != given.dtype:
                raise ValueError(
                    f"callback_on_step_end gave {list(each.shape)} {each.dtype} for {list(given.shape)} {given.dtype}"
                )
        self.gptface.check_codes(wanted[0])
        return wanted[0].to(codes.device), wanted[1].to(mask.device)

    @outside_inference_mode
    @torch.no_grad()
    def generate_plan_first(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        plan_codes: torch.Tensor | None = None,
        *,
        num_inference_steps: int = 8,
        temperature: float = 1.0,
        num_fine_steps: int = 4,
        fine_temperature: float = 0.4,
        fine_guidance_scale: float = 1.5,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress_bar: bool | Mapping[str, Any] = False,
        **guidance: Any,
    ) -> GPTFaceGenerationOutput:
        r"""
        Fills the plan first, guided, and then the cells below those of its tokens that came out another way or lie
        beside such ones: half a mouth does not fit the other half of another.

        Args:
            input_ids, attention_mask: the prompt [B, T].
            image_codes, image_mask: as in [`generate`]; a token of the plan is filled where any of its cells is.
            plan_codes: the plan of the picture [B, P]; not needed where all cells are masked.
            num_inference_steps, temperature: of the plan.
            num_fine_steps, fine_temperature, fine_guidance_scale: of the cells below it, which follow it with little
                guidance.
            generator: one for each sample, or one that seeds them all.
            callback_on_step_end, progress_bar: as in [`generate`], for the steps of the plan, `codes` and `mask` [B,
                P], and then those of the cells.
            guidance: what else [`generate`] takes, for the plan.

        Raises:
            ValueError: a model without a plan, and as in [`generate`].
            FloatingPointError: as in [`generate`].
        """
        if not self.config.has_plan:
            raise ValueError("this model has no plan (config.image_tokenizer_config.plan_levels): use generate()")
        batch = len(input_ids)
        generators = per_sample_generators(generator, batch)
        steps = itertools.count()

        def on_step_end(model: Any, _: int, timestep: int, state: dict[str, torch.Tensor]) -> Any:
            return None if callback_on_step_end is None else callback_on_step_end(model, next(steps), timestep, state)

        shown: dict[str, Any] = {
            "generator": generators,
            "callback_on_step_end": on_step_end,
            "progress_bar": progress_bar,
        }
        known = image_codes is not None
        if known and (plan_codes is None or image_mask is None):
            raise ValueError("a picture needs its plan_codes and the image_mask of what is to be filled")
        if image_codes is None or plan_codes is None or image_mask is None:
            sizes = (self.config.num_image_tokens, self.config.num_plan_tokens)
            image_codes, plan_codes = (input_ids.new_zeros(batch, size) for size in sizes)
            image_mask = torch.ones_like(image_codes, dtype=torch.bool)
        side = self.config.plan_grid_size
        coarse = image_mask.unflatten(1, (side, 2, side, 2)).any(4).any(2).flatten(1)
        planned = self.generate(
            input_ids,
            attention_mask,
            plan_codes,
            coarse,
            num_inference_steps=num_inference_steps,
            temperature=temperature,
            **shown,
            **guidance,
        )
        changed = planned.codes != plan_codes if known else torch.ones_like(coarse)
        filled = image_mask & cells_below(with_neighbours(changed))
        fine = self.generate(
            input_ids,
            attention_mask,
            image_codes,
            filled,
            planned.codes,
            num_inference_steps=num_fine_steps,
            temperature=fine_temperature,
            guidance_scale=fine_guidance_scale,
            **shown,
        )
        return GPTFaceGenerationOutput(
            fine.codes, planned.match_scores, planned.guidance_kl, planned.codes, filled, planned.realness
        )

    def masked_caption(self, batch: int, num_tokens: int) -> torch.Tensor:
        """
        `[CLS] [MASK]… [SEP]` as ids [batch, num_tokens + 2]: the start of a caption of so many tokens.

        Raises:
            ValueError: where the model does not read so many.
        """
        room = self.config.max_text_length - 2
        if not 1 <= num_tokens <= room:
            raise ValueError(f"a caption of this model has 1 to {room} tokens, not {num_tokens}")
        ids = self.gptface.empty_caption(batch)
        masks = ids.new_full((batch, num_tokens), self.config.mask_token_id)
        return torch.cat([ids[:, :1], masks, ids[:, 1:]], 1)

    @outside_inference_mode
    @torch.no_grad()
    def generate_text(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_codes: torch.Tensor | None = None,
        *,
        suppress_tokens: Sequence[int] = (),
        num_inference_steps: int = 8,
        temperature: float = 1.0,
        confidence_temperature: float = 1.0,
        decoding: DecodingMode = "parallel",
        top_k: int | None = None,
        guidance_scale: float = 1.0,
        itm_guidance: ITMGuidance | dict | float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> GPTFaceTextGenerationOutput:
        r"""
        Fills the words that are `[MASK]` in `input_ids`; with [`masked_caption`] it writes a whole caption.

        Args:
            input_ids, attention_mask: the caption [B, T].
            image_codes: [B, N], the face.
            suppress_tokens: ids that are never written, beside the special ones of the configuration.
            num_inference_steps, temperature, confidence_temperature, decoding, top_k: as in [`generate`].
            guidance_scale: of classifier-free guidance away from what is written where the whole face is masked; 1 =
                off.
            itm_guidance, generator: as in [`generate`].

        Raises:
            ValueError: shapes that do not fit, no face, or a guidance that was asked for and cannot act.
            FloatingPointError: where logits, gradients or match scores are not finite; names the step.
        """
        batch, cells = input_ids.shape[0], self.config.num_image_tokens
        if image_codes is None or image_codes.shape != (batch, cells):
            shape = None if image_codes is None else list(image_codes.shape)
            raise ValueError(f"image_codes {shape} must be [{batch}, {cells}]: the face that the words are about")
        guidance = self._checked_guidance(itm_guidance)
        if guidance.critic_weight:
            raise ValueError("critic_weight is about faces that are drawn: the critic does not read what is written")
        schedule = DecodingSchedule(num_inference_steps, temperature, confidence_temperature, decoding, top_k)
        generators = per_sample_generators(generator, batch)
        allowed = self._words(suppress_tokens).to(input_ids.device)
        word_vectors = self.gptface.get_input_embeddings().weight
        guide = _Guide(guidance, word_vectors[allowed], generators)
        initial = input_ids == self.config.mask_token_id
        hidden_face = torch.ones_like(image_codes, dtype=torch.bool)

        # The loop counts words by their place among the allowed ones; given words stay out of it.
        def ids_of(places: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return torch.where(initial & ~mask, allowed[places], input_ids)

        def predict(places: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            caption = {"input_ids": ids_of(places, mask), "attention_mask": attention_mask}
            logits = self._text_logits(caption, mask, image_codes)[..., allowed]
            if guidance_scale != 1:
                unconditional = self._text_logits(caption, mask, image_codes, hidden_face)[..., allowed]
                logits = classifier_free(logits, unconditional, guidance_scale)
            known = word_vectors[caption["input_ids"]]

            def score(vectors: torch.Tensor) -> torch.Tensor:
                words = torch.where(mask[..., None], vectors, known)
                return self.match_log_odds(None, attention_mask, inputs_embeds=words, image_codes=image_codes)

            return guide(logits, mask, score)

        places = fill_masked(torch.zeros_like(input_ids), initial, predict, schedule, generators)
        sequences = ids_of(places, torch.zeros_like(initial))
        match_scores = self._finite_match_scores(sequences, attention_mask, image_codes=image_codes)
        return GPTFaceTextGenerationOutput(sequences, match_scores, guide.divergence)

    def _words(self, suppress_tokens: Sequence[int]) -> torch.Tensor:
        """Ids [V'] that may be written."""
        config = self.config
        special = {config.pad_token_id, config.cls_token_id, config.sep_token_id, config.mask_token_id}
        banned = special | set(suppress_tokens)
        return torch.tensor([index for index in range(config.vocab_size) if index not in banned])

    def _stack(self, captions: Sequence[Captions]) -> Captions:
        return Captions.stack(captions, self.config.pad_token_id or 0)

    def _image_logits(
        self, captions: Sequence[Captions], table: torch.Tensor, plan_codes: torch.Tensor | None = None
    ) -> Callable[..., tuple[torch.Tensor, ...]]:
        """
        Function of the vectors [B, N, H] of a grid's codes, its mask [B, N] and the states kept of it → logits over
        codes [M, K] of the masked cells in float32, for each of the captions: one pass for all of them. `plan_codes`
        [B, P] stand above the grid.
        """
        caption = self._stack(captions)
        count = len(captions)
        reads = self.lm_head.caption_reader is not None
        words = self.caption_states(len(caption.input_ids), **caption.arguments()) if reads else None
        plans = _repeated(plan_codes, count)

        def logits(
            vectors: torch.Tensor, mask: torch.Tensor, kept: GPTFaceKeptStates | None = None
        ) -> tuple[torch.Tensor, ...]:
            vectors = self.gptface.embeddings.mask_cells(vectors, mask).repeat(count, 1, 1)
            masks = mask.repeat(count, 1)
            outputs = self.gptface(
                **caption.arguments(),
                image_embeds=vectors,
                plan_codes=plans,
                image_state_mask=masks,
                kept_states=kept,
            )
            states = self.split_states(outputs)[1]
            queries = GPTFaceQueries.of(masks)
            states = queries.pad(states[masks])
            rows = self._cell_logits(
                states, table, words, caption.attention_mask, plan=self.config.is_plan(mask.shape[1])
            )
            return rows[queries.valid].float().chunk(count)

        return logits

    def _text_logits(
        self,
        caption: dict[str, torch.Tensor | None],
        mask: torch.Tensor,
        codes: torch.Tensor,
        image_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits over words [M, V] of the words in `mask` [B, T] in float32."""
        outputs = self.gptface(**caption, image_codes=codes, image_mask=image_mask, text_state_mask=mask)
        return self.lm_head.text(self.split_states(outputs)[0][mask]).float()

    def _finite_match_scores(self, input_ids=None, attention_mask=None, **inputs) -> torch.Tensor:
        scores = self.match_log_odds(input_ids, attention_mask, **inputs)
        if not torch.isfinite(scores).all():
            raise FloatingPointError("after the last decoding step: the match scores are not finite")
        return scores

    def _checked_guidance(self, value: ITMGuidance | dict | float | None) -> ITMGuidance:
        guidance = as_guidance(value)
        if guidance.iterations:
            self._check_match_head()
        return guidance

    def _check_match_head(self) -> None:
        if not self.config.match_trained:
            raise ValueError(
                "the image-text matching head of this checkpoint is not trained (config.match_trained is false): "
                "ITM guidance cannot act; use itm_guidance=None or pre-train with match_labels"
            )
