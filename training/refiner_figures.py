"""Figures of a refiner on held-out faces with true codes in the mask, and a sheet of pictures for the eye."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from gptface.data.encode import pixels_from_images
from gptface.metrics.lpips_distance import LPIPS
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner
from gptface.processing.regions import REGIONS, area_pixels

#: Each face is measured with each of these as its mask; `all` is a face out of nothing but codes.
MEASURED_REGIONS = ("smile", "glasses", "beard", "all")
# Reach of the ring around the edge of a mask, either way, as a share of the side.
RING = 8 / 256
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def masked_psnr(pictures: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB [B] of pictures [B, 3, H, W] in [-1, 1] inside of masks [B, 1, H, W]."""
    error = ((pictures - targets) / 2).square().mean(1, keepdim=True)
    return -10 * ((error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).clamp(min=1e-10).log10()


def sharpness(pictures: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Root mean square of the Laplacian of the grey values inside of a mask, [B]: the usual measure of focus."""
    kernel = pictures.new_tensor(LAPLACIAN)[None, None]
    edges = nn.functional.conv2d(pictures.mean(1, keepdim=True), kernel, padding=1).square()
    # the picture's border has no neighbours
    mask = mask.clone()
    mask[..., [0, -1], :] = 0
    mask[..., [0, -1]] = 0
    return ((edges * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).sqrt()


def ring(mask: torch.Tensor) -> torch.Tensor:
    """The pixels [B, 1, S, S] near the edge of masks; none where a mask is everything."""
    reach = round(RING * mask.shape[-1])
    wide, narrow = (sign * nn.functional.max_pool2d(sign * mask, 2 * reach + 1, 1, reach) for sign in (1, -1))
    return wide - narrow


@torch.inference_mode()
def _decoded(tokenizer: GPTFaceImageTokenizer, photo: torch.Tensor) -> torch.Tensor:
    """The decode [1, 3, s, s] of the codes of a photo [1, 3, S, S]."""
    side = tokenizer.config.image_size
    small = nn.functional.interpolate(photo, (side, side), mode="bicubic", align_corners=False, antialias=True)
    return tokenizer.decode(tokenizer.encode(small.clamp(-1, 1)))


@torch.inference_mode()
def _pictures(
    refiner: GPTFaceRefiner, decoded: torch.Tensor, photo: torch.Tensor, mask: torch.Tensor
) -> dict[str, torch.Tensor]:
    """
    A photo [1, 3, S, S] with its mask's content decoded: enlarged, refined, refined with the photo's high frequencies.
    """
    made = {
        "decoded": nn.functional.interpolate(decoded, photo.shape[-2:], mode="bicubic", align_corners=False),
        "refined": refiner(decoded, photo, mask),
        "refined_detail": refiner(decoded, photo, mask, likeness=torch.ones_like(mask)),
    }
    return {name: torch.lerp(photo, each.clamp(-1, 1), mask) for name, each in made.items()}


def _mask(region: str, size: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(area_pixels(REGIONS[region], size)).float()[None, None].to(device)


@torch.inference_mode()
def refiner_figures(
    tokenizer: GPTFaceImageTokenizer, refiner: GPTFaceRefiner, faces: torch.Tensor, lpips: LPIPS
) -> dict[str, dict[str, float]]:
    """
    What is left of faces whose region is decoded from their own codes, the rest being the photo.

    Args:
        tokenizer, refiner, lpips: on one device.
        faces: uint8 [N, S, S, 3], S the refiner's side.

    Returns:
        `"smile/refined"` and so on → means over the faces: `psnr` (dB) and `lpips` inside of the region, `ring_lpips`
        in 8 of 256 pixels around its edge, and `sharpness`, that of the region by that of the photo's (1 is the aim).
        `decoded` is the enlarged decode, `refined_detail` with the photo's high frequencies.
    """
    rows: dict[str, list[list[float]]] = {}
    for face in faces.numpy(force=True):
        photo = pixels_from_images([face]).to(refiner.device)
        decoded = _decoded(tokenizer, photo)
        for region in MEASURED_REGIONS:
            mask = _mask(region, photo.shape[-1], refiner.device)
            for name, picture in _pictures(refiner, decoded, photo, mask).items():
                values = (
                    masked_psnr(picture, photo, mask),
                    lpips(picture, photo, mask),
                    lpips(picture, photo, ring(mask)),
                    sharpness(picture, mask) / sharpness(photo, mask),
                )
                rows.setdefault(f"{region}/{name}", []).append([float(value) for value in values])
    names = ("psnr", "lpips", "ring_lpips", "sharpness")
    return {
        key: {name: round(float(mean), 4) for name, mean in zip(names, np.mean(values, 0), strict=True)}
        for key, values in rows.items()
    }


def contact_sheet(
    tokenizer: GPTFaceImageTokenizer,
    refiner: GPTFaceRefiner,
    faces: torch.Tensor,
    regions: tuple[str, ...] = ("smile", "all"),
    limit: int = 8,
) -> Image.Image:
    """
    Faces uint8 [N, S, S, 3] → a row each: the photo, and for each region its decode, refined, refined with high
    frequencies.
    """
    rows = []
    for face in faces[:limit].numpy(force=True):
        photo = pixels_from_images([face]).to(refiner.device)
        pictures, decoded = [photo], _decoded(tokenizer, photo)
        for region in regions:
            mask = _mask(region, photo.shape[-1], refiner.device)
            pictures += _pictures(refiner, decoded, photo, mask).values()
        rows.append(torch.cat(pictures, 3))
    sheet = ((torch.cat(rows, 2)[0] + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(sheet.permute(1, 2, 0).numpy(force=True))
