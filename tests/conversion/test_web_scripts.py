"""The page's arithmetic beside the package's: what is rounded another way there draws another face."""

import json
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from drawn_faces import draw_face, draw_mouth
from PIL import Image
from test_web_page import hashed

from gptface.conversion.web_export import class_places, constants, transfer_row
from gptface.processing.alignment import compose, inverse, warp
from gptface.processing.blending import find_toning, keep_toning, paste
from gptface.processing.edits import EDITS
from gptface.processing.face_parsing import FADE, _joined
from gptface.processing.masks import feather, widen

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
SIDE = 64


def run(script, **given):
    """What a script with `given` and the page's modules `pictures`, `area`, `parsing`, `toning` returns."""
    folder = files("gptface.conversion").joinpath("web")
    imports = "".join(
        f"import * as {name} from {json.dumps(f'file://{folder}/{name}.js')};"
        for name in ("pictures", "area", "parsing", "toning")
    )
    code = f"{imports} const given = {json.dumps(given)}; console.log(JSON.stringify((() => {{ {script} }})()));"
    found = subprocess.run([NODE, "--input-type=module"], input=code, capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def smooth(seed, *shape):
    """Noise of some squares a side, [*shape, SIDE, SIDE] in [0, 1]."""
    values = np.random.default_rng(seed).random((int(np.prod(shape)), 8, 8)).astype(np.float32)
    return np.stack([Image.fromarray(each).resize((SIDE, SIDE)) for each in values]).reshape(*shape, SIDE, SIDE)


@pytest.fixture(scope="module")
def photo():
    channels = smooth(0, 3).transpose(1, 2, 0)
    return Image.fromarray(np.rint(channels * 255).astype(np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("scale", "angle", "size"), [(0.6, 0.1, 48), (1.7, 0.0, 96), (0.21, -0.3, 32)])
def test_a_crop_has_the_pixels_of_the_package(photo, scale, angle, size):
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle), -30.3], [np.sin(angle), np.cos(angle), -20.7]])
    found = run(
        """const photo = pictures.picture(200, 150, 3, Float32Array.from(given.pixels), true);
        return Array.from(pictures.warp(photo, given.matrix, given.size, given.size).data);""",
        pixels=np.asarray(photo).ravel().tolist(),
        matrix=matrix.ravel().tolist(),
        size=size,
    )
    expected = np.asarray(warp(photo, matrix, (size, size)), int).ravel()
    assert (np.array(found) != expected).mean() < 1e-3 and np.abs(found - expected).max() <= 1


def test_what_the_detector_sees_is_resized_as_pillow_does(photo):
    found = run(
        """const photo = pictures.picture(200, 150, 3, Float32Array.from(given.pixels), true);
        return Array.from(pictures.resize(photo, 111, 83).data);""",
        pixels=np.asarray(photo).ravel().tolist(),
    )
    expected = np.asarray(photo.resize((111, 83), Image.Resampling.BILINEAR), int).ravel()
    assert (np.array(found) != expected).mean() < 5e-3 and np.abs(found - expected).max() <= 1


def test_what_is_sampled_from_is_resized_as_pillow_does():
    values = smooth(6)
    found = run(
        """const values = pictures.picture(64, 64, 1, Float32Array.from(given.values));
        return Array.from(pictures.resize(values, 128, 128, { filter: pictures.lanczos }).data);""",
        values=values.ravel().tolist(),
    )
    expected = Image.fromarray(values).resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(found, np.asarray(expected).ravel(), atol=1e-6)


def test_edges_are_softened_and_widened_alike():
    mask = np.where(smooth(1) > 0.5, smooth(2), 0).astype(np.float32)
    found = run(
        """const mask = Float32Array.from(given.mask);
        const wide = area.widen(mask.map((value) => value > 0.5), 64, given.margin);
        return [area.feather(mask, 64, 4), wide].map((each) => Array.from(each));""",
        mask=mask.ravel().tolist(),
        margin=2.5 / SIDE,  # a half, which Python rounds to even
    )
    np.testing.assert_allclose(found[0], feather(mask, 4).ravel(), atol=1e-6)
    np.testing.assert_array_equal(found[1], widen(mask > 0.5, 2.5 / SIDE).ravel())


