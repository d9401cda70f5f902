"""`pipeline("guided-face-editing")`: a photo and a sentence → the edited photo."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.generation_gptface import Captions
from gptface.processing.alignment import align, crop_matrix
from gptface.processing.blending import COMPOSITE_MODES, CompositeMode, find_toning, keep_toning
from gptface.processing.edits import Edit
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.image_loading import ORIENTATION, to_rgb
from gptface.processing.masks import COUNTS, fill_from_edges, hole_cells, mask_to_cells, normalize_mask
from gptface.processing.prompt_words import expand_prompt as expanded
from gptface.processing.prompt_words import tells_of_the_mouth
from gptface.processing.provenance import EDITED, describe, mark
from gptface.processing.regions import region_key

from .edit_blending import blend_candidate
from .edit_drawing import EditDrawing
from .edit_plan import (
    EditArea,
    EditedFace,
    EditedPhoto,
    EditPlan,
    EditRequest,
    FacePlan,
    FaceTransfers,
    lay_over,
    named_area,
    read_requests,
)
from .edit_verification import HeadScores, kept_attributes, kept_outside, read_heads, trust, verify
from .face_pipeline import DECODING, SEEDING, AlignedFace, FacePipeline, PipelineInput, as_list, split_parameters
from .picture_generation import (
    WATCHING,
    GeneratedPictures,
    OutputType,
    as_output_type,
    encode_prompt,
)

#: Regions with a mouth: a prompt about another one is not told what becomes of the mouth.
SHOWS_THE_MOUTH = {"smile", "smiling_mouth", "resting_mouth", "mouth", "lower_face", "face", "all"}

#: Pixels of the 128-pixel crop beside what covers a face that go with it: its edge and shadow.
COVERING_EDGE = 3.0


class GuidedFaceEditingPipeline(FacePipeline, EditDrawing):
    """
    Edits faces in photos under a prompt; what the mask does not touch keeps its pixels.

    ```python
    edit = pipeline("guided-face-editing")
    edit("portrait.jpg", "smiling", seed=0).images[0].save("edited.png")
    ```

    Args: Parameters of a call
        images: a photo, or several, see [`BatchedPipeline`]; rows `{"image": …, "prompt": …}` bring their own prompt
            (and negative_prompt, source_prompt, mask_image, landmarks, seed).
        prompt: what the face should be, one string or one for each image: edits of the table ([`list_edits`]) in one's
            own words, "make her smile", "without glasses, younger"; several are done one after the other, at once
            where a mask or region is given.
        strict: whether a prompt without a known edit is refused (by default), and other words are left out with a
            warning; with False the words go to the model as they are.
        force: edits also where the model's heads find all there already that is asked for.
        draw: whether the model draws what else is laid over the photo (see `region`), under guidance; false by
            default, for what is laid over looks better.
        expand_prompt: whether "smiling" may become "smiling, mouth slightly open", see [`expand_prompt`]; true by
            default, where the mouth may change and `negative_prompt` does not speak of it.
        mask_image: white where the photo may change (size of the photo; of the crop with `aligned=True`).
        hole: what the mask covers is damaged or covered, nothing of it is read: it is filled from its edge (OpenCV),
            and the face's cells of which it covers more than half are redrawn, with little `feather`.
        region: a named region or a list of them (`"smile"`, and `"mouth"` where the prompt speaks of one, redraw the
            chin too and put its lower edge back: `["smile", "chin"]` shows all); without mask and region the words of
            the prompt decide, and where they name no place the whole face may change. Of a region that changes which
            the model's face parser sees of what it is about, all of it without a parser. `"hair"` ends a little beside
            the hair: for hair that is to grow beyond it draw a mask. Colours of hair, lipstick, glasses, beards,
            bangs and ages are not drawn but laid over what the face parser sees, around the crop, too, see
            [`Transfer`], and for expressions and brows the photo's own pixels are moved, all that are asked for at
            once; where a face does not show what that takes (eyes for glasses), or other regions are named than those
            of the edit, they are drawn; where drawing is no use (hair for bangs, a mouth that is not whole), nothing
            is done, and `note` says so.
            `"auto"` takes the cells that the match with the prompt depends on most.
        negative_prompt: what to move away from; acts through `guidance_scale`.
        source_prompt: what the face is now ("not smiling"); guidance by image-text matching and `"auto"` then go by
            the difference between both captions.
        strength: in (0, 1], share of the region's cells that are redrawn, the most salient first; below 1 nothing is
            redrawn that would be put back; by default all, of an age 0.3, where neither mask nor region is given. Of a
            change that is not drawn the share of the way to it.
        plan_first: whether the coarse plan of the face is drawn first, under guidance, and then the codes below what
            changed of it and beside that; by default where the checkpoint has a trained plan and the edit suits it.
        num_inference_steps, temperature, decoding, top_k, corrections: of the decoding (of the plan, where it is drawn
            first), see [`DecodingSchedule`]; eyeglasses that are drawn are decoded by the critic, with two rounds of
            correction.
        guidance_scale: classifier-free guidance, 1 = off; by default 2; where the plan is drawn first 1.5, or 1 for an
            expression.
        itm_guidance: step size of the guidance by image-text matching, 0 = off (or a dict of `ITMGuidance` fields;
            where the plan is drawn first and the checkpoint has a critic, its word counts with `critic_weight`).
        state_refresh: of [`GPTFaceForGuidedGeneration.generate`]: 1 = exact, more is faster and approximate.
        num_images_per_prompt: candidates, ranked by `match_score`, `verified` and `realness` together, see [`trust`];
            candidate j uses seed + j.
        seed or generator: the same seed gives the same picture; one for each image, or a generator for each candidate,
            in lists.
        batch_size: photos that go through the model at once; a picture depends on what else is in its batch by
            rounding alone.
        face: `"largest"`, `"all"` or an index; aligned, landmarks: see [`FacePipeline.find_faces`].
        composite: how the edit gets into the photo, see `COMPOSITE_MODES`: by default `"blend"`.
        keep_colour_space: whether a black-and-white or toned photo stays one: then only brightness changes, see
            [`keep_toning`]. Colour photos are not affected.
        feather: pixels of the model's crop over which the edit fades in from the edge of its mask inwards.
        output_type: of `image`: `"pil"`, `"np"` or `"pt"`, see [`as_output_type`].
        callback_on_step_end, callback_on_step_end_tensor_inputs, progress_bar: see [`PictureGeneration`].

    Returns for one image a list of dicts, best first, whose pictures are its `.images`: `image` (the size of the
    input), `prompt` (what the model was told), `face` (edited crop), `mask` (mode `"L"`, the size of the input: how
    much of each pixel is the edit's; where it is 0 the photo is as it was), `match_score` (of the codes under that
    prompt, before anything is put back), `realness` (of the plan that was drawn, a logit: how real the model's critic
    finds it where it is least so; None where there is no plan or no critic), `guidance_kl` (nats a cell by which
    matching moved the distributions), `box`,
    `seed`, `edits` (their names), `verified` (name → how probable the model's own heads find it `before` and `after`,
    in [0, 1]; of what they know), `kept` (how far the rest stayed, in [0, 1]: `attributes`, 1 less the mean change of
    the probabilities of the other attributes, 0.9 to 0.98 in most edits, None of a model without that head; `outside`,
    the share of the pixels outside of the mask that are the photo's bit for bit), `note` (which edits were left out,
    in how many of the faces, and why, or that what was hidden had to be made up, such as eyes behind dark glasses;
    else None); with `face="all"`, `face` and `box` are lists, and
    each face gets the edit as it suits that. Where nothing was painted at all `match_score` is None. For a list of
    images a list of lists.
    """

    per_input = ("landmarks", "prompt", "negative_prompt", "source_prompt", "mask_image", *SEEDING)
    required_parts = ("gptface.", "lm_head.")

    def __call__(self, images: Any = None, prompt: Any = None, **kwargs: Any) -> Any:
        return super().__call__(images, prompt=prompt, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        blending = ("composite", "feather", "face")
        composite = kwargs.get("composite")
        if composite is not None and composite not in COMPOSITE_MODES:
            known = ", ".join(f'"{mode}" ({meaning})' for mode, meaning in COMPOSITE_MODES.items())
            raise ValueError(f"composite must be one of {known}; got {composite!r}")
        names = {
            "preprocess": (
                "prompt",
                "strict",
                "force",
                "draw",
                "negative_prompt",
                "source_prompt",
                "expand_prompt",
                "mask_image",
                "hole",
                "region",
                "strength",
                "keep_colour_space",
                "face",
                "aligned",
                "landmarks",
            ),
            # an edit that is done after another starts from a photo with that one in it
            "forward": (
                *DECODING,
                "corrections",
                "plan_first",
                "state_refresh",
                "num_images_per_prompt",
                *SEEDING,
                *WATCHING,
                *blending,
            ),
            "postprocess": (*blending, "output_type"),
        }
        return split_parameters(kwargs, *names.values())  # type: ignore[return-value]

    def preprocess(
        self, source: PipelineInput, prompt: Any = None, strict: bool = True, force: bool = False, **options: Any
    ) -> dict[str, Any]:
        """One photo → the plan of the first edit that its prompt asks for, and what is to be done after it."""
        at_once = options.get("mask_image") is not None or options.get("region") is not None
        requests = read_requests(prompt, strict, at_once, bool(options.get("draw")))
        plan = self.plan(self.load(source), requests[0], **options)
        return {"plan": plan, "requests": requests, "options": options, "force": force, "name": source.name}

    def _forward(
        self,
        states: list[dict[str, Any]],
        composite: CompositeMode = "blend",
        feather: float | None = None,
        face: str | int = "largest",
        **drawing: Any,
    ) -> list[dict[str, Any]]:
        """Draws the edits: the first of all photos, then the next one of those that have more, on what came out."""
        plans, seeds, force = ([state[name] for state in states] for name in ("plan", "seeds", "force"))
        drawing["edits"] = [edit for state in states for edit in _edits(state["requests"])]
        edited = [[each] for each in self._draw(plans, seeds, force, **drawing)]
        before = [drawn.before for (drawn,) in edited]
        earlier: list[list[dict[str, Any]]] = [[] for _ in states]
        for turn in range(1, max(len(state["requests"]) for state in states)):
            going = [index for index, state in enumerate(states) if turn < len(state["requests"])]
            for index in going:
                earlier[index] = self._results(edited[index], earlier[index], composite, feather, face)
                edited[index] = []
            for candidate in range(max(len(earlier[index]) for index in going)):
                having = [index for index in going if candidate < len(earlier[index])]
                plans, seeds = [], []
                for index in having:
                    state, result = states[index], earlier[index][candidate]
                    photo = self.load(PipelineInput(result["image"], state["name"]))
                    # where they were in the user's photo: found anew, they would lie a little elsewhere
                    faces = [replace(each.face, crop=self._crop(photo, each.face)) for each in state["plan"].faces]
                    plans.append(self.plan(photo, state["requests"][turn], faces=faces, **state["options"]))
                    seeds.append([result["seed"]])
                drawn = self._draw(plans, seeds, [states[index]["force"] for index in having], **drawing)
                for index, each in zip(having, drawn, strict=True):
                    edited[index].append(each)
        return [
            {"edited": drawn, "earlier": results, "plan": state["plan"], "before": seen, "requests": state["requests"]}
            for drawn, results, state, seen in zip(edited, earlier, states, before, strict=True)
        ]

    def postprocess(
        self,
        outputs: dict[str, Any],
        composite: CompositeMode = "blend",
        feather: float | None = None,
        face: str | int = "largest",
        output_type: OutputType = "pil",
    ) -> GeneratedPictures:
        results = self._results(outputs["edited"], outputs["earlier"], composite, feather, face)
        plan, before = outputs["plan"], outputs["before"]
        edits = _edits(outputs["requests"])
        for result in results:
            after = self._read_heads(edits, [self._crop(result["image"], each.face) for each in plan.faces])
            result["verified"] = verify(edits, before, after)
            result["kept"] = {
                "attributes": kept_attributes(edits, before, after),
                "outside": kept_outside(plan.photo, result["image"], result["mask"]),
            }
        results.sort(key=trust, reverse=True)
        return GeneratedPictures({**each, "image": as_output_type(each["image"], output_type)} for each in results)

    def _results(
        self, edited: Sequence[EditedPhoto], earlier: Sequence[dict[str, Any]], *blending: Any
    ) -> list[dict[str, Any]]:
        """What was drawn of one photo → its results; with `earlier` ones these, each after what was drawn on it."""
        results = [self._finish(each, *blending) for each in edited]
        if not earlier:
            return results[0]
        return [_after_another(before, after[0]) for before, after in zip(earlier, results, strict=True)]

    def _finish(self, edited: EditedPhoto, *blending: Any) -> list[dict[str, Any]]:
        """The candidates of one pass in the photo, in the order of their seeds."""
        results = [self._unchanged(edited, *blending)] if edited.note else self._blend(edited, *blending)
        plan = edited.plan
        told = {"edits": [edit.name for edit in plan.request.edits], "note": edited.note or plan.note}
        return [result | told for result in results]

    def _read_heads(self, edits: Sequence[Edit], crops: Sequence[Image.Image]) -> HeadScores:
        """What the model's own heads see in crops of faces, those that edits are about."""
        return read_heads(self.model, self.processor(images=list(crops))["pixel_values"].to(self.device), edits)

    @staticmethod
    def _unchanged(edited: EditedPhoto, *blending: Any) -> dict[str, Any]:
        """The result of an edit that there was no need for."""
        found = [each.face for each in edited.plan.faces]
        single = blending[-1] != "all"
        return {
            "image": edited.plan.photo,
            "prompt": edited.plan.told,
            "face": found[0].crop if single else [each.crop for each in found],
            "mask": Image.new("L", edited.plan.photo.size),
            "match_score": None,
            "guidance_kl": 0.0,
            "realness": None,
            "box": found[0].box if single else [each.box for each in found],
            "seed": edited.seeds[0],
        }

    def plan(
        self,
        photo: Image.Image,
        request: EditRequest,
        negative_prompt: str | None = None,
        source_prompt: str | None = None,
        draw: bool = False,
        expand_prompt: bool = True,
        mask_image: Any = None,
        hole: bool = False,
        region: str | list[str] | None = None,
        strength: float | None = None,
        keep_colour_space: bool = True,
        faces: Sequence[AlignedFace] | None = None,
        **find: Any,
    ) -> EditPlan:
        """
        What an edit will do to a photo; for the other parameters see the class.

        Args:
            faces: which faces, where they are known already.

        Raises:
            ValueError: parameters that make no sense, or not together.
            FaceNotFoundError: no such face.
        """
        if mask_image is not None and region is not None:
            raise ValueError("give mask_image or region, not both")
        if hole and mask_image is None:
            raise ValueError("a hole needs its mask_image: white where the photo is damaged or covered")
        own_regions = mask_image is None and region is None
        share = 1.0 if strength is None else strength
        if strength is None:
            strength = request.defaults.get("strength", 1.0) if own_regions else 1.0
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {strength}")
        names = None if mask_image is not None else self._region_names(request, region)
        located = None if faces is None else list(faces)
        photo_mask = None
        parsings: Sequence[FaceParsing | None] | None = None
        if mask_image is not None:
            photo_mask = normalize_mask(mask_image, photo.size, photo.info.get(ORIENTATION, 1))
        elif request.covering and own_regions:
            located = self.find_faces(photo, **find) if located is None else located
            parsings = covered = self._parse_covered(photo, located, request)
            photo_mask = self._covered(photo, covered, request)
            if photo_mask is not None:
                hole, names = True, None
        if hole and photo_mask is not None:
            photo_mask = (photo_mask > COUNTS).astype(np.float32)
            photo = fill_from_edges(photo, photo_mask > 0)
        if located is None:
            located = self.find_faces(photo, **find)
        if hole and photo_mask is not None:
            guessed = find.get("landmarks") is None  # who gives some knows them
            located = [self._as_seen(photo, each, photo_mask, guessed) for each in located]
        laid_over = not draw and not hole and (region is None or set(names or ()) == set(request.regions))
        # of faces that wear nothing that could be taken off, too, it is told
        told_of = request if laid_over or (parsings is not None and not draw) else None
        plans = [
            self._plan_face(photo, face, names, photo_mask, hole, told_of, share, parsing)
            for face, parsing in zip(located, parsings or [None] * len(located), strict=True)
        ]
        if strength < 1:
            plans = [_in_part(each) if each.transfers is None else each for each in plans]
        mouth = names is None or bool(SHOWS_THE_MOUTH & set(map(region_key, names)))
        told, text = self.told(request.told, expand_prompt and mouth and not tells_of_the_mouth(negative_prompt))
        captions = {"": text}
        for name, given in (("negative", negative_prompt), ("source", source_prompt)):
            if given is not None:
                captions[name] = Captions(**encode_prompt(self.processor, f"{name}_prompt", given))
        toning = find_toning(photo) if keep_colour_space else None
        return EditPlan(
            photo,
            photo_mask,
            tuple(plans),
            hole,
            request,
            told,
            captions,
            strength,
            toning,
            None if names is None else tuple(names),
            laid_over,
            share,
        )

    def _parse_covered(
        self, photo: Image.Image, faces: Sequence[AlignedFace], request: EditRequest
    ) -> list[FaceParsing]:
        """
        What faces of which something is to be taken off show.

        Raises:
            ValueError: a face parser that does not know such things.
        """
        name = request.covering
        if not self.has_face_parser or name not in self.require_face_parser().config.class_names:
            raise ValueError(
                f"the face parser of this checkpoint cannot find a {name.replace('_', ' ')}: give mask_image, white "
                "where it is, and hole=True"
            )
        return [self.parse_face(photo, face.matrix) for face in faces]

    @staticmethod
    def _covered(photo: Image.Image, parsings: Sequence[FaceParsing], request: EditRequest) -> np.ndarray | None:
        """
        What of a photo shows what covers faces, with its edges, float32 [height, width]; None where none is worn.
        """
        worn = [
            each.photo_mask(request.covering, photo.size, COVERING_EDGE)
            for each in parsings
            if request.edits[0].suits(each)
        ]
        return np.max(worn, axis=0) if worn else None

    def _as_seen(self, photo: Image.Image, face: AlignedFace, hole: np.ndarray, guessed: bool) -> AlignedFace:
        """
        A face with a hole [height, width] in it; aligned, where a detector has `guessed` the landmarks, by those that
        are seen, if two at least are.
        """
        if face.landmarks is None or not guessed:
            return replace(face, crop=self._crop(photo, face))
        x, y = np.floor(face.landmarks).astype(int).T
        known = hole[y.clip(0, photo.height - 1), x.clip(0, photo.width - 1)] == 0
        matrix = crop_matrix(face.landmarks, self.face_size, known if known.sum() > 1 else None)
        return replace(face, crop=self._crop(photo, replace(face, matrix=matrix)), matrix=matrix)

    def replan(self, plan: EditPlan, photo: Image.Image, matrix: np.ndarray) -> EditPlan:
        """
        The plan of one face for another photo of it, such as the next frame of a film.

        Args:
            photo: RGB or RGBA.
            matrix: [2, 3] from that photo to the crop.
        """
        face = AlignedFace(align(photo, matrix, self.face_size), matrix, None)
        names = None if plan.names is None else list(plan.names)
        request = plan.request if plan.laid_over and plan.faces[0].transfers is not None else None
        planned = self._plan_face(photo, face, names, None, False, request, plan.share)
        return replace(plan, photo=photo, faces=(planned,))

    def told(self, prompt: str, expand: bool) -> tuple[str, Captions]:
        """
        What the model is told, and its tokens: the prompt, expanded where that is wanted and fits into what the model
        reads.
        """
        told = expanded(prompt) if expand else prompt
        text = encode_prompt(self.processor, "prompt", prompt)  # complains about what the user wrote
        if told != prompt:
            longer = self.processor(text=[told])
            if len(self.processor.tokenizer(told, verbose=False)["input_ids"]) == longer["input_ids"].shape[1]:
                return told, Captions(**longer)
        return prompt, Captions(**text)

    @staticmethod
    def _region_names(request: EditRequest, region: str | list[str] | None) -> list[str] | None:
        """The named regions, or those of what is asked for; None for `"auto"`."""
        if region == "auto":
            return None
        if region is None:
            return list(request.regions)
        smiles = "smile" in request.regions
        return ["smiling_mouth" if smiles and region_key(name) == "mouth" else name for name in as_list(region)]

    def _plan_face(
        self,
        photo: Image.Image,
        face: AlignedFace,
        names: list[str] | None,
        photo_mask: np.ndarray | None,
        hole: bool,
        request: EditRequest | None,
        share: float,
        parsing: FaceParsing | None = None,
    ) -> FacePlan:
        """
        What is to be done to one face: that of named regions, of a mask, or (neither) what the match with the prompt
        will say; and what of a `request` is laid over it, for a `share` of the way, see [`lay_over`]. `parsing` is
        what it shows, where that is known already.
        """
        grid, size = self.model.config.grid_size, self.face_size
        area: EditArea | None = None
        if parsing is None and self.has_face_parser and (names is not None or request is not None):
            parsing = self.parse_face(photo, face.matrix)
        if names is not None:
            area = named_area(names, grid, size, parsing)
        if photo_mask is not None:
            picture = Image.fromarray(np.rint(photo_mask * 255).astype(np.uint8))
            crop = (
                picture.resize((size, size), Image.Resampling.BILINEAR)
                if face.matrix is None
                else align(picture, face.matrix, size)
            )
            bound = np.asarray(crop, dtype=np.float32) / 255
            cells = hole_cells(bound, grid) if hole else mask_to_cells(bound, grid)
            if not hole and not cells.any():
                raise ValueError("the mask does not touch the face")
            area = EditArea(cells, bound)
        laid: FaceTransfers | None = None
        signs: tuple[bool | None, ...] = ()
        if request is not None and parsing is not None:
            drawn = (photo_mask is not None and not hole) or len(request.intents) > 1
            laid, signs = lay_over(request, photo, parsing, share, drawn)
        return FacePlan(face, self.processor(images=[face.crop])["pixel_values"], area, laid, signs)

    def _draw(
        self,
        plans: Sequence[EditPlan],
        seeds: Sequence[Sequence[int]],
        force: Sequence[bool],
        edits: Sequence[Edit],
        **options: Any,
    ) -> list[EditedPhoto]:
        """
        What the model draws of photos under their plans, all at once; nothing of those whose faces have all that is
        asked for. `edits` are those that the heads are asked about.
        """
        watching = self.watching(**{name: options.pop(name) for name in WATCHING if name in options})
        before = self._scores_before(plans, edits)
        notes = [self._no_need(plan, forced, seen) for plan, forced, seen in zip(plans, force, before, strict=True)]
        faces: list[list[EditedFace]] = [[] for _ in plans]
        # One face of each photo at a time: a photo with many is not a larger batch than was asked for.
        for number in range(max(len(plan.faces) for plan in plans)):
            having = [
                index
                for index, plan in enumerate(plans)
                if notes[index] is None and number < len(plan.faces) and plan.faces[number].transfers is None
            ]
            drawings = self.drawings(
                [(plans[index], plans[index].faces[number], seeds[index]) for index in having], **options
            )
            for index, face in zip(having, self.draw_faces(drawings, watching), strict=True):
                faces[index].append(face)
        return [
            EditedPhoto(plan, tuple(each), tuple(drawn), seen, note)
            for plan, each, drawn, seen, note in zip(plans, seeds, faces, before, notes, strict=True)
        ]

    @staticmethod
    def _no_need(plan: EditPlan, forced: bool, seen: HeadScores) -> str | None:
        """Why nothing is to be painted; None where it is."""
        if not plan.paints:
            return plan.note
        if not forced and not plan.hole and plan.request.is_settled(seen, [face.signs for face in plan.faces]):
            return f'the face is "{plan.request.told}" already; force=True edits it all the same'
        return None

    def _scores_before(self, plans: Sequence[EditPlan], edits: Sequence[Edit]) -> list[HeadScores]:
        """What the model's own heads see in the faces of each plan, as they are."""
        pixels = torch.cat([face.pixel_values for plan in plans for face in plan.faces])
        found = read_heads(self.model, pixels.to(self.device), edits)
        ends = np.cumsum([len(plan.faces) for plan in plans])
        return [
            {
                head: {label: scores[end - len(plan.faces) : end] for label, scores in labels.items()}
                for head, labels in found.items()
            }
            for plan, end in zip(plans, ends, strict=True)
        ]

    def _blend(
        self, drawn: EditedPhoto, composite: CompositeMode, feather: float | None, face: str | int
    ) -> list[dict[str, Any]]:
        """The candidates of one pass in the photo, in the order of their seeds."""
        if feather is not None and not 0 <= feather < self.face_size:
            raise ValueError(f"feather must lie in 0…{self.face_size - 1} pixels of the crop, got {feather}")
        plan, refiner = drawn.plan, self.model.image_tokenizer.refiner
        description = describe(self.model, plan.request.text, EDITED)
        results = []
        for index, seed in enumerate(drawn.seeds):
            image, weight = blend_candidate(drawn, index, composite, feather, refiner)
            if plan.toning is not None:
                image = keep_toning(plan.photo, image, plan.toning)
            faces = [self._crop(image, each.face) for each in plan.faces]
            for picture in (image, *faces):
                mark(picture, description, seed)
            boxes = [each.face.box for each in plan.faces]
            single = face != "all"
            laid = [crop for crop, each in zip(faces, plan.faces, strict=True) if each.transfers is not None]
            scores = [each.match_scores[index] for each in drawn.faces] + self._match(plan, laid)
            divergences = [each.guidance_kl[index] for each in drawn.faces] or [0.0]
            realness = [each.realness[index] for each in drawn.faces if each.realness is not None]
            results.append(
                {
                    "image": image,
                    "prompt": plan.told,
                    "face": faces[0] if single else faces,
                    "mask": Image.fromarray(np.ceil(weight * 255).astype(np.uint8)),
                    "match_score": float(np.mean(scores)),
                    "guidance_kl": float(np.mean(divergences)),
                    "realness": min(realness, default=None),
                    "box": boxes[0] if single else boxes,
                    "seed": seed,
                }
            )
        return results

    @torch.no_grad()
    def _match(self, plan: EditPlan, faces: Sequence[Image.Image]) -> list[float]:
        """Log-odds that crops match what the model is told."""
        if not faces:
            return []
        pixels = self.processor(images=list(faces))["pixel_values"].to(self.device)
        captions = self.caption_arguments([{"": plan.captions[""]}], [len(faces)])
        return self.model.match_log_odds(**captions, image_codes=self.model.image_tokenizer.encode(pixels)).tolist()

    def _crop(self, photo: Image.Image, face: AlignedFace) -> Image.Image:
        """A face as it is in an edited photo."""
        size, matrix = self.face_size, face.matrix
        if matrix is None:
            return to_rgb(photo).resize((size, size), Image.Resampling.BICUBIC)
        return align(photo, matrix, size)


