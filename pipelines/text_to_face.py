"""`pipeline("text-to-face")`: a sentence → an aligned face."""

from typing import Any

import torch
from transformers import Pipeline

from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.provenance import GENERATED, describe, mark

from .prompts import DECODING, candidate_seeds, encode_prompt, split_parameters

DEFAULTS = {
    "num_inference_steps": 16,
    "temperature": 0.8,  # with nothing given, cooler codes make all faces alike
    "guidance_scale": 3.0,
    "itm_guidance": 4.0,
}


class TextToFacePipeline(Pipeline):
    """
    Makes aligned faces under a prompt.

    ```python
    make = pipeline("text-to-face")
    make("a smiling woman with blond hair", seed=0)[0]["image"].save("face.png")
    ```

    Parameters of a call:
        prompts: what the face should be: a string, or a list of strings.
        negative_prompt: what to move away from; acts through `guidance_scale`.
        num_images_per_prompt: candidates, ranked by match; candidate j uses seed + j.
        seed or generator: the same seed gives the same picture.
        num_inference_steps, temperature, decoding, top_k: of the decoding, see [`DecodingSchedule`].
        guidance_scale: classifier-free guidance, 1 = off.
        itm_guidance: step size of the guidance by image-text matching, 0 = off (or a dict of `ITMGuidance` fields).

    Returns for one prompt a list of dicts, best first: `image` (PIL, the model's size), `match_score`, `guidance_kl`, `seed`;
    for a list of prompts a list of lists.
    """

    model: GPTFaceForGuidedGeneration
    processor: GPTFaceProcessor

    _load_processor = True  # type: ignore[assignment]
    _load_image_processor = _load_feature_extractor = _load_tokenizer = False  # type: ignore[assignment]

    def __call__(self, prompts: str | list[str], **kwargs: Any) -> Any:
        if isinstance(prompts, str) or not isinstance(prompts, list | tuple):
            return super().__call__({"prompt": prompts}, **kwargs)
        return [super(TextToFacePipeline, self).__call__({"prompt": prompt}, **kwargs) for prompt in prompts]

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward = (
            "num_images_per_prompt",
            "seed",
            "generator",
            *DECODING,
            "progress_bar",
        )
        return split_parameters(kwargs, ("negative_prompt",), forward, ())  # type: ignore[return-value]

    def preprocess(self, inputs: dict[str, Any], negative_prompt: str | None = None) -> dict[str, Any]:
        prompt = inputs["prompt"]
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f'prompt must say what the face should be, for example "a smiling man"; got {prompt!r}')
        negative = {}
        if negative_prompt is not None:
            encoded = encode_prompt(self.processor, "negative_prompt", negative_prompt)
            negative = {f"negative_{name}": tensor for name, tensor in encoded.items()}
        return {"prompt": prompt, "text": encode_prompt(self.processor, "prompt", prompt), "negative": negative}

    def _forward(
        self,
        inputs: dict[str, Any],
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        progress_bar: bool = False,
        **decoding: Any,
    ) -> dict[str, Any]:
        if num_images_per_prompt < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1, got {num_images_per_prompt}")
        seeds = candidate_seeds(seed, generator, num_images_per_prompt)
        captions = {**inputs["text"], **inputs["negative"]}
        output = self.model.generate(
            **{name: tensor.expand(len(seeds), -1) for name, tensor in captions.items()},
            **{**DEFAULTS, **decoding},
            generator=[torch.Generator().manual_seed(each) for each in seeds],
            progress_bar=progress_bar,
        )
        return {**output, "prompt": inputs["prompt"], "seeds": seeds}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        images = self.processor.decode_codes(outputs["codes"], self.model.image_tokenizer)
        description = describe(self.model, outputs["prompt"], GENERATED)
        for image, seed in zip(images, outputs["seeds"], strict=True):
            mark(image, description, seed)
        results = [
            {"image": image, "match_score": float(score), "guidance_kl": float(divergence), "seed": seed}
            for image, score, divergence, seed in zip(
                images, outputs["match_scores"], outputs["guidance_kl"], outputs["seeds"], strict=True
            )
        ]
        return sorted(results, key=lambda result: -result["match_score"])
