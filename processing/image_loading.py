"""Turn whatever a user calls a picture into an upright 8-bit PIL image, or say what is wrong with it."""

import base64
import binascii
import functools
import io
import os
import re
import stat
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

from .photo_metadata import JPEG_TABLES, read_metadata

MAX_IMAGE_PIXELS = 64_000_000
MAX_ENCODED_BYTES = 128 * 2**20
#: Of a file, which need not fit into memory: what the pixels take in four channels of 16 bits, not compressed.
MAX_FILE_BYTES = 8 * MAX_IMAGE_PIXELS
URL_TIMEOUT_SECONDS = 30.0
#: Each scan of a JPEG takes the time of a whole picture. Encoders write 10 of a picture in colour, and 18 in CMYK.
MAX_JPEG_SCANS = 32
#: Pillow's names of the formats that photos come in, where it reads them. Others are a danger for nothing: a page
#: description is run by an interpreter, and a container has another picture inside that no bound is known of.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")

# Tags of TIFF.
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281

#: Key of `Image.info`: the EXIF orientation, 5 to 8, of a photo whose stored width is the height of the upright one.
ORIENTATION = "orientation"
#: The operation that undoes each EXIF orientation.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageInputError(ValueError):
    """An input that is not a usable picture. The message names the input and says what would be right."""


def load_image(source: Any, name: str | None = None) -> Image.Image:
    """Load a picture from any common form.

    Args:
        source: A PIL image; a path (`str` or `os.PathLike`); an http(s) or data URL; `bytes`; a binary file object;
            `{"bytes": …, "path": …}`, as `datasets` holds a picture that is not decoded; a numpy array `[H, W]`, `[H,
            W, 1]`, `[H, W, 3]` or `[H, W, 4]`; or a torch tensor `[H, W]` or `[1 | 3 | 4, H, W]`. Arrays and tensors
            hold uint8, 16-bit grey (uint16), or float in [0, 1].
        name: How error messages call the input, for example `"image 3"`. A description of `source` is added.

    Returns:
        A new image, mode `"RGB"`, or `"RGBA"` where the source has transparency. EXIF orientation is applied; of an
        animated file it is the first frame, with a warning; 16-bit grey is scaled to 8 bit, from the file's own
        maximum where it names one. Its `info` holds `icc_profile`, if that describes RGB, what `read_metadata` reads,
        and `orientation` where the EXIF orientation exchanged width and height.

    Raises:
        ImageInputError: Missing, empty, truncated or not a picture; more than `MAX_IMAGE_PIXELS` pixels (known from
            the header, before decoding); a format that photos do not come in; no pixels at all; NaN or values out of
            range; a shape or type that is none of the above.
    """
    label = label_of(source, name)
    if isinstance(source, Mapping) and (source.keys() & {"bytes", "path"}):
        held = source.get("bytes")
        return load_image(source.get("path") if held is None else held, name)
    if isinstance(source, Image.Image):
        return _to_eight_bit(source, label)
    if _is_torch_tensor(source):
        return _from_array(_tensor_to_array(source, label), label)
    if isinstance(source, np.ndarray):
        return _from_array(source, label)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), label)
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        return _decode(io.BytesIO(_download(source, label)), label)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _decode(io.BytesIO(_data_url_bytes(source, label)), label)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source), label)
    if hasattr(source, "read"):
        return _decode(io.BytesIO(_read_bounded(source, label)), label)
    raise ImageInputError(
        f"{label} is not a picture: pass a PIL image, a path, an http(s) or data URL, bytes, a binary file, a numpy "
        "array or a torch tensor"
    )


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Endings of the files that [`load_image`] may read, such as `".jpg"`."""
    endings = Image.registered_extensions()
    return frozenset(suffix for suffix, name in endings.items() if name in FORMATS and name in Image.OPEN)


def label_of(source: Any, name: str | None = None) -> str:
    """How an error message calls a picture: its place in a list, if any, and what was given."""
    return _describe(source) if name is None else f"{name} ({_describe(source)})"


def to_rgb(image: Image.Image) -> Image.Image:
    """Return `image` as mode `"RGB"`, transparency laid over white: the model's view of a picture."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _describe(source: Any) -> str:
    """A short name of the input; the query of a URL stays out, for it may hold a secret."""
    if isinstance(source, (str, os.PathLike)):
        text = str(source)
        if text[:5].lower() == "data:":
            text = text[:24] + "…"
        elif "://" in text:
            text = text.partition("?")[0]
        return repr(text if len(text) <= 200 else text[:199] + "…")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{type(source).__name__} of length {len(source)}"
    if isinstance(source, np.ndarray) or _is_torch_tensor(source):
        kind = "numpy array" if isinstance(source, np.ndarray) else "torch tensor"
        return f"{kind} of shape {tuple(source.shape)} and type {source.dtype}"
    if isinstance(source, Mapping) and source.get("path"):
        return _describe(source["path"])
    if isinstance(source, Image.Image):
        return f"PIL image of mode {source.mode} and size {source.size}"
    return f"object of type {type(source).__name__}"


