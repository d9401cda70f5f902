"""Augmentation of faces with their masks, a batch at a time on its device, everything drawn from one generator."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

#: Label of a pixel that does not count, as `torch.nn.functional.cross_entropy` has it.
IGNORED = -100


@dataclass(frozen=True)
class ParsingAugmentation:
    """
    Changes of a batch of aligned faces after which it is still known what their pixels show. Parts of a picture that
    come from beyond the crop, or are covered, do not count.

    Args:
        wide: share of the faces that are placed small in a wider frame, as in a crop with its surroundings.
        wide_scale: least and most size of such a crop, in sides of the frame.
        near_scale: the same of the other faces.
        rotation: standard deviation in degrees.
        shift: of near faces, at most so many sides of the frame across and down.
        colour: standard deviation of gains of brightness, contrast and each channel, as logarithms.
        grey, soft, noisy, covered: shares of the faces without colours, of lower resolution, with noise and with a
            rectangle over them.
    """

    wide: float = 0.4
    wide_scale: tuple[float, float] = (0.4, 0.8)
    near_scale: tuple[float, float] = (0.8, 1.3)
    rotation: float = 10.0
    shift: float = 0.12
    colour: float = 0.2
    grey: float = 0.15
    soft: float = 0.4
    noisy: float = 0.4
    covered: float = 0.3

    def __call__(
        self, images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            images: uint8 [B, S, S, 3].
            masks: [B, S, S] of classes, or 255 where a pixel does not count.
            generator: on the device of the images.

        Returns:
            Pixels float32 [B, 3, S, S] in [-1, 1] and labels long [B, S, S], [`IGNORED`] where a pixel does not count.
        """
        pixels = images.permute(0, 3, 1, 2).float() / 255
        pixels, labels = self.place(pixels, masks, generator)
        pixels = self.recolour(pixels, generator)
        pixels, labels = self.cover(pixels, labels, generator)
        pixels = self.soften(pixels, generator)
        return pixels.clamp(0, 1) * 2 - 1, labels

    def place(
        self, pixels: torch.Tensor, masks: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Mirror images and similarities; what comes from beyond the crop is made up of its edge, its mirror image, other
        faces and noise.
        """
        count, device = len(pixels), pixels.device

        def uniform(low: float, high: float) -> torch.Tensor:
            return low + (high - low) * torch.rand(count, device=device, generator=generator)

        wide = uniform(0, 1) < self.wide
        scale = torch.where(wide, uniform(*self.wide_scale), uniform(*self.near_scale))
        angle = torch.randn(count, device=device, generator=generator) * math.radians(self.rotation)
        flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
        # A small crop may lie anywhere in its frame, a large one about in the middle. In half sides, as grids are.
        reach = torch.where(wide, 1 - scale, torch.full_like(scale, 2 * self.shift))
        shift_x, shift_y = uniform(-1, 1) * reach, uniform(-1, 1) * reach
        cosine, sine = angle.cos() / scale, angle.sin() / scale
        # from the frame back to the crop
        theta = torch.stack(
            [
                torch.stack([flip * cosine, flip * sine, -flip * (cosine * shift_x + sine * shift_y)], 1),
                torch.stack([-sine, cosine, sine * shift_x - cosine * shift_y], 1),
            ],
            1,
        )
        grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
        labels = F.grid_sample(
            masks[:, None].float() + 1, grid, mode="nearest", padding_mode="zeros", align_corners=False
        )
        labels = labels[:, 0].round().long() - 1
        outside = (labels < 0)[:, None]
        # Each half of a batch with one way to go on beyond the edge; photos end in the first one.
        middle = (count + 1) // 2
        placed = torch.cat(
            [
                F.grid_sample(pixels[part], grid[part], padding_mode=mode, align_corners=False)
                for part, mode in ((slice(middle), "border"), (slice(middle, None), "reflection"))
                if len(pixels[part])
            ]
        )
        other = placed.roll(1, 0).mean((2, 3), keepdim=True) * uniform(0.4, 1.6)[:, None, None, None]
        coarse = (
            torch.randn(count, 3, 9, 9, device=device, generator=generator) * uniform(0, 0.25)[:, None, None, None]
        )
        other = other + F.interpolate(coarse, pixels.shape[2:], mode="bilinear", align_corners=False)
        amount = uniform(-0.5, 1).clamp(min=0)[:, None, None, None]
        placed = torch.where(outside, placed.lerp(other, amount), placed)
        return placed, labels.masked_fill((labels < 0) | (labels == 255), IGNORED)

    def recolour(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Gamma, gains of brightness, contrast and channels, saturation; some faces grey."""
        count, device = len(pixels), pixels.device

        def factor(channels: int, spread: float) -> torch.Tensor:
            return (torch.randn(count, channels, 1, 1, device=device, generator=generator) * spread).exp()

        pixels = pixels.clamp(1e-3, 1) ** factor(1, self.colour) * factor(1, self.colour) * factor(3, self.colour / 3)
        grey = pixels.mean(1, keepdim=True)
        saturation = factor(1, 2 * self.colour)
        colourless = torch.rand(count, 1, 1, 1, device=device, generator=generator) < self.grey
        pixels = grey + (pixels - grey) * saturation.masked_fill(colourless, 0)
        level = pixels.mean((1, 2, 3), keepdim=True)
        return level + (pixels - level) * factor(1, self.colour)

    def cover(
        self, pixels: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lays a rectangle of another face, as it happens to be, over some faces."""
        count, device, (height, width) = len(pixels), pixels.device, pixels.shape[2:]
        draws = torch.rand(5, count, 1, 1, device=device, generator=generator)
        half_width, half_height = 0.03 + 0.17 * draws[2], 0.03 + 0.17 * draws[3]
        x, y = ((torch.arange(side, device=device) + 0.5) / side for side in (width, height))
        inside = ((x[None, None] - draws[0]).abs() < half_width) & ((y[None, :, None] - draws[1]).abs() < half_height)
        inside &= draws[4] < self.covered
        covered = torch.where(inside[:, None], pixels.roll(1, 0).roll(height // 3, 2), pixels)
        return covered, labels.masked_fill(inside, IGNORED)

    def soften(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Lower resolution and noise, as small, old or much compressed photos have them."""
        count, device, size = len(pixels), pixels.device, pixels.shape[2:]

        def share() -> torch.Tensor:
            return torch.rand(count, 1, 1, 1, device=device, generator=generator)

        # One resolution for each quarter of a batch: single faces would have to be resized one by one.
        parts = pixels.chunk(4)
        factors = 1.4 + 2.6 * torch.rand(len(parts), device=device, generator=generator)
        small = torch.cat(
            [
                F.interpolate(
                    F.interpolate(part, [round(side / factor) for side in size], mode="area"),
                    list(size),
                    mode="bilinear",
                    align_corners=False,
                )
                for part, factor in zip(parts, factors.tolist(), strict=True)
            ]
        )
        pixels = torch.where(share() < self.soft, small, pixels)
        spread = 0.06 * share() * (share() < self.noisy)
        return pixels + spread * torch.randn(pixels.shape, device=device, generator=generator)