def test_both_views_of_the_parser_are_joined_alike():
    near, far = smooth(3, 2), smooth(4, 2)
    found = run(
        """const [near, far] = [given.near, given.far].map((each) => Float32Array.from(each));
        return Array.from(parsing.joined(near, far, 64, given.fade));""",
        near=near.ravel().tolist(),
        far=far.ravel().tolist(),
        fade=FADE,
    )
    np.testing.assert_allclose(found, _joined(near, far).ravel(), atol=1e-5)


def lay(edits, photo, parsing, folder):
    """Photos [H, W, 3] as the page makes them of one by the transfers of edits; None of those that do not fit."""
    parsing.probabilities.astype("<f4").tofile(folder / "probabilities")
    np.asarray(photo.convert("RGBA")).tofile(folder / "photo")
    web = files("gptface.conversion").joinpath("web")
    code = f"""
        import {{ readFileSync, writeFileSync }} from "fs";
        import {{ paste }} from "file://{web}/blending.js";
        import {{ Chance }} from "file://{web}/noise.js";
        import {{ Oklab }} from "file://{web}/oklab.js";
        import {{ FaceParsing }} from "file://{web}/parsing.js";
        import {{ TRANSFERS, faceOf }} from "file://{web}/transfers.js";
        const given = {json.dumps(given_to_the_page(edits, photo, parsing))};
        const read = (name) => new Uint8ClampedArray(readFileSync("{folder}/" + name));
        const seen = new Float32Array(read("probabilities").buffer);
        const found = given.transfers.map((transfer, index) => {{
          const photo = {{ ...given.photo, channels: 4, bytes: true, data: read("photo") }};
          const parsing = new FaceParsing(seen, given.total, given.classes, given.matrix, photo);
          const more = {{ space: new Oklab(given.constants.part_colour), chance: new Chance(0), toning: null }};
          const face = faceOf(photo, parsing, given.constants, more);
          const {{ fits, layers }} = TRANSFERS[transfer.kind];
          if (!fits(transfer, face)) return false;
          paste(photo, layers(transfer, face));
          writeFileSync("{folder}/edited" + index, photo.data);
          return true;
        }});
        console.log(JSON.stringify(found));
    """
    found = subprocess.run([NODE, "--input-type=module"], input=code, capture_output=True, text=True, check=True)
    shape = (photo.height, photo.width, 4)
    return [
        np.fromfile(folder / f"edited{index}", np.uint8).reshape(shape)[:, :, :3] if fits else None
        for index, fits in enumerate(json.loads(found.stdout))
    ]


def given_to_the_page(edits, photo, parsing):
    return {
        "transfers": [transfer_row(EDITS[name].transfer) for name in edits],
        "photo": {"width": photo.width, "height": photo.height},
        "total": parsing.probabilities.shape[1],
        "classes": class_places(parsing.labels),
        "matrix": parsing.matrix.ravel().tolist(),
        "constants": constants(),
    }


def in_a_larger_photo(photo, parsing):
    """Both, with the face turned, larger and not in the middle."""
    cosine, sine = 1.6 * np.cos(0.1), 1.6 * np.sin(0.1)
    matrix = np.array([[cosine, -sine, 90.0], [sine, cosine, -60.0]])
    larger = warp(photo, matrix, (880, 860))
    return larger, replace(parsing, matrix=compose(inverse(matrix), parsing.matrix), photo_size=larger.size)


class PageChance:
    """What transfers ask a generator for, by the numbers that the page has for the seed 0."""

    def __init__(self):
        self.count = 0

    def uniform(self, low=0.0, high=1.0):
        share = ((int(hashed(hashed(np.array([self.count], np.uint32)))[0]) >> 9) + 0.5) / 2**23
        self.count += 1
        return low + share * (high - low)

    def normal(self, mean=0.0, deviation=1.0, size=1):
        pairs = [(self.uniform(), self.uniform()) for _ in range(int(np.prod(size)))]
        values = [np.sqrt(-2 * np.log(one)) * np.cos(2 * np.pi * other) for one, other in pairs]
        return mean + deviation * np.reshape(values, size)

    def integers(self, count):
        return int(self.uniform(0, count))


