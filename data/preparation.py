"""From one raw pair to aligned face crops: pure stages that processes and Ray run alike.

A stage that cannot go on raises [`Skip`] with one of few reasons, so that statistics add up. Nothing here knows other
samples but [`DuplicateIndex`], which is asked in the order of the input.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from gptface.processing.alignment import align, crop_matrix
from gptface.processing.detection import DetectedFace
from gptface.processing.image_loading import MAX_IMAGE_PIXELS, load_image

from .caption_cleaning import CaptionError, CaptionRules, clean_caption
from .shard_writing import Position
from .sources import TEXT_COLUMNS, Sample, read_source

FACE_CHOICES = ("largest", "all")
IMAGE_FORMATS = ("webp", "png")
WEBP_QUALITY = 95

# No others: Pillow hands EPS to another program, and rare decoders are where the holes are.
_PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Bits of the perceptual hash are the square of this. Of 4,479 aligned faces 8² bits cannot tell different people
# apart; with 12² all pairs within 16 bits are one photo twice, and so are three quarters of the pairs of a photo and
# its half-size JPEG.
HASH_SIDE = 12


class Detector(Protocol):
    """What finds faces, the largest first: [`YuNetDetector`]."""

    def detect(self, image: Image.Image, thorough: bool = False) -> list[DetectedFace]: ...


class Skip(Exception):
    """A pair or a face that is left out; the message is the reason, one of few."""


@dataclass(frozen=True)
class PreparationOptions:
    """
    Args:
        min_face: shorter side of a face's box in pixels of the photo; smaller faces are left out.
        size: side of the crops in pixels.
        faces: `"largest"` or `"all"` of a photo.
        image_format: of the crops: `"webp"` (quality 95) or `"png"` (lossless, some four times larger).
        captions: bounds of captions.
        keep_uncaptioned: keep faces without a usable caption, as crops without a text.
        max_distance: faces whose perceptual hashes differ in at most so many of 144 bits are duplicates; -1 keeps all.
        shard_size: a shard is complete once it holds so many faces; the faces of one photo stay together.

    Raises:
        ValueError: a value out of range.
    """

    min_face: int = 64
    size: int = 128
    faces: str = "largest"
    image_format: str = "webp"
    captions: CaptionRules = field(default_factory=CaptionRules)
    keep_uncaptioned: bool = False
    max_distance: int = 16
    shard_size: int = 10_000

    def __post_init__(self) -> None:
        for name, choices in (("faces", FACE_CHOICES), ("image_format", IMAGE_FORMATS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name, low, high in (
            ("min_face", 1, 10_000),
            ("size", 16, 2048),
            ("shard_size", 1, 10**7),
            ("max_distance", -1, HASH_SIDE**2),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be between {low} and {high}, got {getattr(self, name)}")


@dataclass
class Face:
    """
    Args:
        image: the encoded crop.
        hash: perceptual hash of the crop, `HASH_SIDE`² bits.
        side: shorter side of the box in pixels of the photo.
        metadata: what `key.json` will say, see [`metadata_json`].
    """

    image: bytes
    hash: bytes
    side: int
    metadata: bytes


@dataclass
class PreparedSample:
    """
    What became of one pair.

    Args:
        text: the clean caption, or `None`.
        faces: the usable faces; duplicates are not yet known.
        found: how many faces the detector saw.
        skipped_faces: counts of the others, by reason.
        skipped: why there is no usable face, or `None`.
    """

    text: str | None = None
    faces: list[Face] = field(default_factory=list)
    found: int = 0
    skipped_faces: Counter[str] = field(default_factory=Counter)
    skipped: str | None = None


def read_located(
    source: Path, number: int, start: Position, refused: Counter[str]
) -> Iterator[tuple[Position, Sample]]:
    """
    The pairs of one part of the input from `start` on, with their positions. What lies before is read too, to count
    what is refused there.
    """
    for row, sample in enumerate(read_source(source, refused)):
        if (number, row) >= start:
            yield (number, row), sample


def prepare_sample(sample: Sample, options: PreparationOptions, detector: Detector) -> PreparedSample:
    """All stages up to the crops, the cheap ones first. Never raises for what is wrong with the sample."""
    prepared = PreparedSample()
    try:
        prepared.text = usable_caption(sample.text, options)
        image = decode_picture(sample.image)
        detected = detector.detect(image, thorough=options.faces == "all")
        prepared.found = len(detected)
        prepared.faces, prepared.skipped_faces, first_reason = crop_faces(image, detected, sample, options)
        if not prepared.faces:
            raise Skip(first_reason)
    except Skip as skip:
        prepared.skipped = str(skip)
    return prepared


def usable_caption(text: str | None, options: PreparationOptions) -> str | None:
    """
    The clean caption; `None` where there is none and `keep_uncaptioned` allows that.

    Raises:
        Skip: "no caption" or "caption too short".
    """
    try:
        if text is None:
            raise CaptionError("no caption")
        return clean_caption(text, options.captions)
    except CaptionError as error:
        if options.keep_uncaptioned:
            return None
        raise Skip(str(error)) from None


def decode_picture(data: bytes) -> Image.Image:
    """
    Encoded bytes → upright picture, RGB or RGBA; its size is known before a pixel is decoded.

    Raises:
        Skip: "not a picture" (also of a format that does not belong on the web), "picture too large", "damaged
            picture".
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_PICTURE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Skip("picture too large") from None
    except Exception:  # A damaged header can raise nearly anything inside a decoder.
        raise Skip("not a picture") from None
    with image:
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise Skip("picture too large")
        try:
            return load_image(image)
        except ValueError:
            raise Skip("damaged picture") from None


