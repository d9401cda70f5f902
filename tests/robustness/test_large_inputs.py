"""Crowds, photos at the size limit, long runs and a million members: what they take stays in bounds."""

import os
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from gptface.data.sources import read_samples
from gptface.pipelines.face_pipeline import FACES_AT_ONCE
from gptface.processing.alignment import CROP_LANDMARKS
from gptface.processing.image_loading import MAX_IMAGE_PIXELS

LONG = "GPTFACE_EXAMPLES" in os.environ
CROWD = 300
MEASURED = """
import resource, sys
from collections import Counter
from gptface.data.sources import read_samples
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
list(read_samples(sys.argv[1]))
before = peak()
count = sum(1 for _ in read_samples(sys.argv[2]))
print(count, peak() - before)
"""


def tar_of_tiny_members(path, count):
    """`tarfile` writes some thousand a second; the headers differ in the name and the sum alone."""
    member = tarfile.TarInfo("0000000.jpg")
    member.size = 1
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    with path.open("wb") as file:
        for number in range(count):
            header[:7] = b"%07d" % number
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            file.write(header + b"x" + bytes(511))
        file.write(bytes(1024))
    return path


@pytest.fixture
def repository() -> str:
    """The folder that `gptface` is imported from."""
    import gptface

    return str(Path(gptface.__file__).parent.parent)


def test_the_tar_of_this_test_is_one(tmp_path):
    samples = list(read_samples(tar_of_tiny_members(tmp_path / "a.tar", 20)))
    assert [sample.key for sample in samples] == [f"a/{number:07d}" for number in range(20)]


@pytest.mark.parametrize(
    ("members", "mebibytes"),
    [
        pytest.param(20_000, 16, id="20 thousand"),
        pytest.param(
            10**6, 64, id="a million", marks=pytest.mark.skipif(not LONG, reason="1 GB; in the long form alone")
        ),
    ],
)
def test_memory_stays_flat_over_the_members_of_a_tar(tmp_path, repository, members, mebibytes):
    """`tarfile` keeps each header, gigabytes of them. Here it is 8 bytes a name, and a sort of these."""
    few, many = (tar_of_tiny_members(tmp_path / f"{count}.tar", count) for count in (10, members))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([repository, *sys.path])}
    command = [sys.executable, "-c", MEASURED, str(few), str(many)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=1800)
    os.remove(many)
    count, grown = run.stdout.split()
    assert int(count) == members and float(grown) < mebibytes


@pytest.fixture
def crowd(face):
    """A photo, and landmarks of hundreds of faces in it."""
    places = np.random.default_rng(0).uniform(0, 400, (CROWD, 1, 2))
    return face.resize((500, 500)), CROP_LANDMARKS / CROP_LANDMARKS.max() * 60 + places


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("face-attribute-classification", {}),
        ("face-captioning", {"num_inference_steps": 1, "num_tokens": 1, "itm_guidance": 0, "faces": 40}),
        ("face-parsing", {"faces": 70}),
        ("guided-face-editing", {"prompt": "smiling", "num_inference_steps": 1, "itm_guidance": 0, "faces": 40}),
    ],
)
def test_a_crowd_goes_through_the_network_in_parts(tiny_checkpoint, crowd, monkeypatch, task, options):
    """300 faces at once would take 10 GB in the encoder alone. Each is what it is alone."""
    photo, landmarks = crowd
    landmarks = landmarks[: options.pop("faces", CROWD)]
    pipe = pipeline(task, model=str(tiny_checkpoint), **options)
    seen = []
    for part in (pipe.model.image_tokenizer.encoder, pipe.model.face_parser):
        part.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    results = pipe(photo, face="all", landmarks=landmarks, aligned=False)
    assert seen and max(seen) <= 2 * FACES_AT_ONCE
    if task == "guided-face-editing":
        assert len(results[0]["box"]) == len(landmarks) and results[0]["image"].size == photo.size
        return
    assert len(results) == len(landmarks)
    alone = pipe(photo, landmarks=landmarks[-1])
    if task == "face-parsing":
        assert [each["label"] for each in alone] == [each["label"] for each in results[-1]]
        assert np.array_equal(alone[0]["mask"], results[-1][0]["mask"])
    elif task == "face-attribute-classification":
        for one, other in zip(alone, results[-1], strict=True):
            assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_masks_of_a_crowd_in_a_large_photo_are_refused_before_work(tiny_checkpoint, crowd):
    """300 faces × 16 classes × 12 million pixels are 50 GB."""
    parse = pipeline("face-parsing", model=str(tiny_checkpoint))
    large = Image.new("RGB", (4000, 3000))
    with pytest.raises(ValueError, match=r"300 faces .* take one after the other by its index"):
        parse(large, face="all", landmarks=crowd[1])
    assert parse(large, landmarks=crowd[1][0])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8000, 8000), (64_000_000 // 32, 32)], ids=["square", "strip"])
def test_a_photo_at_the_size_limit_is_edited_and_judged(edit, classify, tmp_path, shape):
    """What the limit allows must end, at the size that it came in, with all else of it as it was."""
    width, height = shape
    assert width * height == MAX_IMAGE_PIXELS
    tile = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    photo = Image.fromarray(np.tile(tile, (height // 32, width // 32, 1)))
    landmarks = CROP_LANDMARKS / CROP_LANDMARKS.max() * 24 + 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so small a face in so large a photo
        result = edit(photo, prompt="smiling", region="mouth", aligned=False, landmarks=landmarks)[0]
        assert classify(photo, aligned=False, landmarks=landmarks)
    assert result["image"].size == shape
    outside = np.asarray(result["mask"]) == 0
    assert outside.mean() > 0.9 and np.array_equal(np.asarray(result["image"])[outside], np.asarray(photo)[outside])


@pytest.mark.slow
def test_memory_does_not_grow_over_edits(edit, face):
    """A server of a month: what an edit leaves behind would end it."""
    resource = pytest.importorskip("resource")

    def run(count):
        for seed in range(count):
            edit(face, prompt="smiling", region="mouth", seed=seed)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = run(50)
    assert run(300 if LONG else 60) - before < 20


class Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("place", ["generate", "decode", "classify", "match_log_odds"])
def test_a_pipeline_that_was_interrupted_gives_the_same_again(tiny_checkpoint, face, monkeypatch, place):
    """Ctrl-C in a notebook, anywhere: what was switched for the work (gradients, states that are kept) is back."""
    options = {"prompt": "smiling", "region": "mouth", "aligned": True, "force": True, "seed": 0}
    pipe = pipeline("guided-face-editing", model=str(tiny_checkpoint), **options)
    before = pipe(face)[0]
    gradients = {name: parameter.requires_grad for name, parameter in pipe.model.named_parameters()}
    owner = pipe.model.image_tokenizer if place == "decode" else pipe.model

    def stop(*args, **kwargs):
        raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        if place == "generate":  # in the middle of it
            pipe(face, callback_on_step_end=stop)
        patched.setattr(owner, place, stop)
        pipe(face, on_error="return")
    assert gradients == {name: parameter.requires_grad for name, parameter in pipe.model.named_parameters()}
    assert not any(module.training for module in pipe.model.modules())
    after = pipe(face)[0]
    assert np.array_equal(before["image"], after["image"]) and before["match_score"] == after["match_score"]
