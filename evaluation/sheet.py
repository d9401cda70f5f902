"""Contact sheets: faces in columns, what was done to them in rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from gptface.processing.image_saving import save_picture

TILE = 128
COLUMNS = 10
LABEL_HEIGHT = 14


def contact_sheet(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Name of a row → its pictures, equally many → one picture, in bands of ten faces with the names at the left."""
    count = len(next(iter(rows.values())))
    columns, bands = min(count, COLUMNS), -(-count // COLUMNS)
    step = TILE + LABEL_HEIGHT
    sheet = Image.new("RGB", (columns * TILE, bands * len(rows) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for band in range(bands):
        for line, (name, pictures) in enumerate(rows.items()):
            top = (band * len(rows) + line) * step
            draw.text((2, top + 1), name, fill="black")
            for column, picture in enumerate(pictures[band * COLUMNS : (band + 1) * COLUMNS]):
                sheet.paste(picture.convert("RGB").resize((TILE, TILE)), (column * TILE, top + LABEL_HEIGHT))
    return sheet


def save_sheet(rows: Mapping[str, Sequence[Image.Image]], path: Path) -> None:
    """Writes a contact sheet. Whoever shows it must be allowed to show the faces in it."""
    save_picture(contact_sheet(rows), path)
