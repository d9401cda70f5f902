"""The HTTP service: what callers get, what is refused, and that nobody's request is lost or opens anything."""

import base64
import io
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from gptface.cli import main
from gptface.server.batching import Batcher, OverloadedError

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
from fastapi.testclient import TestClient

from gptface.server import app as server
from gptface.server.app import REPORT_HEADER, BodyLimit, Operations, create_app

HERE = "http://127.0.0.1"


def upload(image, name="photo.png"):
    target = io.BytesIO()
    image.save(target, "PNG")
    return {"image": (name, target.getvalue())}


@pytest.fixture(scope="module")
def client(tiny_checkpoint):
    with TestClient(create_app(str(tiny_checkpoint)), base_url=HERE) as client:
        yield client


@pytest.fixture
def photo(face_picture):
    return upload(face_picture)


def opened(response):
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def test_an_edit_is_a_picture_that_says_so_and_what_is_known_of_it(client, photo, face_picture):
    how = {
        "prompt": "smiling",
        "aligned": "true",
        "force": "true",
        "region": ["mouth"],
        "candidates": "2",
        "seed": "4",
    }
    response = client.post("/edit", files=photo, data=how)
    picture, report = opened(response), json.loads(response.headers[REPORT_HEADER])
    assert picture.size == face_picture.size and "compositeWithTrained" in str(picture.info["XML:com.adobe.xmp"])
    assert report["seed"] in (4, 5) and report["edits"] == ["smiling"] and "verified" in report
    assert client.post("/edit", files=photo, data=how).content == response.content
    smaller = opened(client.post("/edit", files=photo, data={**how, "format": "jpg"}))
    assert smaller.format == "JPEG"


def test_a_mask_is_all_that_changes(client, photo, face_picture):
    area = Image.new("L", face_picture.size)
    area.paste(255, (20, 50, 60, 80))
    how = {"prompt": "smiling", "aligned": "true", "force": "true"}
    edited = opened(client.post("/edit", files={**photo, "mask": upload(area)["image"]}, data=how))
    changed = (np.asarray(edited) != np.asarray(face_picture)).any(-1)
    assert changed.any() and not changed[np.asarray(area) == 0].any()


def test_faces_are_judged_described_parsed_and_made(client, photo):
    for name in ("attributes", "expression"):
        scores = client.post(f"/{name}", files=photo, data={"aligned": "true"}).json()
        assert scores[0]["score"] >= scores[-1]["score"] and set(scores[0]) == {"label", "score"}
    captions = client.post("/caption", files=photo, data={"aligned": "true", "tokens": "3", "candidates": "2"}).json()
    assert len(captions) == 2 and captions[0]["match_score"] >= captions[1]["match_score"]
    segments = client.post("/parse", files=photo, data={"aligned": "true"}).json()
    mask = Image.open(io.BytesIO(base64.b64decode(segments[0]["mask"])))
    assert mask.size == (80, 96) and mask.histogram()[255] > 0
    face = opened(client.post("/text-to-face", data={"prompt": "smiling", "seed": "3"}))
    assert "trainedAlgorithmicMedia" in str(face.info["XML:com.adobe.xmp"])


def test_it_describes_itself(client):
    assert client.get("/health").json()["status"] == "ok"
    assert any(each["prompt"] == "smiling" for each in client.get("/edits").json())
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/edit", "/attributes", "/expression", "/caption", "/parse", "/text-to-face", "/health"} <= paths.keys()
    assert {"413", "422", "503"} <= paths["/edit"]["post"]["responses"].keys()
    assert client.get("/docs").status_code == 404  # would fetch scripts from elsewhere


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"prompt": "as a pirate"}, "did you mean"),
        ({"prompt": "smiling", "strength": "7"}, "strength"),
        ({"prompt": "smiling", "face": "every"}, "face must be"),
        ({"prompt": "smiling", "candidates": "99"}, "candidates"),
        ({"prompt": "smiling", "region": "moth"}, "mouth"),
        ({}, "prompt"),
    ],
)
def test_what_makes_no_sense_is_said_in_json(client, photo, data, message):
    response = client.post("/edit", files=photo, data={"aligned": "true", **data})
    assert response.status_code == 422 and message in response.json()["error"]


def test_what_is_no_photo_or_a_name_of_one_is_not_opened(client, tmp_path, face_picture):
    """A server that opens what its callers name gives away its files and asks its neighbours."""
    face_picture.save(tmp_path / "secret.png")
    for body in (str(tmp_path / "secret.png"), "http://127.0.0.1:9/x.png", "file:///etc/passwd", ""):
        response = client.post("/attributes", files={"image": ("a.png", body.encode())}, data={"aligned": "true"})
        assert response.status_code == 422 and "not a picture" in response.json()["error"]
        assert client.post("/attributes", data={"image": body, "aligned": "true"}).status_code == 422
    assert client.post("/attributes", files=upload(Image.new("RGB", (64, 64)))).status_code == 422  # no face
    assert client.get("/nowhere").json()["error"] and client.get("/edit").status_code == 405


