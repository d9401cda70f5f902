"""What the model draws of faces under their plans: groups that go together, codes, and what these show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gptface.modeling_gptface.generation_gptface import Captions, GPTFaceGenerationOutput
from gptface.modeling_gptface.image_tokenizer_gptface import cells_below

from .edit_plan import EditedFace, EditedPhoto, EditPlan, FacePlan
from .picture_generation import PictureGeneration

DEFAULTS = {
    "num_inference_steps": 12,
    # cooler than the distribution that was learned: a small model is unsure of most cells
    "temperature": 0.4,
    "guidance_scale": 2.0,
    # moves the codes by 0.7 nats a cell: more changes little, less leaves the face as it was (model card)
    "itm_guidance": 4.0,
}
#: Where the plan is drawn first, guidance by matching does most; the other kind makes frames of glasses firmer, but
#: breaks mouths.
PLAN_DEFAULTS = DEFAULTS | {"num_inference_steps": 8, "guidance_scale": 1.5}

#: Parameters that suit an edit where the checkpoint has a trained critic.
BY_CRITIC = ("decoding", "corrections")


@dataclass(frozen=True)
class Drawing:
    """
    One face, ready to be drawn.

    Args:
        face: what is to be done to it.
        codes: [1, N], its own.
        plan_codes: [1, P], its own plan where the plan is drawn first, else None.
        mask: [1, N] bool, the cells to be drawn.
        captions: as in [`EditPlan`].
        seeds: of its candidates.
        options: of `generate` or, with a plan, `generate_plan_first`.
    """

    face: FacePlan
    codes: torch.Tensor
    plan_codes: torch.Tensor | None
    mask: torch.Tensor
    captions: Mapping[str, Captions]
    seeds: tuple[int, ...]
    options: Mapping[str, Any]

    def goes_with(self, other: "Drawing") -> bool:
        """Whether both can be drawn in one batch."""
        same_captions = self.captions.keys() == other.captions.keys()
        return (
            same_captions and self.options == other.options and (self.plan_codes is None) == (other.plan_codes is None)
        )


class EditDrawing(PictureGeneration):
    """Base of the pipeline that edits: draws faces under their plans, and what was drawn again in other photos."""

    def drawings(
        self,
        faces: Sequence[tuple[EditPlan, FacePlan, Sequence[int]]],
        plan_first: bool | None = None,
        **decoding: Any,
    ) -> list[Drawing]:
        """
        Faces with their plans and seeds → ready to be drawn, each with its options: what suits its edit, then what the
        user says.
        """
        if not faces:
            return []
        tokenizer = self.model.image_tokenizer
        latents = tokenizer.checked_latents(torch.cat([face.pixel_values for _, face, _ in faces]).to(self.device))
        codes = tokenizer.quantizer(latents)[1].flatten(1)
        drawings = []
        for row, (plan, face, seeds) in enumerate(faces):
            own = slice(row, row + 1)
            # what suits an edit suits it only as it was measured: with the plan or without
            suiting = {name: value for name, value in plan.request.defaults.items() if name != "strength"}
            planned = self._draws_plan_first(plan_first, suiting.get("plan_first"))
            if suiting.pop("plan_first", planned) != planned:
                suiting = {}
            if not self.model.config.critic_trained or decoding.get("decoding", "critic") != "critic":
                suiting = {name: value for name, value in suiting.items() if name not in BY_CRITIC}
            plan_codes = tokenizer.encode_plan(latents=latents[own]) if planned else None
            drawings.append(
                Drawing(
                    face,
                    codes[own],
                    plan_codes,
                    self._cells_to_redraw(plan, face, codes[own], plan_codes),
                    plan.captions,
                    tuple(seeds),
                    {**(PLAN_DEFAULTS if planned else DEFAULTS), **suiting, **decoding},
                )
            )
        return drawings

    def draw_faces(self, drawings: Sequence[Drawing], watching: dict[str, Any]) -> list[EditedFace]:
        """Draws faces, those together that go together."""
        groups: list[list[int]] = []
        for index, each in enumerate(drawings):
            group = next((group for group in groups if drawings[group[0]].goes_with(each)), None)
            if group is None:
                groups.append([index])
            else:
                group.append(index)
        drawn: dict[int, EditedFace] = {}
        for group in groups:
            faces = self._draw_group([drawings[index] for index in group], watching)
            drawn |= zip(group, faces, strict=True)
        return [drawn[index] for index in range(len(drawings))]

    def _draw_group(self, drawings: Sequence[Drawing], watching: dict[str, Any]) -> list[EditedFace]:
        """Draws faces in one batch, whose rows are the candidates of the first, then those of the second, …"""
        counts = [len(each.seeds) for each in drawings]
        repeats = torch.tensor(counts, device=self.device)

        def rows(parts: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.cat(list(parts)).repeat_interleave(repeats, 0)

        mask = rows([each.mask for each in drawings])
        arguments: dict[str, Any] = {
            **self.caption_arguments([each.captions for each in drawings], counts),
            "image_codes": rows([each.codes for each in drawings]),
            "image_mask": mask,
            "generator": [torch.Generator().manual_seed(seed) for each in drawings for seed in each.seeds],
            **watching,
            **drawings[0].options,
        }
        plans = [each.plan_codes for each in drawings if each.plan_codes is not None]
        output: GPTFaceGenerationOutput
        if plans:
            output = self.model.generate_plan_first(**arguments, plan_codes=rows(plans))
        else:
            output = self.model.generate(**arguments)
        redrawn = (mask if output.filled is None else output.filled).split(counts)
        grids = [
            grid
            for each, codes in zip(drawings, output.codes.split(counts), strict=True)
            for grid in (each.codes, codes)
        ]
        decoded = self.model.image_tokenizer.decode(torch.cat(grids))
        if not torch.isfinite(decoded).all():
            raise FloatingPointError("the decoded pixels are not finite: the checkpoint is damaged")
        pixels = decoded.add(1).div(2).permute(0, 2, 3, 1).split([len(grid) for grid in grids])
        assert output.match_scores is not None and output.guidance_kl is not None
        scores, divergences = (each.split(counts) for each in (output.match_scores, output.guidance_kl))
        realness = None if output.realness is None else output.realness.split(counts)
        side = self.model.config.grid_size
        return [
            EditedFace(
                each.face,
                redrawn[index].cpu().numpy().reshape(-1, side, side),
                pixels[2 * index][0].float().cpu().numpy(),
                grids[2 * index + 1],
                pixels[2 * index + 1].float().cpu().numpy(),
                tuple(scores[index].tolist()),
                tuple(divergences[index].tolist()),
                None if realness is None else tuple(realness[index].tolist()),
            )
            for index, each in enumerate(drawings)
        ]

    def _draws_plan_first(self, wanted: bool | None, suits: bool | None) -> bool:
        trained = self.model.config.plan_trained
        if wanted and not trained:
            raise ValueError("this checkpoint has no trained plan: leave plan_first out")
        if wanted is not None:
            return wanted
        return trained and suits is not False

    def _cells_to_redraw(
        self, plan: EditPlan, face: FacePlan, codes: torch.Tensor, plan_codes: torch.Tensor | None
    ) -> torch.Tensor:
        """
        Cells [1, N] bool: all of the area, or the share of it that the match with the prompt depends on most; by the
        plan [1, P] where that is drawn first.
        """
        strength = plan.strength
        if face.area is None:
            region = torch.ones_like(codes, dtype=torch.bool)
            strength = strength * 0.25  # "auto" is about a part of the face, as the named regions are
        else:
            region = torch.from_numpy(face.area.cells.reshape(1, -1)).to(codes.device)
        if strength == 1 or not region.any():
            return region
        judged = {name: caption for name, caption in plan.captions.items() if name != "negative"}
        captions = self.caption_arguments([judged], [1])
        if plan_codes is None:
            saliency = self.model.saliency(codes, **captions)
        else:
            saliency = cells_below(self.model.saliency(plan_codes, **captions))
        saliency = saliency.masked_fill(~region, -1.0)
        count = max(1, round(strength * int(region.sum())))
        return torch.zeros_like(region).scatter(1, saliency.topk(count, dim=1).indices, True)

    @torch.no_grad()
    def redraw(self, drawn: EditedPhoto, candidate: int, plan: EditPlan) -> EditedPhoto:
        """
        What was drawn of one photo, drawn into another one of the same face: its own codes but for those of the cells
        that were redrawn.

        Args:
            candidate: the one of `drawn` that is meant.
            plan: of the other photo, see `replan`.
        """
        tokenizer, faces = self.model.image_tokenizer, []
        for face, planned in zip(drawn.faces, plan.faces, strict=True):
            own = tokenizer.encode(planned.pixel_values.to(self.device))
            redrawn = torch.from_numpy(face.redrawn[candidate].reshape(1, -1)).to(own.device)
            codes = torch.where(redrawn, face.codes[candidate], own)
            decoded = tokenizer.decode(torch.cat([own, codes])).add(1).div(2).permute(0, 2, 3, 1).float().cpu().numpy()
            faces.append(
                replace(
                    face,
                    plan=planned,
                    redrawn=face.redrawn[[candidate]],
                    reconstruction=decoded[0],
                    codes=codes,
                    edited=decoded[1:],
                    match_scores=face.match_scores[candidate : candidate + 1],
                    guidance_kl=face.guidance_kl[candidate : candidate + 1],
                )
            )
        return replace(drawn, plan=plan, seeds=drawn.seeds[candidate : candidate + 1], faces=tuple(faces))
