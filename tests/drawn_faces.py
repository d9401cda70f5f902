"""Faces that are drawn, and what a face parser that sees all of them right would tell."""

import numpy as np
from PIL import Image, ImageDraw

from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing.alignment import align, compose, scaling, translation
from gptface.processing.canvas import blur
from gptface.processing.face_parsing import FaceParsing

#: Class → its colour in the picture.
COLOURS = {
    "background": (60, 90, 220),
    "skin": (205, 155, 130),
    "hair": (60, 40, 28),
    "neck": (190, 140, 115),
    "nose": (205, 155, 130),
    "eye": (230, 230, 230),
    "brow": (70, 50, 38),
    "upper_lip": (180, 90, 90),
    "lower_lip": (180, 90, 90),
    "mouth": (240, 235, 230),
    "ear": (200, 150, 125),
    "eyeglasses": (10, 10, 10),
    "hat": (20, 120, 20),
    "cloth": (30, 30, 90),
}
LABELS = tuple(COLOURS)
#: Pixels of a drawn photo along a side.
ALL = 512


def draw_face(skin=COLOURS["skin"], hair=True, glasses=False, over_left_eye=False):
    """A photo whose aligned crop is its middle, 256 pixels wide, and what a parser sees in it."""
    colours = COLOURS | {"skin": skin, "nose": skin}
    photo, classes = Image.new("RGB", (ALL, ALL), colours["background"]), Image.new("L", (ALL, ALL))

    def part(name, shape, *box):
        for picture, fill in ((photo, colours[name]), (classes, LABELS.index(name))):
            getattr(ImageDraw.Draw(picture), shape)([128 + 2 * value for value in box], fill=fill)

    part("neck", "rectangle", 44, 110, 84, 150)
    if hair:
        part("hair", "ellipse", 14, -12, 114, 110)
    part("skin", "ellipse", 24, 12, 104, 124)
    for x in (44.5, 83.5):
        part("eye", "ellipse", x - 6, 52, x + 6, 58)
        part("brow", "rectangle", x - 9, 40, x + 9, 43)
    part("nose", "ellipse", 57, 60, 71, 84)
    part("upper_lip", "ellipse", 48, 92, 80, 102)
    if glasses:
        part("eyeglasses", "rectangle", 30, 46, 98, 64)
    if over_left_eye:
        part("hair", "rectangle", 20, 20, 52, 60)
    grain = np.random.default_rng(0).normal(0, 5, (ALL, ALL, 1))
    pixels = np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8)
    seen = np.stack([blur((np.asarray(classes) == index).astype(np.float32), 0.8) for index in range(len(LABELS))])
    return Image.fromarray(pixels), FaceParsing(seen.astype(np.float32), LABELS, np.eye(2, 3))


def draw_mouth(parted=8.0, **options):
    """A face whose lips are so far apart, in pixels of the 128-pixel crop, with teeth between them."""
    photo, parsing = draw_face(**options)
    classes = Image.fromarray(parsing.classes().astype(np.uint8))
    pixels = photo.copy()

    def part(name, *box):
        for picture, fill in ((pixels, COLOURS[name]), (classes, LABELS.index(name))):
            ImageDraw.Draw(picture).ellipse([128 + 2 * value for value in box], fill=fill)

    part("upper_lip", 47, 92, 81, 102 + parted)
    for picture, fill in ((pixels, COLOURS["lower_lip"]), (classes, LABELS.index("lower_lip"))):
        under = Image.new("L", (ALL, ALL))
        ImageDraw.Draw(under).ellipse([128 + 2 * value for value in (47, 92, 81, 102 + parted)], fill=255)
        ImageDraw.Draw(under).rectangle([0, 0, ALL, 128 + 2 * (97 + parted / 2)], fill=0)
        picture.paste(fill, mask=under)
    if parted:
        part("mouth", 52, 97, 76, 97 + parted)
    seen = np.stack([blur((np.asarray(classes) == index).astype(np.float32), 0.8) for index in range(len(LABELS))])
    return pixels, FaceParsing(seen, LABELS, np.eye(2, 3))


def shown(parsing, name):
    return parsing.mask(name) > 0.95


def parser_by_rule(size, rule):
    """
    What may take the place of a pipeline's `parse_faces`, whose face crops have `size` pixels.

    Args:
        rule: rows, columns and pixels of the crop with its surroundings → names of classes, each with what shows it;
            rows and columns are those of the crop.
    """

    def parse_one(photo, matrix):
        to_crop = scaling(size / photo.width, size / photo.height) if matrix is None else matrix
        frame = compose(to_crop, translation(size // 2, size // 2))
        picture = np.asarray(align(photo, frame, 2 * size))
        shown = rule(*np.mgrid[: 2 * size, : 2 * size] - size // 2, picture)
        seen = [np.broadcast_to(shown.get(name, False), picture.shape[:2]) for name in FACE_CLASSES]
        probabilities = np.stack(seen)
        probabilities[0] |= ~probabilities.any(0)
        return FaceParsing(probabilities.astype(np.float32), FACE_CLASSES, frame)

    return lambda faces: [parse_one(photo, matrix) for photo, matrix in faces]
