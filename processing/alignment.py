"""Geometry of the face crop: from five landmarks to a similarity transform, and from a photo to the aligned crop.

Coordinates are continuous pixel coordinates `(x, y)`: `(0, 0)` is the outer corner of the top left pixel, and pixel
`i` spans `[i, i + 1)` with its centre at `i + 0.5`. A picture that is scaled by two therefore has every coordinate
doubled. A matrix is float64 `[2, 3]` and maps column vectors: `(x', y') = M[:, :2] @ (x, y) + M[:, 2]`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .image_loading import to_rgb

# Where the landmarks of a frontal face lie in a crop of 128×128 pixels. Order everywhere: the eye on the left side of
# the picture, the eye on the right, nose tip, left mouth corner, right mouth corner.
CROP_SIZE = 128
CROP_LANDMARKS = np.array([[44.5, 55.5], [83.5, 55.5], [64.0, 80.0], [48.0, 96.0], [80.0, 96.0]])
CROP_LANDMARKS.flags.writeable = False

# How far, in pixels of the crop, landmarks may lie from these. Of faces that look aside they do by up to 11, and from
# 16 on where the points of a frontal face are confused.
LARGEST_MISFIT = 13.0

# Far beyond any picture; the squares of much larger numbers would overflow.
_LARGEST_COORDINATE = 1e100

# Width, in pixels of the crop, of the boxes that YuNet draws around faces, which end at the cheeks.
_FACE_WIDTH = 83.0

# The same crop as a square of CelebA's aligned pictures (178×218), which all share one alignment.
_CELEBA_SIZE = (178, 218)
CELEBA_BOX = (25, 56, 153, 184)


def similarity_transform(source: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Least-squares rotation, uniform scale and shift that take `source` to `target`, never a reflection.

    The closed form of Umeyama (1991) in two dimensions.

    Args:
        source: Points `[N, 2]`, N ≥ 2.
        target: Points `[N, 2]`.

    Returns:
        Matrix `[2, 3]`.

    Raises:
        ValueError: Shapes that differ, non-finite values, or source points that all coincide.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise ValueError(
            "points must be two arrays of one shape [N, 2] with N of at least 2, "
            f"not {source.shape} and {target.shape}"
        )
    if not (np.abs(np.concatenate([source, target])) < _LARGEST_COORDINATE).all():  # Also true of NaN.
        raise ValueError("points must be finite")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    # As complex numbers a similarity is z' = c·z + t, and c is an ordinary least-squares slope.
    z = (source - source_mean) @ np.array([1, 1j])
    w = (target - target_mean) @ np.array([1, 1j])
    spread = float((np.abs(z) ** 2).sum())
    if spread <= 1e-12 * max(1.0, float(np.abs(source).max()) ** 2):
        raise ValueError("points coincide: they do not say how large the face is")
    c = (z.conj() * w).sum() / spread
    linear = np.array([[c.real, -c.imag], [c.imag, c.real]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def crop_matrix(landmarks: ArrayLike, size: int = CROP_SIZE, known: ArrayLike | None = None) -> np.ndarray:
    """Matrix `[2, 3]` from the photo to a crop of `size`×`size` pixels.

    Args:
        landmarks: `[5, 2]` in pixels of the photo, in the order of `CROP_LANDMARKS`.
        size: Side of the crop in pixels.
        known: bool `[5]`, which of them count, two at least; all by default.

    Raises:
        ValueError: Another shape, non-finite values, or landmarks that give no face.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.shape != (5, 2):
        raise ValueError(
            "landmarks must be five points (x, y) in pixels of the photo: left eye, right eye, nose, left and right "
            f"mouth corner as seen in the picture; got shape {landmarks.shape}"
        )
    rows = slice(None) if known is None else np.asarray(known, bool)
    matrix = similarity_transform(landmarks[rows], CROP_LANDMARKS[rows] * (size / CROP_SIZE))
    if scale_of(matrix) < 1e-6:
        raise ValueError("landmarks do not form a face: check their order and units")
    return matrix


def misfit(landmarks: ArrayLike) -> float:
    """How far landmarks `[5, 2]` lie from where a frontal face has them: root mean square in pixels of the aligned
    crop.

    Raises:
        ValueError: As for `crop_matrix`.
    """
    away = apply(crop_matrix(landmarks), landmarks) - CROP_LANDMARKS
    return math.sqrt(float((away**2).sum(axis=1).mean()))


