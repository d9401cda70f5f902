"""Expressions that move the photo's pixels: who makes a portrait sad gets no torn face, no bent glasses and no moved
wall, brows that move the right way by as much as was asked for, and no teeth between lips that meet.
"""

import numpy as np
import pytest
from drawn_faces import ALL, COLOURS, LABELS, draw_face, draw_mouth
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.processing import expressions, warping
from gptface.processing.alignment import inverse
from gptface.processing.blending import paste
from gptface.processing.canvas import blur
from gptface.processing.expressions import (
    ANGRY,
    ARCHED_BROWS,
    MOUTH_CLOSED,
    MOUTH_OPEN,
    NEUTRAL,
    SAD,
    SERIOUS,
    SMILING,
    SURPRISED,
)
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.face_points import FacePoints, Lips
from gptface.processing.mouth import MEET, MouthCut, Teeth
from gptface.processing.warping import NARROWER, Warp, flow, sample, twice_as_fine, whole_mouth

WARPS = {name: each for name, each in vars(expressions).items() if isinstance(each, Warp)}
LOWER_LIP, TEETH = COLOURS["lower_lip"], COLOURS["mouth"]


def moved(warp, photo, parsing, share=1.0):
    """The photo after a movement as floats, and what counts as changed, [H, W]."""
    assert warp.fits(parsing)
    image, mask = paste(photo, warp.layers(photo, parsing, share, np.random.default_rng(0)))
    return np.asarray(image, float), mask


def dark(pixels, rows, columns, below=110.0):
    """Mean row, in pixels of the 128-pixel crop, of what is dark there (brows), weighted by how dark."""
    (top, bottom), (left, right) = rows, columns
    window = pixels[128 + 2 * top : 128 + 2 * bottom, 128 + 2 * left : 128 + 2 * right].mean(-1)
    weights = np.clip(below - window, 0, None)
    return top + float((weights.sum(1) * (np.arange(len(window)) + 0.5)).sum() / weights.sum()) / 2


def brow(pixels):
    """Rows of the inner end, the middle and the outer end of the left brow."""
    return np.array([dark(pixels, (30, 52), columns) for columns in ((50, 54), (42, 47), (36, 40))])


def laplace(pixels):
    return (pixels[2:, 1:-1] + pixels[:-2, 1:-1] + pixels[1:-1, 2:] + pixels[1:-1, :-2] - 4 * pixels[1:-1, 1:-1]).mean(
        -1
    )


def like(pixels, colour, reach=60.0):
    return np.abs(pixels - np.array(colour)).sum(-1) < reach


def is_unfolded(movement, unit):
    """Whether places and where they come from go the same way round everywhere."""
    down, right = np.gradient(movement[..., 0]), np.gradient(movement[..., 1])
    jacobian = (1 + down[1] * unit) * (1 + right[0] * unit) - down[0] * right[1] * unit**2
    return bool(jacobian.min() > 0)


bells = st.tuples(*[st.floats(8, 56)] * 2, *[st.floats(-12, 12)] * 2, st.floats(3, 9))


@given(st.lists(bells, min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_movement_folds_a_face_however_strong_it_is(points):
    y, x = np.mgrid[0:64, 0:64] + 0.5
    field = np.zeros((64, 64, 2), np.float32)
    for column, row, right, down, reach in points:
        bell = np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * reach**2))
        field += (bell[..., None] * [right, down]).astype(np.float32)
    edge = np.minimum(np.minimum(x, 64 - x), np.minimum(y, 64 - y)).clip(0, 8) / 8
    field *= edge[..., None].astype(np.float32)
    assert is_unfolded(flow(field / 2, 2.0), 2.0)


def test_a_displacement_that_is_no_flow_would_fold():
    y, x = np.mgrid[0:64, 0:64] + 0.5
    bell = np.exp(-((x - 32) ** 2 + (y - 32) ** 2) / (2 * 4.0**2))
    field = (bell[..., None] * [0, 6.0]).astype(np.float32)
    assert not is_unfolded(-field, 2.0) and is_unfolded(flow(field, 2.0), 2.0)