def test_too_much_is_413(client, face_picture, monkeypatch):
    small = TestClient(BodyLimit(client.app, 1000), base_url=HERE)
    data = upload(face_picture)["image"][1]
    response = small.post("/attributes", files={"image": ("a.png", data)})
    assert response.status_code == 413 and "1000 bytes" in response.json()["error"]

    def pieces():
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    response = small.post("/attributes", content=pieces(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert response.status_code == 413  # without Content-Length too
    assert small.get("/health").status_code == 200
    monkeypatch.setattr(server, "MAX_PIXELS", 100)
    response = client.post("/attributes", files=upload(face_picture))
    assert response.status_code == 422 and "resize" in response.json()["error"]


def test_a_page_of_the_web_cannot_ask_under_its_own_name(client):
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400


class Slow:
    """Operations that wait to be let go."""

    def __init__(self):
        self.go, self.sizes = threading.Event(), []

    def __call__(self, kind, rows):
        self.sizes.append(len(rows))
        if not self.go.wait(20):
            raise TimeoutError
        return [[{"label": str(row["image"].size), "score": 1.0}] for row in rows]


def test_a_full_queue_is_503_with_when_to_come_back_and_nobody_is_lost(photo):
    slow = Slow()
    with TestClient(create_app(operations=slow, batch_size=3, max_waiting=4), base_url=HERE) as client:
        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(client.post, "/attributes", files=photo)]
            until(lambda: slow.sizes == [1])
            asked += [pool.submit(client.post, "/attributes", files=photo) for _ in range(4)]
            until(lambda: client.get("/health").json()["waiting"] == 4)
            refused = client.post("/attributes", files=photo)
            assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
            slow.go.set()
            assert [each.result().status_code for each in asked] == [200] * 5
        assert slow.sizes == [1, 3, 1]  # what waits goes together


def test_who_stops_the_server_waits_for_what_was_taken():
    begun, let_go = threading.Event(), threading.Event()

    def work(kind, values):
        begun.set()
        let_go.wait(20)
        return values

    batcher = Batcher(work, max_waiting=2)
    first = batcher.submit("a", 1)
    begun.wait(20)
    second = batcher.submit("a", 2)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    until(lambda: batcher._closed)
    with pytest.raises(OverloadedError):
        batcher.submit("a", 3)
    let_go.set()
    closing.join(20)
    assert (first.result(0), second.result(0)) == (1, 2)


def test_only_jobs_of_a_kind_go_together_and_an_error_is_its_own():
    seen, let_go = [], threading.Event()

    def work(kind, values):
        seen.append((kind, list(values)))
        let_go.wait(20)
        if kind == "broken":
            raise RuntimeError("broken")
        return [ValueError("no") if value == 0 else value for value in values]

    with Batcher(work, batch_size=8) as batcher:
        jobs = [batcher.submit("first", 9)]
        until(lambda: seen)
        jobs += [batcher.submit(*job) for job in (("a", 1), ("broken", 1), ("a", 0), ("a", 3), ("a", 4))]
        assert jobs[-1].cancel()
        let_go.set()
        assert jobs[1].result(20) == 1 and jobs[4].result(20) == 3
        for job, error in ((jobs[2], RuntimeError), (jobs[3], ValueError)):
            with pytest.raises(error):
                job.result(20)
    assert seen[1:] == [("a", [1, 0, 3]), ("broken", [1])]


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_waits_for_the_model_is_one_batch_with_the_results_of_each_alone(tiny_checkpoint, face_picture):
    operations = Operations(str(tiny_checkpoint))
    kind = server.Kind("edit", (("aligned", True), ("force", True), ("region", ("mouth",))))
    rows = [{"image": face_picture, "prompt": "smiling", "seed": seed} for seed in (1, 2)]
    together = operations(kind, [*rows, {"image": face_picture, "prompt": "as a pirate", "seed": 1}])
    assert isinstance(together[2], ValueError)
    for row, result in zip(rows, together, strict=False):
        alone = operations(kind, [row])[0][0]
        difference = np.abs(np.asarray(alone["image"], int) - np.asarray(result[0]["image"], int))
        assert alone["seed"] == result[0]["seed"] == row["seed"] and difference.max() <= 2


def test_without_fastapi_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    assert "gptface[serve]" in capsys.readouterr().err
