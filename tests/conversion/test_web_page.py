"""The page in a real browser, cut off from everything but its own files: it must edit as the package does."""

import functools
import http.server
import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gptface.cli import main
from gptface.conversion import web_export
from gptface.conversion.report import ConversionError
from gptface.conversion.web_weights import round_weights
from gptface.modeling_gptface import decoding
from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.detection import default_detector

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
PORTRAIT = Path(__file__).parents[2] / "examples" / "serious.jpg"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
MINUTES = 60_000
SEED = 7


def test_a_checkpoint_without_a_plan_is_refused_before_anything_is_fetched(tiny_checkpoint, tmp_path, capsys):
    pytest.importorskip("cv2")
    assert main(["export", str(tiny_checkpoint), str(tmp_path / "page"), "--web"]) == 2
    error = capsys.readouterr().err
    assert "a trained plan" in error and "a refiner" in error and "parser" not in error
    assert not list(tmp_path.iterdir())


def test_without_npm_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConversionError, match=r"onnxruntime-web@.*install Node\.js"):
        web_export._packed_runtime(tmp_path)


def test_another_file_than_the_pinned_one_is_refused(tmp_path, monkeypatch):
    """Whoever serves the page to others must not serve what somebody slipped into the registry."""
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/sh")
    monkeypatch.setattr(
        web_export.subprocess,
        "run",
        lambda command, cwd, **given: (
            (Path(cwd) / "a.tgz").write_bytes(b"other") and type("Run", (), {"returncode": 0, "stderr": ""})
        ),
    )
    with pytest.raises(ConversionError, match="is not the package that was pinned"):
        web_export._packed_runtime(tmp_path)


def hashed(x):
    """`hash` of noise.js, for arrays of uint32."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


class PageNoise:
    """`uniform_noise` with the numbers of the page."""

    def __init__(self):
        self.draws = {}

    def __call__(self, shape, generators, device, rows=None):
        (generator,) = generators
        draw = self.draws[generator] = self.draws.get(generator, -1) + 1
        key = hashed(hashed(np.array([generator.initial_seed()], np.uint32)) + np.uint32(draw))
        index = np.arange(np.prod(shape), dtype=np.uint32)
        places = hashed(hashed(index + key) ^ key) >> np.uint32(9)
        return torch.from_numpy(((places + 0.5) / 2**23).astype(np.float32)).reshape(1, *shape)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """As PNG: two programs may decode a JPEG differently."""
    path = tmp_path_factory.mktemp("photo") / "portrait.png"
    Image.open(PORTRAIT).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def address(planned_checkpoint, tmp_path_factory):
    pytest.importorskip("cv2")
    pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    folder = tmp_path_factory.mktemp("web") / "page"
    try:
        web_export.export_web(planned_checkpoint, folder)
    except ConversionError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def page(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 390, "height": 800})
        elsewhere, errors = [], []

        def own_files_alone(route):
            if route.request.url.startswith((address, "blob:", "data:")):
                return route.continue_()
            elsewhere.append(route.request.url)
            return route.abort()

        context.route("**/*", own_files_alone)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(3 * MINUTES)
        page.goto(address)
        says(page, "Ready")
        yield page
        assert not elsewhere and not errors
        browser.close()


def says(page, text):
    page.wait_for_function("text => document.querySelector('#status').innerText.includes(text)", arg=text)


def saved(page):
    with page.expect_download() as download:
        page.click("#save")
    return Path(download.value.path()).read_bytes()


@pytest.mark.slow
def test_the_page_draws_the_picture_of_the_package_and_takes_it_back(page, photo, planned_checkpoint, monkeypatch):
    page.set_input_files("#file", photo)
    says(page, "One face found")
    page.select_option("#edit", "smiling")
    page.fill("#seed", str(SEED))
    page.click("#go")
    says(page, "Done in")
    file = saved(page)
    assert b"compositeWithTrainedAlgorithmicMedia" in file and f"<gptface:seed>{SEED}<".encode() in file
    drawn = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), int)

    monkeypatch.setattr(decoding, "uniform_noise", PageNoise())
    edit = load_pipeline("guided-face-editing", str(planned_checkpoint))
    round_weights(edit.model)
    # Where a pixel of a close-up is rounded otherwise the points move by some thousandths of a pixel, and codes flip.
    landmarks = json.loads(page.get_attribute("#faces button", "data-landmarks"))
    found = default_detector().detect(Image.open(photo))[0].landmarks
    np.testing.assert_allclose(landmarks, found, atol=0.05)
    result = edit(str(photo), "smiling", seed=SEED, force=True, draw=True, landmarks=landmarks)[0]
    expected, before = np.asarray(result["image"], int), np.asarray(Image.open(photo), int)
    assert (expected != before).any(), "a test of an edit that changes nothing shows nothing"
    assert np.abs(drawn - expected).max() <= 2

    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "wider than a phone"
    page.click("#undo")
    undone = np.asarray(Image.open(io.BytesIO(saved(page))).convert("RGB"), int)
    assert (undone == before).all()

    page.select_option("#edit", "sunglasses")  # the parser, untrained, sees no eyes
    page.click("#go")
    says(page, "The face does not show what “sunglasses” needs")


@pytest.mark.slow
def test_what_goes_wrong_is_a_message(page, tmp_path):
    bad, empty = tmp_path / "bad.png", tmp_path / "empty.png"
    bad.write_bytes(b"no picture")
    Image.new("RGB", (300, 200), "gray").save(empty)
    page.set_input_files("#file", bad)
    says(page, "bad.png is not a picture")
    page.set_input_files("#file", empty)
    says(page, "No face found")
    assert page.is_disabled("#go")
