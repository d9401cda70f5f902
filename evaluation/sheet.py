"""Contact sheets: faces in columns, what was done to them in rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from gptface.processing.image_loading import to_rgb
from gptface.processing.image_saving import save_picture

TILE = 128
COLUMNS = 10
LABEL_HEIGHT = 14


def contact_sheet(rows: Mapping[str, Sequence[Image.Image]], tile: int = TILE) -> Image.Image:
    """
    Name of a row → its pictures, equally many → one picture, in bands of ten faces with the names at the left.

    Args:
        tile: side in pixels of the square that each picture is fitted into.
    """
    count = len(next(iter(rows.values())))
    columns, bands = min(count, COLUMNS), -(-count // COLUMNS)
    step = tile + LABEL_HEIGHT
    sheet = Image.new("RGB", (columns * tile, bands * len(rows) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for band in range(bands):
        for line, (name, pictures) in enumerate(rows.items()):
            top = (band * len(rows) + line) * step
            draw.text((2, top + 1), name, fill="black")
            for column, picture in enumerate(pictures[band * COLUMNS : (band + 1) * COLUMNS]):
                fitted = ImageOps.pad(to_rgb(picture), (tile, tile), color="white")
                sheet.paste(fitted, (column * tile, top + LABEL_HEIGHT))
    return sheet


def side_by_side(pictures: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """RGB pictures of one height in a row, with `gap` white pixels between them."""
    sheet = Image.new("RGB", (sum(picture.width + gap for picture in pictures) - gap, pictures[0].height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def save_sheet(rows: Mapping[str, Sequence[Image.Image]], path: Path) -> None:
    """Writes a contact sheet. Whoever shows it must be allowed to show the faces in it."""
    save_picture(contact_sheet(rows), path)
