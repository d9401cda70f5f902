"""Training of the refiner: what it is shown, what it must not be shown, and a run from recipe to folder."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig, GPTFaceRefiner, GPTFaceRefinerConfig
from gptface.cli import main
from gptface.data.covered_faces import CoveredFaces
from gptface.metrics.lpips_distance import LPIPS
from gptface.training import refiner_training
from gptface.training.refiner_figures import contact_sheet, masked_psnr, ring, sharpness
from gptface.training.refiner_masks import MaskSampler, feathered
from gptface.training.refiner_samples import FaceAugmenter, RefinerSampler, SampleLaw, rows_of_share
from gptface.training.refiner_training import RefinerSettings, RefinerTrainer, new_refiner, train_refiner

SIZE = 64
CPU = torch.device("cpu")
REFINER = {"image_size": SIZE, "hidden_channels": [4, 4, 6], "dilations": [1]}
TOKENIZER = {"image_size": 32, "hidden_channels": 4, "latent_channels": 4}


def smooth_faces(count: int, size: int = SIZE) -> torch.Tensor:
    """Soft random pictures uint8 [count, size, size, 3]."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.interpolate(noise, (size, size), mode="bicubic")
    return (pictures.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous()


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**TOKENIZER)).eval().requires_grad_(False)


@pytest.fixture
def lpips(lpips_file):
    return LPIPS(lpips_file).eval()


@pytest.fixture
def faces():
    return FaceAugmenter(CPU, torch.Generator().manual_seed(0))(smooth_faces(24), SIZE)


def sampler(tokenizer, seed=0, **options):
    return RefinerSampler(tokenizer, SIZE, generator=torch.Generator().manual_seed(seed), **options)


def test_masks_are_of_every_kind_and_repeat_with_their_seed():
    masks, again = (MaskSampler(SIZE, CPU, torch.Generator().manual_seed(1))(300) for _ in range(2))
    assert torch.equal(masks, again)
    assert masks.shape == (300, 1, SIZE, SIZE)
    assert masks.min() == 0
    assert masks.max() == 1
    cover = masks.mean((1, 2, 3))
    assert (cover == 1).float().mean() == pytest.approx(0.15, abs=0.06)
    assert (cover == 0).float().mean() == pytest.approx(0.03, abs=0.04)


def test_a_feather_stays_inside_and_knows_no_border():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    soft = feathered(mask, 3)
    assert (soft <= mask).all()
    assert ((soft > 0) & (soft < 1)).any()
    assert (soft[..., -6:] == 1).all()


def test_half_of_the_faces_keep_their_place_and_repeat_with_their_seed():
    """Resampled pictures are soft: a refiner must not learn that all are."""
    pictures = smooth_faces(64)
    changed, again = (FaceAugmenter(CPU, torch.Generator().manual_seed(2))(pictures, SIZE) for _ in range(2))
    assert torch.equal(changed, again)
    assert changed.abs().max() <= 1
    enlarged = FaceAugmenter(CPU, torch.Generator().manual_seed(2))(smooth_faces(4, 32), SIZE)
    assert enlarged.shape == (4, 3, SIZE, SIZE)


def test_photo_and_target_differ_in_the_mask_alone(tokenizer, faces):
    batch = sampler(tokenizer)(faces)
    assert torch.equal(batch.photo * (batch.mask == 0), batch.target * (batch.mask == 0))
    assert (batch.photo != batch.target).flatten(1).any(1).float().mean() > 0.4
    assert batch.decoded.shape == (24, 3, 32, 32)


