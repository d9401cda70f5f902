"""Training of a critic of drawn tokens: what a user of `gptface train-critic` and of `train_critic` relies on."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from gptface import GPTFaceForGuidedGeneration, GPTFaceProcessor
from gptface.cli import main
from gptface.data.code_dataset import CodeTable
from gptface.data.critic_samples import (
    KINDS,
    CriticSampleLaw,
    CriticSampler,
    CriticSamples,
    generator_hash,
    read_critic_samples,
    write_critic_samples,
)
from gptface.data.encode import FINGERPRINT_KEY
from gptface.metrics.ranking import area_under_curve
from gptface.training import critic_training
from gptface.training.critic_training import CriticTrainingSettings, train_critic

LAW = CriticSampleLaw(batch_size=4, most_steps=2)
LABELS = [{"Smiling": 1, "Male": 0}, {"Smiling": 0, "Eyeglasses": 1}]


@pytest.fixture
def model(tiny_checkpoint):
    return GPTFaceForGuidedGeneration.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture
def faces(model):
    codes = np.random.default_rng(0).integers(model.config.num_codes, size=(6, 2, 64)).astype(np.uint16)
    return CodeTable(codes, LABELS * 3, [None] * 6)


def sampler(model, processor, faces, **law):
    return CriticSampler(model, processor, faces, CriticSampleLaw(**{**vars(LAW), **law}), seed=3)


def planted(model, count=48):
    """Grids of one code, of which every fourth token holds another: those are drawn."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(count, 64, generator=generator) < 0.25
    return CriticSamples(torch.where(drawn, 41, 7), drawn, ["guided"] * count, ["box"] * count, ["a face"] * count)


@pytest.mark.parametrize(("guided", "free"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)], ids=KINDS[:3])
def test_a_sample_is_a_face_of_which_a_part_is_drawn(model, tiny_processor, faces, guided, free):
    made = sampler(model, tiny_processor, faces, guided=guided, free=free)
    batches = [made.batch(number) for number in range(3)]
    known = set(map(bytes, faces.codes.reshape(-1, 64)))
    for batch in batches:
        assert batch["codes"].shape == batch["drawn"].shape and len(batch["codes"]) == len(batch["caption"])
        for codes, drawn, kind in zip(batch["codes"], batch["drawn"], batch["kind"], strict=True):
            # what is not drawn is the token of one of the faces, at its place
            assert any((codes[~drawn] == face[~drawn]).all() for face in faces.codes.reshape(-1, 64))
            assert (bytes(codes) in known) == (not drawn.any())
            assert kind != "photo" or not drawn.any()
    assert any(batch["drawn"].any() for batch in batches)
    again = made.batch(1)
    assert all(np.array_equal(again[name], values) for name, values in batches[1].items())


def test_a_stopped_run_goes_on_and_another_generator_is_refused(model, tiny_processor, faces, tmp_path):
    """Else a critic would learn, unnoticed, what a generator draws that is not the one it is for."""
    made = sampler(model, tiny_processor, faces)
    write_critic_samples(tmp_path, made, 2, {"faces": "six"})
    first = read_critic_samples(tmp_path)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("samples-*")}
    write_critic_samples(tmp_path, made, 3, {"faces": "six"})
    more = read_critic_samples(tmp_path)
    assert len(more) > len(first) and torch.equal(more.codes[: len(first)], first.codes)
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in files.items())
    before = generator_hash(model)
    with torch.no_grad():
        next(model.gptface.layers.parameters()).add_(0.1)
    assert generator_hash(model) != before
    with pytest.raises(ValueError, match="another generator"):
        write_critic_samples(tmp_path, made, 4, {"faces": "six"})


def test_it_tells_drawn_tokens_and_leaves_the_rest_of_the_model(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = CriticTrainingSettings(steps=60, batch_size=16, learning_rate=5e-3, weight_average=0.8)
    train_critic(model, planted(model), settings, channels=16)
    assert model.config.critic_trained and model.config.critic_channels == 16
    others = planted(model, 8)
    real = model.criticise(others.codes)
    assert area_under_curve(real[~others.drawn].numpy(), real[others.drawn].numpy()) > 0.95
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in model.critic.parameters())


def test_a_stopped_training_ends_as_one_that_was_not(model, tmp_path, monkeypatch):
    settings = CriticTrainingSettings(steps=6, batch_size=8, save_every=0)
    whole = train_critic(model, planted(model), settings, 8).critic
    step = critic_training._Run.step

    def stopped(run, *batch):
        if run.steps == 4:
            raise KeyboardInterrupt
        return step(run, *batch)

    monkeypatch.setattr(critic_training._Run, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_critic(model, planted(model), settings, 8, checkpoint=tmp_path / "state.pt")
    monkeypatch.undo()
    resumed = train_critic(model, planted(model), settings, 8, checkpoint=tmp_path / "state.pt").critic
    for parameter, expected in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_the_command_trains_saves_and_resumes(tiny_checkpoint, model, faces, tmp_path, capsys):
    fingerprint = model.image_tokenizer.fingerprint()
    columns = {name: [row.get(name) for row in faces.labels] for name in ("Smiling", "Male", "Eyeglasses")}
    columns["codes"] = pa.FixedSizeListArray.from_arrays(pa.array(faces.codes[:, 0].reshape(-1)), 64)
    (tmp_path / "faces").mkdir()
    table = pa.table(columns).replace_schema_metadata({FINGERPRINT_KEY: fingerprint.encode()})
    pq.write_table(table, tmp_path / "faces" / "part-00000.parquet")
    recipe = {
        "output_dir": str(tmp_path / "run"),
        "train": ["faces"],
        "evaluation": ["faces"],
        "batches": 2,
        "evaluation_batches": 1,
        "channels": 8,
        "samples": {"batch_size": 4, "most_steps": 2},
        "settings": {"steps": 2, "batch_size": 4},
    }
    file = tmp_path / "critic.yaml"
    file.write_text(yaml.safe_dump(recipe))
    arguments = ["train-critic", str(file), "--data-dir", str(tmp_path), "--init", str(tiny_checkpoint)]
    assert main(arguments) == 0 and main(arguments) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "run" / "final")] * 2
    trained = GPTFaceForGuidedGeneration.from_pretrained(tmp_path / "run" / "final")
    assert trained.criticise(torch.zeros(1, 64, dtype=torch.long)).shape == (1, 64)
    assert GPTFaceProcessor.from_pretrained(tmp_path / "run" / "final").tokenizer.vocab_size
    assert generator_hash(trained.half().float()) == generator_hash(model)


def test_recipes_that_cannot_be_right_are_refused(tmp_path):
    file = tmp_path / "critic.yaml"
    file.write_text("output_dir: x\ntrain: [a]\nsettings: {steps: 1}\n")
    assert main(["train-critic", str(file)]) == 2
    with pytest.raises(ValueError, match="one of them"):
        CriticTrainingSettings(steps=1, minutes=1)
