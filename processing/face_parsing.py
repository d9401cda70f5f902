"""What each part of a photo of a face shows (skin, hair, eyeglasses, …), as soft masks.

The network that tells it is passed in as a function of aligned crops. A face is looked at twice: as the crop, for its
features, and with its surroundings, for hair, neck and clothes beyond it. Coordinates and matrices are those of
`alignment.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from .alignment import CROP_SIZE, align, apply, compose, corners, inverse, scaling, translation, warp
from .masks import widen

#: Names for classes together, of which a parser may lack some; the name of each class stands for itself.
GROUPS: dict[str, tuple[str, ...]] = {
    "face": ("skin", "nose", "eye", "brow", "mouth", "upper_lip", "lower_lip", "eyeglasses", "face_mask"),
    "facial_skin": ("skin", "nose"),
    "eyes": ("eye",),
    "brows": ("brow",),
    "ears": ("ear",),
    "lips": ("upper_lip", "lower_lip"),
    "whole_mouth": ("mouth", "upper_lip", "lower_lip"),
    "jewellery": ("earring", "necklace"),
}
#: Everything but the background; what the classes are is known only from the labels.
PERSON = "person"
#: Sides of the crop that its surroundings have, the crop in their middle.
SURROUNDINGS = 2
#: How far they reach beyond each side of the crop, in pixels of the 128-pixel crop.
MARGIN = (SURROUNDINGS - 1) / 2 * CROP_SIZE
#: How far a head may be turned, see [`FaceParsing.turn`], for what is made for faces from the front: official
#: portraits reach 0.15, snapshots seldom 0.35, and from 0.5 on a beard lies on the neck, a hat beside the head.
MOST_TURNED = 0.45
#: How much of a pixel shows thin things, such as bands of masks, which the parser is less sure of.
FAINT = 0.2
#: Share of the crop on which its own view fades into that of its surroundings.
FADE = 1 / 16

#: Aligned RGB crops of one size → probabilities float32 [B, C, S, S].
Predict = Callable[[Sequence[Image.Image]], np.ndarray]
Places = TypeVar("Places", float, np.ndarray)


@dataclass(frozen=True)
class FaceParsing:
    """
    What a face and its surroundings show.

    Args:
        probabilities: float32 [C, T, T] in [0, 1], summing to 1 at every pixel, of a square frame that is
            `SURROUNDINGS` times the face crop, the crop in its middle.
        labels: names of the C classes.
        matrix: [2, 3] from the photo to the frame.
        photo_size: width and height of the photo; None where it is not known.
    """

    probabilities: np.ndarray
    labels: tuple[str, ...]
    matrix: np.ndarray
    photo_size: tuple[int, int] | None = None

    def mask(self, names: str | Iterable[str]) -> np.ndarray:
        """
        How much of each pixel of the frame shows one of the classes, float32 [T, T] in [0, 1].

        Args:
            names: a class, a key of `GROUPS` or `"person"`, or several.

        Raises:
            ValueError: a name that the parser does not know.
        """
        return self.probabilities[class_indices(names, self.labels)].sum(0).clip(0, 1)

    def known(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that the parser knows: of other parsers classes may be others."""
        return tuple(name for name in names if not set(self.labels).isdisjoint(GROUPS.get(name, (name,))))

    def shows(self, places: np.ndarray) -> bool:
        """
        Whether the photo reaches as far as all of some places [N, 2], in pixels of the 128-pixel crop; beyond its edge
        a frame is made up. True where the size of the photo is not known.
        """
        return bool(self._shown(places).all())

    def in_photo(self) -> np.ndarray:
        """Which pixels of the 128-pixel crop the photo shows, bool [128, 128]; all where its size is not known."""
        axis = np.arange(CROP_SIZE) + 0.5
        return self._shown(np.stack(np.meshgrid(axis, axis), -1))

    def _shown(self, places: np.ndarray) -> np.ndarray:
        """Whether the photo reaches as far as each of some places [..., 2]."""
        if self.photo_size is None:
            return np.ones(places.shape[:-1], bool)
        there = apply(inverse(self.matrix), self.in_frame(places))
        return np.asarray(((there >= 0) & (there <= self.photo_size)).all(-1))

    @property
    def unit(self) -> float:
        """Pixels of the frame along one of the 128-pixel crop."""
        return self.probabilities.shape[1] / SURROUNDINGS / CROP_SIZE

    @property
    def to_crop(self) -> np.ndarray:
        """[2, 3] from the frame to the 128-pixel crop."""
        return frame_to_crop(self.probabilities.shape[1])

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and the columns of the frame that are the crop."""
        return (slice(*_crop_edges(self.probabilities.shape[1])),) * 2

    def in_frame(self, places: Places) -> Places:
        """Places of the frame, in its pixels, where some of the 128-pixel crop lie: x, y, or both."""
        return (places + MARGIN) * self.unit

    def in_crop(self, places: Places) -> Places:
        """The opposite of `in_frame`."""
        return places / self.unit - MARGIN

    def pixels(self, photo: Image.Image) -> np.ndarray:
        """A photo in the frame, sRGB float32 [T, T, 3] in [0, 1]."""
        return np.asarray(align(photo, self.matrix, self.probabilities.shape[1]), np.float32) / 255

    @property
    def turn(self) -> float:
        """
        How far the head is turned, by its looks: the place of the nose between the edges of the face, from −1 (the
        left one, as seen) over 0 (the middle) to 1; 0 where no nose is seen.
        """
        face, nose = (self.crop_mask(names, CROP_SIZE) > 0.5 for names in ("face", "nose"))
        rows, columns = np.nonzero(nose)
        beside = face[np.unique(rows)] if len(rows) else face[:0]
        edges = [np.flatnonzero(row)[[0, -1]] for row in beside if row.any()]
        if not edges:
            return 0.0
        left, right = np.median(edges, axis=0)
        return float(np.clip((2 * columns.mean() - left - right) / max(right - left, 1), -1, 1))

    @property
    def frontal(self) -> bool:
        """Whether the face is seen from the front, or nearly so."""
        return abs(self.turn) < MOST_TURNED

    def crop_mask(self, names: str | Iterable[str], size: int) -> np.ndarray:
        """As `mask`, of the face crop at `size` pixels, float32 [size, size]."""
        inside = Image.fromarray(self.mask(names)[self.window])
        kernel = Image.Resampling.BOX if size < inside.width else Image.Resampling.BILINEAR
        return np.asarray(inside.resize((size, size), kernel))

    def photo_mask(self, names: str | Iterable[str], size: tuple[int, int], margin: float = 0.0) -> np.ndarray:
        """
        As `mask`, of a photo of `size` (width, height): float32 [height, width], 0 beyond the frame; with what is up
        to `margin` pixels of the 128-pixel crop beside it.
        """
        mask = self.mask(names)
        if margin:
            mask = np.maximum(mask, widen(mask > FAINT, margin * self.unit / len(mask)))
        return self._to_photo(mask, size)

    def classes(self) -> np.ndarray:
        """The likeliest class of each pixel of the frame, int64 [T, T]."""
        return self.probabilities.argmax(0)

    def photo_classes(self, size: tuple[int, int]) -> np.ndarray:
        """
        The likeliest class of each pixel of a photo of `size` (width, height), int64 [height, width]; −1 beyond the
        frame.
        """
        best = np.zeros((size[1], size[0]), np.float32)
        found = np.full(best.shape, -1)
        for index in np.flatnonzero(np.bincount(self.classes().ravel(), minlength=len(self.labels))):
            share = self._to_photo(self.probabilities[index], size)
            found[share > best] = index
            np.maximum(best, share, out=best)
        return found

    def _to_photo(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A mask [T, T] of the frame → of the photo, float32 [height, width]."""
        back = inverse(self.matrix)
        quad = apply(back, corners(*mask.shape[::-1]))
        left, top = np.clip(np.floor(quad.min(0)).astype(int), 0, size)
        right, bottom = np.clip(np.ceil(quad.max(0)).astype(int), 0, size)
        whole = np.zeros((size[1], size[0]), np.float32)
        if right <= left or bottom <= top:
            return whole
        part = warp(Image.fromarray(mask), compose(back, translation(-left, -top)), (right - left, bottom - top))
        # The warp repeats the frame's outermost pixels beyond it: nothing is known there.
        x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
        places = apply(self.matrix, np.stack([x, y], -1))
        known = ((places >= 0) & (places <= mask.shape[::-1])).all(-1)
        whole[top:bottom, left:right] = np.where(known, np.asarray(part).clip(0, 1), 0)
        return whole