def covered_faces(count: int = 5) -> CoveredFaces:
    """The lower half of soft pictures is a hole, filled with gray."""
    faces = smooth_faces(count)
    holes = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    holes[:, SIZE // 2 :] = 255
    photos = torch.where(holes[..., None] > 0, torch.full_like(faces, 128), faces)
    return CoveredFaces(faces, photos, holes)


def test_what_was_hidden_is_to_come_back(tokenizer, faces):
    """Where the photo shows a hole, the bare face is wanted and nothing of the photo counts as true."""
    mask = torch.zeros(4, 1, SIZE, SIZE)
    mask[..., SIZE // 2 :, :] = 1
    bare, photo = faces[:4], torch.where(mask > 0, torch.zeros(1), faces[:4])
    batch = sampler(tokenizer)(faces[4:8], (bare, photo, mask))
    assert len(batch.photo) == len(batch.decoded) == len(batch.tone) == 8
    torch.testing.assert_close(batch.target[4:], bare)
    assert torch.equal(batch.photo[4:], photo) and torch.equal(batch.mask[4:], mask)
    assert not batch.likeness[4:].any()
    # shadows that were left around the hole go on in it
    darker = sampler(tokenizer)(faces[4:8], (bare, photo - 0.2, mask)).target[4:]
    inside, outside = mask.bool().expand_as(bare), ~mask.bool().expand_as(bare)
    torch.testing.assert_close(darker[outside], (photo - 0.2)[outside])
    assert ((darker - bare)[inside] < -0.05).float().mean() > 0.9


def test_a_face_its_photo_and_its_hole_change_as_one():
    """Moved or coloured apart, they would teach seams."""
    covered = covered_faces()
    covered = CoveredFaces(covered.faces, covered.faces, covered.faces[..., 0])
    faces, photos, holes = FaceAugmenter(CPU, torch.Generator().manual_seed(3)).covered(covered, SIZE)
    assert torch.equal(faces, photos)
    assert (holes >= 0).all() and (holes <= 1).all()
    kept = [row for row in range(5) if holes[row, 0].sub(covered.holes[row] / 255).abs().max() < 1e-3]
    flipped = [row for row in range(5) if holes[row, 0].flip(1).sub(covered.holes[row] / 255).abs().max() < 1e-3]
    assert len(kept) + len(flipped) < 5  # some are turned, too
    dark = CoveredFaces(covered.faces, covered.photos // 2, covered.holes)
    face, photo, _ = FaceAugmenter(CPU, torch.Generator().manual_seed(3)).covered(dark, SIZE)
    assert torch.equal(face, faces) and (photo < face).float().mean() > 0.9


def test_high_frequencies_come_from_what_is_still_true(tokenizer, faces):
    law = SampleLaw(unchanged=0.0, replaced=1.0, detail=1.0)
    assert not sampler(tokenizer, law=law)(faces).likeness.any()
    batch = sampler(tokenizer, law=SampleLaw(unchanged=1.0, replaced=0.0, detail=1.0))(faces)
    assert batch.likeness.min() >= 0.5
    torch.testing.assert_close(batch.photo, batch.target)


def test_noise_of_codes_stays_within_the_levels(tokenizer):
    draw = sampler(tokenizer, law=SampleLaw(noisy=1.0, noise=1.0))
    integers = torch.stack([draw.least.expand(200, -1, 2, 2), draw.most.expand(200, -1, 2, 2)]).flatten(0, 1)
    changed = draw.noisy(integers)
    assert ((changed >= draw.least) & (changed <= draw.most)).all()
    assert set((changed - integers).abs().unique().tolist()) == {0, 1}
    assert ((changed != integers).sum(1) <= 1).all()


def test_a_share_of_the_holes_is_the_decode_of_the_plan(tokenizer, faces):
    draw = sampler(tokenizer, decode_plan=lambda latents: torch.full((len(latents), 3, 32, 32), 0.5))
    decoded = torch.zeros(10, 3, 32, 32)
    mask = torch.zeros(10, 1, 32, 32)
    mask[..., :16] = 1
    planned = draw.planned(decoded, torch.zeros(10, 4, 4, 4), mask)
    assert rows_of_share(0.4, 10, CPU).tolist() == [2, 4, 7, 9]
    inside, outside = planned[..., :16].mean((1, 2, 3)), planned[..., 16:].mean((1, 2, 3))
    assert inside.tolist() == [0, 0, 0.5, 0, 0.5, 0, 0, 0.5, 0, 0.5]
    assert 0 < outside.count_nonzero() < 4
    draw(faces)


def test_other_quantizers_are_refused():
    config = GPTFaceImageTokenizerConfig(**TOKENIZER, quantizer="codebook", codebook_size=8)
    with pytest.raises(ValueError, match="quantizer='fsq'"):
        RefinerSampler(GPTFaceImageTokenizer(config), SIZE)


def test_weighted_lpips_sees_the_mask_alone(lpips):
    pictures = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    everywhere = torch.ones(2, 1, SIZE, SIZE)
    torch.testing.assert_close(lpips(pictures, -pictures, everywhere), lpips(pictures, -pictures))
    assert lpips(pictures, -pictures, 0 * everywhere).abs().max() == 0
    left, changed = everywhere.clone(), pictures.clone()
    left[..., SIZE // 2 :] = 0
    changed[..., SIZE // 2 :] *= -1
    assert (lpips(changed, pictures, left) < 0.5 * lpips(changed, pictures, 1 - left)).all()


def test_the_loss_falls_and_the_tokenizer_stays(tokenizer, lpips):
    before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    rows = []
    refiner = train_refiner(
        tokenizer,
        smooth_faces(6),
        lpips=lpips,
        steps=60,
        settings=RefinerSettings(batch_size=4, adversarial_weight=0.0, learning_rate=1e-2, weight_average=0.9),
        refiner=new_refiner(GPTFaceRefinerConfig(**REFINER), 0),
        log=rows.append,
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in tokenizer.state_dict().items())
    assert isinstance(refiner, GPTFaceRefiner)
    assert rows[-1]["step"] == 60
    trainer = make_trainer(tokenizer, lpips, refiner, adversarial_weight=0.0)
    fresh = make_trainer(tokenizer, lpips, adversarial_weight=0.0)
    l1 = [sum(each.step(1.0)[0].item() for _ in range(5)) for each in (trainer, fresh)]
    assert l1[0] < 0.8 * l1[1]


def make_trainer(tokenizer, lpips, refiner=None, autocast=False, covered=None, **settings):
    torch.manual_seed(0)
    refiner = refiner or GPTFaceRefiner(GPTFaceRefinerConfig(**REFINER))
    return RefinerTrainer(
        refiner.train(),
        tokenizer,
        lpips,
        smooth_faces(6),
        smooth_faces(6, 32),
        covered,
        RefinerSettings(**{"batch_size": 4, "small": 0.5, **settings}),
        generator=torch.Generator().manual_seed(0),
        autocast=autocast,
    )


def test_half_precision_gives_the_same_losses(tokenizer, lpips):
    """What runs on a GPU is what is tested on a CPU."""
    losses = [make_trainer(tokenizer, lpips, autocast=autocast).step(0.9) for autocast in (False, True)]
    torch.testing.assert_close(*losses, rtol=0.05, atol=0.02)


def test_the_discriminator_learns_first_and_is_heard_later(tokenizer, lpips):
    trainer = make_trainer(tokenizer, lpips)
    names = ("l1", "lpips", "adversarial", "discriminator")
    early, middle, late = (
        dict(zip(names, trainer.step(progress).tolist(), strict=True)) for progress in (0, 0.4, 0.9)
    )
    assert early["adversarial"] == early["discriminator"] == middle["adversarial"] == 0
    assert middle["discriminator"] > 0
    assert late["adversarial"] != 0


def test_small_faces_never_reach_the_discriminator(tokenizer, lpips, monkeypatch):
    """They are soft: it would learn that photos are."""
    trainer = make_trainer(tokenizer, lpips)
    seen = []
    forward = trainer.discriminator.forward
    monkeypatch.setattr(trainer.discriminator, "forward", lambda pixels: seen.append(len(pixels)) or forward(pixels))
    trainer.step(0.9)
    assert seen == [2, 4]  # two of the four faces: made; photos and made


def test_a_share_of_a_batch_is_faces_that_something_hid(tokenizer, lpips):
    trainer = make_trainer(tokenizer, lpips, covered=covered_faces(), small=0.25, covered_share=0.5)
    batch = trainer.prepare()
    assert (trainer.num_small, trainer.num_covered, len(batch.photo)) == (1, 2, 4)
    assert (batch.mask[2:].mean((1, 2, 3)) - 0.5).abs().max() < 0.1
    with pytest.raises(ValueError, match=r"covered_share = 0.9 leave too few faces"):
        make_trainer(tokenizer, lpips, covered=covered_faces(), small=0, covered_share=0.9)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tokenizer, lpips, tmp_path, monkeypatch):
    def train(checkpoint=None, learning_rate=1e-3):
        settings = RefinerSettings(
            batch_size=2, covered_share=0, discriminator_start=0, discriminator_heard=0.2, learning_rate=learning_rate
        )
        refiner = new_refiner(GPTFaceRefinerConfig(**REFINER), 0)
        return train_refiner(
            tokenizer, smooth_faces(6), lpips=lpips, refiner=refiner, steps=5, settings=settings, checkpoint=checkpoint
        )

    whole, step = train(), RefinerTrainer.step
    monkeypatch.setattr(refiner_training, "CHECKPOINT_EVERY", 0.0)

    def stopped(self, progress):
        if self.steps == 3:
            raise KeyboardInterrupt
        return step(self, progress)

    monkeypatch.setattr(RefinerTrainer, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "state.pt")
    monkeypatch.setattr(RefinerTrainer, "step", step)
    resumed = train(tmp_path / "state.pt")
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor)
    with pytest.raises(ValueError, match="of a run with another learning_rate: remove it to begin anew"):
        train(tmp_path / "state.pt", learning_rate=1e-4)
    (tmp_path / "state.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="remove it to begin anew"):
        train(tmp_path / "state.pt")


def test_crops_share_a_batch(tokenizer, lpips):
    trainer = make_trainer(tokenizer, lpips)
    trainer.settings.crop_size = 32
    first, second = trainer.prepare(), None
    trainer.steps = 1
    batch = trainer.uncropped
    second = trainer.prepare()
    assert trainer.uncropped is batch
    assert first.inputs.shape == second.inputs.shape == (4, 12, 32, 32)


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of another device than "meta", but for numbers and copies."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name
        if name.split("::")[1] not in ("_to_copy", "lift_fresh", "detach", "empty"):
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.device.type != "meta":
                    raise AssertionError(f"{name} on {leaf.device}, {list(leaf.shape)}")
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_a_step_stays_on_its_device(lpips):
    """A tensor that was left on the CPU would stop, or a value that is waited for slow down, training on a GPU."""
    with torch.device("meta"):
        tokenizer = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**TOKENIZER)).requires_grad_(False)
        refiner = GPTFaceRefiner(GPTFaceRefinerConfig(**REFINER))
        sets = [torch.empty(9, size, size, 3, dtype=torch.uint8) for size in (SIZE, 32)]

    def decode_plan(latents):
        return latents.new_zeros(len(latents), 3, 32, 32)

    settings = RefinerSettings(batch_size=6)
    trainer = RefinerTrainer(refiner, tokenizer, lpips.to("meta"), *sets, None, settings, decode_plan=decode_plan)
    with OneDevice():
        assert trainer.step(0.9).device.type == "meta"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "either minutes or steps"),
        ({"steps": 1, "minutes": 1}, "either minutes or steps"),
        ({"steps": 1, "faces256": smooth_faces(2, 32)}, r"faces must be uint8 \[N, 64, 64, 3\]"),
    ],
)
def test_what_cannot_be_trained_is_named(tokenizer, lpips, options, problem):
    options = {"faces256": smooth_faces(2), "refiner": new_refiner(GPTFaceRefinerConfig(**REFINER), 0), **options}
    with pytest.raises(ValueError, match=problem):
        train_refiner(tokenizer, lpips=lpips, **options)


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"small": 1.0}, {"crop_size": 50}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        RefinerSettings(**settings)