def _edits(requests: Sequence[EditRequest]) -> list[Edit]:
    """The rows of the table that requests ask for."""
    return [edit for request in requests for edit in request.edits]


def _in_part(plan: FacePlan) -> FacePlan:
    """A plan of which a share is to be done: what is put back is no share of it."""
    area = plan.area
    if area is not None:
        cells = area.cells if area.bound is None else area.cells & mask_to_cells(area.bound, len(area.cells))
        area = replace(area, cells=cells)
    return replace(plan, area=area)


def _after_another(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The result of an edit of a result, as one of both edits."""
    mask = np.maximum(np.asarray(earlier["mask"]), np.asarray(later["mask"]))
    scores = [each["match_score"] for each in (earlier, later) if each["match_score"] is not None]
    realness = [each["realness"] for each in (earlier, later) if each["realness"] is not None]
    notes = [each["note"] for each in (earlier, later) if each["note"] is not None]
    return {
        **later,
        "prompt": f"{earlier['prompt']}, {later['prompt']}",
        "mask": Image.fromarray(mask),
        "match_score": float(np.mean(scores)) if scores else None,
        "guidance_kl": float(np.mean([earlier["guidance_kl"], later["guidance_kl"]])),
        "realness": min(realness, default=None),
        "edits": earlier["edits"] + later["edits"],
        "note": "; ".join(notes) or None,
    }
