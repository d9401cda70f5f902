"""How an edit gets into the photo: layers of one formula, pasted at the photo's resolution.

`out = photo + alpha · ((R + Δ) − d · R − (1 − d) · photo)`, where R is the photo as the image tokenizer decodes it, Δ
what the edit did to that, d the share of the photo's own detail that stays and alpha how far the edit counts. With d =
0 the edited pixels replace the photo, with d = 1 their change is added to it. Pixels are float in [0, 1]; where alpha
is 0 the result is the photo, bit for bit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .alignment import apply, compose, corners, inverse, translation, warp
from .face_parsing import FaceParsing

CompositeMode = Literal["blend", "residual", "replace"]
#: The words for `composite`, each with what it does.
COMPOSITE_MODES: dict[CompositeMode, str] = {
    "blend": "the photo's detail stays where the edit left the photo as it was; a refiner draws the rest, where the "
    "checkpoint has one",
    "residual": "the difference that the edit made is added to the photo, all of its detail stays",
    "replace": "decoded pixels take the photo's place",
}
Box = tuple[int, int, int, int]  # (x0, y0, x1, y1)

#: The difference in [0, 1] at which 1/e of the photo's detail is left, and the side in pixels of the squares that it
#: is averaged over.
CHANGE_SCALE, CHANGE_CELL = 0.06, 4

_NOWHERE: tuple[Box, np.ndarray] = ((0, 0, 0, 0), np.zeros((0, 0), dtype=np.float32))


class PhotoLayer(Protocol):
    """
    A change of a part of a photo, a dataclass.

    Args:
        alpha: how far it counts at each pixel of a square frame, [S, S] in [0, 1].
        matrix: [2, 3] from the photo to the frame.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def alpha(self) -> np.ndarray: ...

    @property
    def matrix(self) -> np.ndarray: ...

    def change(self, base: np.ndarray, box: Box) -> np.ndarray:
        """What full weight would do to the pixels [h, w, 3] of the photo in the rectangle `box`, [h, w, 3]."""
        ...