def parse(
    photo: Image.Image, matrix: np.ndarray, predict: Predict, labels: Sequence[str], size: int = 256
) -> FaceParsing:
    """
    Looks at a face and at its surroundings.

    Args:
        photo: the photo, or the aligned crop itself with the matrix that scales it to `size`.
        matrix: [2, 3] from the photo to the face crop of `size` pixels.
        predict: the network.
        labels: names of its classes.
        size: side in pixels of the pictures that it reads; even.

    Raises:
        ValueError: probabilities of another shape.
    """
    return parse_all([photo], [matrix], predict, labels, size)[0]


def parse_all(
    photos: Sequence[Image.Image],
    matrices: Sequence[np.ndarray],
    predict: Predict,
    labels: Sequence[str],
    size: int = 256,
) -> list[FaceParsing]:
    """As [`parse`], of several faces, whose views the network sees in one batch: the photo of each, and its matrix."""
    margin = (SURROUNDINGS - 1) / 2 * size
    frames = [compose(matrix, translation(margin, margin)) for matrix in matrices]  # of SURROUNDINGS · size pixels
    views = [
        align(photo, view, size)
        for photo, matrix, frame in zip(photos, matrices, frames, strict=True)
        for view in (matrix, compose(frame, scaling(1 / SURROUNDINGS)))
    ]
    seen: Sequence[np.ndarray] | np.ndarray = predict(views) if views else []
    expected = (len(labels), size, size)
    for each in seen:
        if each.shape != expected:
            raise ValueError(f"the parser must give probabilities {expected}, got {each.shape}")
    return [
        FaceParsing(_joined(near, far), tuple(labels), frame, photo.size)
        for near, far, frame, photo in zip(seen[::2], seen[1::2], frames, photos, strict=True)
    ]


