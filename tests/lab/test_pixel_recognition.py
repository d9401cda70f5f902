"""The pixel reader's training: what is read, what learns, what stays."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface import GPTFaceConfig, GPTFaceForPreTraining, GPTFaceProcessor
from gptface.data.batch_augmentation import degrade_faces
from gptface.training.release import save_release
from lab import pixel_recognition
from lab.pixel_recognition import (
    PixelTrainingSettings,
    pool_cells,
    restore_head,
    train_pixel_reader,
    with_pixel_reader,
)
from lab.recognition_packs import EXPRESSIONS, digest, read_packs

SETTINGS = PixelTrainingSettings(steps=24, imitation=0.5, batch_size=12, held_out=0.2)


def picture(generator, happy=True, size=64):
    """A face, as far as this goes: bright below where it is happy."""
    pixels = generator.integers(0, 90, (size, size, 3))
    pixels[size // 2 :] += 120 if happy else 0
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("packs"), np.random.default_rng(0)
    votes = [{**dict.fromkeys(EXPRESSIONS, 0), "happy": 8 * (row % 2), "sad": 8 - 8 * (row % 2)} for row in range(40)]
    voted = [{"image": picture(generator, row % 2 == 1), "source": "raf", **votes[row]} for row in range(40)]
    voted[0] |= {"happy": 2, "sad": 6}
    write(folder / "recognition.parquet", voted)
    others = [
        {"image": picture(generator, row % 2 == 1), "source": "celeba", "Smiling": row % 2, "age": None}
        for row in range(30)
    ]
    others += [{"image": picture(generator), "source": "utk", "Smiling": None, "age": 20 + row} for row in range(30)]
    others += [{"image": picture(generator, size=32), "source": "raf", "Smiling": None, "age": None}]
    write(folder / "pack128_a.parquet", others)
    (folder / "left_out.txt").write_text(digest(others[0]["image"]) + "\n")
    return folder


def test_packs_become_tensors(packs):
    faces = read_packs([packs], ["Smiling", "Young"], size=64, workers=1)
    assert len(faces) == 40 + 29 + 30, "without the one left out, and without what another pack has with votes"
    assert faces.images.shape == (99, 64, 64, 3) and faces.names == ["celeba", "raf", "utk"]
    first = dict(zip(EXPRESSIONS, faces.expression[0].tolist(), strict=True))
    assert first["happy"] == 0.25 and first["sad"] == 0.75
    assert (faces.expression.sum(1) > 0).sum() == 40
    smiling, young = faces.attributes.T
    assert smiling[40:69].tolist() == [row % 2 for row in range(1, 30)] and (smiling[69:] == -1).all()
    assert young[69:].tolist() == [int(age < 40) for age in range(20, 50)], "an age says who is young"
    assert (young[:69] == -1).all() and faces.age[:69].isnan().all()
    some = read_packs([packs], ["Smiling"], size=64, limit=20, workers=1)
    assert 15 <= len(some) <= 45 and set(some.names) == {"celeba", "raf", "utk"}


def test_no_packs_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recognition\*.parquet"):
        read_packs([tmp_path], ["Smiling"])


@pytest.fixture(scope="module")
def trained(packs, tiny_checkpoint):
    start = GPTFaceForPreTraining.from_pretrained(tiny_checkpoint)
    model = with_pixel_reader(tiny_checkpoint)
    faces = read_packs([packs], model.config.heads["attributes"]["labels"], size=64, workers=1)
    return start, model, train_pixel_reader(model, faces, SETTINGS), faces


def test_nothing_but_reader_and_heads_has_changed(trained):
    start, model, _, _ = trained
    after = model.state_dict()
    kept = [name for name in start.state_dict() if not name.startswith("classifiers.")]
    assert all(torch.equal(after[name], start.state_dict()[name]) for name in kept)
    assert any(parameter.abs().sum() > 0 for name, parameter in after.items() if name.endswith("query.up"))


def test_the_report_and_the_configuration_say_what_was_found(trained):
    _, model, report, _ = trained
    assert set(report) == {"expression_raf", "attributes", "age"}
    assert {"accuracy", "balanced_accuracy", "ece", "images"} == set(report["expression_raf"])
    heads = model.config.heads
    assert all(head["trained"] and head["input"] == "pixels" for head in heads.values())
    assert heads["expression"]["labels"] == list(EXPRESSIONS) and heads["age"]["problem_type"] == "regression"
    assert heads["expression"]["temperature"] > 0
    assert len(heads["attributes"]["thresholds"]) == len(heads["attributes"]["labels"])
    json.dumps(report)


def test_a_seed_gives_the_same_weights(trained, packs, tiny_checkpoint):
    _, model, _, faces = trained
    again = with_pixel_reader(tiny_checkpoint)
    train_pixel_reader(again, faces, SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_it_learns_what_the_labels_say(packs, tiny_checkpoint):
    model = with_pixel_reader(tiny_checkpoint)
    faces = read_packs([packs], model.config.heads["attributes"]["labels"], size=64, workers=1)
    settings = PixelTrainingSettings(steps=120, imitation=0, batch_size=12, learning_rate=5e-3, held_out=0.2)
    report = train_pixel_reader(model, faces, settings)
    assert report["expression_raf"]["accuracy"] == 1.0, report


def test_the_result_opens_in_the_pipelines(trained, tiny_checkpoint, face_picture, tmp_path):
    _, model, _, _ = trained
    save_release(model, GPTFaceProcessor.from_pretrained(tiny_checkpoint), tmp_path)
    assert GPTFaceConfig.from_pretrained(tmp_path).image_reader is not None
    expression = pipeline("facial-expression", model=str(tmp_path))
    found = expression(face_picture, aligned=True)
    assert {entry["label"] for entry in found} == set(EXPRESSIONS)
    processed = expression.processor(images=[face_picture.resize((64, 64))])["pixel_values"]
    with torch.no_grad():
        outputs = expression.model.read_for("expression", processed)
        logits = expression.model.classify("expression", outputs)[0]
    best = (logits / model.config.heads["expression"]["temperature"]).softmax(0).max()
    assert found[0]["score"] == pytest.approx(float(best), abs=0.05)


def test_cells_are_pooled_into_the_tokens_above_them():
    cells = torch.arange(16.0).view(1, 16, 1)
    assert pool_cells(cells, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_degraded_faces_stay_in_range_and_come_from_the_seed():
    pixels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    made = [degrade_faces(pixels, 12, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*made) and made[0].abs().max() <= 1.001
    unchanged = degrade_faces(pixels, 12, torch.Generator().manual_seed(3), coarse=0, erased=0)
    assert torch.equal(unchanged, pixels)
    erased = degrade_faces(pixels, 12, torch.Generator().manual_seed(3), coarse=0, erased=1)
    shares = (erased == 0).float().mean((1, 2, 3))
    assert ((shares > 0) & (shares < 0.2)).all()


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(trained, packs, tiny_checkpoint, tmp_path, monkeypatch):
    _, model, _, faces = trained
    monkeypatch.setattr(pixel_recognition, "STATE_SECONDS", 0)
    clip = torch.nn.utils.clip_grad_norm_
    for stopped_after in (5, 17):  # in the first part, in the second
        state, steps = tmp_path / f"{stopped_after}.pt", []
        resumed = with_pixel_reader(tiny_checkpoint)
        with monkeypatch.context() as patch:

            def power_failure(parameters, limit, steps=steps, stopped_after=stopped_after):
                steps.append(limit)
                if len(steps) > stopped_after:
                    raise KeyboardInterrupt
                return clip(parameters, limit)

            patch.setattr(torch.nn.utils, "clip_grad_norm_", power_failure)
            with pytest.raises(KeyboardInterrupt):
                train_pixel_reader(with_pixel_reader(tiny_checkpoint), faces, SETTINGS, state_file=state)
        train_pixel_reader(resumed, faces, SETTINGS, state_file=state)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_a_head_that_was_better_before_comes_back(trained, tiny_checkpoint, tmp_path):
    start, model, _, _ = trained
    restore_head(model, tiny_checkpoint, "attributes")
    save_release(model, GPTFaceProcessor.from_pretrained(tiny_checkpoint), tmp_path)
    opened = GPTFaceForPreTraining.from_pretrained(tmp_path)
    assert not opened.config.reads_pixels("attributes") and opened.config.reads_pixels("expression")
    codes = torch.zeros(1, start.config.num_image_tokens, dtype=torch.long)
    with torch.no_grad():
        before, after = (
            each.classify("attributes", each.read_for("attributes", image_codes=codes)) for each in (start, opened)
        )
    assert torch.allclose(before, after, atol=2e-2), "but for rounding to half precision"