@given(st.floats(0, 14), st.floats(3, 9), st.floats(-6, 6), st.floats(0, 1), st.floats(60, 90), st.floats(100, 126))
@settings(max_examples=60, deadline=None)
def test_beside_lips_that_meet_or_part_nothing_folds(gap, thick, smile, share, nose, jaw):
    places = np.linspace(-1, 1, 30)
    curve = 96 - smile * places**2
    upper, lower = (np.polyfit(places, curve + sign * gap / 2 * (1 - places**2), 4) for sign in (-1, 1))
    lips = Lips((46.0, 82.0), upper, lower, (thick, thick))
    x, y = np.meshgrid(np.arange(40, 90.0), np.arange(40, 128, 0.25))
    for close, part in ((share, 0.0), (0.0, share * 12)):
        cut = MouthCut(lips, close, part, nose, np.full(128, jaw), np.full(3, 0.5))
        above, below, end, start = cut.rows(x, y)
        for rows, shown in ((above, y < end), (below, y > start)):
            steps = np.diff(rows, axis=0)[shown[:-1] & shown[1:]]
            assert (steps > 0).all()
        outside = (x < 45) | (x > 83)
        assert np.allclose(above[outside], y[outside]) and np.allclose(below[outside], y[outside])


@pytest.mark.parametrize("name", WARPS)
def test_wall_ears_hair_and_the_edge_of_the_crop_stay_bit_for_bit(name):
    photo, parsing = draw_mouth()
    after, mask = moved(WARPS[name], photo, parsing)
    before = np.asarray(photo, float)
    assert (after != before).any() and np.array_equal(after[mask == 0], before[mask == 0])
    still = parsing.mask(("background", "hair", "neck", "ear")) > 0.99
    still[:130], still[-130:], still[:, :130], still[:, -130:] = True, True, True, True
    assert mask[still].max() == 0
    # brows and mouth lie on both sides
    assert (mask[:, : ALL // 2] > 0).any() and (mask[:, ALL // 2 :] > 0).any()


def test_brows_move_as_the_expression_says():
    photo, parsing = draw_mouth()
    before = brow(np.asarray(photo, float))
    change = {
        name: brow(moved(warp, photo, parsing)[0]) - before
        for name, warp in {"sad": SAD, "angry": ANGRY, "surprised": SURPRISED, "arched": ARCHED_BROWS}.items()
    }
    assert change["sad"][0] < -1.5 and change["sad"][2] > 0.5
    assert change["angry"][0] > 1.5 and change["angry"][2] < 1
    assert (change["surprised"] < -1.5).all()
    assert change["arched"][1] < change["arched"][[0, 2]].min() - 1


@pytest.mark.parametrize("warp", [SAD, SURPRISED], ids=["sad", "surprised"])
def test_a_share_of_an_expression_is_a_share_of_the_way(warp):
    photo, parsing = draw_mouth()
    before = brow(np.asarray(photo, float))[0]
    full, half, little = (brow(moved(warp, photo, parsing, share)[0])[0] - before for share in (1.0, 0.5, 0.1))
    assert half == pytest.approx(full / 2, abs=0.35) and abs(little) < 0.25 * abs(full)


@pytest.mark.parametrize("warp", [MOUTH_CLOSED, NEUTRAL, SAD, ANGRY], ids=["closed", "neutral", "sad", "angry"])
def test_lips_that_meet_hide_the_teeth(warp):
    photo, parsing = draw_mouth(parted=9)
    mouth = np.s_[128 + 2 * 84 : 128 + 2 * 116, 128 + 2 * 42 : 128 + 2 * 86]
    before = like(np.asarray(photo, float)[mouth], TEETH).sum()
    after = like(moved(warp, photo, parsing)[0][mouth], TEETH).sum()
    assert before > 400 and after < 0.02 * before
    half = like(moved(warp, photo, parsing, 0.5)[0][mouth], TEETH).sum()
    assert 0.25 * before < half < 0.75 * before


def test_lips_that_part_show_the_dark_between_them_and_teeth_stay_where_they_are():
    for parted in (0.0, 8.0):
        photo, parsing = draw_mouth(parted)
        before = np.asarray(photo, float)
        after, _ = moved(MOUTH_OPEN, photo, parsing)
        mouth = np.s_[128 + 2 * 86 : 128 + 2 * 122, 128 + 2 * 52 : 128 + 2 * 76]
        assert (before[mouth].sum(-1) < 180).sum() == 0 < 60 < (after[mouth].sum(-1) < 180).sum()
        teeth = like(before, TEETH)
        assert like(after, TEETH)[teeth].mean() > 0.9 if parted else not teeth[mouth].any()


def test_what_moves_keeps_its_grain():
    """Drawn mouths are smooth; the photo's own pixels are as grainy as the photo."""
    photo, parsing = draw_mouth()
    after, _ = moved(SURPRISED, photo, parsing)
    chin = np.s_[128 + 2 * 112 : 128 + 2 * 118, 128 + 2 * 56 : 128 + 2 * 72]
    assert after[chin].std() > 0.6 * np.asarray(photo, float)[chin].std() > 2


@pytest.mark.parametrize("warp", [SAD, ARCHED_BROWS], ids=["sad", "arched"])
def test_frames_do_not_bend(warp):
    photo, parsing = draw_mouth(glasses=True)
    mask = moved(warp, photo, parsing)[1]
    assert mask[parsing.mask("eyeglasses") > 0.9].max() == 0 and mask.max() > 0.9


def test_a_face_that_does_not_show_what_moves_is_left_to_the_model():
    assert not SAD.fits(draw_face()[1]), "one lip alone"
    parsing = draw_mouth()[1]
    without = parsing.probabilities.copy()
    without[LABELS.index("skin")] += without[LABELS.index("brow")]
    without[LABELS.index("brow")] = 0
    browless = FaceParsing(without, LABELS, parsing.matrix)
    assert not ARCHED_BROWS.fits(browless) and SAD.fits(browless), "behind dark glasses a mouth is sad, too"
    for each in (SAD, NEUTRAL, ARCHED_BROWS):
        assert each.fits(parsing)


@pytest.mark.parametrize(("width", "height", "turn"), [(301, 517, 0.0), (777, 601, 0.3), (1533, 1211, -0.2)])
def test_photos_of_any_size_and_turn_get_the_same_expression(width, height, turn):
    photo, parsing = draw_mouth()
    scale = min(width, height) / 420
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    placed = np.column_stack([linear, np.array([width, height]) / 2 - linear @ [256, 256]])
    other = photo.transform(
        (width, height), Image.Transform.AFFINE, tuple(inverse(placed).ravel()), Image.Resampling.BICUBIC
    )
    moving = FaceParsing(parsing.probabilities, LABELS, inverse(placed))
    after, mask = moved(SAD, other, moving)
    assert after.shape == (height, width, 3) and mask.shape == (height, width)
    back = Image.fromarray(after.astype(np.uint8)).transform(
        (ALL, ALL), Image.Transform.AFFINE, tuple(placed.ravel()), Image.Resampling.BICUBIC
    )
    found, expected = brow(np.asarray(back, float)), brow(moved(SAD, photo, parsing)[0])
    assert found == pytest.approx(expected, abs=0.7)


def test_points_that_there_are_not_and_contradictions_are_refused():
    with pytest.raises(ValueError, match="no brow_left"):
        Warp({"brow_left": (0.0, 0.1)})
    with pytest.raises(ValueError, match="not both"):
        Warp({}, close=1.0, part=0.1)


def test_points_are_found_where_the_parts_are():
    points = FacePoints.of(draw_mouth()[1])
    assert points.unit == pytest.approx(39, abs=0.7)
    assert points.places["brow_inner"][:, 0] == pytest.approx([53.5, 74.5], abs=2)
    assert points.places["corner"][:, 0] == pytest.approx([47, 81], abs=1.5)
    assert points.mouth[0] == pytest.approx(17 / 39, abs=0.04)


def test_a_smile_shows_teeth_between_lips_that_were_closed_and_lifts_the_corners():
    photo, parsing = draw_mouth(parted=0.0)
    before, (after, _) = np.asarray(photo, float), moved(SMILING, photo, parsing)
    mouth = np.s_[128 + 2 * 84 : 128 + 2 * 116, 128 + 2 * 42 : 128 + 2 * 86]
    bright = [(each[mouth].min(-1) > 150).sum() for each in (before, after)]
    assert bright[0] == 0 < 200 < bright[1]
    beside = np.s_[128 + 2 * 78 : 128 + 2 * 112, 128 + 2 * 40 : 128 + 2 * 88]
    lips = [like(each, LOWER_LIP, 80)[beside] for each in (before, after)]
    columns = [np.flatnonzero(each.any(0)) for each in lips]
    assert columns[1][0] < columns[0][0] - 3 and columns[1][-1] > columns[0][-1] + 3, "a wider mouth"
    ends = [each[:, found[:6]].nonzero()[0].mean() for each, found in zip(lips, columns, strict=True)]
    assert ends[1] < ends[0] - 3, "its corner is higher"
    assert 0.5 < lips[1].sum() / lips[0].sum() < 1.5, "both lips stay"
    rows = lips[1][:, 38:58].any(1).nonzero()[0]
    teeth = (after[beside][:, 38:58].min(-1) > 150).any(1).nonzero()[0]
    assert rows[0] < teeth[0] and teeth[-1] < rows[-1], "teeth lie between the lips"


def test_teeth_of_the_photo_stay_and_none_are_drawn_over_them():
    photo, parsing = draw_mouth(parted=9.0)
    points, lips = FacePoints.of(parsing), Lips.of(parsing)
    assert Teeth.of(lips, 5.0, points, parsing, photo) is None
    dark = Image.fromarray(np.where(like(np.asarray(photo, float), TEETH)[..., None], 20, np.asarray(photo)))
    assert Teeth.of(lips, 5.0, points, parsing, dark) is not None, "an open mouth that shows none gets some"
    closed = draw_mouth(parted=0.0)
    assert Teeth.of(Lips.of(closed[1]), 5.0, FacePoints.of(closed[1]), *closed[::-1]) is not None


def test_teeth_are_as_light_as_the_skin_tells():
    found = []
    for skin in (COLOURS["skin"], (90, 60, 45)):
        photo, parsing = draw_mouth(parted=0.0, skin=skin)
        found.append(Teeth.of(Lips.of(parsing), 5.0, FacePoints.of(parsing), parsing, photo).colour)
    assert (found[0] > found[1] + 0.1).all() and (found[1] > np.array((90, 60, 45)) / 255 + 0.1).all()


@pytest.mark.parametrize("middle", [-0.4, 0.0, 0.4])
def test_the_row_of_teeth_turns_with_the_head(middle):
    teeth = Teeth(5.0, middle, 18.0, 0.62, np.full(3, 0.9))
    place = np.linspace(-0.95, 0.95, 39)
    beside = teeth.beside_the_middle(place)
    assert (np.diff(beside) >= 0).all() and abs(np.interp(middle, place, beside)) < 1.0
    right, left = (abs(np.interp(middle + step, place, beside)) for step in (0.3, -0.3))
    narrower = np.sign(right - left) == np.sign(middle) if middle else abs(right - left) < 0.01
    assert narrower, "the far half is narrower"


def test_a_turned_head_smiles_less_on_the_side_that_is_turned_away():
    parsing = draw_mouth(parted=0.0)[1]
    beside = FacePoints.of(parsing)
    places = {name: pair.copy() for name, pair in beside.places.items()}
    places["nose_base"] = places["nose_base"] - [6.0, 0.0]
    turned = FacePoints(places, beside.along, beside.across, beside.unit)
    assert turned.sides[0] < 0.8 and turned.sides[1] > 1.2 and sum(turned.sides) == pytest.approx(2)
    corners, _ = SMILING._smiling(turned, Lips.of(parsing))
    assert 0 < corners[0, 0] < corners[1, 0] and corners[0, 1] == corners[1, 1] < 0


def test_corners_of_a_crooked_laugh_come_to_rest_at_one_height_and_no_further_in_than_it_suits():
    parsing = draw_mouth(parted=9.0)[1]
    points = FacePoints.of(parsing)
    places = {name: pair.copy() for name, pair in points.places.items()}
    places["corner"] = places["corner"] + [[-5.0, -4.0], [5.0, 2.0]]
    laugh = FacePoints(places, points.along, points.across, points.unit)
    lips = Lips.of(parsing)
    corners, middle = NEUTRAL._resting(laugh, lips)
    heights = NEUTRAL._heights(laugh, lips, MEET) + corners[:, 1] - middle
    assert heights[0] == pytest.approx(NEUTRAL.corners[1], abs=0.02) and heights[1] >= heights[0] - 0.02
    assert (corners[:, 0] >= -NARROWER * 1.5).all()


def bent(warp, parsing, photo):
    """How far the corners of a mouth lie above the middle of where the lips meet or the upper one ends, afterwards."""
    lips = Lips.of(parsing)
    *_, moved_layer = warp.layers(photo, parsing, 1.0, np.random.default_rng(0))
    cut, places = moved_layer.cut, np.array([47.5, 64.0, 80.5])
    _, _, rows, _ = cut.rows(places, lips.edges(places)[0])
    to_grid = 2.0 * (np.column_stack([places, rows]) + 16)
    shift = [moved_layer.movement[int(y), int(x), 1] for x, y in to_grid]
    after = rows - np.array(shift)
    return after[1] - after[[0, 2]].mean()


def draw_laugh():
    """A face that shows its teeth, with a straight upper lip and a lower one that hangs in an arc, as laughs do."""
    photo, parsing = draw_mouth(parted=0.0)
    y, x = np.mgrid[0:ALL, 0:ALL]
    column, row = (x - 128) / 2, (y - 128) / 2
    place = ((column - 64) / 17).clip(-1, 1)
    hangs = 93 + 9 * (1 - place**2)
    inside = np.abs(column - 64) < 17
    upper = inside & (row < 93) & (row >= 93 - 5 * (1 - place**4))
    teeth = inside & (row >= 93) & (row < hangs)
    lower = inside & (row >= hangs) & (row < hangs + 7 * (1 - place**4))
    classes = parsing.classes().astype(np.uint8)
    pixels = np.array(photo)
    classes[np.isin(classes, [LABELS.index(name) for name in ("upper_lip", "lower_lip", "mouth")])] = LABELS.index(
        "skin"
    )
    for name, where in (("upper_lip", upper), ("mouth", teeth), ("lower_lip", lower)):
        classes[where], pixels[where] = LABELS.index(name), COLOURS[name]
    seen = np.stack([blur((classes == index).astype(np.float32), 0.8) for index in range(len(LABELS))])
    return Image.fromarray(pixels), FaceParsing(seen, LABELS, np.eye(2, 3))


@pytest.mark.parametrize("warp", [SERIOUS, NEUTRAL], ids=["serious", "neutral"])
def test_a_laugh_that_ends_is_no_frown(warp):
    """Lips meet in about a straight line: corners that went below the middle of the open mouth made an arc."""
    photo, parsing = draw_laugh()
    assert bent(MOUTH_CLOSED, parsing, photo) > 2.5, "it laughs"
    assert abs(bent(warp, parsing, photo)) < 0.06 * FacePoints.of(parsing).unit


def test_the_upper_lip_of_a_smile_rises_with_its_corners():
    """If it stays, the mouth is a deep U, most of all one that is narrow and has full lips."""
    photo, parsing = draw_mouth(parted=0.0)
    unit = FacePoints.of(parsing).unit
    rest, smile = bent(MOUTH_OPEN, parsing, photo), bent(SMILING, parsing, photo)
    assert abs(rest) < 1 and 0 < smile < 0.06 * unit
    assert bent(SMILING + MOUTH_CLOSED, parsing, photo) > smile + 0.02 * unit, "lips that meet show it by their arc"


def test_lips_below_a_near_nose_rise_less():
    parsing = draw_mouth(parted=0.0)[1]
    points, lips = FacePoints.of(parsing), Lips.of(parsing)
    near = {**points.places, "nose_base": points.places["lip_upper"] - 0.05 * points.unit * points.across}
    rise, less = (
        -SMILING._smiling(each, lips)[1]
        for each in (points, FacePoints(near, points.along, points.across, points.unit))
    )
    assert 0 < less < rise


def test_grain_survives_a_movement_by_half_a_pixel():
    """A photo that is resampled as it is loses a quarter of its grain or more, and looks soft where it has moved."""
    grain = np.random.default_rng(0).normal(0.5, 0.1, (96, 96, 3))
    photo = blur(grain.astype(np.float32), 0.75)  # as fine as that of compressed photos
    y, x = np.mgrid[8:88, 8:88] + 0.5

    def kept(pixels, factor):
        shares = []
        for away in (0.25, 0.5, 0.75):
            found = sample(pixels, factor * np.stack([x + away, y + 0.5], -1))
            shares.append(laplace(found).var() / laplace(photo[8:88, 8:88]).var())
        return np.mean(shares)

    finer = twice_as_fine(photo)
    assert finer.shape == (192, 192, 3)
    assert kept(photo, 1) < 0.8 < 0.9 < kept(finer, 2) < 1.05


@pytest.mark.parametrize("warp", [MOUTH_OPEN, ARCHED_BROWS], ids=["lips part", "brows rise"])
def test_a_face_as_large_as_a_photo_of_many_megapixels_moves_in_bands_without_seams(warp, monkeypatch):
    photo, parsing = draw_mouth(parted=0.0)
    made = []
    monkeypatch.setattr(warping, "twice_as_fine", lambda pixels: made.append(pixels.size) or twice_as_fine(pixels))
    at_once, _ = moved(warp, photo, parsing)
    monkeypatch.setattr(warping, "AT_ONCE", 500)
    in_bands, _ = moved(warp, photo, parsing)
    whole, *bands = made
    assert len(bands) > 4 and max(bands) < 0.75 * whole, "memory for a part of the photo at a time"
    away = np.abs(in_bands - at_once)
    assert away.max() <= 1 and (away > 0).mean() < 1e-3


def test_movements_add_up_in_either_order():
    for both in (MOUTH_OPEN + ANGRY, ANGRY + MOUTH_OPEN):
        assert both.moves == ANGRY.moves and both.corners == ANGRY.corners
        assert both.part == MOUTH_OPEN.part and not both.close, "who asks for an open mouth gets one"
    closed = SMILING + MOUTH_CLOSED
    assert closed.smile == SMILING.smile and closed.close == 1 and not closed.apart, "a smile with closed lips"
    arched = SAD + ARCHED_BROWS
    assert arched.moves["brow_middle"][1] == pytest.approx(-0.02 - 0.075) and arched.close == SAD.close
    photo, parsing = draw_mouth(parted=0.0)
    after, _ = moved(ANGRY + MOUTH_OPEN, photo, parsing)
    change = brow(after) - brow(np.asarray(photo, float))
    assert change[0] > 1.5 and (after[128 + 2 * 86 : 128 + 2 * 122, 184:280].sum(-1) < 180).sum() > 60


def test_a_mouth_that_the_photo_cuts_off_or_that_is_none_is_not_moved():
    parsing = draw_mouth()[1]
    for size, whole in (((ALL, ALL), True), ((ALL, 128 + 2 * 98), False), ((128 + 2 * 70, ALL), False)):
        seen = FaceParsing(parsing.probabilities, LABELS, parsing.matrix, size)
        assert SMILING.fits(seen) == SAD.fits(seen) == whole
    steep = parsing.probabilities.copy()
    for name in ("upper_lip", "lower_lip", "mouth"):
        index = LABELS.index(name)
        for column in range(ALL):
            steep[index, :, column] = np.roll(parsing.probabilities[index, :, column], round(0.8 * (column - 256)))
    assert not SMILING.fits(FaceParsing(steep, LABELS, parsing.matrix)), "a profile"


def test_nobody_smiles_on_a_mask():
    """A mouth that is not seen is drawn: on the cloth of a mask it would be."""
    parsing = draw_mouth()[1]
    assert whole_mouth(parsing)
    worn = np.zeros((len(FACE_CLASSES), ALL, ALL), np.float32)
    for index, name in enumerate(LABELS):
        worn[FACE_CLASSES.index(name)] = parsing.probabilities[index]
    worn[:, 128 + 2 * 70 : 128 + 2 * 120, 128 + 2 * 30 : 128 + 2 * 98] = 0
    worn[FACE_CLASSES.index("face_mask"), 128 + 2 * 70 : 128 + 2 * 120, 128 + 2 * 30 : 128 + 2 * 98] = 1
    assert not whole_mouth(FaceParsing(worn, FACE_CLASSES, parsing.matrix))
