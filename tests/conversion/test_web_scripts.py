"""The page's arithmetic beside the package's: what is rounded another way there draws another face."""

import json
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from gptface.conversion.web_export import colour_settings
from gptface.processing import hair
from gptface.processing.alignment import compose, translation, warp
from gptface.processing.edits import EDITS
from gptface.processing.face_parsing import FADE, FaceParsing, _joined
from gptface.processing.masks import feather, widen
from gptface.processing.part_colour import colour_layer

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
SIDE = 64
LABELS = ("background", "skin", "nose", "hair", "neck", "cloth", "upper_lip", "lower_lip")


def run(script, **given):
    """What a script with `given` and the page's modules `pictures`, `area`, `colour` returns."""
    folder = files("gptface.conversion").joinpath("web")
    imports = "".join(
        f"import * as {name} from {json.dumps(f'file://{folder}/{name}.js')};"
        for name in ("pictures", "area", "colour")
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


@pytest.mark.parametrize("name", ["blond_hair", "lipstick"])
def test_a_part_takes_the_colour_that_the_package_gives_it(photo, name):
    logits = np.stack([3 * smooth(seed, len(LABELS)) for seed in (3, 4)]) * 4
    near, far = (np.exp(each) / np.exp(each).sum(0) for each in logits.astype(np.float32))
    matrix = compose(np.array([[0.5, 0.0, 4.0], [0.0, 0.5, 3.0]]), translation(SIDE / 2, SIDE / 2))
    parsing, wanted = FaceParsing(_joined(near, far), LABELS, matrix), EDITS[name].transfer
    place = {label: index for index, label in enumerate(LABELS)}
    parts = {"hair": ["hair"], "lips": ["upper_lip", "lower_lip"], "facial_skin": ["skin", "nose"]}
    refined = hair.refine_hair(photo, parsing) if wanted.part == "hair" else parsing
    assert wanted.part != "hair" or refined is not parsing, "a test of hair that is not refined shows nothing"
    expected = colour_layer(photo, refined, wanted)
    found = run(
        """const frame = pictures.picture(128, 128, 4, Float32Array.from(given.frame), true);
        const parsing = { near: given.near, far: given.far, side: 64, fade: given.fade };
        const layer = colour.colourLayer(frame, parsing, given.edit, given.settings);
        const becomes = given.bases.map((base) => layer.becomes(0, base));
        return { weights: Array.from(layer.weight.data), becomes };""",
        frame=np.asarray(warp(photo, matrix, (128, 128)).convert("RGBA")).ravel().tolist(),
        near=near.ravel().tolist(),
        far=far.ravel().tolist(),
        fade=FADE,
        bases=[[0.2, 0.3, 0.1], [0.9, 0.7, 0.6]],
        edit={
            "part": [place[label] for label in parts[wanted.part]],
            "beside": wanted.beside and [place[label] for label in parts[wanted.beside]],
            "skin": [place[label] for label in parts["facial_skin"]],
            "colour": {"mean": wanted.colour.mean, "deviation": wanted.colour.deviation},
            "hair": wanted.part == "hair",
        },
        settings=colour_settings(LABELS),
    )
    assert (expected.alpha > 0.5).any()
    # whole steps of 255 are rounded, and a pixel of a thousand to the next one
    differences = np.abs(np.array(found["weights"]).reshape(128, 128) - expected.alpha)
    assert differences.max() < 1.5 / 255 and (differences > 1e-3).mean() < 0.01
    base = np.array([[[0.2, 0.3, 0.1], [0.9, 0.7, 0.6]]], np.float32)
    np.testing.assert_allclose(found["becomes"], (base + expected.change(base, (0, 0, 2, 1)))[0], atol=2e-3)
