"""Training of the plan: what a user of `gptface train-plan` and of `train_plan` relies on."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from gptface import GPTFaceImageTokenizer
from gptface.cli import main
from gptface.data.augmentation import FaceAugmentation
from gptface.data.batch_augmentation import augment_faces
from gptface.metrics.lpips_distance import LPIPS
from gptface.training.image_tokenizer_init import initial_image_tokenizer
from gptface.training.image_tokenizer_training import ImageTokenizerTrainingConfig
from gptface.training.plan_training import PlanTrainingSettings, masked_error, plan_figures, train_plan, with_plan

TINY = {"image_size": 32, "hidden_channels": 8, "latent_channels": 4, "fsq_levels": [4, 3]}
STILL = FaceAugmentation(flip=0, colour=0, rotation=0, scale=0, shift=0, erasing=0, grey=0)
SETTINGS = {"batch_size": 3, "latent_batch_size": 4, "latent_faces": 8}


def smooth_faces(count, size=32):
    """Pictures [count, size, size, 3] uint8 with as much structure as faces have: a few waves."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    faces = []
    for seed in range(count):
        speeds = np.random.default_rng(seed).uniform(2, 9, (3, 2))
        faces.append(np.stack([np.sin(down * rows + across * columns) for down, across in speeds], -1))
    return torch.from_numpy(np.rint((np.stack(faces) + 1) * 127.5).astype(np.uint8))


@pytest.fixture
def faces():
    return smooth_faces(8)


@pytest.fixture
def tokenizer(faces):
    torch.manual_seed(0)
    return initial_image_tokenizer(None, TINY, faces.movedim(-1, 1).float() / 127.5 - 1)


@pytest.fixture
def perceptual(lpips_file):
    return LPIPS(lpips_file)


def planned(tokenizer):
    return with_plan(tokenizer, [4, 3], 16)


def latent_error(tokenizer, faces):
    latents = tokenizer.latents(faces.movedim(-1, 1).float() / 127.5 - 1)
    return float((tokenizer.plan(latents)[0] - tokenizer.quantizer(latents)[0]).square().mean())


def test_it_learns_and_leaves_all_but_the_plan_as_it_is(tokenizer, faces, perceptual):
    """Codes of the fine grid, and models trained on them, must stay valid."""
    new = planned(tokenizer)
    settings = PlanTrainingSettings(steps=60, latent_share=0.9, log_every=10, augmentation=STILL, **SETTINGS)
    short = train_plan(planned(tokenizer), faces, None, PlanTrainingSettings(steps=1, **SETTINGS), perceptual)
    trained = train_plan(new, faces, None, settings, perceptual)
    assert trained is new and not trained.training
    assert latent_error(trained, faces) < 0.7 * latent_error(short, faces)
    assert trained.fingerprint() == tokenizer.fingerprint()
    for name, tensor in tokenizer.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor), name
    for parameter in trained.plan.parameters():
        assert torch.equal(parameter, parameter.half().float())
    figures = plan_figures(trained, faces, perceptual)
    assert figures["bits"] == pytest.approx(4 * np.log2(12)) and 1 < figures["perplexity"] <= figures["codes_used"]


def test_a_plan_that_was_there_is_replaced(tokenizer):
    assert planned(planned(tokenizer)).fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize("frozen_codes", [True, False])
def test_a_tokenizer_that_learns_on_keeps_its_plan_if_its_codes_are_frozen(tokenizer, faces, tmp_path, frozen_codes):
    """The plan's codes come from the encoder: with another one they mean nothing."""
    new = planned(tokenizer)
    new.save_pretrained(tmp_path)
    recipe = ImageTokenizerTrainingConfig("run", [], init=str(tmp_path), frozen_codes=frozen_codes)
    start = initial_image_tokenizer(str(tmp_path), recipe.model_fields, faces.movedim(-1, 1).float() / 127.5 - 1)
    if frozen_codes:
        assert start.plan_fingerprint() == new.plan_fingerprint()
    else:
        assert start.plan is None and start.fingerprint() == new.fingerprint()


