"""Training of the image tokenizer on tiny models: what a user of `gptface train-tokenizer` relies on."""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from gptface import GPTFaceImageTokenizer
from gptface.cli import main
from gptface.data.encode import pixels_from_images
from gptface.data.pictures import CropDataset, PictureSource, decode_pictures
from gptface.metrics.lpips_distance import LPIPS, load_lpips
from gptface.metrics.reconstruction import code_usage, psnr
from gptface.training import image_tokenizer_trainer
from gptface.training.image_tokenizer_init import initial_image_tokenizer, latents_of, load_image_tokenizer
from gptface.training.image_tokenizer_training import ImageTokenizerTrainingConfig, train_image_tokenizer

TINY = {"image_size": 32, "hidden_channels": 8, "latent_channels": 4, "fsq_levels": [4, 3]}


def smooth_picture(seed, size=32):
    """A picture with as much structure as a face has: a few waves."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(generator.uniform(2, 9) * rows + generator.uniform(2, 9) * columns) for _ in range(3)]
    return Image.fromarray(np.rint((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8))


def encoded(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def recipe(tmp_path, lpips_file):
    """
    A recipe file: 12 aligned faces in a parquet file and 4 in a folder, a tiny tokenizer, 6 steps over two epochs.
    """
    rows = [{"bytes": encoded(smooth_picture(seed)), "path": None} for seed in range(12)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "faces.parquet")
    (tmp_path / "folder").mkdir()
    for seed in range(4):
        smooth_picture(20 + seed).save(tmp_path / "folder" / f"{seed}.png")
    values = {
        "output_dir": str(tmp_path / "run"),
        "data_dir": str(tmp_path),
        "train": [{"path": "faces.parquet", "weight": 3.0}, {"path": "folder"}],
        "evaluation": [{"path": "folder"}],
        "model": TINY,
        "crop_size": 32,
        "lpips_weights": str(lpips_file),
        "arguments": {
            "per_device_train_batch_size": 4,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_steps": 3,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "use_cpu": True,
            "disable_tqdm": True,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


CODEBOOK = {"model": {**TINY, "quantizer": "codebook", "codebook_size": 11, "codebook_dim": 3}}
DISCRIMINATOR = {"start": 2, "channels": 4, "layers": 1}


def history(folder):
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def test_a_run_reports_its_terms_and_leaves_a_tokenizer_as_it_is_released(recipe, tmp_path):
    target = train_image_tokenizer(ImageTokenizerTrainingConfig.from_yaml(recipe))
    log = history(tmp_path / "run/checkpoint-6")
    steps = [entry for entry in log if "loss" in entry]
    assert len(steps) == 6
    for entry in steps:
        assert entry["loss"] == pytest.approx(entry["l1"] + 0.5 * entry["lpips"], abs=2e-4)
    evaluations = [entry for entry in log if "eval_psnr" in entry]
    assert len(evaluations) == 2
    assert {"eval_lpips", "eval_l1", "eval_codes_used", "eval_perplexity"} <= evaluations[0].keys()
    tokenizer = GPTFaceImageTokenizer.from_pretrained(target)
    assert tokenizer.dtype == torch.float32
    assert all(torch.equal(parameter, parameter.half().float()) for parameter in tokenizer.parameters())
    trained = GPTFaceImageTokenizer.from_pretrained(tmp_path / "run/checkpoint-6")
    assert trained.fingerprint() == tokenizer.fingerprint()


def test_training_lowers_the_loss(recipe, tmp_path):
    """Whatever else is right, a tokenizer that does not learn is none."""
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, lpips_weight=0, evaluation=[])
    config.arguments |= {
        "max_steps": 24,
        "learning_rate": 1e-2,
        "logging_steps": 8,
        "save_steps": 24,
        "eval_strategy": "no",
    }
    train_image_tokenizer(config)
    losses = [entry["loss"] for entry in history(tmp_path / "run/checkpoint-24") if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {**CODEBOOK, "codebook": {"update": "ema"}, "discriminator": DISCRIMINATOR},
        {**CODEBOOK, "codebook": {"update": "gradient", "decay": 0.5, "revive_below": 0.5}},
        {"weight_average": 0.5},
    ],
    ids=["fsq", "ema-discriminator", "gradient", "averaged"],
)
def test_resume_gives_the_weights_of_an_uninterrupted_run(recipe, tmp_path, overrides):
    whole = load_file(
        train_image_tokenizer(ImageTokenizerTrainingConfig.from_yaml(recipe, **overrides)) / "model.safetensors"
    )
    shutil.rmtree(tmp_path / "run/final")
    # what a kill in the middle of saving the last checkpoint leaves
    (tmp_path / "run/checkpoint-6/trainer_state.json").unlink()
    resumed = load_file(
        train_image_tokenizer(ImageTokenizerTrainingConfig.from_yaml(recipe, **overrides)) / "model.safetensors"
    )
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_the_average_of_the_weights_is_kept_and_measured_while_the_weights_themselves_learn_on(recipe, tmp_path):
    def run(name, **overrides):
        config = ImageTokenizerTrainingConfig.from_yaml(recipe, output_dir=str(tmp_path / name), **overrides)
        config.arguments |= {"save_steps": 1, "eval_steps": 1}
        return load_file(train_image_tokenizer(config) / "model.safetensors")

    run("plain")
    kept = run("averaged", weight_average=0.75)
    steps = [load_file(tmp_path / f"plain/checkpoint-{step}/model.safetensors") for step in range(1, 7)]
    for name, tensor in kept.items():
        average = steps[0][name]
        for step in steps[1:]:
            average = 0.75 * average + 0.25 * step[name]
        torch.testing.assert_close(tensor, average.half().float(), rtol=2e-3, atol=1e-5)
        learned = load_file(tmp_path / "averaged/checkpoint-6/model.safetensors")[name]
        assert torch.equal(learned, steps[-1][name]), "being measured must not move the weights"
    measured = [
        [entry["eval_loss"] for entry in history(tmp_path / f"{run}/checkpoint-6") if "eval_loss" in entry]
        for run in ("plain", "averaged")
    ]
    assert measured[0][0] == measured[1][0] and measured[0][-1] != measured[1][-1]


def test_a_plain_run_is_resumed_with_an_average(recipe, tmp_path):
    config = ImageTokenizerTrainingConfig.from_yaml(recipe)
    train_image_tokenizer(config)
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, weight_average=0.5)
    config.arguments |= {"max_steps": 7, "save_steps": 1}
    kept = load_file(train_image_tokenizer(config) / "model.safetensors")
    learned = load_file(tmp_path / "run/checkpoint-7/model.safetensors")
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, learned[name].half().float(), rtol=0, atol=0)  # the average of one step


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"weight_average": 1}, r"weight_average must lie in \[0, 1\), got 1"),
        ({"weight_average": 0.9, **CODEBOOK}, "without a codebook"),
        ({"weight_average": 0.9, "load_best_model_at_end": True}, "load_best_model_at_end"),
    ],
)
def test_averages_that_would_be_wrong_are_refused(recipe, overrides, message):
    best = {key: overrides[key] for key in ("load_best_model_at_end",) if key in overrides}
    fields = {key: value for key, value in overrides.items() if key not in best}
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, **fields)
    config.arguments |= best
    with pytest.raises(ValueError, match=message):
        train_image_tokenizer(config)


def test_the_discriminator_is_not_heard_before_its_start(recipe, tmp_path):
    """Two runs that differ in nothing but a discriminator that starts at step 3 are the same until then."""
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, discriminator={**DISCRIMINATOR, "start": 3})
    train_image_tokenizer(config)
    plain = ImageTokenizerTrainingConfig.from_yaml(recipe, output_dir=str(tmp_path / "plain"))
    train_image_tokenizer(plain)
    (before, after), (plain_before, plain_after) = (
        [load_file(tmp_path / run / f"checkpoint-{step}" / "model.safetensors") for step in (3, 6)]
        for run in ("run", "plain")
    )
    assert all(torch.equal(before[name], plain_before[name]) for name in before)
    assert any(not torch.equal(after[name], plain_after[name]) for name in after)
    steps = [entry for entry in history(tmp_path / "run/checkpoint-6") if "loss" in entry]
    assert ["discriminator_loss" in entry for entry in steps] == [False] * 3 + [True] * 3
    assert all(entry["adaptive_weight"] > 0 for entry in steps[3:])


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_learned_codebook_starts_from_clusters_and_stays_in_use(recipe, tmp_path, update):
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, **CODEBOOK, codebook={"update": update})
    train_image_tokenizer(config)
    steps = [entry for entry in history(tmp_path / "run/checkpoint-6") if "loss" in entry]
    assert all(("codebook_loss" in entry) == (update == "gradient") for entry in steps)
    assert all("commitment_loss" in entry and "revived_codes" in entry for entry in steps)
    (evaluation,) = [
        entry for entry in history(tmp_path / "run/checkpoint-6") if entry.get("step") == 3 and "eval_psnr" in entry
    ]
    assert evaluation["eval_codes_used"] >= 8


def test_vqgan_tokenizers_train_too(recipe):
    pytest.importorskip("diffusers")
    model = {"image_size": 32, "backbone": "vqgan", "quantizer": "gumbel", "codebook_size": 11, "latent_channels": 4}
    model |= {"block_out_channels": [4, 8], "layers_per_block": 1, "attention_resolutions": [], "norm_num_groups": 2}
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, model=model, discriminator={**DISCRIMINATOR, "start": 0})
    config.arguments |= {"max_steps": 1, "eval_strategy": "no"}
    assert GPTFaceImageTokenizer.from_pretrained(train_image_tokenizer(config)).config.backbone == "vqgan"


def test_a_loss_that_is_not_finite_stops_and_names_the_step(recipe, monkeypatch):
    monkeypatch.setattr(LPIPS, "forward", lambda self, pictures, targets: pictures.mean((1, 2, 3)) * float("nan"))
    with pytest.raises(FloatingPointError, match="not finite in step 1"):
        train_image_tokenizer(ImageTokenizerTrainingConfig.from_yaml(recipe))


def test_pictures_that_cannot_be_read_are_counted_and_skipped(tmp_path, caplog):
    rows = [encoded(smooth_picture(0)), b"no picture", encoded(smooth_picture(1))[:60], encoded(smooth_picture(2))]
    pq.write_table(pa.table({"image": [{"bytes": row} for row in rows]}), tmp_path / "faces.parquet")
    source = PictureSource(str(tmp_path / "faces.parquet"))
    pictures = decode_pictures(source, 32, tmp_path / "cache")
    assert "2 skipped" in caplog.text
    assert np.array_equal(pictures, [np.asarray(smooth_picture(seed)) for seed in (0, 2)])


def test_pictures_are_decoded_once_and_again_when_they_change(tmp_path, monkeypatch):
    smooth_picture(0).save(tmp_path / "a.png")
    cache = tmp_path / "cache"
    source = PictureSource(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"image": [{"bytes": encoded(smooth_picture(0))}]}), source.path)
    first = decode_pictures(source, 32, cache)
    with monkeypatch.context() as patch:
        patch.setattr("gptface.data.pictures.face_crops", None)
        assert np.array_equal(decode_pictures(source, 32, cache), first)
    pq.write_table(pa.table({"image": [{"bytes": encoded(smooth_picture(seed))} for seed in (1, 2)]}), source.path)
    assert len(decode_pictures(source, 32, cache)) == 2
    assert not list(cache.glob("*.tmp"))


def test_held_out_pictures_are_never_trained_on(tmp_path):
    pictures = [smooth_picture(seed) for seed in range(6)]
    pq.write_table(pa.table({"image": [{"bytes": encoded(picture)} for picture in pictures]}), tmp_path / "a.parquet")
    crops = decode_pictures(PictureSource(str(tmp_path / "a.parquet"), held_out=3), 32, tmp_path / "cache")
    assert np.array_equal(crops, [np.asarray(pictures[row]) for row in (1, 2, 4, 5)])
    for wrong in ({"held_out": 0}, {"limit": 0}, {"every": 0}, {"weight": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            PictureSource("a.parquet", **wrong)


def test_a_source_without_a_picture_is_an_error_and_leaves_nothing(tmp_path):
    pq.write_table(pa.table({"image": [{"bytes": b"none"}]}), tmp_path / "faces.parquet")
    with pytest.raises(ValueError, match="no picture"):
        decode_pictures(PictureSource(str(tmp_path / "faces.parquet")), 32, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_crop_is_decided_by_seed_epoch_and_index_alone():
    sets = [np.random.default_rng(seed).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8) for seed in range(2)]
    one, other = (CropDataset(sets, [1, 3], crop_size=8, seed=4) for _ in range(2))
    for dataset in (one, other):
        dataset.set_epoch(2)
    forward = [one[index].copy() for index in range(10)]
    backward = [other[index].copy() for index in reversed(range(10))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    other.set_epoch(3)
    assert not all(np.array_equal(a, other[index]) for index, a in enumerate(forward))


def test_sources_are_drawn_by_weight_and_crops_lie_everywhere_both_ways_round():
    row = np.arange(16, dtype=np.uint8)
    sets = [np.broadcast_to(row[:, None, None] * 0 + value, (4, 16, 16, 3)).copy() for value in (0, 100)]
    for pictures in sets:
        pictures[..., 1], pictures[..., 2] = row[:, None], row[None, :]
    dataset = CropDataset(sets, [1, 3], crop_size=8)
    crops = []
    for epoch in range(60):
        dataset.set_epoch(epoch)
        crops += [dataset[index].astype(int) for index in range(len(dataset))]
    assert np.mean([crop[0, 0, 0] == 100 for crop in crops]) == pytest.approx(0.75, abs=0.06)
    assert {crop[0, 0, 1] for crop in crops} == set(range(9))
    assert {min(crop[0, 0, 2], crop[0, -1, 2]) for crop in crops} == set(range(9))
    assert np.mean([crop[0, 0, 2] > crop[0, -1, 2] for crop in crops]) == pytest.approx(0.5, abs=0.07)


@pytest.fixture(scope="module")
def pixels():
    return pixels_from_images([smooth_picture(seed) for seed in range(6)])


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory, pixels):
    """An image tokenizer whose two FSQ dimensions say what its encoder sees."""
    torch.manual_seed(0)
    tokenizer = initial_image_tokenizer(None, {**TINY, "fsq_levels": [7, 7]}, pixels)
    folder = tmp_path_factory.mktemp("trained")
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def trained(trained_folder):
    return load_image_tokenizer(trained_folder).eval()


def test_with_frozen_codes_only_the_decoding_is_trained(recipe, trained, trained_folder, pixels):
    """Codes made before, and a transformer trained on them, must stay of use."""
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, init=trained_folder, model={}, frozen_codes=True)
    better = GPTFaceImageTokenizer.from_pretrained(train_image_tokenizer(config)).eval()
    assert better.fingerprint() == trained.fingerprint()
    codes = trained.half().float().encode(pixels)
    assert torch.equal(better.encode(pixels), codes)
    assert not torch.allclose(better.decode(codes), trained.decode(codes), atol=1e-4)


@pytest.mark.parametrize("levels", [[7, 7], [8, 9], [7, 7, 5], [8, 6, 5, 5]])
def test_other_levels_keep_the_reconstruction_close(trained, trained_folder, pixels, levels):
    """Continuing with more levels or dimensions must not throw away what was learned."""
    changed = initial_image_tokenizer(trained_folder, {"fsq_levels": levels}, pixels).eval()
    assert changed.config.fsq_levels == levels
    with torch.no_grad():
        before, after, ideal = (
            trained(pixels).reconstruction,
            changed(pixels).reconstruction,
            continuous(trained, pixels),
        )
    detail = (before - before.mean((0, 2, 3), keepdim=True)).pow(2).mean()
    assert (after - before).pow(2).mean() < (0.1 if len(levels) == 2 else 0.4) * detail
    if len(levels) > 2:  # what is added is what was missing
        assert (after - ideal).pow(2).mean() < (before - ideal).pow(2).mean()
    if levels == [7, 7]:
        assert changed.fingerprint() == trained.fingerprint()


def continuous(tokenizer, pixels):
    """The picture that the decoder makes of latents that are not quantized."""
    return tokenizer.decode_latents(tokenizer.latents(pixels))


def test_further_dimensions_carry_what_the_first_ones_left_over(trained_folder, pixels):
    errors = []
    for levels in ([7, 7], [7, 7, 9], [7, 7, 9, 9]):
        changed = initial_image_tokenizer(trained_folder, {"fsq_levels": levels}, pixels)
        latents = latents_of(changed, pixels)
        rest = latents - changed.quantizer(latents)[0]
        errors.append((rest - rest.mean((0, 2, 3), keepdim=True)).pow(2).mean().item())
    assert errors[0] > errors[1] > errors[2]


def test_another_kind_of_quantizer_is_fitted_to_the_latents(trained_folder, pixels):
    fields = {"quantizer": "codebook", "codebook_size": 11, "codebook_dim": 4}
    changed = initial_image_tokenizer(trained_folder, fields, pixels)
    latents = latents_of(changed, pixels)
    # with as many entries as channels the two convolutions are each other's inverse
    torch.testing.assert_close(changed.quantizer.up(changed.quantizer.down(latents)), latents, atol=1e-4, rtol=1e-4)


def test_a_pair_of_autoencoder_files_starts_from_principal_components(trained, pixels, tmp_path):
    files = [str(tmp_path / f"{part}.safetensors") for part in ("encoder", "decoder")]
    save_file(trained.encoder.state_dict(), files[0])
    save_file(trained.decoder.state_dict(), files[1])
    tokenizer = initial_image_tokenizer(files, {**TINY, "fsq_levels": [9, 9, 9, 9]}, pixels)
    latents = latents_of(tokenizer, pixels)
    rest = (latents - tokenizer.quantizer(latents)[0]).pow(2).mean()
    assert rest < 0.1 * (latents - latents.mean((0, 2, 3), keepdim=True)).pow(2).mean()
    with pytest.raises(ValueError, match="does not fit the backbone"):
        initial_image_tokenizer(files[::-1], TINY, pixels)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        initial_image_tokenizer([files[0], str(tmp_path / "nowhere.safetensors")], TINY, pixels)


def test_tokenizers_load_alone_and_out_of_a_whole_model(tiny_checkpoint, trained, trained_folder):
    assert load_image_tokenizer(trained_folder).fingerprint() == trained.fingerprint()
    assert load_image_tokenizer(tiny_checkpoint).config.image_size == 64


@pytest.mark.parametrize("crop_size", [12, 0, 40])
def test_crops_that_do_not_fit_are_named(recipe, crop_size):
    with pytest.raises(ValueError, match="crop_size must be a multiple of 8 up to 32"):
        train_image_tokenizer(ImageTokenizerTrainingConfig.from_yaml(recipe, crop_size=crop_size))


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ({"weight": 0}, "weight must be above 0"),
        ({"layout": "lfw"}, "layout must be one of"),
        ({"every": 0}, "at least 1"),
    ],
)
def test_sources_that_cannot_be_right_are_named(recipe, field, problem):
    config = ImageTokenizerTrainingConfig.from_yaml(recipe)
    config.train[0] |= field
    with pytest.raises(ValueError, match=problem):
        train_image_tokenizer(config)


def test_the_command_runs_a_recipe_and_mistakes_are_one_line(recipe, tmp_path, capsys):
    values = yaml.safe_load(recipe.read_text())
    values["arguments"] |= {"max_steps": 1, "eval_strategy": "no"}
    recipe.write_text(yaml.safe_dump(values))
    arguments = ["train-tokenizer", str(recipe), "--data-dir", str(tmp_path), "--output-dir", str(tmp_path / "other")]
    assert main(arguments) == 0
    assert (tmp_path / "other/final/model.safetensors").is_file()
    capsys.readouterr()
    assert main(["train-tokenizer", str(recipe), "--data-dir", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err.strip().splitlines()[-1]
    recipe.write_text("learning_rat: 1\noutput_dir: x\ntrain: []\n")
    assert main(["train-tokenizer", str(recipe)]) == 2
    assert "learning_rat" in capsys.readouterr().err.strip().splitlines()[-1]


def test_lpips_is_zero_for_equal_pictures_and_rises_with_noise(lpips_file, pixels):
    lpips = load_lpips(lpips_file)
    assert lpips(pixels, pixels).abs().max() == 0
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    distances = torch.stack([lpips(pixels + level * noise, pixels) for level in (0.02, 0.1, 0.4)])
    assert distances.shape == (3, 6)
    assert (distances.diff(dim=0) > 0).all()
    assert not list(lpips.parameters())


def test_lpips_files_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_lpips(tmp_path / "none.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    for name in ("other", "text"):
        with pytest.raises(ValueError, match="no file of LPIPS weights"):
            load_lpips(tmp_path / f"{name}.safetensors")


def test_without_a_file_and_the_package_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    with pytest.raises(ImportError, match=r"gptface\[lpips\]"):
        load_lpips()


def test_figures_are_those_of_their_definitions():
    picture = torch.zeros(1, 3, 4, 4)
    assert psnr(picture + 0.2, picture).item() == pytest.approx(20, abs=1e-4)  # an error of 0.1 on the [0, 1] scale
    usage = code_usage(torch.tensor([[0, 0, 3, 3]]), 8)
    assert usage == {"codes_used": 2, "perplexity": pytest.approx(2)}


def test_what_a_checkpoint_holds_besides_the_model_is_tensors_alone(recipe, tmp_path):
    """A checkpoint from elsewhere must not run code when it is resumed."""
    config = ImageTokenizerTrainingConfig.from_yaml(recipe, **CODEBOOK, discriminator={**DISCRIMINATOR, "start": 0})
    config.arguments |= {"max_steps": 1, "save_steps": 1, "eval_strategy": "no"}
    train_image_tokenizer(config)
    file = tmp_path / "run/checkpoint-1" / image_tokenizer_trainer.EXTRA_STATE
    assert torch.load(file, weights_only=True).keys() == {"discriminator", "discriminator_optimizer", "codebook"}
