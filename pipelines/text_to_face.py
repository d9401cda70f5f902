"""`pipeline("text-to-face")`: a sentence → an aligned face."""

from typing import Any

import torch

from gptface.modeling_gptface.generation_gptface import Captions
from gptface.processing.provenance import GENERATED, describe, mark

from .face_pipeline import DECODING, SEEDING, PipelineInput, split_parameters
from .picture_generation import (
    WATCHING,
    GeneratedPictures,
    OutputType,
    PictureGeneration,
    as_output_type,
    encode_prompt,
)

DEFAULTS = {
    "num_inference_steps": 16,
    "temperature": 0.8,  # with nothing given, cooler codes make all faces alike
    "guidance_scale": 3.0,
    "itm_guidance": 4.0,
}
PLAN_DEFAULTS = DEFAULTS | {"num_inference_steps": 12}


class TextToFacePipeline(PictureGeneration):
    """
    Makes aligned faces under a prompt.

    ```python
    make = pipeline("text-to-face")
    make("a smiling woman with blond hair", seed=0).images[0].save("face.png")
    ```

    Args: Parameters of a call
        prompt: what the face should be: a string, a list of strings, a stream of them or of rows `{"prompt": …}`.
        negative_prompt: what to move away from, one or one for each prompt; acts through `guidance_scale`.
        num_images_per_prompt: candidates, ranked by match; candidate j uses seed + j.
        seed or generator: the same seed gives the same picture; a list of generators has one for each candidate of
            each prompt.
        plan_first: whether the coarse plan of the face is drawn first, under guidance, and then the codes below it; by
            default where the checkpoint has a trained plan.
        num_inference_steps, temperature, decoding, top_k: of the decoding (of the plan, where it is drawn first), see
            [`DecodingSchedule`].
        guidance_scale: classifier-free guidance, 1 = off.
        itm_guidance: step size of the guidance by image-text matching, 0 = off (or a dict of `ITMGuidance` fields).
        output_type: `"pil"`, `"np"` or `"pt"`, see [`as_output_type`].
        callback_on_step_end, callback_on_step_end_tensor_inputs, progress_bar: see [`PictureGeneration`].
        batch_size: prompts that go through the model at once.

    Returns for one prompt a list of dicts, best first, whose pictures are its `.images`: `image` (of the size of the
    checkpoint's refiner, else of its image tokenizer), `match_score`,
    `guidance_kl`, `seed`; for a list of prompts a list of lists.
    """

    input_name = "prompt"
    per_input = ("negative_prompt", *SEEDING)
    required_parts = ("gptface.", "lm_head.")

    def __call__(self, prompt: Any = None, *, prompts: Any = None, **kwargs: Any) -> Any:
        return super().__call__(prompt if prompts is None else prompts, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward = ("plan_first", "num_images_per_prompt", *SEEDING, *DECODING, *WATCHING)
        return split_parameters(kwargs, ("negative_prompt",), forward, ("output_type",))  # type: ignore[return-value]

    def preprocess(self, source: PipelineInput, negative_prompt: str | None = None) -> dict[str, Any]:
        prompt = source.value
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f'prompt must say what the face should be, for example "a smiling man"; got {prompt!r}')
        captions = {"": Captions(**encode_prompt(self.processor, "prompt", prompt))}
        if negative_prompt is not None:
            captions["negative"] = Captions(**encode_prompt(self.processor, "negative_prompt", negative_prompt))
        return {"prompt": prompt, "captions": captions}

    def _forward(
        self, states: list[dict[str, Any]], plan_first: bool | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        planned = self.model.config.plan_trained if plan_first is None else plan_first
        if planned and not self.model.config.plan_trained:
            raise ValueError("this checkpoint has no trained plan: leave plan_first out")
        generate = self.model.generate_plan_first if planned else self.model.generate
        defaults = PLAN_DEFAULTS if planned else DEFAULTS
        watching = self.watching(**{name: options.pop(name) for name in WATCHING if name in options})
        made: list[dict[str, Any]] = [{} for _ in states]
        for names in dict.fromkeys(tuple(state["captions"]) for state in states):  # with a negative prompt, or without
            group = [index for index, state in enumerate(states) if tuple(state["captions"]) == names]
            seeds = [states[index]["seeds"] for index in group]
            counts = [len(each) for each in seeds]
            output = generate(
                **self.caption_arguments([states[index]["captions"] for index in group], counts),
                **{**defaults, **options},
                generator=[torch.Generator().manual_seed(seed) for each in seeds for seed in each],
                **watching,
            )
            parts = zip(
                *(part.split(counts) for part in (output.codes, output.match_scores, output.guidance_kl)), strict=True
            )
            for index, (codes, scores, divergences) in zip(group, parts, strict=True):
                made[index] = {"codes": codes, "match_scores": scores, "guidance_kl": divergences}
        return [
            {"prompt": state["prompt"], "seeds": state["seeds"], **each}
            for state, each in zip(states, made, strict=True)
        ]

    @torch.no_grad()
    def postprocess(self, outputs: dict[str, Any], output_type: OutputType = "pil") -> GeneratedPictures:
        codes = outputs["codes"].to(self.model.device)
        pixels = self.model.image_tokenizer.decode_refined(codes)
        if not torch.isfinite(pixels).all():
            raise FloatingPointError("the pixels are not finite: the checkpoint is damaged")
        images = self.processor.pixels_to_pil(pixels)
        description = describe(self.model, outputs["prompt"], GENERATED)
        for image, seed in zip(images, outputs["seeds"], strict=True):
            mark(image, description, seed)
        results = [
            {
                "image": as_output_type(image, output_type),
                "match_score": float(score),
                "guidance_kl": float(divergence),
                "seed": seed,
            }
            for image, score, divergence, seed in zip(
                images, outputs["match_scores"], outputs["guidance_kl"], outputs["seeds"], strict=True
            )
        ]
        return GeneratedPictures(sorted(results, key=lambda result: -result["match_score"]))
