"""Pictures of figures, drawn with PIL: a confusion matrix, bars of one figure a label."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL, ROW, FONT_SIZE, MARGIN = 64, 18, 13, 12
INK, BAR = "#1b1b1b", "#4477aa"


def _text_width(texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return max(round(font.getlength(text)) for text in texts) + 2 * MARGIN


def draw_confusion_matrix(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Image.Image:
    """Counts [truth, answer] → a picture; a cell is as dark as its share of its row."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    font = ImageFont.load_default(FONT_SIZE)
    left, side = _text_width(names, font), CELL * len(names)
    image = Image.new("RGB", (left + side + MARGIN, 2 * ROW + side + MARGIN), "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 2), "rows: truth, columns: answer", INK, font)
    for row, name in enumerate(names):
        top = 2 * ROW + row * CELL
        draw.text((left - MARGIN // 2, top + CELL // 2), name, INK, font, anchor="rm")
        draw.text((left + row * CELL + CELL // 2, 2 * ROW - 3), name[: CELL // 7], INK, font, anchor="ms")
        for column in range(len(names)):
            shade, x = round(255 * (1 - shares[row, column])), left + column * CELL
            draw.rectangle((x, top, x + CELL - 1, top + CELL - 1), (shade, shade, 255), "#cccccc")
            ink = "white" if shade < 128 else INK
            draw.text((x + CELL // 2, top + CELL // 2), str(counts[row, column]), ink, font, anchor="mm")
    return image


def draw_bars(values: Mapping[str, float | None], title: str) -> Image.Image:
    """Values in [0, 1] by name → a picture with a bar for each; None has none."""
    font = ImageFont.load_default(FONT_SIZE)
    left, width = _text_width(list(values), font), 400
    image = Image.new("RGB", (left + width + 5 * MARGIN, ROW * (len(values) + 1) + MARGIN), "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 2), title, INK, font)
    for row, (name, value) in enumerate(values.items(), start=1):
        top = row * ROW + MARGIN // 2
        draw.text((left - MARGIN // 2, top + ROW // 2), name, INK, font, anchor="rm")
        if value is not None:
            draw.rectangle((left, top + 2, left + round(width * value), top + ROW - 3), BAR)
            draw.text((left + round(width * value) + 4, top + ROW // 2), f"{value:.3f}", INK, font, anchor="lm")
    return image