def frame_to_crop(total: int) -> np.ndarray:
    """The matrix [2, 3] from a frame with `total` pixels along a side to the 128-pixel crop in its middle."""
    return compose(scaling(SURROUNDINGS * CROP_SIZE / total), translation(-MARGIN, -MARGIN))


def _joined(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Probabilities [C, S, S] of the crop and of its surroundings → of both at the crop's scale."""
    size = near.shape[1]
    total = SURROUNDINGS * size
    whole = np.stack(
        [np.asarray(Image.fromarray(each).resize((total, total), Image.Resampling.BILINEAR)) for each in far]
    )
    low, high = _crop_edges(total)
    ramp = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size)) / (FADE * size)
    weight = np.minimum(ramp[:, None], ramp[None, :]).clip(0, 1).astype(np.float32)
    inside = whole[:, low:high, low:high]
    whole[:, low:high, low:high] = inside + weight * (near - inside)
    return whole


def _crop_edges(total: int) -> tuple[int, int]:
    """First and last-but-one row of the crop in a frame of `total` pixels."""
    side = total // SURROUNDINGS
    return (total - side) // 2, (total + side) // 2


def class_indices(names: str | Iterable[str], labels: Sequence[str]) -> list[int]:
    """
    Classes, keys of `GROUPS` and `"person"` → the places of the classes among the labels of a parser, sorted. Raises
    `ValueError` for an unknown name, or one of which the parser has no class.
    """
    found: set[int] = set()
    for name in [names] if isinstance(names, str) else names:
        if name == PERSON:
            found.update(index for index, label in enumerate(labels) if label != "background")
            continue
        classes = set(GROUPS.get(name, (name,))) & set(labels)
        if not classes:
            raise ValueError(f"the parser has no {name}; known: {', '.join(sorted({*labels, *GROUPS, PERSON}))}")
        found.update(labels.index(each) for each in classes)
    return sorted(found)


# One colour a class, in the order of the parser's classes: neighbours in a face differ.
_PALETTE = np.array(
    [
        (90, 90, 90),
        (240, 190, 150),
        (230, 120, 90),
        (0, 190, 220),
        (60, 90, 230),
        (130, 70, 30),
        (250, 150, 200),
        (120, 0, 40),
        (230, 30, 80),
        (250, 90, 120),
        (150, 60, 200),
        (20, 160, 90),
        (255, 220, 0),
        (255, 180, 60),
        (190, 200, 110),
        (70, 140, 170),
        (200, 240, 255),
    ],
    np.uint8,
)


def overlay(photo: Image.Image, masks: Mapping[int, Image.Image], opacity: float = 0.55) -> Image.Image:
    """
    A photo with its classes in colours over it.

    Args:
        masks: index of a class → its mask of the photo's size, mode `"L"`.
        opacity: of the colours, from 0 to 1.
    """
    picture = photo.convert("RGB")
    for index, mask in masks.items():
        colour = tuple(_PALETTE[index % len(_PALETTE)].tolist())
        picture.paste(colour, (0, 0), mask.point(lambda value: round(value * opacity)))
    return picture