class Transfer(Protocol):
    """
    A change that follows a known law and is not drawn by the model: a colour, glasses, the marks of age. What of the
    face it is about, the face parser says.
    """

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether a face shows all that it takes; else the model draws the edit."""
        ...

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> Sequence[PhotoLayer]:
        """
        What is laid over a photo.

        Args:
            parsing: of one of its faces, which it fits.
            share: of the way, in (0, 1].
            generator: of what is left to chance.
        """
        ...


@dataclass(frozen=True, eq=False)
class Layer:
    """
    An edit in a square frame of a photo: `out = photo + alpha · (delta − (1 − detail) · photo)`.

    ```python
    crop = np.full((64, 64, 3), 0.5, np.float32)
    layer = Layer(crop, np.zeros((64, 64)), np.ones((64, 64)), np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    image, mask = paste(Image.new("RGB", (64, 64)), [layer])
    ```

    Args:
        delta: float [S, S, 3], `(R + Δ) − detail · R`: what is laid on the share of the photo that stays.
        detail: [S, S] in [0, 1], the share of the photo that stays below.
        alpha: [S, S] in [0, 1], best with a soft edge.
        matrix: [2, 3] from the photo to the frame.

    Raises:
        ValueError: other shapes, pixels in 0…255 or NaN.
    """

    delta: np.ndarray
    detail: np.ndarray
    alpha: np.ndarray
    matrix: np.ndarray

    def __post_init__(self) -> None:
        _check_pixels(self.delta, "delta", low=-3)
        for name in ("detail", "alpha"):
            if np.shape(getattr(self, name)) != self.delta.shape[:2]:
                raise ValueError(f"{name} must have shape {self.delta.shape[:2]}, not {np.shape(getattr(self, name))}")

    def change(self, base: np.ndarray, box: Box) -> np.ndarray:
        """What full weight would do to the pixels [h, w, 3] of the photo in the rectangle `box`, [h, w, 3]."""
        frame = np.concatenate(
            [np.asarray(each, np.float32) for each in (self.delta, self.detail[:, :, None])], axis=2
        )
        warped = warp_channels(frame, self.matrix, box)
        return warped[:, :, :3] - (1 - warped[:, :, 3:]) * base


def decoded_layer(
    edited: ArrayLike,
    reconstruction: ArrayLike,
    alpha: np.ndarray,
    matrix: np.ndarray,
    mode: CompositeMode = "blend",
    gone: np.ndarray | None = None,
) -> Layer:
    """
    Decoded codes as they are.

    Args:
        edited, reconstruction: decoded codes after and before the edit, float [S, S, 3] in [0, 1].
        alpha: where the crop may change, [S, S] in [0, 1].
        matrix: [2, 3] from the photo to the crop.
        mode: one of `COMPOSITE_MODES`.
        gone: bool [S, S], what of the photo is to go: with `"blend"` none of its detail stays there.
    """
    after, before = _check_pixels(edited, "edited"), _check_pixels(reconstruction, "reconstruction")
    if mode == "blend":
        detail = likeness(after, before, gone)
    else:
        detail = np.full(after.shape[:2], float(mode == "residual"), np.float32)
    return Layer(after - detail[:, :, None] * before, detail, alpha, matrix)


def likeness(edited: np.ndarray, reconstruction: np.ndarray, gone: np.ndarray | None = None) -> np.ndarray:
    """
    Where an edit left a picture `[S, S, 3]` as it was, [S, S] in [0, 1], by the mean difference in squares of pixels:
    detail of what is no longer there (the line of closed lips, rims) would shine through.

    Args:
        gone: bool [S, S], what is to go whatever the difference: there it is 0.
    """
    height, width = edited.shape[:2]
    difference = Image.fromarray(np.abs(edited - reconstruction).mean(axis=2))
    coarse = difference.resize((max(1, width // CHANGE_CELL), max(1, height // CHANGE_CELL)), Image.Resampling.BOX)
    alike = Image.fromarray(np.exp(-((np.asarray(coarse) / CHANGE_SCALE) ** 2)))
    found = np.asarray(alike.resize((width, height), Image.Resampling.BILINEAR))
    return found if gone is None else found * ~gone


def paste(
    photo: Image.Image, layers: Iterable[PhotoLayer], photo_mask: np.ndarray | None = None
) -> tuple[Image.Image, np.ndarray]:
    """Lay edits into a photo, one after the other, at the photo's resolution.

    Args:
        photo: Mode RGB or RGBA, as `load_image` returns it.
        layers: From the first to the last.
        photo_mask: `[height, width]` of the photo, in [0, 1]: an upper bound of the weight, for a mask that the user
            drew on the photo and that the crop's pixels are too coarse to follow.

    Returns:
        A new image of the photo's mode, size, transparency and ICC profile; and the weight that its pixels got,
        float32 `[height, width]`, the largest of all layers. Where the weight is 0 its pixels are those of the photo.

    Raises:
        ValueError: A photo of another mode, or a `photo_mask` of another shape.
    """
    if photo.mode not in ("RGB", "RGBA"):
        raise ValueError(f"photo must have mode RGB or RGBA, as load_image returns it, not {photo.mode}")
    shape = (photo.height, photo.width)
    if photo_mask is not None and np.shape(photo_mask) != shape:
        raise ValueError(f"photo_mask must have shape {shape}, not {np.shape(photo_mask)}")
    result, total = photo.copy(), np.zeros(shape, np.float32)
    for layer in layers:
        box, weight = _weight_in_photo(np.asarray(layer.alpha, np.float32), layer.matrix, photo.size)
        window = np.s_[box[1] : box[3], box[0] : box[2]]
        if photo_mask is not None:
            weight = np.minimum(weight, photo_mask[window])
        if not weight.any():
            continue
        np.maximum(total[window], weight, out=total[window])
        pixels = np.array(result.crop(box))
        base = pixels[:, :, :3].astype(np.float32) / 255
        change = layer.change(base, box)
        blended = np.rint(np.clip(base + weight[:, :, None] * change, 0.0, 1.0) * 255)
        pixels[:, :, :3] = np.where(weight[:, :, None] > 0, blended, pixels[:, :, :3])
        result.paste(Image.fromarray(pixels), box[:2])
    return result, total


def _check_pixels(values: ArrayLike, name: str, low: float = -1) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f":
        raise ValueError(f"{name} must be float [S, S, 3] in [0, 1], not {array.dtype} {array.shape}")
    # A decoder may overshoot a little; pixels in 0…255 and NaN are mistakes.
    if not (array.min() >= low and array.max() <= 2):
        raise ValueError(f"{name} must lie in [0, 1], but goes from {array.min():g} to {array.max():g}")
    return array.astype(np.float32)


def warp_channels(crop: np.ndarray, matrix: np.ndarray, box: Box) -> np.ndarray:
    """Resample `[S, S, C]` of the crop into the rectangle `box` of the photo."""
    to_box = compose(inverse(matrix), translation(-box[0], -box[1]))
    size = (box[2] - box[0], box[3] - box[1])
    channels = (Image.fromarray(channel) for channel in np.moveaxis(crop, 2, 0))
    return np.stack([np.asarray(warp(channel, to_box, size)) for channel in channels], axis=2)


def _weight_in_photo(mask: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[Box, np.ndarray]:
    """The rectangle of the photo that a mask can reach, and the weights float32 `[H, W]` in it."""
    height, width = mask.shape
    mask = mask * edge_fade(width, height, matrix, size)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return _NOWHERE
    # Bicubic interpolation reaches two pixels, of the crop or of the photo, whichever is coarser.
    reach = np.array([[x, y] for x in (columns[0] - 2, columns[-1] + 3) for y in (rows[0] - 2, rows[-1] + 3)])
    quad = apply(inverse(matrix), reach)
    low = np.maximum(np.floor(quad.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(quad.max(axis=0)).astype(int) + 2, size)
    if (high <= low).any():
        return _NOWHERE
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    weight = warp_channels(mask[:, :, None], matrix, box)[:, :, 0].clip(0.0, 1.0)
    weight[weight < 1 / 512] = 0  # Dust of the interpolation: too little to see, but those pixels would not be exact.
    # `warp` repeats the outermost pixels, but beyond the crop nothing changes.
    x, y = np.arange(box[0], box[2]) + 0.5, (np.arange(box[1], box[3]) + 0.5)[:, None]
    for row, length in zip(matrix, (width, height), strict=True):
        position = row[0] * x + row[1] * y + row[2]
        weight[(position < 0) | (position > length)] = 0
    return box, weight


def edge_fade(width: int, height: int, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Weights `[height, width]` that fall to 0 at those edges of the crop that lie inside the photo."""
    quad = apply(inverse(matrix), corners(width, height))
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    fade = np.ones((height, width), dtype=np.float32)
    for index, distance in enumerate((y, 1 - x, 1 - y, x)):  # From the top, right, bottom and left edge.
        ends = quad[[index, (index + 1) % 4]]
        outside = (ends <= 0.5).all(axis=0) | (ends >= np.array(size) - 0.5).all(axis=0)
        if not outside.any():
            fade *= np.clip(distance * 16, 0.0, 1.0)
    return fade


