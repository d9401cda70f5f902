"""Augmentations of aligned faces, on pixels, before the image tokenizer: drawn from one generator a sample."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from gptface.processing.alignment import warp

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True)
class FaceAugmentation:
    """
    Slight changes that leave a face's attributes and expression as they are. Grey faces stay grey.

    Args:
        flip: probability of the mirror image.
        colour: brightness, contrast and saturation change by factors in 1 ± this.
        rotation: at most so many degrees either way.
        scale: the face grows or shrinks by at most this share.
        shift: it moves by at most this share of the side, across and down.
        erasing: probability that a rectangle is replaced by noise (Zhong et al. 2020).
        erased_area: least and most share of the picture that it covers.
        grey: probability that a face loses its colours, so that sets of grey faces are met halfway.
    """

    flip: float = 0.5
    colour: float = 0.2
    rotation: float = 6.0
    scale: float = 0.06
    shift: float = 0.04
    erasing: float = 0.25
    erased_area: tuple[float, float] | list[float] = (0.02, 0.12)
    grey: float = 0.1

    def __post_init__(self) -> None:
        for name in ("flip", "erasing", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in 0…1, got {getattr(self, name)}")
        if not 0 <= self.colour < 1 or not 0 <= self.scale < 1:
            raise ValueError("colour and scale must be at least 0 and less than 1")
        low, high = self.erased_area
        if not 0 < low <= high < 1:
            raise ValueError(f"erased_area must be two shares, 0 < least ≤ most < 1, got {list(self.erased_area)}")

    def __call__(self, face: Image.Image, generator: np.random.Generator) -> Image.Image:
        """An RGB face → a changed copy of the same size."""
        if generator.random() < self.flip:
            face = ImageOps.mirror(face)
        face = warp(face, self.matrix(face.size, generator), face.size)
        for enhancer, change in zip(ENHANCERS, generator.uniform(-self.colour, self.colour, 3), strict=True):
            face = enhancer(face).enhance(1 + change)
        if generator.random() < self.grey:
            face = ImageOps.grayscale(face).convert("RGB")
        return self.erase(face, generator) if generator.random() < self.erasing else face

    def matrix(self, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
        """A similarity [2, 3] about the middle, from the face to its changed copy."""
        centre = np.array(size) / 2
        angle = np.deg2rad(generator.uniform(-self.rotation, self.rotation))
        factor = 1 + generator.uniform(-self.scale, self.scale)
        cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        offset = centre - turn @ centre + generator.uniform(-self.shift, self.shift, 2) * size
        return np.column_stack([turn, offset])

    def erase(self, face: Image.Image, generator: np.random.Generator) -> Image.Image:
        """Puts noise into a rectangle, grey noise into a grey face."""
        pixels = np.array(face)
        height, width = pixels.shape[:2]
        area = generator.uniform(*self.erased_area) * height * width
        ratio = np.exp(generator.uniform(np.log(0.4), np.log(2.5)))
        rows, columns = (
            int(np.clip(round(side), 1, limit))
            for side, limit in (((area * ratio) ** 0.5, height), ((area / ratio) ** 0.5, width))
        )
        top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
        is_grey = (pixels == pixels[..., :1]).all()
        noise = generator.integers(0, 256, (rows, columns, 1 if is_grey else 3), dtype=np.uint8)
        pixels[top : top + rows, left : left + columns] = noise
        return Image.fromarray(pixels)