def _from_path(path: str | bytes, label: str) -> Image.Image:
    try:
        file = Path(os.fsdecode(path)).expanduser()
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever for who writes into it, a device never end
            raise OSError("it is no regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageInputError(f"{label} holds more than {MAX_FILE_BYTES} bytes: pass a smaller image file")
        stream = file.open("rb")
    except ImageInputError:
        raise
    except FileNotFoundError:
        raise ImageInputError(f"{label} does not exist: pass the path of an image file") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageInputError(
            f"{label} cannot be opened ({reason}): pass the path of a readable image file"
        ) from error
    with stream:
        return _decode(stream, label)


def _read_bounded(stream: Any, label: str) -> bytes:
    try:
        data = stream.read(MAX_ENCODED_BYTES + 1)
    except Exception as error:
        raise ImageInputError(f"{label} cannot be read ({error}): pass an open binary file") from error
    if isinstance(data, str):
        raise ImageInputError(f'{label} was opened as text: open the image file with mode "rb"')
    if not data:
        raise ImageInputError(f"{label} holds no more bytes: rewind it with seek(0) or pass the file's path")
    if len(data) > MAX_ENCODED_BYTES:
        raise ImageInputError(f"{label} holds more than {MAX_ENCODED_BYTES} bytes: pass a smaller image file")
    return data


def _data_url_bytes(url: str, label: str) -> bytes:
    header, comma, payload = url.partition(",")
    if not comma:
        raise ImageInputError(f"{label} has no comma: a data URL looks like data:image/png;base64,iVBOR…")
    payload_bytes = urllib.parse.unquote_to_bytes(payload)
    if not header.lower().endswith(";base64"):
        return payload_bytes
    try:
        return base64.b64decode(b"".join(payload_bytes.split()), validate=True)
    except binascii.Error as error:
        raise ImageInputError(f"{label} is not valid base64 ({error}): pass the complete data URL") from None


def _download(url: str, label: str) -> bytes:
    # The time-out of urlopen holds for one read; the deadline keeps a slow drip of bytes from taking hours.
    deadline = time.monotonic() + URL_TIMEOUT_SECONDS
    request = urllib.request.Request(url, headers={"User-Agent": "gptface", "Accept": "image/*,*/*;q=0.5"})
    chunks: list[bytes] = []
    received = 0
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT_SECONDS) as response:
            while received <= MAX_ENCODED_BYTES and (chunk := response.read1(1 << 16)):
                chunks.append(chunk)
                received += len(chunk)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {URL_TIMEOUT_SECONDS:.0f} seconds")
    except urllib.error.HTTPError as error:
        raise ImageInputError(f"{label} answers HTTP {error.code}: pass the address of a public picture") from None
    except Exception as error:
        reason = getattr(error, "reason", error)
        raise ImageInputError(f"{label} cannot be fetched ({reason}): check the address and the network") from error
    if received > MAX_ENCODED_BYTES:
        raise ImageInputError(f"{label} sends more than {MAX_ENCODED_BYTES} bytes: use a smaller picture")
    return b"".join(chunks)


