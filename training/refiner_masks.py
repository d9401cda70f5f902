"""Masks for the refiner's training, drawn as batches on any device: named regions, shapes, strokes, everything,
nothing.
"""

import numpy as np
import torch
from torch import nn

from gptface.processing.regions import REGIONS, area_pixels

# Masks are drawn at this share of the picture's side: edges become soft by a pixel, and drawing is four times cheaper.
COARSE = 2
# Kinds by their shares of the masks; the rest is nothing.
REGION, SHAPE, STROKE, EVERYTHING = 0.40, 0.28, 0.14, 0.15
SNAPPED, MOVED, THINNED, FEATHERED = 0.4, 0.3, 0.3, 0.5
CELLS, STROKE_POINTS = 16, 5


def region_masks(size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The named regions as masks [R, 1, size, size] of zeros and ones, without the one that is everything."""
    areas = [area_pixels(region, size) for name, region in REGIONS.items() if name != "all"]
    return torch.from_numpy(np.stack(areas)[:, None]).float().to(device)


class MaskSampler:
    """
    Draws masks for aligned faces.

    Args:
        size: side of the masks in pixels, a multiple of 32.
        device: where they are drawn.
        generator: the only source of chance; the device's own where it is not given.
    """

    def __init__(self, size: int, device: torch.device, generator: torch.Generator | None = None):
        self.side = size // COARSE
        self.device, self.generator = device, generator
        self.regions = region_masks(self.side, device)
        centres = (torch.arange(self.side, device=device) + 0.5) / self.side
        self.y, self.x = centres.view(1, -1, 1), centres.view(1, 1, -1)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, device=self.device, generator=self.generator)

    def choose(self, probability: float, count: int) -> torch.Tensor:
        """True for a share of the pictures, [count, 1, 1, 1]."""
        return self.uniform(0, 1, count, 1, 1, 1) < probability

    def __call__(self, count: int) -> torch.Tensor:
        """Masks [count, 1, size, size] in 0…1, 1 = may change."""
        kind = self.uniform(0, 1, count, 1, 1, 1)
        stroke = kind >= REGION + SHAPE
        drawn = torch.where(stroke, self.strokes(count), self.shapes(count))
        cell = self.side // CELLS
        snapped = nn.functional.interpolate(nn.functional.max_pool2d(drawn, cell), scale_factor=cell, mode="nearest")
        drawn = torch.where(self.choose(SNAPPED, count), snapped, drawn)
        mask = torch.where(kind < REGION, self.named(count), drawn)
        # from the edge inwards, as edits are blended into photos; a thin stroke would be lost
        mask = torch.where(self.choose(FEATHERED, count) & ~stroke, feathered(mask, self.side // 40), mask)
        everything = REGION + SHAPE + STROKE
        mask = torch.where(kind < everything, mask, (kind < everything + EVERYTHING).float())
        return nn.functional.interpolate(mask, scale_factor=COARSE, mode="bilinear")

    def named(self, count: int) -> torch.Tensor:
        """Regions of the face, some of them moved by up to a cell, some thinned."""
        rows = torch.randint(len(self.regions), (count,), device=self.device, generator=self.generator)
        mask = self.regions.index_select(0, rows)
        offset = self.uniform(-2 / CELLS, 2 / CELLS, count, 2) * self.choose(MOVED, count).view(count, 1)
        matrix = torch.eye(2, 3, device=self.device).repeat(count, 1, 1)
        matrix[:, :, 2] = offset
        grid = nn.functional.affine_grid(matrix, [count, 1, self.side, self.side], align_corners=False)
        mask = nn.functional.grid_sample(mask, grid, "nearest", "border", align_corners=False)
        reach = self.side // 32
        thin = -nn.functional.max_pool2d(-mask, 2 * reach + 1, 1, reach)
        return torch.where(self.choose(THINNED, count), thin, mask)

    def shapes(self, count: int) -> torch.Tensor:
        """Turned rectangles and ellipses."""
        angle = self.uniform(-0.6, 0.6, count, 1, 1)
        x, y = self.x - self.uniform(0.1, 0.9, count, 1, 1), self.y - self.uniform(0.1, 0.9, count, 1, 1)
        u = (angle.cos() * x + angle.sin() * y) / self.uniform(0.05, 0.4, count, 1, 1)
        v = (angle.cos() * y - angle.sin() * x) / self.uniform(0.05, 0.4, count, 1, 1)
        box = torch.maximum(u.abs(), v.abs()) <= 1
        ellipse = u.square() + v.square() <= 1
        return torch.where(self.choose(0.5, count), box[:, None], ellipse[:, None]).float()

    def strokes(self, count: int) -> torch.Tensor:
        """Bent strokes of one width."""
        steps = self.uniform(-0.3, 0.3, count, STROKE_POINTS - 1, 2)
        first = self.uniform(0.2, 0.8, count, 1, 2)
        points = torch.cat([first, first + steps.cumsum(1)], 1)
        start, along = points[:, :-1, :, None, None], points.diff(dim=1)[..., None, None]
        x, y = self.x[:, None] - start[:, :, 0], self.y[:, None] - start[:, :, 1]
        length = along.square().sum(2).clamp(min=1e-6)
        share = ((x * along[:, :, 0] + y * along[:, :, 1]) / length).clamp(0, 1)
        distance = (x - share * along[:, :, 0]).square() + (y - share * along[:, :, 1]).square()
        width = self.uniform(0.01, 0.06, count, 1, 1)
        return (distance.amin(1) <= width.square())[:, None].float()


def feathered(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """
    Masks [B, 1, H, W] that rise from 0 at their edge to 1 about `radius` pixels inside; the picture's border is no
    edge.
    """
    padded = nn.functional.pad(mask, [2 * radius] * 4, mode="replicate")
    for _ in range(2):
        padded = nn.functional.avg_pool2d(padded, 2 * radius + 1, 1)
    return torch.minimum((2 * padded - 1).clamp(0, 1), mask)