def test_frozen_codes_train_the_way_back_alone(tokenizer, faces, perceptual):
    """The way back may get better after a model was trained on the codes."""
    start = train_plan(planned(tokenizer), faces, None, PlanTrainingSettings(steps=4, **SETTINGS), perceptual)
    before, way_back = start.plan_fingerprint(), start.plan.decoder.output.weight.clone()
    settings = PlanTrainingSettings(steps=2, latent_share=0, frozen_codes=True, **SETTINGS)
    train_plan(start, faces, None, settings, perceptual)
    assert start.plan_fingerprint() == before
    assert not torch.equal(start.plan.decoder.output.weight, way_back)


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tokenizer, faces, perceptual, tmp_path, monkeypatch, stop):
    settings = PlanTrainingSettings(steps=7, latent_share=0.5, save_every=0, log_every=2, **SETTINGS)
    whole = train_plan(planned(tokenizer), faces, None, settings, perceptual)

    def interrupted(self, *arguments, update=torch.optim.AdamW.step):
        interrupted.steps += 1
        if interrupted.steps > stop:
            raise KeyboardInterrupt
        return update(self)

    interrupted.steps = 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        train_plan(planned(tokenizer), faces, None, settings, perceptual, checkpoint=tmp_path / "run.pt")
    resumed = train_plan(planned(tokenizer), faces, None, settings, perceptual, checkpoint=tmp_path / "run.pt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_it_stops_by_the_clock(tokenizer, faces, perceptual):
    train_plan(planned(tokenizer), faces, None, PlanTrainingSettings(minutes=0.01, **SETTINGS), perceptual)


def test_what_no_picture_covers_is_not_learned(tokenizer, faces, perceptual):
    """Web faces reach over the edge of their photo: what fills the rest of the crop is not part of them."""
    settings = PlanTrainingSettings(steps=1, latent_share=0, learning_rate=1.0, **SETTINGS)
    moved = []
    for covered in (True, False):
        new = planned(tokenizer)
        before = new.plan.decoder.output.weight.clone()
        train_plan(new, faces, torch.full((8, 16), covered), settings, perceptual)
        moved.append((new.plan.decoder.output.weight - before).abs().mean().item())
    assert moved[0] > 0.01 > 0.001 > moved[1]


def test_errors_of_latents_are_those_of_seen_cells():
    values, targets = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    seen = torch.tensor([[[[True, False], [False, False]]]])
    targets[..., 1] = 9
    assert masked_error(values, targets, seen) == 1
    assert masked_error(values, targets, torch.zeros_like(seen)) == 0


def test_a_loss_that_is_not_finite_is_named(tokenizer, faces, perceptual):
    new = planned(tokenizer)
    settings = PlanTrainingSettings(steps=4, latent_share=0, log_every=2, **SETTINGS)
    with torch.no_grad():
        new.decoder[-1].bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match="steps before 2"):
        train_plan(new, faces, None, settings, perceptual)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "minutes or for some steps"),
        ({"minutes": 1, "steps": 1}, "one of them"),
        ({"steps": 0}, "above 0"),
        ({"steps": 1, "latent_share": 2}, "0…1"),
        ({"steps": 1, "frozen_codes": True}, "latent_share to 0"),
    ],
)
def test_settings_that_cannot_be_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        PlanTrainingSettings(**fields)


def test_faces_that_do_not_fit_are_named(tokenizer, faces, perceptual):
    settings = PlanTrainingSettings(steps=1, **SETTINGS)
    with pytest.raises(ValueError, match=r"\[N, 32, 32, 3\]"):
        train_plan(planned(tokenizer), faces[:, :16], None, settings, perceptual)
    with pytest.raises(ValueError, match=r"\[8, 16\]"):
        train_plan(planned(tokenizer), faces, torch.ones(8, 9, dtype=torch.bool), settings, perceptual)
    with pytest.raises(ValueError, match="no plan"):
        train_plan(tokenizer, faces, None, settings, perceptual)