def test_figures_are_those_of_their_definitions():
    picture = torch.zeros(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    wrong = picture + 0.2 * mask + 0.9 * (1 - mask)
    assert masked_psnr(wrong, picture, mask).item() == pytest.approx(20, abs=1e-4)
    stripes = torch.zeros(1, 3, 8, 8)
    stripes[..., ::2] = 1
    assert sharpness(stripes, mask) > sharpness(0.5 * stripes, mask) > sharpness(picture, mask) == 0
    wide = torch.zeros(1, 1, 256, 256)
    wide[..., 128:] = 1
    assert ring(wide).sum() == 16 * 256
    assert not ring(torch.ones(1, 1, 256, 256)).any()


def test_a_recipe_runs_and_mistakes_are_one_line(tokenizer, lpips_file, tmp_path, capsys):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    for name, size in (("faces", SIZE), ("small", 32)):
        rows = []
        for index, face in enumerate(smooth_faces(4, size).numpy()):
            Image.fromarray(face).save(tmp_path / f"{index}.png")
            rows.append((tmp_path / f"{index}.png").read_bytes())
        pq.write_table(pa.table({"image": rows}), tmp_path / f"{name}.parquet")
    recipe = tmp_path / "refiner.yaml"
    values = {
        "output_dir": str(tmp_path / "run"),
        "image_tokenizer": str(tmp_path / "tokenizer"),
        "train": [{"path": "faces.parquet", "weight": 2}],
        "small": [{"path": "small.parquet"}],
        "evaluation": [{"path": "faces.parquet", "limit": 1}],
        "lpips_weights": lpips_file.as_posix(),
        "steps": 2,
        "device": "cpu",
        "model": REFINER,
        "settings": {"batch_size": 4},
    }
    recipe.write_text(yaml.safe_dump(values))
    assert main(["train-refiner", str(recipe), "--data-dir", str(tmp_path)]) == 0
    refiner = GPTFaceRefiner.from_pretrained(tmp_path / "run/final")
    assert refiner.dtype == torch.float16
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2
    figures = json.loads((tmp_path / "run/figures.json").read_text())
    assert set(figures["smile/refined"]) == {"psnr", "lpips", "ring_lpips", "sharpness"}
    with Image.open(tmp_path / "run/sheet.png") as sheet:
        assert sheet.size == (7 * SIZE, SIZE)
    # it has ended, and goes on where the recipe wants more steps; another run may start from what it gave
    recipe.write_text(yaml.safe_dump({**values, "steps": 3}))
    assert main(["train-refiner", str(recipe), "--data-dir", str(tmp_path)]) == 0
    assert [json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()][-1] == 3
    onwards = {**values, "init": str(tmp_path / "run/final"), "output_dir": str(tmp_path / "onwards"), "steps": 1}
    recipe.write_text(yaml.safe_dump(onwards))
    capsys.readouterr()
    assert main(["train-refiner", str(recipe), "--data-dir", str(tmp_path)]) == 2
    assert "leave it or init out" in capsys.readouterr().err
    del onwards["model"]
    onwards["settings"] = {"batch_size": 2, "learning_rate": 0.0, "final_learning_rate": 0.0}
    recipe.write_text(yaml.safe_dump(onwards))
    assert main(["train-refiner", str(recipe), "--data-dir", str(tmp_path)]) == 0
    trained = GPTFaceRefiner.from_pretrained(tmp_path / "run/final").state_dict()
    again = GPTFaceRefiner.from_pretrained(tmp_path / "onwards/final").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in trained.items())
    recipe.write_text(yaml.safe_dump({**onwards, "init": str(tmp_path / "tokenizer")}))
    assert main(["train-refiner", str(recipe), "--data-dir", str(tmp_path)]) == 2
    assert "holds no refiner" in capsys.readouterr().err
    recipe.write_text(yaml.safe_dump(values))
    capsys.readouterr()
    assert main(["train-refiner", str(recipe), "--data-dir", str(tmp_path), "--lpips-weights", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_sheet_shows_photo_decode_and_refined(tokenizer):
    torch.manual_seed(0)
    refiner = GPTFaceRefiner(GPTFaceRefinerConfig(**REFINER)).eval()
    faces = smooth_faces(3)
    sheet = np.asarray(contact_sheet(tokenizer, refiner, faces, regions=("all",), limit=2))
    assert sheet.shape == (2 * SIZE, 4 * SIZE, 3)
    assert np.array_equal(sheet[:SIZE, :SIZE], faces[0].numpy())
    assert np.array_equal(sheet[:, SIZE : 2 * SIZE], sheet[:, 2 * SIZE : 3 * SIZE])  # untrained
