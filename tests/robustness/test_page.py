"""Requests to the page that no browser sends: its fields are bounded, but who asks need not use them."""

import os

import pytest

from gptface.demo import app
from gptface.demo.app import PhotoEditor, Wish, understood


@pytest.fixture(scope="module")
def editor(tiny_checkpoint):
    return PhotoEditor(str(tiny_checkpoint), aligned=True)


@pytest.mark.parametrize("changes", [{"candidates": 10**9}, {"prompt": "smiling " * 10**5}])
def test_what_an_edit_may_ask_for_is_bounded(editor, face, tmp_path, changes):
    """One visitor must not hold the page for all others."""
    face.save(tmp_path / "photo.png")
    history, _, _ = editor.open(tmp_path / "photo.png")
    wish = {"prompt": "smiling", "regions": ("mouth",), **changes}
    with pytest.raises(ValueError, match=f"{app.MAX_PROMPT} characters and {app.MAX_CANDIDATES} candidates"):
        editor.edit(history, Wish(**wish))
    history.forget()
    assert str(app.MAX_PROMPT) in understood("smiling " * 10**5)


@pytest.mark.parametrize("name", ["photo.svg", "photo.png/../../x", "..", "photo.jpg.exe", "-o.png", "photo"])
def test_versions_lie_in_a_folder_of_their_own_whatever_an_upload_is_called(editor, face, tmp_path, name):
    (tmp_path / "upload").mkdir()
    face.save(tmp_path / "upload" / "blob", "PNG")
    places = [tmp_path / "upload" / os.path.basename(name), tmp_path / "upload" / "blob"]
    if not places[0].exists():
        os.replace(places[1], places[0])
        places.reverse()
    history, _, _ = editor.open(places[1] if places[1].is_file() else places[0])
    assert history.current.path.parent == history.folder
    assert history.current.path.name in ("0.png", "0.jpg", "0.jpeg", "0.webp")
    history.forget()


def test_the_page_opens_uploads_alone(editor, tmp_path):
    """A request that names a file of the server as if it had been uploaded."""
    pytest.importorskip("gradio")
    import json
    import urllib.request

    (tmp_path / "private.png").write_bytes(b"private")
    page = app.build_page(editor)
    page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        for path in (str(tmp_path / "private.png"), "/etc/passwd", "../../etc/passwd"):
            given = {"path": path, "meta": {"_type": "gradio.FileData"}}
            body = json.dumps({"data": [given, None]}).encode()
            address = f"{page.local_url}gradio_api/call/open_upload"
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                event = json.load(response)["event_id"]
            with urllib.request.urlopen(f"{address}/{event}", timeout=60) as response:
                answer = response.read().decode()
            assert "event: error" in answer and "private.png (" not in answer
    finally:
        page.close()
