"""The page in a real browser: what a visitor sees, and that nothing is fetched from anybody else."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("gradio")
pytest.importorskip("cv2")
sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
CHROMIUM = shutil.which("chromium")
PORTRAIT = Path(__file__).parents[1] / "examples" / "serious.jpg"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


@pytest.fixture(scope="module")
def address():
    from gptface.demo.app import PhotoEditor, launch

    page = launch(PhotoEditor(), block=False)
    yield page.local_url
    page.close()


@pytest.fixture(params=[1280, 390], ids=["desk", "phone"])
def page(request, address):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": request.param, "height": 900})
        page.set_default_timeout(60_000)
        elsewhere = []
        page.on("request", lambda sent: elsewhere.append(sent.url) if sent.url.startswith("http") else None)
        page.goto(address)
        page.wait_for_selector("#edit")
        yield page
        assert not [url for url in elsewhere if not url.startswith(address)]
        browser.close()


def says(page, element, text):
    page.wait_for_function("([id, text]) => document.querySelector(id)?.innerText.includes(text)", arg=[element, text])


def test_a_portrait_is_edited_compared_undone_and_a_bad_file_is_a_message(page, tmp_path):
    page.set_input_files("#upload input[type=file]", PORTRAIT)
    says(page, "#about", "Expression")
    page.locator("#prompt textarea").press_sequentially("make her smle")
    says(page, "#understood", "Read “smle” as “smile”")
    page.click("#edit")
    says(page, "#status", "match")
    assert page.locator("#slider img").count() == 2
    before, after = page.locator("#slider img").evaluate_all("images => images.map(image => image.src)")
    assert before != after
    with page.expect_download() as download:
        page.click("#save")
    assert b"compositeWithTrainedAlgorithmicMedia" in Path(download.value.path()).read_bytes()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "wider than the screen"
    page.click("#undo")
    page.wait_for_function("!document.querySelector('#status')?.innerText.includes('match')")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    page.locator("#upload").get_by_role("button", name="Clear").or_(
        page.locator("#upload").get_by_role("button", name="Remove")
    ).first.click()
    page.set_input_files("#upload input[type=file]", bad)
    says(page, ".toast-body", "not a picture")
