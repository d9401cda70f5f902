"""An edit drawn at the refiner's size, so that it continues the photo around it."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner
from gptface.processing.alignment import align, compose
from gptface.processing.composite import CHANGE_SCALE, likeness


@dataclass(frozen=True)
class RefinedEdit:
    """
    Args:
        pixels: the edited crop float32 [S, S, 3] in [0, 1], S the refiner's side; of use inside of the mask.
        mask: float32 [S, S] in [0, 1].
        matrix: [2, 3] from the photo to this crop.
    """

    pixels: np.ndarray
    mask: np.ndarray
    matrix: np.ndarray

    def shrunk(self, size: int) -> np.ndarray:
        """The pixels at another, smaller size, float32 [size, size, 3]."""
        picture = Image.fromarray(np.rint(self.pixels * 255).astype(np.uint8))
        return np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32) / 255


@torch.no_grad()
def refine_edit(
    refiner: GPTFaceRefiner,
    photo: Image.Image,
    matrix: np.ndarray,
    edited: np.ndarray,
    reconstruction: np.ndarray,
    mask: np.ndarray,
    keep_tone: bool,
    gone: np.ndarray | None = None,
) -> RefinedEdit:
    """
    Draws an edit with the photo in view.

    Args:
        matrix: [2, 3] from the photo to the crop of `edited`.
        edited, reconstruction: decoded codes after and before the edit, float32 [s, s, 3] in [0, 1].
        mask: where the crop may change, [s, s] in [0, 1].
        keep_tone: whether the tone inside is to fit that of the photo around it; where a tone is what was asked for it is not.
        gone: bool [s, s], what of the photo is to go: nothing of its detail stays.

    Raises:
        FloatingPointError: damaged weights.
    """
    size = refiner.config.image_size
    factor = size / len(edited)
    larger = compose(matrix, np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))
    crop = np.asarray(align(photo, larger, size).convert("RGB"), np.float32) / 255

    def tensor(pixels: np.ndarray) -> torch.Tensor:
        """[H, W, C] → [1, C, H, W] of the refiner's kind."""
        return torch.tensor(pixels).permute(2, 0, 1)[None].to(refiner.device, refiner.dtype)

    def enlarged(plane: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.interpolate(tensor(plane), size=(size, size), mode="bilinear").clamp(0, 1)

    wide = enlarged(mask[:, :, None])
    same = likeness(edited, reconstruction, CHANGE_SCALE)
    alike = enlarged(same if gone is None else same * ~gone[:, :, None])
    tone = torch.full((1, 1), float(keep_tone), device=refiner.device, dtype=refiner.dtype)
    refined = refiner(tensor(edited) * 2 - 1, tensor(crop) * 2 - 1, wide, alike, tone)
    if not torch.isfinite(refined).all():
        raise FloatingPointError("the refined pixels are not finite: the checkpoint is damaged")
    pixels = (refined[0].float().clamp(-1, 1).permute(1, 2, 0).cpu().numpy() + 1) / 2
    return RefinedEdit(pixels, wide[0, 0].float().cpu().numpy(), larger)