@pytest.mark.parametrize(
    ("parted", "edits"),
    [
        (0.0, ("smiling", "arched_eyebrows", "blond_hair", "lipstick", "sunglasses")),
        (8.0, ("smiling", "not_smiling", "surprised", "mouth_closed", "young", "old")),
    ],
    ids=["lips that meet", "teeth are seen"],
)
def test_the_page_lays_over_a_photo_what_the_package_does(parted, edits, tmp_path):
    """Whoever changes a transfer of the package and not that of the page sees it here."""
    photo, parsing = in_a_larger_photo(*draw_mouth(parted))
    before = np.asarray(photo, int)
    for name, found in zip(edits, lay(edits, photo, parsing, tmp_path), strict=True):
        layers = EDITS[name].transfer.layers(photo, parsing, 1.0, PageChance())
        expected = np.asarray(paste(photo, layers)[0], int)
        assert (np.abs(expected - before).max(-1) > 2).mean() > 1e-3, "an edit that changes nothing shows nothing"
        away = np.abs(found - expected).max(-1)
        # masks are rounded to whole steps at the edge of hair, and a pixel of a thousand to the next one
        assert np.quantile(away, 0.9999) <= 1 and away.max() <= 4, name


@pytest.mark.parametrize(("tint", "toned"), [(0.0, True), (12.0, True), (90.0, False)])
def test_a_photo_without_colours_stays_so(photo, tint, toned):
    grey = np.asarray(photo.convert("L"), np.float32)[:, :, None] + tint * smooth(5, 1)[0, :1, :1] * [1.0, 0.2, -1.0]
    if not toned:
        grey = np.asarray(photo, np.float32)
    before = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    after = Image.fromarray(np.asarray(before)[::-1] // 2 + np.asarray(photo) // 2)
    toning = find_toning(before)
    assert (toning is not None) == toned
    found = run(
        """const photo = pictures.picture(200, 150, 4, Float32Array.from(given.before), true);
        const table = toning.findToning(photo, given.constants);
        if (!table) return null;
        const after = Uint8ClampedArray.from(given.after);
        toning.keepToning(photo.data, after, table, given.constants);
        return Array.from(after);""",
        before=np.asarray(before.convert("RGBA")).ravel().tolist(),
        after=np.asarray(after.convert("RGBA")).ravel().tolist(),
        constants=constants()["blending"],
    )
    if not toned:
        assert found is None
    else:
        expected = np.asarray(keep_toning(before, after, toning), int)
        assert np.abs(np.reshape(found, (150, 200, 4))[:, :, :3] - expected).max() <= 1


def test_the_page_moves_no_mouth_that_is_not_whole(tmp_path):
    photo, parsing = draw_mouth()
    assert lay(["smiling"], photo, replace(parsing, photo_size=photo.size), tmp_path)[0] is not None
    cut_off = replace(parsing, photo_size=(photo.width, 128 + 2 * 98))
    assert not EDITS["smiling"].transfer.fits(cut_off)
    upper = photo.crop((0, 0, *cut_off.photo_size))
    assert lay(["smiling", "arched_eyebrows"], upper, cut_off, tmp_path)[0] is None


def test_glasses_that_are_streaks_beyond_the_edge_of_a_photo_keep_none_away_on_the_page(tmp_path):
    photo, parsing = draw_face()
    seen = parsing.probabilities.copy()
    seen[:, 220:256, 352:384] = np.arange(len(seen))[:, None, None] == parsing.labels.index("eyeglasses")
    parsing = replace(parsing, probabilities=seen)
    assert lay(["eyeglasses"], photo, parsing, tmp_path)[0] is None
    cut_off = replace(parsing, photo_size=(352, photo.height))
    assert EDITS["eyeglasses"].transfer.fits(cut_off)
    left = photo.crop((0, 0, *cut_off.photo_size))
    assert lay(["eyeglasses"], left, cut_off, tmp_path)[0] is not None
