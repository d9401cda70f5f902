"""A knitted hat that is put on a head: its shape, its stitches and its light are computed, and laid over the photo."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image

from .alignment import CROP_LANDMARKS, CROP_SIZE
from .blending import Layer
from .canvas import Canvas, deviation_of, minimum_filter, nearest_colours, smoothstep
from .face_parsing import FaceParsing
from .hair import refine_hair
from .lighting import GAMMA, exposure, light_on_face
from .part_colour import SURELY
from .signs import HAT

# Lengths are in pixels of the 128-pixel crop, in which pupils are 39 apart, a millimetre some 0.6 of them.
#: The row at which the canvas of a head begins: as far up as the parser sees.
TOP = -CROP_SIZE / 2
#: Half the depth of a head, the row of its middle, that of its top, and how far it may be from that.
HALF_DEPTH, MIDDLE, CROWN, CROWN_RANGE = 58.0, 50.0, -10.0, (-8.0, 4.0)
#: Half the width of a face, how far it may be from that, and what hair adds to that of a head at most: the rest is
#: pressed.
HALF, HALF_RANGE, MOST_HAIR = 42.0, (-7.0, 8.0), 6.0
#: Exponent of the superellipsoid that a hat is: 2 is an ellipsoid, 4 nearly a box.
ROUNDNESS = 2.25
#: How thick wool is on the crown and at the cuff, and how uneven.
THICKNESS, SAG = (1.0, 2.8), 0.6
#: Rows by which the rim falls with each column of depth, and how far above the brows it is in front.
TILT, ABOVE_BROWS = 0.2, 11.0
#: How round corners of the cuff are, and its edges.
CORNER, ROLL = 2.0, 2.2
#: Rows below the rim from which on hair is seen that stands beside it, a column and a square of these away.
SPREAD = (0.25, 0.03)
#: What of its light skin below the rim loses at most, how far below that is, and how soft.
SHADOW, SHADOW_BELOW, SHADOW_WIDTH = 0.6, 2.5, 2.4
#: Fibres that stand off from the outline: how many on a square pixel, how long, how thick, and how much of what is
#: behind they hide.
FIBRES, FIBRE_LENGTH, FIBRE, FIBRE_COVER = 5.0, 1.0, 0.14, 0.35
#: Share of the light that comes from everywhere.
AMBIENT = 0.2
#: How sure of the background one must be for it to be known, how far from anything else where that is told by colours
#: alone, and how much these count.
SEEN, APART, BY_COLOUR = 0.9, 2.0, 0.005
#: Share of the crop that facial skin must fill for there to be a head.
LEAST_SKIN = 0.08

(_, _EYE_Y), *_ = CROP_LANDMARKS.tolist()


@dataclass(frozen=True)
class Wool:
    """
    What a hat is knitted of.

    Args:
        colour: sRGB in [0, 1].
        ribs: around the hat.
        row: height of a stitch, in pixels of the 128-pixel crop.
    """

    colour: tuple[float, float, float]
    ribs: int = 60
    row: float = 2.9

    def shade(
        self,
        canvas: Canvas,
        dome: "Dome",
        height: np.ndarray,
        light: np.ndarray,
        generator: np.random.Generator,
        edge: float | None = None,
    ) -> np.ndarray:
        """
        How light it is at each place [S, S], as a factor of its colour.

        Args:
            height: [S, S], above the rim.
            light: [3], from where light falls, a unit vector.
            edge: the height at which it ends, rolled in as at the rim; None where it goes on.
        """
        turns = self.ribs / (2 * np.pi)
        along = turns * (dome.longitude + 0.009 * canvas.noise(generator, 5.0)) + generator.uniform(0, self.ribs)
        number = np.floor(along).astype(int)
        across = along - number - 0.5
        # stitches are V's: they go up to both sides of a rib
        rows = (height + 0.15 * canvas.noise(generator, 3.0)) / self.row + 1.8 * np.abs(across)
        rib, stitch = np.cos(np.pi * across) ** 0.8, np.cos(np.pi * (rows - np.floor(rows) - 0.5)) ** 0.7
        # what is seen from the side is finer than a pixel
        clear = 1 - smoothstep(turns * np.abs(np.gradient(dome.longitude, axis=1)), 0.12, 0.34)
        bump = clear * rib * (1.1 + 0.45 * stitch)
        bump = bump + 0.5 * canvas.noise(generator, 6.0) + 0.12 * canvas.noise(generator, 0.5)
        if edge is not None:
            bump += ROLL * sum(np.sqrt((each / ROLL).clip(0, 1)) for each in (height, edge - height))
        slopes = [np.gradient(bump, axis=axis) * canvas.scale for axis in (1, 0)]
        normal = dome.normal - 0.8 * np.stack([*slopes, np.zeros_like(bump)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        lit = AMBIENT + (1 - AMBIENT) * (normal @ light).clip(0)
        hollow = 1 - clear * (0.45 * (1 - rib) + 0.2 * (1 - stitch))
        tone = 1 + 0.06 * clear * generator.normal(size=self.ribs)[number % self.ribs]
        return lit * hollow * tone / 0.8


@dataclass(frozen=True)
class KnittedHat:
    """
    A knitted hat with a cuff, a [`Transfer`].

    Args:
        wools: of which the seed takes one.
        cuff: height of the cuff, in pixels of the 128-pixel crop.
    """

    wools: tuple[Wool, ...]
    cuff: float

    def fits(self, parsing: FaceParsing) -> bool:
        """Whether a face is seen from the front, and no hat on it."""
        skin = parsing.crop_mask("facial_skin", CROP_SIZE) > SURELY
        return bool(skin.mean() > LEAST_SKIN) and not HAT.worn(parsing) and parsing.frontal

    def layers(
        self, photo: Image.Image, parsing: FaceParsing, share: float, generator: np.random.Generator
    ) -> list[Layer]:
        """See [`Transfer.layers`]; what is left to chance is the wool, each of its stitches, and how low it sits."""
        wool = self.wools[int(generator.integers(len(self.wools)))]
        canvas, head = Canvas.of(parsing, top=TOP), Head.of(parsing)
        pixels = canvas.pixels(photo)
        x, y = canvas.places()
        sag = [SAG * canvas.noise(generator, 14.0) for _ in range(2)]
        crown, cuff = (Dome.of(x + sag[0], y + sag[1], head, thick) for thick in THICKNESS)
        rim = head.brows - ABOVE_BROWS + generator.uniform(-1.0, 1.5)
        height, height_on_cuff = rim - crown.ring, rim - cuff.ring
        on_crown = canvas.covered(_rounded(crown.inside, height))
        on_cuff = canvas.covered(_rounded(cuff.inside, np.minimum(height_on_cuff, self.cuff - height_on_cuff)))
        covered = np.maximum(on_cuff, on_crown)

        light, exposed = light_on_face(canvas, pixels, parsing), exposure(canvas, pixels, parsing)
        shade_crown = wool.shade(canvas, crown, height, light, generator)
        shade_cuff = wool.shade(canvas, cuff, height_on_cuff, light, generator, self.cuff)
        # above the edge of the cuff little light comes between it and the crown
        shade_crown *= 1 - 0.5 * np.exp(-(height - self.cuff).clip(0) / 2.0)
        shade = on_cuff * shade_cuff + (1 - on_cuff) * shade_crown
        grain = _grain(canvas, pixels, generator)[..., None]
        picture = (np.array(wool.colour) ** GAMMA * (exposed * shade)[..., None]).clip(0, 1) ** (1 / GAMMA)
        picture, covered = _with_fibres(canvas, picture, covered, generator)
        if soft := canvas.softness(photo):
            seen, covered = canvas.blur(picture * covered[..., None], soft), canvas.blur(covered, soft)
            picture = seen / np.maximum(covered, 1e-3)[..., None]

        gone = _pressed_hair(canvas, parsing, head, crown, rim)
        background = canvas.mask(parsing, "background") * (gone < 0.02)
        # a parser takes dark walls for hair: colours know better, but single hairs are wall to them
        wall = canvas.mask(refine_hair(photo, parsing), "background")
        wall = minimum_filter(wall, round(APART * canvas.scale)) > SEEN
        known = np.maximum(background * (background > SEEN), BY_COLOUR * wall)
        gone *= float(known.any())
        wall = nearest_colours(pixels, known, canvas.scale) if known.any() else pixels

        shadow = SHADOW * canvas.shadow(on_cuff, SHADOW_BELOW, SHADOW_WIDTH)
        shadow *= canvas.mask(parsing, ("face", "hair", "ears"))
        delta = covered[..., None] * (picture + grain) + ((1 - covered) * gone)[..., None] * (wall + grain)
        detail = (1 - covered) * (1 - gone) * (1 - shadow)
        touched = np.maximum.reduce([covered, shadow, gone]) > 1 / 512
        alpha = (share * touched).astype(np.float32)
        return [Layer(delta.astype(np.float32), detail.astype(np.float32), alpha, canvas.matrix)]


def _rounded(inside: np.ndarray, above: np.ndarray) -> np.ndarray:
    """How far inside of two outlines each place [S, S] is, where these meet in a round corner."""
    return CORNER - np.hypot((CORNER - inside).clip(0), (CORNER - above).clip(0))


def _pressed_hair(canvas: Canvas, parsing: FaceParsing, head: "Head", crown: "Dome", rim: float) -> np.ndarray:
    """
    How far each pixel [S, S] shows hair that is pressed by a hat with its rim at this row: hair beside it, where the
    wall behind it is then seen.
    """
    x, y = canvas.places()
    beside = (np.abs(x - head.middle) - head.half - THICKNESS[1]).clip(0)
    pressed = rim + TILT * HALF_DEPTH - 5 + SPREAD[0] * beside + SPREAD[1] * beside**2 - y
    hair = canvas.blur(canvas.mask(parsing, ("hair", "hat")), 1.5)
    gone = smoothstep(hair, 0.01, 0.12) * smoothstep(pressed, -1.5, 1.5) * (crown.inside < 0)
    return canvas.blur(gone, 0.4)


def _with_fibres(
    canvas: Canvas, picture: np.ndarray, covered: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A hat [S, S, 3] that covers [S, S], with fibres on its outline."""
    slopes = -np.stack([np.gradient(covered, axis=axis) for axis in (1, 0)], -1)
    steep = np.linalg.norm(slopes, axis=-1)
    places, kept = canvas.sown(generator, FIBRES, steep > 0.2 * steep.max())
    count = len(places)
    outwards = canvas.at(slopes, places)
    angle = np.arctan2(outwards[:, 1], outwards[:, 0]) + generator.normal(0, 0.9, count)
    length = FIBRE_LENGTH * generator.lognormal(-0.4, 0.5, count)[:, None]
    points = [places]
    for towards in (angle, angle + generator.normal(0, 0.8, count)):
        points.append(points[-1] + np.stack([np.cos(towards), np.sin(towards)], 1) * length / 2)
    inside = places - outwards / steep.max()
    tones = (canvas.at(picture, inside) * generator.uniform(0.9, 1.4, (count, 1)))[kept]
    drawn, hidden = canvas.hairs(np.stack(points, 1)[kept], tones, tones.mean(0), FIBRE)
    hidden = FIBRE_COVER * hidden * (1 - covered)
    both = covered + hidden
    picture = np.where(
        (both > 0)[..., None],
        (covered[..., None] * picture + hidden[..., None] * drawn) / np.maximum(both, 1e-6)[..., None],
        picture,
    )
    return picture, both


