"""Picture files: whole or not at all, with colour profile and provenance."""

from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .provenance import INFO_KEY, xmp_packet
from .whole_files import whole_file


def check_format(path: Path) -> str:
    """PIL's name of the format that a file name means. Raises `ValueError` where it means none."""
    Image.init()
    if path.suffix.lower() not in Image.EXTENSION:
        raise ValueError(f"{path}: unknown picture format {path.suffix!r}; use .png, .jpg or .webp")
    return Image.EXTENSION[path.suffix.lower()]


def save_picture(image: Image.Image, path: str | Path, provenance: bool = True) -> None:
    """
    Writes a picture in the format of the name, with its ICC profile; the file appears whole.

    Args:
        image: a picture, such as the pipelines' results, whose `info` says how they were made.
        provenance: write that into the file (PNG, JPEG and WebP) as an XMP packet; see `processing/provenance.py`.

    Raises:
        ValueError: a name without a known ending.
    """
    path = Path(path)
    image_format = check_format(path)
    if image_format == "JPEG":
        image = image.convert("RGB")
    options: dict[str, Any] = {"quality": 95} if image_format in ("JPEG", "WEBP") else {}
    if provenance and INFO_KEY in image.info:
        options |= _metadata(image_format, image.info[INFO_KEY])
    with whole_file(path) as scratch:
        image.save(scratch, format=image_format, icc_profile=image.info.get("icc_profile"), **options)


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
