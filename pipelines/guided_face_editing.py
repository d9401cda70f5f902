"""`pipeline("guided-face-editing")`: a photo and a sentence → the edited photo."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.utils import logging

from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner
from gptface.processing.alignment import align
from gptface.processing.composite import (
    COUNTS,
    CompositeMode,
    cells_to_mask,
    composite_crop,
    covered_cells,
    mask_to_cells,
    normalize_mask,
    paste_back,
)
from gptface.processing.composite import feather as fade_inwards
from gptface.processing.crown import find_crown, recolour_crown
from gptface.processing.hair import recolour_hair, refine_hair
from gptface.processing.holes import fill_from_edges
from gptface.processing.prompt_expansion import expand_prompt as expanded
from gptface.processing.prompt_expansion import tells_of_the_mouth
from gptface.processing.provenance import EDITED, describe, mark
from gptface.processing.regions import region_key
from gptface.processing.tone import match_tone

from .edit_area import named_area
from .edit_request import EditRequest, probabilities, read_requests
from .face_pipeline import AlignedFace, FacePipeline, as_list
from .prompts import DECODING, candidate_seeds, encode_prompt, split_parameters
from .refined_edit import refine_edit

logger = logging.get_logger(__name__)

# Pixels of a 128-px crop. A hole is filled from its edge first: below the edge of an edit lies no damage, only a smear.
FEATHER_RADIUS, HOLE_FEATHER_RADIUS = 6.0, 2.0
#: The refiner makes the edge fit by itself, and a wide one shows what the edit takes away.
REFINED_FEATHER_RADIUS = 4.0
#: Regions with a mouth: a prompt about another one is not told what becomes of the mouth.
SHOWS_THE_MOUTH = {"smile", "smiling_mouth", "mouth", "lower_face", "beard", "face", "all"}

DEFAULTS = {
    "num_inference_steps": 12,
    # cooler than the distribution that was learned: a small model is unsure of most cells
    "temperature": 0.4,
    "guidance_scale": 2.0,
    # moves the codes by 0.7 nats a cell: more changes little, less leaves the face as it was (model card)
    "itm_guidance": 4.0,
}
#: Where the plan is drawn first, guidance by matching does most; the other kind makes frames of glasses firmer, but breaks mouths.
PLAN_DEFAULTS = DEFAULTS | {"num_inference_steps": 8, "guidance_scale": 1.5}
#: Of a new colour for hair that is there: as only its colour is taken over, nothing gets coarse by it, and less leaves hair dark.
HAIR_COLOUR_GUIDANCE = 4.5


class GuidedFaceEditingPipeline(FacePipeline):
    """
    Edits faces in photos under a prompt; what the mask does not touch keeps its pixels.

    ```python
    edit = pipeline("guided-face-editing")
    edit("portrait.jpg", prompt="smiling", seed=0)[0]["image"].save("edited.png")
    ```

    Parameters of a call:
        prompt: what the face should be, one string or one for each image: edits of the table ([`list_edits`]) in one's own words, "make her
            smile", "without glasses, younger"; several are done one after the other, at once where a mask or region is given.
        strict: whether a prompt without a known edit is refused (by default), and other words are left out with a warning; with False the
            words go to the model as they are.
        force: edits also where the model's heads find all there already that is asked for.
        expand_prompt: whether "smiling" may become "smiling, mouth slightly open", see [`expand_prompt`]; true by default, where the
            mouth may change and `negative_prompt` does not speak of it.
        mask_image: white where the photo may change (size of the photo; of the crop with `aligned=True`).
        hole: what the mask covers is damaged or covered, nothing of it is read: it is filled from its edge (OpenCV), and the face's
            cells of which it covers more than half are redrawn, by default with `composite="replace"` and little `feather`.
        region: a named region or a list of them (`"smile"`, and `"mouth"` where the prompt speaks of one, redraw the chin too and put its lower edge back: `["smile", "chin"]` shows all); without mask and region the words of the prompt decide, and where they
            name no place the whole face may change. Of a region that changes which the model's face parser sees of what it is about, all of it without a parser. `"hair"` ends a little beside the hair, or, where the prompt names its colour alone, of the hair that is there (around the crop, too, which `mask` does not show): for hair that is to grow beyond it draw a mask. `"auto"` takes the cells that the match with the prompt depends on most.
        negative_prompt: what to move away from; acts through `guidance_scale`.
        source_prompt: what the face is now ("not smiling"); guidance by image-text matching and `"auto"` then go by the
            difference between both captions.
        strength: in (0, 1], share of the region's cells that are redrawn, the most salient first; below 1 nothing is redrawn that would be put back.
        plan_first: whether the coarse plan of the face is drawn first, under guidance, and then the codes below what changed of it; by
            default where the checkpoint has a trained plan and more than a colour of hair is to change.
        num_inference_steps, temperature, decoding, top_k: of the decoding (of the plan, where it is drawn first), see
            [`DecodingSchedule`].
        guidance_scale: classifier-free guidance, 1 = off; by default 4.5 where the prompt names a new colour of hair and nothing else changes, else 2; where the plan is drawn first 1.5, or 1 for an expression.
        itm_guidance: step size of the guidance by image-text matching, 0 = off (or a dict of `ITMGuidance` fields).
        state_refresh: of [`GPTFaceForGuidedGeneration.generate`]: 1 = exact, more is faster and approximate.
        num_images_per_prompt: candidates, ranked by match; candidate j uses seed + j.
        seed or generator: the same seed gives the same picture.
        face: `"largest"`, `"all"` or an index; aligned, landmarks: see [`FacePipeline.find_faces`].
        composite: how the edit gets into the photo: `"refined"`, the default where the checkpoint has a refiner (it draws the edit at twice
            the size, with the photo in view), or see [`composite_crop`].
        keep_tone: whether skin keeps its tone, by the refiner or see [`match_tone`]; by default where the prompt speaks of expressions
            alone and nothing is a hole. With `composite="replace"` it has no effect.
        feather: pixels of the model's crop over which the edit fades in from the edge of its mask inwards.
        callback_on_step_end: called with (step, {"codes", "mask", "images"}) after each step; `images` are the crops of all
            candidates as they are so far.

    Returns for one image a list of dicts, best first: `image` (the size of the input), `prompt` (what the model was told), `face` (edited crop), `mask` (crop),
    `match_score` (of the codes under that prompt, before anything is put back), `guidance_kl` (nats a cell by which matching moved the distributions), `box`, `seed`, `edits` (their names), `verified` (name → how probable the model's own heads find it `before` and `after`; of what they know), `note` (why nothing was painted, else None; then `match_score` is None); with `face="all"`, `face`, `mask` and `box` are lists. For a list of images a list of lists.
    """

    model: GPTFaceForGuidedGeneration
    per_input = ("landmarks", "prompt", "negative_prompt", "source_prompt", "mask_image")
    required_parts = ("gptface.", "lm_head.")

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        names = {
            "preprocess": (
                "prompt",
                "strict",
                "force",
                "negative_prompt",
                "source_prompt",
                "expand_prompt",
                "mask_image",
                "hole",
                "region",
                "face",
                "aligned",
                "landmarks",
            ),
            "forward": (
                "strength",
                *DECODING,
                "plan_first",
                "state_refresh",
                "num_images_per_prompt",
                "seed",
                "generator",
                "callback_on_step_end",
                "progress_bar",
            ),
            "postprocess": ("composite", "keep_tone", "feather", "face"),
        }
        return split_parameters(kwargs, *names.values())  # type: ignore[return-value]

    def run_single(
        self,
        inputs: dict[str, Any],
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """One photo: the edits that its prompt asks for, one after the other."""
        options = dict(preprocess_params)
        strict, force = options.pop("strict", True), options.pop("force", False)
        at_once = options.get("mask_image") is not None or options.get("region") is not None
        first, *others = read_requests(options.pop("prompt", None), strict, at_once)
        stages = forward_params, postprocess_params
        results = self._run_request(inputs, first, force, options, *stages)
        for request in others:
            results = [self._go_on(result, inputs, request, force, options, *stages) for result in results]
        return sorted(results, key=lambda result: -(result["match_score"] or 0.0))

    def _run_request(
        self,
        inputs: dict[str, Any],
        request: EditRequest,
        force: bool,
        options: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """The candidates of one pass, with what the heads say of them; the photo as it is where they find all there that is asked for."""
        prepared = self.preprocess(inputs, request, **options)
        before = self._verify(request, torch.cat([edit["pixel_values"] for edit in prepared["edits"]]))
        if not force and not prepared["hole"] and request.is_settled(before):
            results = [self._unchanged(prepared, forward_params.get("seed"), postprocess_params.get("face"))]
            note = f'the face is "{request.told}" already: nothing was painted; force=True edits it all the same'
        else:
            results = self.postprocess(self.forward(prepared, **forward_params), **postprocess_params)
            note = None
        for result in results:
            after = self._verify(request, self.processor(images=list(as_list(result["face"])))["pixel_values"])
            result["edits"] = [intent.edit.name for intent in request.intents]
            result["verified"] = {
                name: {"before": float(np.mean(before[name])), "after": float(np.mean(after[name]))} for name in before
            }
            result["note"] = note
        return results

    def _go_on(
        self,
        result: dict[str, Any],
        inputs: dict[str, Any],
        request: EditRequest,
        force: bool,
        *stages: dict[str, Any],
    ) -> dict[str, Any]:
        """A result after one more edit, with its own seed."""
        options, forward_params, postprocess_params = stages
        forward_params = {name: value for name, value in forward_params.items() if name != "generator"}
        forward_params |= {"seed": result["seed"], "num_images_per_prompt": 1}
        photo = {"image": result["image"], "name": inputs["name"]}
        after = self._run_request(photo, request, force, options, forward_params, postprocess_params)[0]
        masks = [
            Image.fromarray(np.maximum(np.asarray(earlier), np.asarray(later)))
            for earlier, later in zip(as_list(result["mask"]), as_list(after["mask"]), strict=True)
        ]
        scores = [each["match_score"] for each in (result, after) if each["match_score"] is not None]
        notes = [each["note"] for each in (result, after) if each["note"] is not None]
        return {
            **after,
            "prompt": f"{result['prompt']}, {after['prompt']}",
            "mask": masks if isinstance(after["mask"], list) else masks[0],
            "match_score": float(np.mean(scores)) if scores else None,
            "guidance_kl": float(np.mean([result["guidance_kl"], after["guidance_kl"]])),
            "edits": result["edits"] + after["edits"],
            "verified": result["verified"] | after["verified"],
            "note": "; ".join(notes) or None,
        }

    def _verify(self, request: EditRequest, pixels: torch.Tensor) -> dict[str, list[float]]:
        """What the model's own heads say of faces [B, 3, S, S], see [`probabilities`]."""
        return probabilities(self.model, pixels.to(self.device, self.model.dtype), request.targets)

    def _unchanged(self, prepared: dict[str, Any], seed: int | None, face: str | int | None) -> dict[str, Any]:
        """The result of an edit that there was no need for."""
        found = [edit["face"] for edit in prepared["edits"]]
        masks = [Image.new("L", each.crop.size) for each in found]
        single = face != "all"
        return {
            "image": prepared["photo"],
            "prompt": prepared["told"],
            "face": found[0].crop if single else [each.crop for each in found],
            "mask": masks[0] if single else masks,
            "match_score": None,
            "guidance_kl": 0.0,
            "box": found[0].box if single else [each.box for each in found],
            "seed": seed,
        }

    def preprocess(
        self,
        inputs: dict[str, Any],
        request: EditRequest,
        negative_prompt: str | None = None,
        source_prompt: str | None = None,
        expand_prompt: bool = True,
        mask_image: Any = None,
        hole: bool = False,
        region: str | list[str] | None = None,
        **find: Any,
    ) -> dict[str, Any]:
        photo = self.load(inputs)
        if mask_image is not None and region is not None:
            raise ValueError("give mask_image or region, not both")
        if hole and mask_image is None:
            raise ValueError("a hole needs its mask_image: white where the photo is damaged or covered")
        names = None if mask_image is not None else self._region_names(request, region)
        photo_mask = None if mask_image is None else normalize_mask(mask_image, photo.size)
        if hole and photo_mask is not None:
            photo_mask = (photo_mask > COUNTS).astype(np.float32)
            photo = fill_from_edges(photo, photo_mask > 0)
        faces = self.find_faces(photo, **find)
        edits = [self._prepare(photo, face, names, request.new_colour, photo_mask, hole) for face in faces]
        mouth = names is None or bool(SHOWS_THE_MOUTH & set(map(region_key, names)))
        told, text = self._told(request.told, expand_prompt and mouth and not tells_of_the_mouth(negative_prompt))
        return {
            "photo": photo,
            "photo_mask": photo_mask,
            "edits": edits,
            "hole": hole,
            "request": request,
            "told": told,
            "text": text,
            "negative": self._optional("negative_prompt", negative_prompt),
            "source": self._optional("source_prompt", source_prompt),
        }

    def _told(self, prompt: str, expand: bool) -> tuple[str, BatchFeature]:
        """What the model is told, and its tokens: the prompt, expanded where that is wanted and fits into what the model reads."""
        told = expanded(prompt) if expand else prompt
        text = encode_prompt(self.processor, "prompt", prompt)  # complains about what the user wrote
        if told != prompt:
            longer = self.processor(text=[told])
            fits = len(self.processor.tokenizer(told, verbose=False)["input_ids"]) == longer["input_ids"].shape[1]
            return (told, longer) if fits else (prompt, text)
        return prompt, text

    def _optional(self, name: str, text: str | None) -> dict[str, torch.Tensor]:
        """A second caption as arguments of `generate`; none where it is not given."""
        if text is None:
            return {}
        encoded = encode_prompt(self.processor, name, text)
        return {f"{name.removesuffix('_prompt')}_{key}": tensor for key, tensor in encoded.items()}

    @staticmethod
    def _region_names(request: EditRequest, region: str | list[str] | None) -> list[str] | None:
        """The named regions, or those of what is asked for; None for `"auto"`."""
        if region == "auto":
            return None
        if region is None:
            return list(request.regions)
        smiles = "smile" in request.regions
        return ["smiling_mouth" if smiles and region_key(name) == "mouth" else name for name in as_list(region)]

    def _prepare(
        self,
        photo: Image.Image,
        face: AlignedFace,
        names: list[str] | None,
        new_colour: bool,
        photo_mask: np.ndarray | None,
        hole: bool,
    ) -> dict[str, Any]:
        """One face: its pixels, the cells to redraw, the mask of the crop that bounds what may change, hair whose colour alone changes."""
        grid, size = self.model.config.grid_size, self.face_size
        cells, bound, hair, crown, gone = None, None, None, None, None
        if names is not None:
            parsing = self.parse_face(photo, face.matrix) if self.has_face_parser else None
            new_colour = new_colour and "hair" in map(region_key, names)
            if new_colour and parsing is not None:
                parsing = refine_hair(photo, parsing)
            area = named_area(names, grid, size, parsing, new_colour=new_colour)
            cells, bound, gone = area.cells, area.bound, area.gone
            if set(map(region_key, names)) == {"hair"}:
                hair = area.hair  # beside another edit it is painted: its colour would run over glasses and skin
            if parsing is not None and area.hair is not None and face.matrix is not None:
                crown = find_crown(photo.size, parsing, area.hair)
        if photo_mask is not None:
            picture = Image.fromarray(np.rint(photo_mask * 255).astype(np.uint8))
            crop = (
                picture.resize((size, size), Image.Resampling.BILINEAR)
                if face.matrix is None
                else align(picture, face.matrix, size)
            )
            bound = np.asarray(crop, dtype=np.float32) / 255
            cells = covered_cells(bound, grid) if hole else mask_to_cells(bound, grid)
            if not hole and not cells.any():
                raise ValueError("the mask does not touch the face")
        pixels = self.processor(images=[face.crop])["pixel_values"]
        return {
            "face": face,
            "pixel_values": pixels,
            "cells": cells,
            "bound": bound,
            "hair": hair,
            "crown": crown,
            "gone": gone,
        }

    def _forward(
        self,
        inputs: dict[str, Any],
        strength: float = 1.0,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        plan_first: bool | None = None,
        callback_on_step_end: Callable | None = None,
        progress_bar: bool = False,
        **decoding: Any,
    ) -> dict[str, Any]:
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {strength}")
        if num_images_per_prompt < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1, got {num_images_per_prompt}")
        seeds = candidate_seeds(seed, generator, num_images_per_prompt)
        captions = {**inputs["text"], **inputs["negative"], **inputs["source"]}
        for edit in inputs["edits"]:
            tokenizer = self.model.image_tokenizer
            latents = tokenizer.checked_latents(edit["pixel_values"].to(self.model.dtype))
            codes = tokenizer.quantizer(latents)[1].flatten(1)
            cells, bound = edit["cells"], edit["bound"]
            if strength < 1:
                edit["hair"] = edit["crown"] = None  # what of the hair has a new colour is not known
                if cells is not None and bound is not None:
                    cells = cells & mask_to_cells(bound, len(cells))  # what is put back is no share of the edit
            mask = self._cells_to_redraw(cells, codes, {**inputs["text"], **inputs["source"]}, strength)
            colour_alone = edit["hair"] is not None
            scale = {"guidance_scale": HAIR_COLOUR_GUIDANCE} if colour_alone else {}
            arguments = {
                **{name: tensor.expand(len(seeds), -1) for name, tensor in captions.items()},
                "image_codes": codes.expand(len(seeds), -1),
                "image_mask": mask.expand(len(seeds), -1),
                "generator": [torch.Generator().manual_seed(each) for each in seeds],
                "callback_on_step_end": self._with_pictures(callback_on_step_end),
                "progress_bar": progress_bar,
            }
            # what suits an edit suits it only as it was measured: with the plan or without, on hair that was found
            row = {} if inputs["request"].new_colour and not colour_alone else dict(inputs["request"].defaults)
            planned = self._draws_plan_first(plan_first, colour_alone, row.get("plan_first"))
            if row.pop("plan_first", planned) == planned:
                scale |= row
            if planned:
                plan = tokenizer.encode_plan(latents=latents).expand(len(seeds), -1)
                options = {**PLAN_DEFAULTS, **scale, **decoding}
                output = self.model.generate_plan_first(**arguments, plan_codes=plan, **options)
                edit["redrawn"] = output.filled
            else:
                output = self.model.generate(**arguments, **{**DEFAULTS, **scale, **decoding})
                edit["redrawn"] = mask.expand(len(seeds), -1)
            decoded = self.model.image_tokenizer.decode(torch.cat([codes, output.codes]))
            if not torch.isfinite(decoded).all():
                raise FloatingPointError("the decoded pixels are not finite: the checkpoint is damaged")
            edit["decoded"] = decoded.add(1).div(2).permute(0, 2, 3, 1)
            edit["match_scores"], edit["guidance_kl"] = output.match_scores, output.guidance_kl
        return {**inputs, "seeds": seeds}

    def _draws_plan_first(self, wanted: bool | None, colour_alone: bool, suits: bool | None) -> bool:
        trained = self.model.config.plan_trained
        if wanted and not trained:
            raise ValueError("this checkpoint has no trained plan: leave plan_first out")
        if wanted is not None:
            return wanted
        return trained and not colour_alone and suits is not False

    def _with_pictures(self, callback: Callable | None) -> Callable | None:
        """The user's callback, given the partial pictures too; they are decoded for nobody else."""
        if callback is None:
            return None

        def on_step_end(step: int, state: dict[str, Any]) -> None:
            tokenizer, codes = self.model.image_tokenizer, state["codes"]
            coarse = self.model.config.is_plan(codes.shape[1])
            images = self.processor.pixels_to_pil((tokenizer.decode_plan if coarse else tokenizer.decode)(codes))
            callback(step, {**state, "images": images})

        return on_step_end

    def _cells_to_redraw(
        self, cells: np.ndarray | None, codes: torch.Tensor, text: dict[str, torch.Tensor], strength: float
    ) -> torch.Tensor:
        """Cells [1, N] bool: all of the region, or the share `strength` that the match with the prompt depends on most."""
        if cells is None:
            region = torch.ones_like(codes, dtype=torch.bool)
            strength = strength * 0.25  # "auto" is about a part of the face, as the named regions are
        else:
            region = torch.from_numpy(cells.reshape(1, -1)).to(codes.device)
        if strength == 1 or not region.any():
            return region
        saliency = self.model.saliency(codes, **text).masked_fill(~region, -1.0)
        count = max(1, round(strength * int(region.sum())))
        return torch.zeros_like(region).scatter(1, saliency.topk(count, dim=1).indices, True)

    def postprocess(
        self,
        outputs: dict[str, Any],
        composite: CompositeMode | Literal["refined"] | None = None,
        keep_tone: bool | None = None,
        feather: float | None = None,
        face: str | int = "largest",
    ) -> list[dict[str, Any]]:
        hole, refiner = outputs["hole"], self.model.image_tokenizer.refiner
        if composite == "refined" and refiner is None:
            raise ValueError('this checkpoint has no refiner: leave composite="refined" out')
        if composite is None and refiner is not None:
            composite = "refined"
        composite = composite or ("replace" if hole else "adaptive")
        if keep_tone is None:
            keep_tone = not hole and outputs["request"].expression
        if feather is None:
            feather = REFINED_FEATHER_RADIUS if composite == "refined" else FEATHER_RADIUS
            feather = HOLE_FEATHER_RADIUS if hole else feather
        if not 0 <= feather < self.face_size:
            raise ValueError(f"feather must lie in 0…{self.face_size - 1} pixels of the crop, got {feather}")
        grid, size = self.model.config.grid_size, self.face_size
        photo: Image.Image = outputs["photo"]
        description = describe(self.model, outputs["request"].text, EDITED)
        results = []
        for index, seed in enumerate(outputs["seeds"]):
            image, faces, masks = photo, [], []
            for edit in outputs["edits"]:
                cells = edit["redrawn"][index].cpu().numpy().reshape(grid, grid)
                mask = fade_inwards(cells_to_mask(cells, size), feather)
                if edit["bound"] is not None:
                    mask = np.minimum(mask, fade_inwards(edit["bound"], feather))
                decoded = edit["decoded"].float().cpu().numpy()
                edited, reconstruction = decoded[index + 1], decoded[0]
                # of hair whose colour alone changes the strands stay: there is nothing to draw
                recolour = edit["hair"] is not None and composite in ("refined", "adaptive")
                if composite == "refined" and refiner is not None and not recolour:
                    pixels = (edited, reconstruction, mask)
                    image, crop = self._refined(image, edit, refiner, *pixels, keep_tone, outputs["photo_mask"])
                else:
                    mode: CompositeMode = "adaptive" if composite == "refined" else composite
                    if keep_tone and mode != "replace":
                        edited = match_tone(edited, reconstruction, mask)
                    kept = None
                    if recolour:
                        edited, kept = recolour_hair(edited, reconstruction, edit["hair"])
                    image, crop = self._composite(
                        image, edit["face"], edited, reconstruction, mask, mode, outputs["photo_mask"], kept
                    )
                if edit["crown"] is not None:
                    before, after = (np.asarray(each, np.float32) / 255 for each in (edit["face"].crop, crop))
                    image = recolour_crown(image, edit["crown"], before, after)
                if hole:  # strokes were filled before
                    mask = np.maximum(mask, edit["bound"])
                faces.append(crop)
                masks.append(Image.fromarray(np.rint(mask * 255).astype(np.uint8)))
            for picture in (image, *faces):
                mark(picture, description, seed)
            scores, divergences = (
                [float(edit[name][index]) for edit in outputs["edits"]] for name in ("match_scores", "guidance_kl")
            )
            boxes = [edit["face"].box for edit in outputs["edits"]]
            single = face != "all"
            results.append(
                {
                    "image": image,
                    "prompt": outputs["told"],
                    "face": faces[0] if single else faces,
                    "mask": masks[0] if single else masks,
                    "match_score": float(np.mean(scores)),
                    "guidance_kl": float(np.mean(divergences)),
                    "box": boxes[0] if single else boxes,
                    "seed": seed,
                }
            )
        return sorted(results, key=lambda result: -result["match_score"])

    def _refined(
        self,
        photo: Image.Image,
        edit: dict[str, Any],
        refiner: GPTFaceRefiner,
        edited: np.ndarray,
        reconstruction: np.ndarray,
        mask: np.ndarray,
        keep_tone: bool,
        photo_mask: np.ndarray | None,
    ) -> tuple[Image.Image, Image.Image]:
        """The photo and the crop with the edit as the refiner draws it."""
        face: AlignedFace = edit["face"]
        matrix = self._to_crop(photo, face)
        refined = refine_edit(refiner, photo, matrix, edited, reconstruction, mask, keep_tone, edit["gone"])
        pasted = paste_back(photo, refined.pixels, refined.mask, refined.matrix, "replace", None, photo_mask)
        original = np.asarray(face.crop, dtype=np.float32) / 255
        crop = composite_crop(original, refined.shrunk(self.face_size), mask, "replace")
        return pasted, Image.fromarray(np.rint(crop * 255).astype(np.uint8))

    def _to_crop(self, photo: Image.Image, face: AlignedFace) -> np.ndarray:
        """[2, 3] from photo to crop; an aligned input of another size is a photo whose crop is all of it."""
        if face.matrix is not None:
            return face.matrix
        scale = self.face_size / np.array(photo.size, dtype=np.float64)
        return np.array([[scale[0], 0, 0], [0, scale[1], 0]])

    def _composite(
        self,
        photo: Image.Image,
        face: AlignedFace,
        edited: np.ndarray,
        reconstruction: np.ndarray,
        mask: np.ndarray,
        mode: CompositeMode,
        photo_mask: np.ndarray | None,
        kept: np.ndarray | None,
    ) -> tuple[Image.Image, Image.Image]:
        """The photo and the crop with the edit in them."""
        original = np.asarray(face.crop, dtype=np.float32) / 255
        crop = composite_crop(original, edited, mask, mode, reconstruction, kept)
        crop_image = Image.fromarray(np.rint(crop * 255).astype(np.uint8))
        matrix = self._to_crop(photo, face)
        pasted = paste_back(photo, edited, mask, matrix, mode, reconstruction, photo_mask, kept)
        return pasted, crop_image
