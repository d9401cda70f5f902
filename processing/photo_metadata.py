"""What of a photo's file goes along with its edits: date, author, camera, resolution, the tables of a JPEG."""

import math
from typing import Any

from PIL import ExifTags, Image

#: Keys of `Image.info`.
EXIF, DPI, JPEG_TABLES = "exif", "dpi", "jpeg_tables"

# Of the other tags most say how the pixels of the file were stored, which no longer holds.
_ABOUT_THE_PHOTO = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
    ExifTags.Base.Rating,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPComment,
    ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords,
    ExifTags.Base.XPSubject,
)
# A maker's note points to places of the old file, and may hold another thumbnail.
_ABOUT_THE_FILE = (
    ExifTags.Base.MakerNote,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
)
_MOST_JPEG_TABLES = 4


def read_metadata(image: Image.Image) -> dict[str, Any]:
    """What edits of a photo take over from it, by the keys of `Image.info`; what cannot be read is left out.

    Args:
        image: As it was opened.

    Returns:
        `"exif"`: bytes, without orientation and thumbnail. `"dpi"`: two floats. `"jpeg_tables"`: the quantization
        tables of a JPEG, 64 numbers each.
    """
    found: dict[str, Any] = {}
    exif = _exif_bytes(image, keep_location=True)
    if exif is not None:
        found[EXIF] = exif
    try:
        x, y = (float(each) for each in image.info[DPI])
        if all(0 < each < math.inf for each in (x, y)):
            found[DPI] = (x, y)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        pass
    tables = getattr(image, "quantization", None)
    tables = list(tables.values()) if isinstance(tables, dict) else image.info.get(JPEG_TABLES)
    if tables and len(tables) <= _MOST_JPEG_TABLES:
        found[JPEG_TABLES] = tables
    return found


def exif_to_save(image: Image.Image, keep_location: bool) -> bytes | None:
    """The EXIF data in `image.info`, without the place where the photo was taken unless that is to stay."""
    return _exif_bytes(image, keep_location) if EXIF in image.info else None


def _exif_bytes(image: Image.Image, keep_location: bool) -> bytes | None:
    try:
        exif, kept = image.getexif(), Image.Exif()
        for tag in _ABOUT_THE_PHOTO:
            if tag in exif:
                kept[tag] = exif[tag]
        parts: dict[int, dict[int, Any]] = {
            ExifTags.IFD.Exif: {
                tag: value for tag, value in exif.get_ifd(ExifTags.IFD.Exif).items() if tag not in _ABOUT_THE_FILE
            },
            ExifTags.IFD.GPSInfo: exif.get_ifd(ExifTags.IFD.GPSInfo) if keep_location else {},
        }
        for part, values in parts.items():
            if values:
                kept.get_ifd(part).update(values)
        return kept.tobytes() if len(kept) or any(parts.values()) else None
    except Exception:  # Damaged metadata can raise nearly anything, and does not make the pixels any worse.
        return None
