"""`pipeline("face-captioning")`: a photo → sentences about its faces."""

from collections.abc import Sequence
from typing import Any

import torch

from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration

from .face_pipeline import DECODING, FACES_AT_ONCE, SEEDING, FacePipeline, PipelineInput, as_list, split_parameters

DEFAULT_TOKENS = 8
DEFAULTS = {"num_inference_steps": 8, "temperature": 0.5, "itm_guidance": 1.0}


class FaceCaptioningPipeline(FacePipeline):
    """
    Writes captions of faces: all words masked, then filled under the face.

    ```python
    describe = pipeline("face-captioning")
    describe("portrait.jpg", seed=0)[0]["caption"]
    ```

    Args: Parameters of a call
        num_tokens: length of the caption in tokens, one number or a list of lengths to choose the best match from.
        num_captions: candidates of each length, ranked by match; candidate j uses seed + j.
        seed or generator: the same seed gives the same captions; one for each image, or a generator for each
            candidate, in lists.
        num_inference_steps, temperature, decoding, top_k: of the decoding, see [`DecodingSchedule`].
        guidance_scale: classifier-free guidance away from what is said of any face, 1 = off.
        itm_guidance: step size of the guidance by image-text matching, 0 = off (or a dict of `ITMGuidance` fields).
        face: `"largest"`, `"all"` or an index; aligned, landmarks: see [`FacePipeline.find_faces`].

    Returns for one image a list of dicts, best first: `caption`, `match_score`, `guidance_kl`, `box`, `seed`; with
    `face="all"` a list of such lists, one for each face. For a list of images a list of these.
    """

    model: GPTFaceForGuidedGeneration
    required_parts = ("gptface.", "lm_head.")
    per_input = ("landmarks", *SEEDING)
    candidates = "num_captions"

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        names = {
            "preprocess": ("face", "aligned", "landmarks"),
            "forward": (
                "num_tokens",
                "num_captions",
                *SEEDING,
                *DECODING,
            ),
            "postprocess": ("face",),
        }
        return split_parameters(kwargs, *names.values())  # type: ignore[return-value]

    def preprocess(self, source: PipelineInput, **find: Any) -> dict[str, Any]:
        faces = self.find_faces(self.load(source), **find)
        pixels = self.processor(images=[face.crop for face in faces])["pixel_values"]
        return {"pixel_values": pixels, "boxes": [face.box for face in faces]}

    def _forward(
        self,
        states: list[dict[str, Any]],
        num_tokens: int | list[int] = DEFAULT_TOKENS,
        **decoding: Any,
    ) -> list[dict[str, Any]]:
        lengths = as_list(num_tokens)
        counts = [len(state["boxes"]) for state in states]
        pixels = torch.cat([state["pixel_values"] for state in states]).split(FACES_AT_ONCE)
        codes = torch.cat([self.model.image_tokenizer.encode(part) for part in pixels]).split(counts)
        captions: list[list[Any]] = [[] for _ in states]
        # One face of each photo at a time: a photo with many is not a larger batch than was asked for.
        for number in range(max(counts)):
            having = [index for index, count in enumerate(counts) if number < count]
            faces = [codes[index][number] for index in having]
            found = self._describe(faces, [states[index]["seeds"] for index in having], lengths, decoding)
            for index, candidates in zip(having, found, strict=True):
                captions[index].append(candidates)
        return [{"captions": each, "boxes": state["boxes"]} for each, state in zip(captions, states, strict=True)]

    def _describe(
        self, faces: list[torch.Tensor], seeds: list[list[int]], lengths: Sequence[int], decoding: dict[str, Any]
    ) -> list[list[Any]]:
        """Codes [N] of faces → of each its candidates of all lengths: ids, match score, divergence and seed."""
        unknown_word = self.processor.tokenizer.unk_token_id
        codes = torch.cat([face.expand(len(each), -1) for face, each in zip(faces, seeds, strict=True)])
        candidates: list[list[Any]] = [[] for _ in faces]
        for length in lengths:
            output = self.model.generate_text(
                self.model.masked_caption(len(codes), length),
                image_codes=codes,
                suppress_tokens=[] if unknown_word is None else [unknown_word],
                **{**DEFAULTS, **decoding},
                generator=[torch.Generator().manual_seed(seed) for each in seeds for seed in each],
            )
            assert output.match_scores is not None and output.guidance_kl is not None
            rows = zip(output.sequences, output.match_scores, output.guidance_kl, strict=True)
            for found, each in zip(candidates, seeds, strict=True):
                found += [(*next(rows), seed) for seed in each]
        return candidates

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