#: ITU-R 601, as JPEG and Pillow weigh red, green and blue.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BINS = 32
# Longest side, roughly, of the picture that is looked at: grain and stains average out.
_SIDE = 256
# Levels of 255, root mean square, by which colours may stray from those of their brightness. Of 812 portraits the
# toned ones, yellowed paper among them, stay below 4.6, and the colour ones, and 1,500 photos of CelebA, above 5.4.
_MOST_STRAY = 5.0


def find_toning(photo: Image.Image) -> np.ndarray | None:
    """What red, green and blue of a photo without colours are.

    Args:
        photo: Mode RGB or RGBA; what is transparent does not count.

    Returns:
        What red, green and blue have more or less than the luma, float32 `[256, 3]` by luma: zeros for black and
        white.
        None where the colour does not follow from the brightness: a colour photo.
    """
    shrunk = photo.reduce(max(1, max(photo.size) // _SIDE))
    pixels = np.asarray(shrunk.convert("RGB"), np.float32).reshape(-1, 3)
    if photo.mode == "RGBA":
        pixels = pixels[np.asarray(shrunk)[:, :, 3].ravel() > 127]
    if not len(pixels):
        return None
    luma = pixels @ LUMA
    offsets = pixels - luma[:, None]
    bins = np.minimum((luma * (_BINS / 256)).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    seen = counts > 0
    centres = (np.flatnonzero(seen) + 0.5) * (256 / _BINS)
    means = [np.bincount(bins, channel, _BINS)[seen] / counts[seen] for channel in offsets.T]
    table = np.stack([np.interp(np.arange(256), centres, mean) for mean in means], axis=1).astype(np.float32)
    if np.abs(table).max() < 0.5:
        table[:] = (
            0  # or a grey value between two whole ones would be rounded otherwise in one channel than in another
        )
    stray = np.abs(offsets - _look_up(table, luma)).max(axis=1)
    # Black and white have no room for colour: they say little.
    room = np.minimum(luma, 255 - luma) + 1
    return table if np.sqrt(np.average(stray**2, weights=room)) <= _MOST_STRAY else None


def keep_toning(before: Image.Image, after: Image.Image, toning: np.ndarray) -> Image.Image:
    """An edit of a toned photo with its change of brightness alone, in the colours that the photo has for it.

    Args:
        before, after: Mode RGB or RGBA, of one size.
        toning: Of the photo, as `find_toning` gives it.

    Returns:
        A new picture of the mode, transparency and `info` of `after`; where that is as `before`, it stays so bit for
        bit.

    Example:
        ```python
        toning = find_toning(photo)
        edited = edited if toning is None else keep_toning(photo, edited, toning)
        ```
    """
    pixels, old = np.array(after), np.asarray(before)[:, :, :3]
    changed = (pixels[:, :, :3] != old).any(axis=2)
    was, becomes = (values[changed].astype(np.float32) for values in (old, pixels[:, :, :3]))
    toned = [luma[:, None] + _look_up(toning, luma) for luma in (was @ LUMA, becomes @ LUMA)]
    pixels[changed, :3] = np.rint(was + toned[1] - toned[0]).clip(0, 255)
    result = after.copy()
    result.paste(Image.fromarray(pixels))
    return result


def _look_up(toning: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Offsets `[N, 3]` at lumas `[N]` in 0…255."""
    return np.stack([np.interp(luma, np.arange(256), channel) for channel in toning.T], axis=1)