def test_augmented_copies_are_slight_all_different_and_the_same_again(faces):
    settings = FaceAugmentation(erasing=0)
    copies = [augment_faces(faces, None, settings, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(copies[0][0], copies[1][0]) and not torch.equal(copies[0][0], copies[2][0])
    pixels, seen = copies[0]
    assert pixels.shape == (8, 3, 32, 32) and pixels.min() >= -1 and pixels.max() <= 1
    assert seen.shape == (8, 1, 32, 32) and seen.float().mean() > 0.8
    still = augment_faces(faces, None, STILL, torch.Generator())[0]
    torch.testing.assert_close(still, faces.movedim(-1, 1).float() / 127.5 - 1, atol=1e-4, rtol=0)


def test_mirrored_faces_take_their_covered_cells_along(faces):
    covered = torch.zeros(8, 16, dtype=torch.bool)
    covered[:, ::4] = True  # the first column
    mirror = FaceAugmentation(flip=1, colour=0, rotation=0, scale=0, shift=0, erasing=0, grey=0)
    pixels, seen = augment_faces(faces, covered, mirror, torch.Generator())
    torch.testing.assert_close(pixels, (faces.movedim(-1, 1).float() / 127.5 - 1).flip(-1), atol=1e-4, rtol=0)
    assert seen[..., 25:].all() and not seen[..., :24].any()


def test_colour_faces_turn_grey(faces):
    grey = FaceAugmentation(flip=0, rotation=0, scale=0, shift=0, erasing=0, grey=1)
    pixels = augment_faces(faces, None, grey, torch.Generator())[0]
    torch.testing.assert_close(pixels[:, 0], pixels[:, 2], atol=1e-5, rtol=0)


def test_batches_are_not_erased(faces):
    with pytest.raises(ValueError, match="erasing"):
        augment_faces(faces, None, FaceAugmentation(), torch.Generator())


def test_the_command_trains_measures_and_trains_on(tokenizer, faces, lpips_file, tmp_path, capsys):
    rows = []
    for face in faces:
        data = io.BytesIO()
        Image.fromarray(face.numpy()).save(data, "PNG")
        rows.append({"bytes": data.getvalue(), "path": None})
    pq.write_table(pa.table({"image": rows}), tmp_path / "faces.parquet")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    recipe = {
        "output_dir": str(tmp_path / "run"),
        "data_dir": str(tmp_path),
        "train": [{"path": "faces.parquet"}],
        "evaluation": [{"path": "faces.parquet", "limit": 3}],
        "init": str(tmp_path / "tokenizer"),
        "plan": {"plan_levels": [4, 3], "plan_channels": 16},
        "settings": {"steps": 4, **SETTINGS, "augmentation": {"flip": 0.0}},
        "lpips_weights": str(lpips_file),
        "device": "cpu",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert main(["train-plan", str(path)]) == 0
    assert str(tmp_path / "run" / "final") in capsys.readouterr().out
    final = GPTFaceImageTokenizer.from_pretrained(tmp_path / "run" / "final")
    assert final.config.plan_levels == [4, 3] and final.fingerprint() == tokenizer.fingerprint()
    assert {"psnr", "lpips", "bits"} < json.loads((tmp_path / "run" / "figures.json").read_text()).keys()
    del recipe["plan"]
    recipe["settings"] = {"steps": 2, "latent_share": 0, "frozen_codes": True, **SETTINGS}
    path.write_text(yaml.safe_dump(recipe))
    assert (
        main(["train-plan", str(path), "--init", str(final.name_or_path), "--output-dir", str(tmp_path / "on")]) == 0
    )
    assert (
        GPTFaceImageTokenizer.from_pretrained(tmp_path / "on" / "final").plan_fingerprint() == final.plan_fingerprint()
    )
    recipe["settings"] = {"steps": 2}
    path.write_text(yaml.safe_dump(recipe))
    assert main(["train-plan", str(path)]) == 2
    assert "give `plan`" in capsys.readouterr().err