def _grain(canvas: Canvas, pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Grain [S, S] as strong as that of the photo."""
    grey = pixels.mean(2)
    return deviation_of(grey - canvas.blur(grey, 0.6)) * canvas.noise(generator, 0.6)


@dataclass(frozen=True)
class Head:
    """
    A head, in pixels of the 128-pixel crop.

    Args:
        middle: column of its middle.
        half: half its width, with as much of its hair as fits below a hat.
        top: row of its top.
        turned: how far it looks to the right of the picture, in radians.
        brows: row of the brows.
    """

    middle: float
    half: float
    top: float
    turned: float
    brows: float

    @classmethod
    def of(cls, parsing: FaceParsing) -> "Head":
        """That of a face."""
        head, face = (parsing.mask(names) > SURELY for names in (("face", "hair"), "face"))
        middle = len(head) // 2

        def ends(mask: np.ndarray, rows: range) -> np.ndarray:
            """The columns [2] between which the mask goes on from the middle, in the median of these rows."""
            found = []
            for row in rows:
                line = mask[round(parsing.in_frame(row))]
                left, right = np.flatnonzero(~line[:middle]), np.flatnonzero(~line[middle:])
                if line[middle] and len(left) and len(right):
                    found.append((left[-1] + 1, middle + right[0]))
            alone = (CROP_SIZE / 2 - HALF, CROP_SIZE / 2 + HALF)
            return parsing.in_crop(np.median(found, axis=0)) if found else np.array(alone)

        left, right = ends(head, range(22, 44, 2))
        skull = HALF + float(np.clip(np.ptp(ends(face, range(56, 70, 2))) / 2 + 2 - HALF, *HALF_RANGE))
        half = skull + float(np.clip((right - left) / 2 - skull, 0, MOST_HAIR))
        centre = float(np.clip((left + right) / 2, CROP_SIZE / 2 - 12, CROP_SIZE / 2 + 12))
        beside = round(12 * parsing.unit)
        above = np.flatnonzero(head[:middle, middle - beside : middle + beside].mean(1) <= SURELY)
        top = parsing.in_crop(above[-1] + 1) if len(above) else CROWN
        top = CROWN + float(np.clip(top - CROWN, *CROWN_RANGE))
        nose, brows = (np.argwhere(parsing.crop_mask(name, CROP_SIZE) > SURELY) for name in ("nose", "brows"))
        turned = float(np.clip((nose[:, 1].mean() - CROP_SIZE / 2) / 12, -0.6, 0.6)) if len(nose) else 0.0
        level = float(brows[:, 0].mean()) if len(brows) > 20 else _EYE_Y - 6
        return cls(centre, half, top, turned, level)


@dataclass(frozen=True, eq=False)
class Dome:
    """
    The surface of a hat as it is seen at each place, a superellipsoid around an axis that leans back.

    Args:
        inside: how far inside of its outline it is, [S, S] in pixels of the 128-pixel crop, negative outside.
        normal: [S, S, 3], to the right, down and towards the viewer.
        ring: [S, S], the row at which the ring of wool that is seen there is in front.
        longitude: [S, S], around its axis, in radians.
    """

    inside: np.ndarray
    normal: np.ndarray
    ring: np.ndarray
    longitude: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, head: Head, thick: float) -> "Dome":
        """That of a hat so thick at the places x, y [S, S]."""
        sizes = np.array([head.half + thick, MIDDLE - head.top + 1.6 * thick, HALF_DEPTH + thick], np.float32)
        right, up = (x - head.middle) / sizes[0], ((MIDDLE - y) / sizes[1]).clip(0)
        level = np.abs(right) ** ROUNDNESS + up**ROUNDNESS
        forward = (1 - level).clip(1e-4) ** (1 / ROUNDNESS)
        slopes = (
            np.sign(right) * np.abs(right) ** (ROUNDNESS - 1),
            -(up ** (ROUNDNESS - 1)),
            forward ** (ROUNDNESS - 1),
        )
        normal = np.stack(slopes, -1) / sizes
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        # towards the outline rings would end in points
        ring = y - TILT * sizes[2] * (1 - (1 - level).clip(0) ** 0.7)
        lean = np.arctan(TILT)
        towards = sizes[2] * forward * np.cos(lean) + (MIDDLE - y) * np.sin(lean)
        longitude = np.arctan2(right * sizes[2], towards) - head.turned
        return cls((1 - level) * sizes[0] / ROUNDNESS, normal, ring, longitude)


_CUFF = 21.0

#: In wool of the usual greys, blues and reds.
KNITTED_HAT = KnittedHat(
    (
        Wool((0.20, 0.21, 0.24)),
        Wool((0.13, 0.17, 0.28)),
        Wool((0.38, 0.10, 0.13)),
        Wool((0.48, 0.47, 0.45)),
    ),
    _CUFF,
)
#: Name of a colour → a hat of it: wool is less bright than paint.
KNITTED_HATS: Mapping[str, KnittedHat] = MappingProxyType(
    {
        name: KnittedHat((Wool(colour),), _CUFF)
        for name, colour in {
            "red": (0.62, 0.09, 0.11),
            "blue": (0.12, 0.27, 0.60),
            "navy": (0.10, 0.14, 0.28),
            "green": (0.13, 0.40, 0.20),
            "yellow": (0.80, 0.63, 0.14),
            "orange": (0.80, 0.38, 0.10),
            "pink": (0.80, 0.46, 0.56),
            "purple": (0.36, 0.18, 0.48),
            "brown": (0.34, 0.21, 0.13),
            "beige": (0.70, 0.62, 0.50),
            "black": (0.09, 0.09, 0.10),
            "white": (0.82, 0.81, 0.79),
            "grey": (0.48, 0.47, 0.45),
        }.items()
    }
)
