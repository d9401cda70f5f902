"""Augmentation of a whole batch of aligned faces at once, on whatever device they are."""

import math

import torch

from .augmentation import FaceAugmentation

#: Share of the faces that are turned, scaled or moved; the others are not resampled and stay as sharp as they are.
MOVED = 0.5
LUMA = (0.299, 0.587, 0.114)


def augment_faces(
    faces: torch.Tensor, covered: torch.Tensor | None, settings: FaceAugmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Aligned faces → changed copies, and where these show something.

    Args:
        faces: [B, H, W, 3] uint8, H = W.
        covered: [B, h·w] bool, which cells of a square grid the face's picture covers; all where it is none.
        settings: as for single faces; no rectangles are erased.
        generator: on the device of the faces.

    Returns:
        Pixels [B, 3, H, W] in [-1, 1] and `seen` [B, 1, H, W] bool.

    Raises:
        ValueError: settings that erase.
    """
    if settings.erasing:
        raise ValueError(f"batches of faces are not erased: set erasing to 0, not {settings.erasing}")
    pixels = faces.movedim(-1, 1).float() / 255
    size = pixels.shape[-1]
    if covered is None:
        seen = pixels.new_ones(len(faces), 1, size, size)
    else:
        side = math.isqrt(covered.shape[1])
        seen = torch.nn.functional.interpolate(covered.view(-1, 1, side, side).float(), size=(size, size))
    grid = torch.nn.functional.affine_grid(
        _placements(len(faces), settings, generator).to(pixels), list(pixels.shape), align_corners=False
    )
    pixels = torch.nn.functional.grid_sample(pixels, grid, "bicubic", "reflection", align_corners=False)
    seen = torch.nn.functional.grid_sample(seen, grid, "bilinear", "zeros", align_corners=False)
    return _recolour(pixels, settings, generator).clamp(0, 1) * 2 - 1, seen > 0.99


def _uniform(count: int, spread: float, generator: torch.Generator) -> torch.Tensor:
    """Numbers [count] in ±spread."""
    return (torch.rand(count, generator=generator, device=generator.device) * 2 - 1) * spread


def _placements(count: int, settings: FaceAugmentation, generator: torch.Generator) -> torch.Tensor:
    """
    Similarities [count, 2, 3] from changed copy to face, in the coordinates of `affine_grid` (-1…1 over the picture).
    """
    moved = (torch.rand(count, generator=generator, device=generator.device) < MOVED).float()
    angle = _uniform(count, math.radians(settings.rotation), generator) * moved
    factor = 1 + _uniform(count, settings.scale, generator) * moved
    across, down = (2 * _uniform(count, settings.shift, generator) * moved for _ in range(2))
    mirror = 1 - 2 * (torch.rand(count, generator=generator, device=generator.device) < settings.flip).float()
    cosine, sine = factor * angle.cos(), factor * angle.sin()
    rows = torch.stack([mirror * cosine, -mirror * sine, across]), torch.stack([sine, cosine, down])
    return torch.stack(rows).permute(2, 0, 1)


def _recolour(pixels: torch.Tensor, settings: FaceAugmentation, generator: torch.Generator) -> torch.Tensor:
    """Changes brightness, contrast and saturation of pixels [B, 3, H, W] in 0…1; some lose their colours."""
    brightness, contrast, saturation = (
        1 + _uniform(len(pixels), settings.colour, generator).view(-1, 1, 1, 1) for _ in range(3)
    )
    colourless = torch.rand(len(pixels), generator=generator, device=generator.device) < settings.grey
    saturation = saturation.masked_fill(colourless.view(-1, 1, 1, 1), 0)
    pixels = pixels * brightness
    luma = pixels.new_tensor(LUMA).view(1, 3, 1, 1)
    mean = (pixels * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixels = mean + (pixels - mean) * contrast
    grey = (pixels * luma).sum(1, keepdim=True)
    return grey + (pixels - grey) * saturation


def degrade_faces(
    pixels: torch.Tensor, side: int, generator: torch.Generator, coarse: float = 0.3, erased: float = 0.3
) -> torch.Tensor:
    """
    Copies of pixels [B, 3, H, W] in [-1, 1] as poor photos show them: some are of low resolution, of some a rectangle
    is grey.

    Args:
        side: pixels along a side of those of low resolution.
        coarse: share of the faces of low resolution.
        erased: share of the faces with a rectangle, of a tenth to four tenths of the side each way (Zhong et al.
            2020).
        generator: on the device of the pixels.
    """
    batch, _, height, width = pixels.shape
    device = pixels.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=device)

    small = torch.nn.functional.interpolate(pixels, size=side, mode="bilinear", antialias=True)
    small = torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")
    pixels = torch.where(uniform(0, 1, batch, 1, 1, 1) < coarse, small, pixels)
    inside = (uniform(0, 1, batch, 1, 1) < erased).expand(batch, height, width)
    for axis, length in ((1, height), (2, width)):
        extent, start = uniform(0.1, 0.4, batch, 1, 1), uniform(-0.1, 0.9, batch, 1, 1)
        places = torch.arange(length, device=device).view(1, *((-1, 1) if axis == 1 else (1, -1))) / length
        inside = inside & (places >= start) & (places < start + extent)
    return pixels.masked_fill(inside[:, None], 0.0)
