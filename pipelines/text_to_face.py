"""`pipeline("text-to-face")`: a sentence → an aligned face."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from gptface.modeling_gptface.generation_gptface import Captions
from gptface.processing.prompt_reading import EditIntent, read_prompt, without_edits
from gptface.processing.provenance import GENERATED, describe, mark

from .edit_verification import probability, read_heads, trust
from .face_pipeline import DECODING, SEEDING, PipelineInput, split_parameters
from .guided_face_editing import GuidedFaceEditingPipeline
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
# more of the first makes skin orange and white walls glow; matching does the rest
PLAN_DEFAULTS = DEFAULTS | {"num_inference_steps": 12, "guidance_scale": 1.5}
#: Edits that look better laid over a face that was drawn without them than drawn with it (lab/NOTES.md).
LAID_OVER = ("eyeglasses", "sunglasses", "hat", "beard", "stubble", "mustache", "goatee", "earrings")
#: What is drawn where a prompt says nothing else.
ANYBODY = "a face"


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
        num_images_per_prompt: candidates, ranked by `match_score`, `verified` and `realness` together, see [`trust`];
            candidate j uses seed + j.
        seed or generator: the same seed gives the same picture; a list of generators has one for each candidate of
            each prompt.
        draw: whether the model draws glasses, hats, beards and earrings, too; by default they are laid over the face
            that it draws from the other words, as [`GuidedFaceEditingPipeline`] does, where it has a face parser.
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
    checkpoint's refiner, else of its image tokenizer), `match_score` (of the codes under the words that were drawn),
    `realness` (a logit: how real the model's critic finds the plan where it is least so; None where there is no plan
    or no critic), `guidance_kl`, `seed`, `edits` (names of what was asked for and is not drawn with the face),
    `verified` (what was asked for, as the table of edits names it → how probable the model's own heads find it, in
    [0, 1]; of what they know); for a list of prompts a list of lists.
    """

    input_name = "prompt"
    per_input = ("negative_prompt", *SEEDING)
    required_parts = ("gptface.", "lm_head.")

    def __call__(self, prompt: Any = None, *, prompts: Any = None, **kwargs: Any) -> Any:
        return super().__call__(prompt if prompts is None else prompts, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward = ("plan_first", "num_images_per_prompt", *SEEDING, *DECODING, *WATCHING)
        return split_parameters(kwargs, ("negative_prompt", "draw"), forward, ("output_type",))  # type: ignore[return-value]

    def preprocess(
        self, source: PipelineInput, negative_prompt: str | None = None, draw: bool = False
    ) -> dict[str, Any]:
        prompt = source.value
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f'prompt must say what the face should be, for example "a smiling man"; got {prompt!r}')
        asked = asked_for(prompt)
        laid = [each for each in asked if each.edit.name in LAID_OVER and self._editing.has_face_parser and not draw]
        told = prompt if not laid else without_edits(prompt, [each.edit.name for each in laid]) or ANYBODY
        captions = {"": Captions(**encode_prompt(self.processor, "prompt", told))}
        if negative_prompt is not None:
            captions["negative"] = Captions(**encode_prompt(self.processor, "negative_prompt", negative_prompt))
        return {"prompt": prompt, "captions": captions, "asked": asked, "laid": laid}

    @property
    def _editing(self) -> GuidedFaceEditingPipeline:
        """Lays over what is not drawn, on the device that this pipeline is on by now."""
        spread = getattr(self.model, "hf_device_map", None) is not None  # over devices: it cannot be moved
        device = None if spread else self.device
        return GuidedFaceEditingPipeline(model=self.model, processor=self.processor, device=device)

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
            for name in ("codes", "match_scores", "guidance_kl", "realness"):
                values = getattr(output, name)
                parts = [None] * len(group) if values is None else values.split(counts)
                for index, part in zip(group, parts, strict=True):
                    made[index][name] = part
        return [
            {**{name: state[name] for name in ("prompt", "seeds", "asked", "laid")}, **each}
            for state, each in zip(states, made, strict=True)
        ]

    @torch.no_grad()
    def postprocess(self, outputs: dict[str, Any], output_type: OutputType = "pil") -> GeneratedPictures:
        codes = outputs["codes"].to(self.model.device)
        pixels = self.model.image_tokenizer.decode_refined(codes)
        if not torch.isfinite(pixels).all():
            raise FloatingPointError("the pixels are not finite: the checkpoint is damaged")
        images = self._lay_over(self.processor.pixels_to_pil(pixels), outputs["laid"], outputs["seeds"])
        edits = [each.edit for each in outputs["asked"]]
        side = self.model.image_tokenizer.config.image_size
        crops = [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]
        seen = read_heads(self.model, self.processor(images=crops)["pixel_values"].to(self.model.device), edits)
        description = describe(self.model, outputs["prompt"], GENERATED)
        results = []
        for index, (image, seed) in enumerate(zip(images, outputs["seeds"], strict=True)):
            mark(image, description, seed)
            found = {edit.name: probability(seen, edit.target) for edit in edits}
            results.append(
                {
                    "image": as_output_type(image, output_type),
                    "match_score": float(outputs["match_scores"][index]),
                    "realness": None if outputs["realness"] is None else float(outputs["realness"][index]),
                    "guidance_kl": float(outputs["guidance_kl"][index]),
                    "seed": seed,
                    "edits": [each.edit.name for each in outputs["laid"]],
                    "verified": {name: float(each[index]) for name, each in found.items() if each is not None},
                }
            )
        return GeneratedPictures(sorted(results, key=_trust, reverse=True))

    def _lay_over(
        self, faces: list[Image.Image], intents: Sequence[EditIntent], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Aligned faces with what was not drawn with them; it is drawn into those that do not show what it takes."""
        if not intents:
            return faces
        editing, options = self._editing, {"aligned": True, "force": True}
        for each in intents:  # one by one: a face may show what some of them take
            wish = f"{each.colour} {each.edit.phrase.removeprefix('a ')}".strip()
            results = [found[0] for found in editing(faces, wish, seed=list(seeds), **options)]
            faces = [
                editing(face, wish, seed=seed, draw=True, **options)[0]["image"] if _lacks(result) else result["image"]
                for face, seed, result in zip(faces, seeds, results, strict=True)
            ]
        return faces


def asked_for(prompt: str) -> tuple[EditIntent, ...]:
    """What of the table of edits a prompt asks for; nothing where it cannot be read."""
    try:
        return read_prompt(prompt).intents
    except ValueError:  # none, or some that exclude each other: the model may make of it what it can
        return ()


def _lacks(result: Mapping[str, Any]) -> bool:
    """Whether an edit was left out of a face in which no head finds it."""
    return result["match_score"] is None and not any(each["after"] >= 0.5 for each in result["verified"].values())


def _trust(result: Mapping[str, Any]) -> float:
    """See [`trust`]."""
    return trust({**result, "verified": {name: {"after": each} for name, each in result["verified"].items()}})
