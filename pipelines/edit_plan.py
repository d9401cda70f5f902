"""What an edit will do to a photo, and what came out: each made once, and passed on as it is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.generation_gptface import Captions
from gptface.processing.blending import ColourLayer

from .edit_area import EditArea
from .edit_request import EditRequest
from .edit_verification import HeadScores
from .face_pipeline import AlignedFace


@dataclass(frozen=True)
class FacePlan:
    """
    What is to be done to one face.

    Args:
        face: where it is.
        pixel_values: [1, 3, S, S] in [-1, 1], its crop.
        area: what of it changes; None where the match with the prompt decides.
        colours: of its parts, where these change and nothing is drawn.
    """

    face: AlignedFace
    pixel_values: torch.Tensor
    area: EditArea | None
    colours: tuple[ColourLayer, ...] = ()


@dataclass(frozen=True)
class EditPlan:
    """
    What one pass of the editing pipeline is to do to one photo.

    Args:
        photo: RGB or RGBA; a hole in it is filled from its edge.
        photo_mask: float32 [height, width] in [0, 1], what of it may change; None where the areas of the faces say it.
        faces: what is to be done to each.
        hole: whether what the mask covers is damaged or covered.
        request: what is asked for.
        told: what the model is told.
        captions: by the names that `generate` gives them, `"source"` and `"negative"` for the second and third: what
            the model is told (`""`), what the face is now and what to move away from, each [1, T].
        strength: share of the cells of the areas that is redrawn.
        toning: of a black-and-white or toned photo that is to stay one, see [`find_toning`].
    """

    photo: Image.Image
    photo_mask: np.ndarray | None
    faces: tuple[FacePlan, ...]
    hole: bool
    request: EditRequest
    told: str
    captions: Mapping[str, Captions]
    strength: float
    toning: np.ndarray | None = None

    @property
    def draws(self) -> bool:
        """Whether the model has something to draw: not where parts take another colour and keep their structure."""
        return not all(face.colours for face in self.faces)


@dataclass(frozen=True)
class EditedFace:
    """
    What the model drew of one face, C candidates.

    Args:
        plan: what was to be done.
        redrawn: bool [C, G, G], the cells that were drawn anew.
        reconstruction: float32 [S, S, 3] in [0, 1], the face's own codes, decoded.
        edited: float32 [C, S, S, 3] in [0, 1], those of the candidates.
        match_scores: [C], log-odds that prompt and candidate match.
        guidance_kl: [C], nats a cell by which matching moved the distributions.
    """

    plan: FacePlan
    redrawn: np.ndarray
    reconstruction: np.ndarray
    edited: np.ndarray
    match_scores: tuple[float, ...]
    guidance_kl: tuple[float, ...]


@dataclass(frozen=True)
class EditedPhoto:
    """
    What the model drew under a plan.

    Args:
        plan: what was to be done.
        seeds: of the candidates.
        faces: what was drawn of each face; empty where nothing was.
        before: what the model's own heads see in the faces, before the edit.
        note: why nothing was painted; None where it was.
    """

    plan: EditPlan
    seeds: tuple[int, ...]
    faces: tuple[EditedFace, ...]
    before: HeadScores
    note: str | None = None
