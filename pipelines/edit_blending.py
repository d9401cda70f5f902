"""What was drawn of faces → layers of the photo."""

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner
from gptface.processing.alignment import align, compose, scaling
from gptface.processing.blending import CompositeMode, Layer, PhotoLayer, decoded_layer, likeness, paste
from gptface.processing.masks import COUNTS, cells_to_mask
from gptface.processing.masks import feather as fade_inwards

from .edit_plan import EditedFace, EditedPhoto, EditPlan, FacePlan

# Pixels of a 128-px crop. A hole is filled from its edge first: below the edge of an edit lies no damage, only a
# smear.
FEATHER_RADIUS, HOLE_FEATHER_RADIUS = 6.0, 2.0
#: The refiner makes the edge fit by itself, and a wide one shows what the edit takes away.
REFINED_FEATHER_RADIUS = 4.0


def blend_candidate(
    drawn: EditedPhoto,
    candidate: int,
    mode: CompositeMode = "blend",
    feather: float | None = None,
    refiner: GPTFaceRefiner | None = None,
) -> tuple[Image.Image, np.ndarray]:
    """
    One candidate of all faces in the photo.

    Args:
        mode: see `COMPOSITE_MODES`.
        feather: pixels of the crop over which an edit fades in; None for those that suit it.
        refiner: draws the edit with `"blend"`; without it decoded codes are shown.

    Returns:
        the photo, edited, and how much of each of its pixels is the edit's, float32 [height, width] in [0, 1].

    Raises:
        FloatingPointError: damaged weights of the refiner.
    """
    plan = drawn.plan
    image, weight = paste(plan.photo, layers_of(drawn, candidate, mode, feather, refiner), plan.photo_mask)
    if plan.hole and plan.photo_mask is not None:  # all of it was filled before
        weight = np.maximum(weight, plan.photo_mask)
    return image, weight


def layers_of(
    drawn: EditedPhoto,
    candidate: int,
    mode: CompositeMode = "blend",
    feather: float | None = None,
    refiner: GPTFaceRefiner | None = None,
) -> list[PhotoLayer]:
    """One candidate of all faces as layers of the photo; for the parameters see [`blend_candidate`]."""
    plan = drawn.plan
    refiner = refiner if mode == "blend" else None
    if feather is None:
        feather = FEATHER_RADIUS if refiner is None else REFINED_FEATHER_RADIUS
        feather = HOLE_FEATHER_RADIUS if plan.hole else feather
    edited = iter(drawn.faces)
    layers: list[PhotoLayer] = []
    for face in plan.faces:
        if face.transfers is None:
            layers.append(_layer(plan, next(edited), candidate, mode, feather, refiner))
        else:
            layers += face.transfers.layers(plan.photo, drawn.seeds[candidate])
    return layers


def _layer(
    plan: EditPlan,
    face: EditedFace,
    candidate: int,
    mode: CompositeMode,
    feather: float,
    refiner: GPTFaceRefiner | None,
) -> Layer:
    """What was drawn of one face."""
    edited, reconstruction, area = face.edited[candidate], face.reconstruction, face.plan.area
    alpha = fade_inwards(cells_to_mask(face.redrawn[candidate], len(edited)), feather)
    gone = None if area is None else area.gone
    if area is not None and area.bound is not None:
        alpha = np.minimum(alpha, fade_inwards(area.bound, feather))
        if plan.hole:
            gone = area.bound > COUNTS  # nothing is known of what it shows but a smear
    matrix = _to_crop(plan.photo, face.plan, len(edited))
    if refiner is None:
        return decoded_layer(edited, reconstruction, alpha, matrix, mode, gone)
    keep_tone = plan.request.expression and not plan.hole
    return refined_layer(refiner, plan.photo, edited, reconstruction, alpha, matrix, keep_tone, gone)


def _to_crop(photo: Image.Image, plan: FacePlan, size: int) -> np.ndarray:
    """
    [2, 3] from photo to crop of `size` pixels; an aligned input of another size is a photo whose crop is all of it.
    """
    if plan.face.matrix is not None:
        return plan.face.matrix
    return scaling(size / photo.width, size / photo.height)


@torch.no_grad()
def refined_layer(
    refiner: GPTFaceRefiner,
    photo: Image.Image,
    edited: np.ndarray,
    reconstruction: np.ndarray,
    alpha: np.ndarray,
    matrix: np.ndarray,
    keep_tone: bool,
    gone: np.ndarray | None = None,
) -> Layer:
    """
    An edit as the refiner draws it with the photo in view; as [`decoded_layer`], which shows decoded codes as they
    are.

    Args:
        edited, reconstruction: decoded codes after and before the edit, float32 [s, s, 3] in [0, 1].
        alpha: where the crop may change, [s, s] in [0, 1].
        matrix: [2, 3] from the photo to the crop of s pixels.
        keep_tone: whether the tone inside is to fit that of the photo around it; where a tone is what was asked for it
            is not.
        gone: bool [s, s], what of the photo is to go: nothing of its detail stays.

    Raises:
        FloatingPointError: damaged weights.
    """
    size = refiner.config.image_size
    larger = compose(matrix, scaling(size / len(edited)))
    crop = np.asarray(align(photo, larger, size).convert("RGB"), np.float32) / 255

    def tensor(pixels: np.ndarray) -> torch.Tensor:
        """[H, W, C] → [1, C, H, W] of the refiner's kind."""
        return torch.tensor(pixels).permute(2, 0, 1)[None].to(refiner.device, refiner.dtype)

    def enlarged(plane: np.ndarray) -> torch.Tensor:
        """[s, s] → [1, 1, S, S]"""
        planes = tensor(plane[:, :, None])
        return torch.nn.functional.interpolate(planes, size=(size, size), mode="bilinear").clamp(0, 1)

    mask, alike = enlarged(alpha), enlarged(likeness(edited, reconstruction, gone))
    tone = torch.full((1, 1), float(keep_tone), device=refiner.device, dtype=refiner.dtype)
    refined = refiner(tensor(edited) * 2 - 1, tensor(crop) * 2 - 1, mask, alike, tone)
    if not torch.isfinite(refined).all():
        raise FloatingPointError("the refined pixels are not finite: the checkpoint is damaged")
    pixels = (refined[0].float().clamp(-1, 1).permute(1, 2, 0).cpu().numpy() + 1) / 2
    return Layer(pixels, np.zeros((size, size), np.float32), mask[0, 0].float().cpu().numpy(), larger)