def _decode(stream: BinaryIO, label: str) -> Image.Image:
    try:
        Image.init()
        # Pillow's own bound may warn first. Silencing it would take `warnings.catch_warnings`, which is no matter of
        # one thread and makes Python forget which warnings a user has seen.
        image = Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageInputError(f"{label} is too large ({error}): resize it first") from None
    except Exception as error:  # A damaged header can raise nearly anything inside a decoder.
        raise ImageInputError(
            f"{label} is empty or not a picture that can be read: pass a complete JPEG, PNG, WebP, GIF, BMP or TIFF"
        ) from error
    with image:
        return _to_eight_bit(image, label)


def _check_size(size: tuple[int, int], label: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageInputError(f"{label} has no pixels (size {width}×{height})")
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageInputError(
            f"{label} has {width}×{height} pixels, more than {MAX_IMAGE_PIXELS / 1e6:g} million: resize it first"
        )


def _check_scans(image: Image.Image, label: str) -> None:
    """Refuses a JPEG that is not decoded yet and has too many scans."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or not image.tile or image.fp is None:
        return
    image.fp.seek(image.tile[0][2])  # where this picture of the file begins
    data = image.fp.read(MAX_ENCODED_BYTES + 1)
    if len(data) > MAX_ENCODED_BYTES:
        raise ImageInputError(f"{label} holds more than {MAX_ENCODED_BYTES} bytes: pass a smaller image file")
    # Counting the bytes is quick and finds all scans, but also those of thumbnails and of what is appended.
    if data.count(b"\xff\xda") > MAX_JPEG_SCANS and _count_scans(data) > MAX_JPEG_SCANS:
        raise ImageInputError(f"{label} is a JPEG of more than {MAX_JPEG_SCANS} scans: save it anew")


# a marker; not a byte 255 of the data, which a zero follows, nor a restart between them
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")


def _count_scans(jpeg: bytes) -> int:
    """Scans up to the end of the picture, or up to one too many."""
    scans, position = 0, 2
    while scans <= MAX_JPEG_SCANS and (found := _JPEG_MARKER.search(jpeg, position)):
        position, marker = found.end(), found[1]
        if marker == b"\xd9":  # end of image
            break
        scans += marker == b"\xda"
        position += int.from_bytes(jpeg[position : position + 2])  # the segment, its length included
    return scans


def _to_eight_bit(image: Image.Image, label: str) -> Image.Image:
    """Decode, turn upright and convert to RGB or RGBA. The caller's image stays as it is."""
    _check_size(image.size, label)
    try:
        _check_scans(image, label)
        image.load()
    except ImageInputError:
        raise
    except Exception as error:  # Damaged pixels can raise nearly anything too.
        raise ImageInputError(f"{label} is truncated or damaged ({error}): pass a complete image") from error
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        orientation = 1  # Unreadable metadata does not make the pixels any worse.
    profile = image.info.get("icc_profile")
    _warn_of_other_frames(image, label)
    bits = _bits_of_sixteen(image)
    try:
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            result = Image.fromarray(_grey_to_eight_bit(np.asarray(image), label, bits)).convert("RGB")
        elif bits < 16:
            raise ImageInputError(
                f"{label} holds colours of {bits} bits in 16, of which Pillow reads the upper 8: "
                "convert it to 8 bit first"
            )
        elif image.mode == "CMYK" and profile:
            result = _cmyk_to_rgb(image, profile)
        else:
            result = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except ValueError as error:
        if isinstance(error, ImageInputError):
            raise
        raise ImageInputError(f"{label} has a mode that cannot become RGB: convert it to RGB first") from error
    if orientation in UPRIGHT:
        result = result.transpose(UPRIGHT[orientation])
    elif result is image:
        result = image.copy()
    result.info.clear()
    result.info.update(read_metadata(image))
    # A profile for CMYK or grey would give the converted pixels wrong colours; bytes 16-19 name its colour space.
    if profile and profile[16:20] == b"RGB ":
        result.info["icc_profile"] = profile
    if orientation in UPRIGHT and orientation >= 5:
        result.info[ORIENTATION] = orientation
        if JPEG_TABLES in result.info:  # its rows have become columns
            tables = result.info[JPEG_TABLES]
            result.info[JPEG_TABLES] = [np.reshape(table, (8, 8)).T.ravel().tolist() for table in tables]
    return result


def _warn_of_other_frames(image: Image.Image, label: str) -> None:
    """Who passes a later frame has chosen it, and the further pictures of an MPO are a camera's own."""
    try:
        others = getattr(image, "is_animated", False) and image.tell() == 0 and image.format != "MPO"
    except Exception:
        return  # What is damaged beyond the first frame is not used.
    if others:
        warnings.warn(f"{label} holds several frames or pages: only the first one is used", stacklevel=4)


def _bits_of_sixteen(image: Image.Image) -> int:
    """How many of the 16 bits of a TIFF's values are in use, as far as it says so."""
    tags = getattr(image, "tag_v2", {})
    try:
        bits = max(tags.get(_BITS_PER_SAMPLE, (16,)))
        largest = max(tags.get(_MAX_SAMPLE_VALUE, (65535,)))
    except (TypeError, ValueError):
        return 16
    return min(16, bits, int(largest).bit_length()) if 8 < bits <= 16 and largest > 255 else 16


def _cmyk_to_rgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB") or image.convert("RGB")
    except (ImageCms.PyCMSError, ImportError, OSError):  # A broken profile, or a Pillow without colour management.
        return image.convert("RGB")


def _grey_to_eight_bit(grey: np.ndarray, label: str, bits: int = 16) -> np.ndarray:
    """Grey values of an unusual depth, [H, W], to uint8.

    uint16 is the full range of `bits`. Pillow's 32-bit modes do not say their range: integers up to 255 are taken as 8
    bit and up to 65,535 as 16 bit; floats up to 1 are taken as [0, 1] and up to 255 as 8 bit.
    """
    low, high = float(grey.min()), float(grey.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageInputError(f"{label} holds NaN or infinite values: replace them first")
    known = {"f4": (1.0, 255.0), "i4": (255.0, 65535.0), "u2": (2.0**bits - 1, 65535.0)}[grey.dtype.str[1:]]
    limit = next((limit for limit in known if high <= limit), None)
    if low < 0 or limit is None:
        raise ImageInputError(f"{label} holds grey values from {low:g} to {high:g}: convert it to 8 bit first")
    return np.rint(grey.astype(np.float64) * (255.0 / limit)).astype(np.uint8)


def _is_torch_tensor(source: Any) -> bool:
    # Whoever holds a tensor has imported torch; nobody else should pay for importing it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _tensor_to_array(tensor: Any, label: str) -> np.ndarray:
    """A torch tensor [H, W] or [C, H, W] to a numpy array [H, W] or [H, W, C]."""
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4)):
        raise ImageInputError(f"{label} is not one picture: pass a tensor [H, W] or [1, 3 or 4 channels, H, W]")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    array = tensor.numpy()
    return array if array.ndim == 2 else array.transpose(1, 2, 0)


def _from_array(array: np.ndarray, label: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageInputError(
            f"{label} is not one picture: pass an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], channels last"
        )
    _check_size((array.shape[1], array.shape[0]), label)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageInputError(f"{label} holds NaN or infinite values: replace them first")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ImageInputError(
                f"{label} holds values from {low:g} to {high:g}: floats must lie in [0, 1] "
                "(divide 0…255 by 255, turn -1…1 into (x + 1) / 2)"
            )
        array = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    elif array.dtype == np.uint16 and array.ndim == 2:
        array = _grey_to_eight_bit(array, label)
    elif array.dtype != np.uint8:
        raise ImageInputError(f"{label} is neither uint8 nor float: pass uint8 0…255 or float in [0, 1]")
    image = Image.fromarray(np.ascontiguousarray(array))
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
