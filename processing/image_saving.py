"""Picture files: whole or not at all, with colour profile, provenance and what a photo's file said of it."""

import io
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .image_loading import to_rgb
from .photo_metadata import DPI, JPEG_TABLES, exif_to_save
from .provenance import INFO_KEY, xmp_packet
from .whole_files import whole_file

_WITH_TRANSPARENCY = ("PNG", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "TGA", "ICO")
_WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF")
_WITH_DPI = ("JPEG", "PNG", "TIFF", "BMP")
# Bytes of EXIF data that a JPEG can hold.
_MOST_EXIF = 65_533


def check_format(path: Path) -> str:
    """PIL's name of the format that a file name means. Raises `ValueError` where it means none."""
    Image.init()
    if path.suffix.lower() not in Image.EXTENSION:
        raise ValueError(f"{path}: unknown picture format {path.suffix!r}; use .png, .jpg or .webp")
    return Image.EXTENSION[path.suffix.lower()]


def check_output(path: Path) -> None:
    """
    Complains before the work is done, not after it.

    Raises:
        ValueError: the name has no known ending, or is that of a link.
        FileNotFoundError: there is no such folder.
    """
    check_format(path)
    _refuse_link(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder: make it first")


def save_picture(image: Image.Image, path: str | Path, provenance: bool = True, keep_location: bool = False) -> None:
    """
    Writes a picture in the format of the name, with its ICC profile; the file appears whole.

    Only lossless formats (PNG, TIFF, BMP) keep every pixel that an edit left alone. A JPEG is written in full colour
    resolution (4:4:4), at the tables of the photo where that was a JPEG, else at quality 95; WebP at quality 95.

    Args:
        image: a picture, such as the pipelines' results, whose `info` says how they were made and what the photo's
            file said: date, author, camera and resolution go into the new file. Transparency is laid over white where
            the format has none.
        provenance: write how it was made into the file (PNG, JPEG and WebP) as an XMP packet; see
            `processing/provenance.py`.
        keep_location: write also where the photo was taken.

    Raises:
        ValueError: a name without a known ending, or that of a link: what it leads to stays, and so does the link.

    Example:
        ```python
        result = edit("photo.jpg", prompt="smiling")[0]
        save_picture(result["image"], "smiling.png")
        ```
    """
    path = Path(path)
    image_format = check_format(path)
    _refuse_link(path)
    with whole_file(path) as scratch:
        _write(image, scratch, image_format, provenance, keep_location)


def picture_bytes(
    image: Image.Image, suffix: str = ".png", provenance: bool = True, keep_location: bool = False
) -> bytes:
    """
    A picture as [`save_picture`] would write it, without a file.

    Args:
        suffix: the ending that a file would have.

    Raises:
        ValueError: an unknown ending.
    """
    target = io.BytesIO()
    _write(image, target, check_format(Path(f"picture{suffix}")), provenance, keep_location)
    return target.getvalue()


def _write(
    image: Image.Image, target: Path | io.BytesIO, image_format: str, provenance: bool, keep_location: bool
) -> None:
    info = image.info
    if image_format not in _WITH_TRANSPARENCY:
        image = to_rgb(image)
    options: dict[str, Any] = {}
    if image_format == "JPEG":
        tables = info.get(JPEG_TABLES)
        options = {"subsampling": 0} | ({"qtables": tables} if tables else {"quality": 95})
    elif image_format == "WEBP":
        options = {"quality": 95}
    if DPI in info and image_format in _WITH_DPI:
        options[DPI] = info[DPI]
    if provenance and INFO_KEY in info:
        options |= _metadata(image_format, info[INFO_KEY])
    exif = exif_to_save(image, keep_location) if image_format in _WITH_EXIF else None
    if exif is not None and len(exif) <= _MOST_EXIF:
        options["exif"] = exif
    image.save(target, format=image_format, icc_profile=info.get("icc_profile"), **options)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ValueError(f"{path} is a link: name the file itself, {path.resolve()}, or another one")


def _metadata(image_format: str, provenance: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Image.save` that write the provenance."""
    packet = xmp_packet(provenance)
    if image_format in ("JPEG", "WEBP"):
        return {"xmp": packet}
    if image_format == "PNG":
        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", packet.decode())
        chunks.add_itxt("Software", provenance["software"])
        return {"pnginfo": chunks}
    return {}