def crop_faces(
    image: Image.Image, detected: list[DetectedFace], sample: Sample, options: PreparationOptions
) -> tuple[list[Face], Counter[str], str]:
    """
    The crops of the faces that are wanted and large enough.

    Returns:
        The faces, the counts of those left out by reason ("face too small", "not the largest", "unusable landmarks"),
        and why the largest is not among the first (or "no face").
    """
    faces: list[Face] = []
    reasons: list[str] = []
    for index, face in enumerate(detected):
        try:
            if options.faces == "largest" and index:
                raise Skip("not the largest")
            crop = crop_face(image, face, options)
        except Skip as skip:
            reasons.append(str(skip))
            continue
        stream = io.BytesIO()
        crop.save(stream, options.image_format, quality=WEBP_QUALITY)
        bits = perceptual_hash(crop)
        faces.append(Face(stream.getvalue(), bits, int(_side(face)), metadata_json(sample, face, index, bits)))
    return faces, Counter(reasons), reasons[0] if reasons else "no face"


def crop_face(image: Image.Image, face: DetectedFace, options: PreparationOptions) -> Image.Image:
    """
    The aligned crop of one face, RGB, `options.size` pixels square.

    Raises:
        Skip: "face too small" or "unusable landmarks".
    """
    if _side(face) < options.min_face:
        raise Skip("face too small")
    try:
        return align(image, crop_matrix(face.landmarks, options.size), options.size)
    except ValueError:
        raise Skip("unusable landmarks") from None


def _side(face: DetectedFace) -> float:
    x0, y0, x1, y1 = face.box
    return min(x1 - x0, y1 - y0)


def metadata_json(sample: Sample, face: DetectedFace, index: int, bits: bytes) -> bytes:
    """
    The columns of the sample but its texts (left out are values that JSON cannot hold, such as dates and bytes), and
    `source_key`, `sha256` of the raw picture, `box` and `landmarks` in pixels of the upright photo, `score`, `face` (0
    the largest), `phash` in hexadecimals.
    """
    facts = {
        "source_key": sample.key,
        "sha256": hashlib.sha256(sample.image).hexdigest(),
        "box": [round(float(value), 2) for value in face.box],
        "landmarks": np.round(face.landmarks, 2).tolist(),
        "score": round(face.score, 4),
        "face": index,
        "phash": bits.hex(),
    }
    parts = [
        _json_field(name, value) for name, value in {**sample.columns, **facts}.items() if name not in TEXT_COLUMNS
    ]
    return ("{" + ", ".join(filter(None, parts)) + "}").encode()


def _json_field(name: str, value: Any) -> str:
    try:
        return f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
    except (TypeError, ValueError, RecursionError):
        return ""


def perceptual_hash(image: Image.Image) -> bytes:
    """
    Signs of the low frequencies (pHash) of a picture, `HASH_SIDE`² bits, row by row.

    Raises:
        ImportError: `imagehash` is missing.
    """
    try:
        import imagehash
    except ImportError as error:
        raise ImportError('finding duplicates needs imagehash: pip install "gptface[prepare]"') from error
    return np.packbits(imagehash.phash(image, HASH_SIDE).hash).tobytes()


class DuplicateIndex:
    """
    The hashes of all faces kept so far; a face is a duplicate if one of them is near.

    The scan is exact: its cost grows with the faces kept, some ten milliseconds for each million.

    Args:
        max_distance: bits in which duplicates may differ; -1: nothing is a duplicate.
    """

    def __init__(self, max_distance: int):
        self.max_distance = max_distance
        self._words = np.zeros((-(-(HASH_SIDE**2) // 64), 1024), np.uint64)  # [words of a hash, faces]
        self._count = 0

    def is_duplicate(self, value: bytes) -> bool:
        words = _to_words(value, len(self._words))
        # A hash that is near as a whole is near in its first word too: the rest is looked at for few.
        first = np.bitwise_count(self._words[0, : self._count] ^ words[0])
        near = self._words[:, np.flatnonzero(first <= self.max_distance)]
        distances = np.bitwise_count(near ^ words[:, None]).sum(axis=0, dtype=np.int32)
        return bool((distances <= self.max_distance).any())

    def add(self, value: bytes) -> None:
        if self._count == self._words.shape[1]:
            self._words = np.concatenate([self._words, np.zeros_like(self._words)], axis=1)
        self._words[:, self._count] = _to_words(value, len(self._words))
        self._count += 1


def _to_words(value: bytes, count: int) -> np.ndarray:
    return np.frombuffer(value.ljust(8 * count, b"\0"), np.uint64)
