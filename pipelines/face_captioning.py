"""`pipeline("face-captioning")`: a photo → sentences about its faces."""

from typing import Any

import torch

from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration

from .face_pipeline import FacePipeline
from .prompts import DECODING, candidate_seeds, split_parameters

DEFAULT_TOKENS = 8
DEFAULTS = {"num_inference_steps": 8, "temperature": 0.5, "itm_guidance": 1.0}


class FaceCaptioningPipeline(FacePipeline):
    """
    Writes captions of faces: all words masked, then filled under the face.

    ```python
    describe = pipeline("face-captioning")
    describe("portrait.jpg", seed=0)[0]["caption"]
    ```

    Parameters of a call:
        num_tokens: length of the caption in tokens, one number or a list of lengths to choose the best match from.
        num_captions: candidates of each length, ranked by match; candidate j uses seed + j.
        seed or generator: the same seed gives the same captions.
        num_inference_steps, temperature, decoding, top_k: of the decoding, see [`DecodingSchedule`].
        guidance_scale: classifier-free guidance away from what is said of any face, 1 = off.
        itm_guidance: step size of the guidance by image-text matching, 0 = off (or a dict of `ITMGuidance` fields).
        face: `"largest"`, `"all"` or an index; aligned, landmarks: see [`FacePipeline.find_faces`].

    Returns for one image a list of dicts, best first: `caption`, `match_score`, `guidance_kl`, `box`, `seed`; with
    `face="all"` a list of such lists, one for each face. For a list of images a list of these.
    """

    model: GPTFaceForGuidedGeneration
    required_parts = ("gptface.", "lm_head.")

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        names = {
            "preprocess": ("face", "aligned", "landmarks"),
            "forward": (
                "num_tokens",
                "num_captions",
                "seed",
                "generator",
                *DECODING,
            ),
            "postprocess": ("face",),
        }
        return split_parameters(kwargs, *names.values())  # type: ignore[return-value]

    def preprocess(self, inputs: dict[str, Any], **find: Any) -> dict[str, Any]:
        faces = self.find_faces(self.load(inputs), **find)
        pixels = self.processor(images=[face.crop for face in faces])["pixel_values"]
        return {"pixel_values": pixels, "boxes": [face.box for face in faces]}

    def _forward(
        self,
        inputs: dict[str, Any],
        num_tokens: int | list[int] = DEFAULT_TOKENS,
        num_captions: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        **decoding: Any,
    ) -> dict[str, Any]:
        if num_captions < 1:
            raise ValueError(f"num_captions must be at least 1, got {num_captions}")
        seeds = candidate_seeds(seed, generator, num_captions)
        unknown_word = self.processor.tokenizer.unk_token_id
        captions = []
        for codes in self.model.image_tokenizer.encode(inputs["pixel_values"].to(self.model.dtype)):
            candidates: list[Any] = []
            for length in num_tokens if isinstance(num_tokens, list | tuple) else [num_tokens]:
                output = self.model.generate_text(
                    self.model.masked_caption(len(seeds), length),
                    image_codes=codes.expand(len(seeds), -1),
                    suppress_tokens=[] if unknown_word is None else [unknown_word],
                    **{**DEFAULTS, **decoding},
                    generator=[torch.Generator().manual_seed(each) for each in seeds],
                )
                assert output.match_scores is not None and output.guidance_kl is not None
                candidates += zip(output.sequences, output.match_scores, output.guidance_kl, seeds, strict=True)
            captions.append(candidates)
        return {"captions": captions, "boxes": inputs["boxes"]}

    def postprocess(self, outputs: dict[str, Any], face: str | int = "largest") -> list[Any]:
        results = []
        for candidates, box in zip(outputs["captions"], outputs["boxes"], strict=True):
            described = [
                {
                    "caption": self.processor.tokenizer.decode(ids, skip_special_tokens=True),
                    "match_score": float(score),
                    "guidance_kl": float(divergence),
                    "box": box,
                    "seed": seed,
                }
                for ids, score, divergence, seed in candidates
            ]
            results.append(sorted(described, key=lambda caption: -caption["match_score"]))
        return results if face == "all" else results[0]
