"""What the refiner is trained on: faces, what their codes say in and around a mask, and what should come out."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from gptface.data.covered_faces import CoveredFaces
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.modeling_gptface.quantization import FiniteScalarQuantizer
from gptface.modeling_gptface.refiner_gptface import GREY, push_pull_fill

from .refiner_masks import MaskSampler

#: Latents [B, C, h, w] in front of the quantizer → pictures [B, 3, s, s] in [-1, 1] as a coarse plan of them decodes.
DecodePlan = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class SampleLaw:
    """
    Shares and sizes of what befalls a sample.

    Args:
        plan: share of the samples whose hole is the decode of a coarse plan, where there is one.
        noisy: share of the faces whose codes in the hole are noisy, each in up to `noise` of its cells, by a digit ±1.
        noise: see `noisy`.
        jitter: standard deviation, in [-1, 1], by which the tone of the hole is shifted where `tone` asks to mend it.
        exchanged: share of the faces whose hole shall become another face's.
        unchanged, replaced: shares of the faces of which nothing in the hole, or all of it, is another than in the
            photo; in the rest it is a part.
        detail: share of the faces whose photo gives its high frequencies where it is still true.
    """

    plan: float = 0.4
    noisy: float = 0.6
    noise: float = 0.3
    jitter: float = 0.1
    exchanged: float = 0.3
    unchanged: float = 0.25
    replaced: float = 0.35
    detail: float = 0.55


@dataclass(kw_only=True)
class Scenes:
    """
    Inputs of [`GPTFaceRefiner`] but for the decode, and what should come out.

    Args:
        target: [B, 3, S, S] in [-1, 1].
        faces: [B, 3, S, S], the unchanged faces, which look like photos where a target was put together.
    """

    photo: torch.Tensor
    mask: torch.Tensor
    likeness: torch.Tensor
    tone: torch.Tensor
    target: torch.Tensor
    faces: torch.Tensor

    def __add__(self, others: "Scenes") -> "Scenes":
        """These and behind them others."""
        return Scenes(**{name: torch.cat([tensor, getattr(others, name)]) for name, tensor in vars(self).items()})


@dataclass(kw_only=True)
class RefinerBatch(Scenes):
    """
    Scenes with what their codes say.

    Args:
        decoded: [B, 3, s, s] at the tokenizer's side.
    """

    decoded: torch.Tensor


class RefinerSampler:
    """
    Makes batches out of faces, on the faces' device, without a loop over pictures.

    A second face, put into the mask, gives what the photo showed before an edit: the codes outside of the mask are
    those of the photo, old content and all, as in an edit; those inside say what is wanted. Faces that something hid
    are such pairs as they are: their photo has a hole that was filled from its edge.

    Args:
        tokenizer: frozen, with an FSQ quantizer, on the device.
        size: side of the refined pictures in pixels.
        generator: the only source of chance, of that device; the device's own where it is not given.
        decode_plan: see [`DecodePlan`].
        autocast: whether decoders run in bfloat16.

    Raises:
        ValueError: a tokenizer with another quantizer: code noise needs digits.
    """

    def __init__(
        self,
        tokenizer: GPTFaceImageTokenizer,
        size: int,
        law: SampleLaw | None = None,
        generator: torch.Generator | None = None,
        decode_plan: DecodePlan | None = None,
        autocast: bool = False,
    ):
        if not isinstance(tokenizer.quantizer, FiniteScalarQuantizer):
            raise ValueError("the refiner is trained behind an image tokenizer with quantizer='fsq'")
        self.tokenizer, self.quantizer = tokenizer, tokenizer.quantizer
        self.size, self.law = size, law or SampleLaw()
        self.generator, self.decode_plan, self.autocast = generator, decode_plan, autocast
        self.device = next(tokenizer.parameters()).device
        self.masks = MaskSampler(size, self.device, generator)
        levels = self.quantizer.levels
        column = [[-(level // 2) for level in levels], [(level - 1) // 2 for level in levels]]
        bounds = torch.tensor(column, device=self.device, dtype=torch.float32)
        self.least, self.most = (bound.view(1, -1, 1, 1) for bound in bounds)

    def precision(self) -> AbstractContextManager:
        """A context in which convolutions run in bfloat16, where that is wanted."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return self.masks.uniform(low, high, *shape)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self.device, generator=self.generator)

    @torch.no_grad()
    def __call__(
        self, faces: torch.Tensor, covered: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    ) -> RefinerBatch:
        """
        Augmented faces [B, 3, S, S] in [-1, 1] → a batch; B at least 2, another face's content is the next one's.

        Args:
            covered: more faces, which come behind: bare [C, 3, S, S], their photos with a hole, what is drawn there
                [C, 1, S, S] in 0…1; see [`CoveredFaces`].
        """
        scenes = self.edits(faces)
        if covered is not None:
            scenes = scenes + self.uncovered(*covered)
        return RefinerBatch(**vars(scenes), decoded=self.decode(scenes.target, scenes.photo, scenes.mask, scenes.tone))

    def uncovered(self, faces: torch.Tensor, photo: torch.Tensor, mask: torch.Tensor) -> Scenes:
        """What hid a face is taken off: nothing of the photo is true in the hole."""
        tone = self.tones(len(faces))
        return Scenes(
            photo=photo,
            mask=mask,
            likeness=torch.zeros_like(mask),
            tone=tone,
            # it left shadows around the hole
            target=torch.where(mask > 0, self.fitted(faces, photo, mask, tone), photo),
            faces=faces,
        )

    def fitted(self, other: torch.Tensor, photo: torch.Tensor, mask: torch.Tensor, tone: torch.Tensor) -> torch.Tensor:
        """
        Other pictures [B, 3, S, S] with their tone made to fit photos around masks. As far as `tone` says, it is what
        a perfect refiner would make of them; where tones shall stay they differ by half, for pictures as odd as they
        can be teach nothing.
        """
        fit = push_pull_fill(photo - other, (mask == 0).float()) * (0.5 + 0.5 * tone[:, :, None, None])
        return (other + fit).clamp(-1, 1)

    def edits(self, faces: torch.Tensor) -> Scenes:
        """What is drawn in masks replaces the face or another one's content."""
        count = len(faces)
        mask = self.masks(count)
        tone = self.tones(count)
        other = faces.roll(1, 0)
        other = torch.where(mask > 0, self.fitted(other, faces, mask, tone), other)
        changed = self.changes(count)
        pasted = torch.lerp(faces, other, changed * mask)
        exchanged = self.masks.choose(self.law.exchanged, count)
        target, photo = torch.where(exchanged, pasted, faces), torch.where(exchanged, faces, pasted)
        detail = self.masks.choose(self.law.detail, count) * self.uniform(0.5, 1, count, 1, 1, 1)
        return Scenes(
            photo=photo,
            mask=mask,
            likeness=(1 - changed) * detail,
            tone=tone,
            target=target,
            faces=faces,
        )

    def tones(self, count: int) -> torch.Tensor:
        """Strengths of tone [count, 1]: half of them 1, a third 0, the others between."""
        return self.uniform(-1.4, 2.0, count, 1).clamp(0, 1)

    def changes(self, count: int) -> torch.Tensor:
        """
        Where another face's content is in a mask, [count, 1, S, S] in 0…1: nowhere, everywhere, or in soft spots.
        """
        spots = nn.functional.interpolate(
            self.normal(count, 1, 7, 7), (self.size, self.size), mode="bicubic", align_corners=False
        )
        kind = self.uniform(0, 1, count, 1, 1, 1)
        partly = torch.sigmoid(8 * (spots + self.normal(count, 1, 1, 1) / 2))
        whole = (kind < self.law.unchanged + self.law.replaced).float()
        return torch.where(kind < self.law.unchanged, torch.zeros_like(partly), torch.maximum(partly, whole))

    def decode(
        self, target: torch.Tensor, photo: torch.Tensor, mask: torch.Tensor, tone: torch.Tensor
    ) -> torch.Tensor:
        """
        The decode [B, 3, s, s] of codes that are the target's in the cells that the mask touches, else the photo's.
        """
        side, grid = self.tokenizer.config.image_size, self.tokenizer.config.grid_size
        pixels = nn.functional.interpolate(
            torch.cat([target, photo]), (side, side), mode="bicubic", align_corners=False, antialias=True
        )
        # in float32 even where the rest is not: it decides the codes
        latents = self.tokenizer.latents(pixels.clamp(-1, 1))
        wanted, kept = self.quantizer.integers(latents).chunk(2)
        cells = nn.functional.max_pool2d(mask, self.size // grid) > 0.1
        integers = torch.where(cells, self.noisy(wanted), kept)
        widths = self.quantizer.widths(integers)
        with self.precision():
            decoded = self.tokenizer.decode_latents(self.quantizer.up(integers / widths)).float()
        small = nn.functional.avg_pool2d(mask, self.size // side)
        if self.decode_plan is not None:
            decoded = self.planned(decoded, latents[: len(target)], small)
        shift = self.law.jitter * (0.8 * self.normal(len(mask), 1, 1, 1) + 0.6 * self.normal(len(mask), 3, 1, 1))
        return (decoded + shift * tone[:, :, None, None] * small).clamp(-1, 1)

    def noisy(self, integers: torch.Tensor) -> torch.Tensor:
        """FSQ integers [B, D, h, w], in some faces and cells with one digit off by one."""
        count, digits, height, width = integers.shape
        rate = self.uniform(0, self.law.noise, count, 1, 1, 1) * self.masks.choose(self.law.noisy, count)
        cells = self.uniform(0, 1, count, 1, height, width) < rate
        chosen = self.uniform(0, 1, count, digits, height, width)
        step = torch.where(self.uniform(0, 1, count, digits, height, width) < 0.5, -1.0, 1.0)
        step = step * cells * (chosen == chosen.amax(1, keepdim=True))
        return torch.maximum(torch.minimum(integers + step, self.most), self.least)

    def planned(self, decoded: torch.Tensor, latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Decodes of which a share is that of a coarse plan, half of these everywhere, half in the mask alone."""
        assert self.decode_plan is not None
        rows = rows_of_share(self.law.plan, len(decoded), decoded.device)
        with self.precision():
            plan = self.decode_plan(latents.index_select(0, rows)).float()
        where = torch.maximum(mask.index_select(0, rows), self.masks.choose(0.5, len(rows)).float())
        return decoded.index_copy(0, rows, torch.lerp(decoded.index_select(0, rows), plan, where))


def rows_of_share(share: float, count: int, device: torch.device) -> torch.Tensor:
    """
    An even share of the rows of a batch, the same in every batch: a GPU need not wait to learn how many there are.
    """
    rows = [row for row in range(count) if int((row + 1) * share) > int(row * share)]
    return torch.tensor(rows, dtype=torch.long, device=device)


@dataclass(frozen=True)
class FaceChange:
    """
    What befalls a batch of faces.

    Args:
        matrix: [B, 2, 3], where their pixels come from, as [`torch.nn.functional.affine_grid`] wants it.
        brightness, contrast, saturation: factors [B, 1, 1, 1].
    """

    matrix: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor

    def move(self, pixels: torch.Tensor, mode: str = "bicubic") -> torch.Tensor:
        """Pictures [B, C, H, W] turned, scaled and shifted."""
        grid = nn.functional.affine_grid(self.matrix, list(pixels.shape), align_corners=False)
        return nn.functional.grid_sample(pixels, grid, mode, "reflection", align_corners=False)

    def colour(self, pixels: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
        """
        Pixels [B, 3, H, W] in [-1, 1] in other light; `like` are those whose mean is the middle of the contrast,
        themselves by default.
        """
        pixels, like = ((each + 1) * self.brightness - 1 for each in (pixels, pixels if like is None else like))
        middle = like.mean((1, 2, 3), keepdim=True)
        pixels = middle + (pixels - middle) * self.contrast
        grey = (pixels * pixels.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        return (grey + (pixels - grey) * self.saturation).clamp(-1, 1)


class FaceAugmenter:
    """
    Flips, slight turns, sizes, shifts and colours of a batch of faces: [`FaceAugmentation`] for tensors on a device.

    Half of the faces keep their place, bit for bit: resampling softens, and softness must not be learned.
    """

    def __init__(self, device: torch.device, generator: torch.Generator | None = None):
        self.device, self.generator = device, generator

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, device=self.device, generator=self.generator)

    @torch.no_grad()
    def __call__(self, faces: torch.Tensor, size: int) -> torch.Tensor:
        """Faces uint8 [B, s, s, 3] on the device → changed copies [B, 3, size, size] in [-1, 1]."""
        change = self.draw(len(faces))
        return change.colour(change.move(as_pixels(faces, size)))

    @torch.no_grad()
    def covered(self, covered: CoveredFaces, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Faces that were hidden in part on the device → changed copies, each with its photo, and weights of the holes
        [B, 1, size, size] in 0…1.
        """
        change = self.draw(len(covered))
        faces, photos = (change.move(as_pixels(each, size)) for each in (covered.faces, covered.photos))
        holes = change.move(as_pixels(covered.holes[..., None], size), "bilinear")
        return change.colour(faces), change.colour(photos, faces), ((holes + 1) / 2).clamp(0, 1)

    def draw(self, count: int) -> FaceChange:
        """What is to befall so many faces."""
        moved = (self.uniform(0, 1, count) < 0.5).float()
        angle = moved * self.uniform(-0.1, 0.1, count)
        scale = 1 + moved * self.uniform(-0.06, 0.06, count)
        side = torch.where(self.uniform(0, 1, count) < 0.5, -1.0, 1.0)
        shift = moved[:, None] * self.uniform(-0.08, 0.08, count, 2)
        cosine, sine = scale * angle.cos(), scale * angle.sin()
        matrix = torch.stack([side * cosine, -sine, shift[:, 0], side * sine, cosine, shift[:, 1]], 1)
        brightness, contrast = (self.uniform(0.85, 1.15, count, 1, 1, 1) for _ in range(2))
        saturation = self.uniform(0.8, 1.2, count, 1, 1, 1)
        saturation = saturation * (self.uniform(0, 1, count, 1, 1, 1) >= 0.1)  # a tenth becomes grey
        return FaceChange(matrix.view(count, 2, 3), brightness, contrast, saturation)


def as_pixels(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures uint8 [B, s, s, C] → [B, C, size, size] in [-1, 1]."""
    pixels = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    if pixels.shape[-1] == size:
        return pixels
    return nn.functional.interpolate(pixels, (size, size), mode="bicubic", align_corners=False)