def check_landmarks(landmarks: ArrayLike) -> None:
    """Refuse points that are no landmarks `[5, 2]` of a face; those of a turned face are fine.

    Raises:
        ValueError: Says what the points seem to be instead: fractions of the picture, (y, x), or in another order.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    fit = misfit(points)
    order = "left eye, right eye, nose, left and right mouth corner, as seen in the upright picture"
    if np.abs(points).max() <= 1:
        raise ValueError(
            f"landmarks must be in pixels of the photo: {points.round(3).tolist()} are fractions of it; "
            "multiply x by its width and y by its height"
        )
    if fit <= LARGEST_MISFIT:
        return
    # Both mistakes mirror the face; which one it is shows in how the mended face stands.
    mended = {
        "(y, x); swap the coordinates": points[:, ::-1],
        "in the person's own order, left eye first; swap left and right": points[[1, 0, 2, 4, 3]],
    }
    upright = {mistake: crop_matrix(each)[0, 0] for mistake, each in mended.items() if misfit(each) <= LARGEST_MISFIT}
    guess = f" They seem to be {max(upright, key=upright.__getitem__)}." if upright else ""
    raise ValueError(
        f"landmarks must be five points (x, y): {order}. These lie {fit:.0f} pixels of a {CROP_SIZE}-pixel crop from "
        f"any face.{guess}"
    )


def face_width(landmarks: ArrayLike) -> float:
    """About how many pixels of the photo a face with these landmarks `[5, 2]` is wide, from cheek to cheek."""
    return _FACE_WIDTH / scale_of(crop_matrix(landmarks))


def scale_of(matrix: np.ndarray) -> float:
    """How many target pixels one source pixel becomes, along one side."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The matrix `[2, 3]` of the opposite direction."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The matrix `[2, 3]` that applies `first` and `then` in this order."""
    return np.column_stack([then[:, :2] @ first[:, :2], then[:, :2] @ first[:, 2] + then[:, 2]])


def translation(x: float, y: float) -> np.ndarray:
    """The matrix `[2, 3]` of a shift by `(x, y)`."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def scaling(x: float, y: float | None = None) -> np.ndarray:
    """The matrix `[2, 3]` that scales by `x` and `y`; by `x` in both directions where no `y` is given."""
    return np.array([[x, 0.0, 0.0], [0.0, x if y is None else y, 0.0]])


def apply(matrix: np.ndarray, points: ArrayLike) -> np.ndarray:
    """Map points `[..., 2]`."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def corners(width: float, height: float) -> np.ndarray:
    """The four corners `[4, 2]` of a picture, clockwise from the top left."""
    return np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])


def covered_cells(matrix: np.ndarray, size: ArrayLike, grid: int = 16) -> np.ndarray:
    """Which cells of a crop lie wholly inside of the photo; the others show pixels that `align` had to repeat.

    Args:
        matrix: `[2, 3]` from photo to a crop of `CROP_SIZE`.
        size: Width and height of the photo in pixels.
        grid: Cells along one side of the crop.

    Returns:
        Boolean `[grid, grid]`, rows from the top. Up to half a pixel of the photo may be missing.
    """
    steps = np.linspace(0, CROP_SIZE, grid + 1)
    points = apply(inverse(matrix), np.stack(np.meshgrid(steps, steps), axis=-1))
    inside: np.ndarray = np.all((points >= -0.5) & (points <= np.asarray(size) + 0.5), axis=-1)
    return inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:]


def align(image: Image.Image, matrix: np.ndarray, size: int = CROP_SIZE) -> Image.Image:
    """Cut the face out of a photo.

    Args:
        image: The photo. Mode `"L"` (a mask) stays so, everything else becomes RGB, transparency over white.
        matrix: `[2, 3]` from photo to crop, as `crop_matrix` gives it.
        size: Side of the crop in pixels.

    Returns:
        The crop, `size`×`size`, anti-aliased where the photo is sharper than the crop. Beyond the edge of the photo
        its outermost pixels are repeated.

    Raises:
        ValueError: The crop lies outside the photo or is far larger than it: the landmarks belong to another picture.
    """
    image = image if image.mode == "L" else to_rgb(image)
    quad = apply(inverse(matrix), corners(size, size))
    low, high = quad.min(axis=0), quad.max(axis=0)
    if (high <= 0).any() or (low >= image.size).any() or (high - low).max() > 8 * max(image.size):
        raise ValueError(
            f"the face crop spans {low.round().tolist()} to {high.round().tolist()} in a photo of size {image.size}: "
            "landmarks must be pixels of this photo"
        )
    return warp(image, matrix, (size, size))


def warp(image: Image.Image, matrix: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Resample `image` through `matrix` (from source to target) into a picture of `size` (width, height).

    Bicubic where the target is about as fine as the source or finer. Where it is coarser, the source is averaged down
    to between two and four times the target's resolution, sampled at that resolution (bilinear suffices there) and
    averaged again, so that no detail aliases. Beyond its edge the source repeats its outermost pixels. Modes `"L"`,
    `"RGB"`, `"RGBA"` and `"F"`.
    """
    back = inverse(matrix)
    quad = apply(back, corners(*size))
    # How many source pixels one target pixel spans, and by how much the source is averaged down first.
    shrink = scale_of(back)
    factor = max(1, math.floor(shrink / 2))
    margin = 3  # The bicubic kernel reaches two pixels.
    left, top = (math.floor(value / factor) - margin for value in quad.min(axis=0))
    right, bottom = (math.ceil(value / factor) + margin for value in quad.max(axis=0))
    part = _reduced_part(image, factor, (left, top, right, bottom))
    oversample = max(1, math.ceil(shrink / factor - 0.25))
    grid = (size[0] * oversample, size[1] * oversample)
    to_part = compose(scaling(1 / factor), translation(-left, -top))
    lookup = compose(compose(scaling(1 / oversample), back), to_part)
    kernel = Image.Resampling.BICUBIC if oversample == 1 else Image.Resampling.BILINEAR
    # In float, because Pillow cuts off the fractions of 8-bit results, which darkens them by half a level.
    bands = [
        band.convert("F").transform(grid, Image.Transform.AFFINE, tuple(lookup.ravel()), kernel).reduce(oversample)
        for band in part.split()
    ]
    if image.mode == "F":
        return bands[0]
    return Image.merge(image.mode, [Image.fromarray(_to_uint8(band)) for band in bands])


def _to_uint8(band: Image.Image) -> np.ndarray:
    return np.rint(np.asarray(band).clip(0.0, 255.0)).astype(np.uint8)


def _reduced_part(image: Image.Image, factor: int, box: tuple[int, int, int, int]) -> Image.Image:
    """The rectangle `box` of the picture averaged down by `factor` (box counts reduced pixels), edges repeated.

    Only pixels inside the picture are touched, however far the box reaches beyond it.
    """
    x = np.arange(box[0], box[2]).clip(0, math.ceil(image.width / factor) - 1)
    y = np.arange(box[1], box[3]).clip(0, math.ceil(image.height / factor) - 1)
    inside = (
        int(x[0]) * factor,
        int(y[0]) * factor,
        min(int(x[-1] + 1) * factor, image.width),
        min(int(y[-1] + 1) * factor, image.height),
    )
    part = image.crop(inside) if factor == 1 else image.reduce(factor, inside)
    if part.size == (len(x), len(y)):
        return part
    return Image.fromarray(np.asarray(part)[np.ix_(y - y[0], x - x[0])])


def celeba_crop(image: Image.Image, size: int = CROP_SIZE) -> Image.Image:
    """The project's face crop of a picture that has CelebA's alignment.

    Args:
        image: 178×218 pixels (the crop is the square (25, 56)–(153, 184)) or the half-size 89×109.
        size: Side of the result in pixels. A full-size picture at 128 is cut without resampling; everything else is
            resized with the bicubic filter, which rings less than Lanczos where 64 pixels become 128.

    Raises:
        ValueError: A picture of another size.
    """
    image = to_rgb(image)
    if image.size == _CELEBA_SIZE:
        scale = 1.0
    elif image.size == (_CELEBA_SIZE[0] // 2, _CELEBA_SIZE[1] // 2):
        scale = 0.5
    else:
        raise ValueError(f"a picture with CelebA's alignment has 178×218 or 89×109 pixels, not {image.size}")
    if scale == 1.0 and size == CROP_SIZE:
        return image.crop(CELEBA_BOX)
    x0, y0, x1, y1 = CELEBA_BOX
    box = (x0 * scale, y0 * scale, x1 * scale, y1 * scale)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
