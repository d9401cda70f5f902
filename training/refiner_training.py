"""Training of the refiner behind a frozen image tokenizer: by the clock, on faces that lie on the device."""

import json
import logging
import math
import time
from collections.abc import Callable, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from gptface.data.covered_faces import CoveredFaces, cover_faces
from gptface.data.face_parsing_data import read_parsed_faces
from gptface.data.pictures import PictureSource, decode_pictures
from gptface.metrics.lpips_distance import LPIPS
from gptface.modeling_gptface.configuration_gptface import GPTFaceRefinerConfig
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner, refiner_inputs
from gptface.pipelines.edit_blending import HOLE_FEATHER_RADIUS
from gptface.pipelines.guided_face_editing import COVERING_EDGE
from gptface.pipelines.pipeline_loading import find_checkpoint
from gptface.processing.whole_files import damage_named, whole_file

from .discriminator import PatchDiscriminator
from .image_tokenizer_init import load_image_tokenizer
from .recipe import Recipe
from .refiner_figures import contact_sheet, refiner_figures
from .refiner_samples import DecodePlan, FaceAugmenter, RefinerSampler, SampleLaw

logger = logging.getLogger(__name__)

# Weight of a pixel outside of the mask in the absolute error, where the photo is put back anyway.
OUTSIDE = 0.1
# So many crops are taken from each batch: encoding and decoding it cost more than a step on a crop.
CROPS = 4
#: File of `output_dir` from which a run that was stopped goes on, and seconds between two copies of it.
CHECKPOINT_NAME, CHECKPOINT_EVERY = "refiner_training.pt", 120.0
TERMS = ("l1", "lpips", "adversarial", "discriminator")


@dataclass
class RefinerSettings:
    """
    How the refiner is trained.

    Args:
        batch_size: faces a step.
        small: share of them from the set of small faces, where there is one. Their loss is taken at half the size, and
            the discriminator does not see them, so that soft pictures do not teach softness.
        covered_share: share of them that something hid in part, where there are such.
        crop_size: side in pixels of the random crop, one a step, on which refiner and losses run; whole pictures where
            it is not given. For CPUs.
        lpips_weight: factor of LPIPS beside the mean absolute error.
        adversarial_weight: factor of the discriminator's word, on top of the adaptive weight; 0 leaves it out.
        discriminator_start, discriminator_heard: shares of the time after which it learns, and after which it is
            heard.
        learning_rate, final_learning_rate: of AdamW, a cosine from one to the other.
        discriminator_learning_rate: of its AdamW, constant.
        weight_average: decay of the average of the weights, which is what is kept.
        max_grad_norm: gradients are clipped to it.
    """

    batch_size: int = 48
    small: float = 0.33
    covered_share: float = 0.25
    crop_size: int | None = None
    lpips_weight: float = 1.3
    adversarial_weight: float = 0.3
    discriminator_start: float = 0.3
    discriminator_heard: float = 0.5
    learning_rate: float = 1e-3
    final_learning_rate: float = 5e-5
    discriminator_learning_rate: float = 2e-4
    weight_average: float = 0.998
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: each face gets another one's content")
        for name in ("small", "covered_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.crop_size is not None and (self.crop_size < 64 or self.crop_size % 16):
            raise ValueError(f"crop_size must be a multiple of 16 from 64 on, got {self.crop_size}")


def masked_l1(pictures: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Absolute errors of [B, 3, H, W], weighted 1 in the mask [B, 1, H, W] and `OUTSIDE` around it; each picture counts
    alike.
    """
    weight = OUTSIDE + (1 - OUTSIDE) * mask
    error = (pictures - targets).abs().mean(1, keepdim=True)
    return ((error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))).mean()


def masked_mean(logits: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, 1, h, w] and how much of the mask [B, 1, H, W] lies at each, normalised to the sum 1."""
    share = nn.functional.adaptive_avg_pool2d(mask, (logits.shape[-2], logits.shape[-1]))
    return logits.float(), share / share.sum().clamp(min=1e-3)


@dataclass
class Prepared:
    """
    What a step runs on: [`RefinerBatch`] with the network's inputs [B, 12, H, W] and the decode [B, 3, H, W] at their
    size.
    """

    inputs: torch.Tensor
    decoded: torch.Tensor
    photo: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor
    faces: torch.Tensor


class RefinerTrainer:
    """
    One step after the other of a refiner's training. All tensors of a step lie on one device, and none is waited for.

    Args:
        refiner: what is trained, on the device of the tokenizer.
        tokenizer: frozen.
        lpips: the perceptual distance, on the device.
        faces: uint8 [N, S, S, 3], on the device.
        small_faces: uint8 [M, s, s, 3], on the device, or none.
        covered_faces: of the size of the faces, on the device, or none.
        generator: of the device; the device's own where it is not given.
        autocast: whether convolutions run in bfloat16.
    """

    def __init__(
        self,
        refiner: GPTFaceRefiner,
        tokenizer: GPTFaceImageTokenizer,
        lpips: LPIPS,
        faces: torch.Tensor,
        small_faces: torch.Tensor | None = None,
        covered_faces: CoveredFaces | None = None,
        settings: RefinerSettings | None = None,
        law: SampleLaw | None = None,
        generator: torch.Generator | None = None,
        decode_plan: DecodePlan | None = None,
        autocast: bool = False,
    ):
        self.settings = settings or RefinerSettings()
        self.refiner, self.lpips = refiner, lpips
        self.faces, self.small_faces, self.covered_faces = faces, small_faces, covered_faces
        self.size = refiner.config.image_size
        self.device = next(refiner.parameters()).device
        self.generator = generator
        batch = self.settings.batch_size
        self.num_small = round(batch * self.settings.small) if small_faces is not None and len(small_faces) else 0
        self.num_covered = round(batch * self.settings.covered_share) if covered_faces is not None else 0
        left = batch - self.num_small - self.num_covered
        if left < 1 or self.num_small + left < 2:
            raise ValueError(
                f"small = {self.settings.small} and covered_share = {self.settings.covered_share} leave too "
                f"few faces of full size in {batch}"
            )
        self.augment = FaceAugmenter(self.device, generator)
        self.sampler = RefinerSampler(tokenizer, self.size, law, generator, decode_plan, autocast)
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            refiner.parameters(), self.settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=fused
        )
        self.discriminator = PatchDiscriminator(channels=32, layers=2).to(self.device)
        self.discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(),
            self.settings.discriminator_learning_rate,
            betas=(0.5, 0.9),
            weight_decay=0.0,
            fused=fused,
        )
        self.parameters = list(refiner.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.uncropped: Prepared | None = None
        self.steps = 0

    def step(self, progress: float) -> torch.Tensor:
        """
        One step at a share of the time in 0…1; returns the loss terms, see `TERMS`, [4], detached and not waited for;
        those of a discriminator that does not learn yet are 0.
        """
        settings = self.settings
        rate = settings.final_learning_rate + (settings.learning_rate - settings.final_learning_rate) * (
            0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.steps + 1) / 50)
        learns = settings.adversarial_weight > 0 and progress >= settings.discriminator_start
        heard = learns and progress >= settings.discriminator_heard
        batch = self.prepare()
        with self.sampler.precision():
            refined = self.refiner.refine(batch.decoded, batch.inputs)
        composite = torch.lerp(batch.photo, refined, batch.mask)
        l1, lpips = self.reconstruction(refined, composite, batch)
        loss = l1 + settings.lpips_weight * lpips
        large = slice(self.num_small, None)
        adversarial = discriminated = torch.zeros((), device=self.device)
        if heard:
            adversarial = -self.judge(composite[large], batch.mask[large])
            self.backward(refined, loss, adversarial)
        else:
            loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if learns:
            discriminated = self.train_discriminator(batch.faces[large], composite[large].detach(), batch.mask[large])
        self.steps += 1
        with torch.no_grad():
            # a short memory at first: the weights of the first steps are of no use
            share = 1 - min(settings.weight_average, self.steps / (self.steps + 10))
            torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], share)
        return torch.stack([l1, lpips, adversarial, discriminated]).detach()

    def prepare(self) -> Prepared:
        """What the next step runs on: a batch of its own, or the next crop of the last one."""
        crop = self.settings.crop_size
        if crop is None or crop >= self.size:
            return self.make_batch()
        if self.steps % CROPS == 0 or self.uncropped is None:
            self.uncropped = self.make_batch()
        # on a CPU, where alone crops pay, this waits for nothing
        top, left = torch.randint(0, self.size - crop + 1, (2,), device=self.device, generator=self.generator).tolist()
        rows = (slice(None), slice(None), slice(top, top + crop), slice(left, left + crop))
        return Prepared(*(tensor[rows] for tensor in vars(self.uncropped).values()))

    @torch.no_grad()
    def make_batch(self) -> Prepared:
        """Whole pictures; the small faces come first, those that something hid last."""
        left = self.settings.batch_size - self.num_small - self.num_covered
        faces = [self.augment(self.faces[self.rows(self.faces, left)], self.size)]
        if self.small_faces is not None and self.num_small:
            rows = self.rows(self.small_faces, self.num_small)
            faces.insert(0, self.augment(self.small_faces[rows], self.size))
        covered = None
        if self.covered_faces is not None and self.num_covered:
            rows = self.rows(self.covered_faces, self.num_covered)
            covered = self.augment.covered(self.covered_faces.rows(rows), self.size)
        batch = self.sampler(torch.cat(faces), covered)
        decoded = nn.functional.interpolate(batch.decoded, (self.size, self.size), mode="bicubic", align_corners=False)
        inputs = refiner_inputs(decoded, batch.photo, batch.mask, batch.likeness, batch.tone)
        return Prepared(inputs, decoded, batch.photo, batch.mask, batch.target, batch.faces)

    def rows(self, faces: Sized, count: int) -> torch.Tensor:
        """Random numbers of faces [count]."""
        return torch.randint(len(faces), (count,), device=self.device, generator=self.generator)

    def reconstruction(
        self, refined: torch.Tensor, composite: torch.Tensor, batch: Prepared
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean absolute error and LPIPS, of the small faces at half the size; in float32."""
        small, terms = self.num_small, []
        for part, halved in ((slice(small), True), (slice(small, None), False)):
            pictures = [refined[part], composite[part], batch.target[part], batch.mask[part]]
            if not len(pictures[0]):
                continue
            if halved:
                pictures = [nn.functional.avg_pool2d(each, 2) for each in pictures]
            made, whole, target, mask = pictures
            share = len(made) / len(refined)
            distance = self.lpips(whole, target, mask).mean()
            terms.append(share * torch.stack([masked_l1(made, target, mask), distance]))
        l1, lpips = torch.stack(terms).sum(0).unbind()
        return l1, lpips

    def judge(self, pictures: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The discriminator's mean logit in the mask."""
        with self.sampler.precision():
            logits = self.discriminator(pictures)
        logits, share = masked_mean(logits, mask)
        return (logits * share).sum()

    def backward(self, refined: torch.Tensor, loss: torch.Tensor, adversarial: torch.Tensor) -> None:
        """
        Gradients of both losses, the adversarial one's weighted so that at the last convolution it pulls
        `adversarial_weight` times as hard as the other ([`adaptive_weight`]); each loss is gone through once.
        """
        pulls = [torch.autograd.grad(each, refined, retain_graph=True)[0] for each in (loss, adversarial)]
        last = self.refiner.residual.weight
        wanted, given = (
            torch.autograd.grad(refined, last, pull, retain_graph=True)[0].float().norm() for pull in pulls
        )
        weight = self.settings.adversarial_weight * (wanted / (given + 1e-4)).clamp(0, 1e4)
        refined.backward(pulls[0] + weight * pulls[1])

    def train_discriminator(self, real: torch.Tensor, fake: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """A step of the discriminator on faces and made pictures, where the mask is; returns its loss."""
        with self.sampler.precision():
            logits = self.discriminator(torch.cat([real, fake]).contiguous(memory_format=torch.channels_last))
        logits, share = masked_mean(logits, torch.cat([mask, mask]))
        # the shares of both halves together are 1, so that each half's count by a half, as in `hinge_loss`
        on_real, on_fake = logits.chunk(2)
        share, _ = share.chunk(2)
        loss = ((1 - on_real).relu() * share).sum() + ((1 + on_fake).relu() * share).sum()
        loss.backward()
        self.discriminator_optimizer.step()
        self.discriminator_optimizer.zero_grad()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on, with references to what it holds."""
        generator = self.generator
        return {
            "refiner": self.refiner.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "generator": None if generator is None else generator.get_state(),
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from the state of a run of the same settings; of crops that shared a batch the rest is left out."""
        self.refiner.load_state_dict(state["refiner"])
        self.average = [average.to(self.device) for average in state["average"]]
        self.optimizer.load_state_dict(state["optimizer"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        if self.generator is not None:
            self.generator.set_state(state["generator"].cpu())
        self.steps, self.uncropped = state["steps"], None

    @torch.no_grad()
    def finish(self) -> GPTFaceRefiner:
        """The refiner with the average of its weights."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.copy_(average)
        return self.refiner.eval()


def train_refiner(
    tokenizer: GPTFaceImageTokenizer,
    faces256: torch.Tensor,
    faces128: torch.Tensor | None = None,
    covered: CoveredFaces | None = None,
    *,
    lpips: LPIPS,
    refiner: GPTFaceRefiner | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    decode_plan: DecodePlan | None = None,
    settings: RefinerSettings | None = None,
    law: SampleLaw | None = None,
    checkpoint: Path | None = None,
    log: Callable[[dict[str, float]], None] | None = None,
) -> GPTFaceRefiner:
    """
    Trains a refiner for so many minutes or steps.

    Args:
        tokenizer: whose decoder it stands behind; stays as it is, moves to the device.
        faces256: aligned faces uint8 [N, S, S, 3], S the refiner's side.
        faces128: smaller ones uint8 [M, s, s, 3], as a second kind of sample.
        covered: faces of the refiner's side that something hid in part, as a third.
        lpips: the perceptual distance with masks; moves to the device.
        refiner: to start from; a new one by default. It is trained in place.
        device: a GPU runs in bfloat16 where that loses nothing.
        decode_plan: latents [B, C, h, w] → pictures [B, 3, s, s] as a coarse plan decodes; on the device, without
            gradients.
        checkpoint: file that holds the state of the run, written every two minutes; a run goes on from it.
        log: called about once a second with `seconds`, `step`, `pictures_per_second` and the means of the loss terms.

    Returns:
        The refiner with the average of its weights, on the device.

    Raises:
        ValueError: neither or both of minutes and steps; a tokenizer without FSQ; faces of another size; a checkpoint
            that is damaged, or of a run with other settings.
        FloatingPointError: a loss that is not finite.
    """
    if (minutes is None) == (steps is None):
        raise ValueError("give either minutes or steps")
    device = torch.device(device)
    refiner = new_refiner(GPTFaceRefinerConfig(), seed) if refiner is None else refiner
    size = refiner.config.image_size
    for faces in (faces256, *([] if covered is None else [covered.faces])):
        if faces.shape[1:] != (size, size, 3):
            raise ValueError(f"faces must be uint8 [N, {size}, {size}, 3], got {list(faces.shape)}")
    to_device: dict[str, Any] = {"device": device, "memory_format": torch.channels_last}
    tokenizer = tokenizer.to(**to_device).eval().requires_grad_(False)
    refiner = refiner.to(**to_device).train().requires_grad_(True)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(seed)  # of the discriminator's weights
    trainer = RefinerTrainer(
        refiner,
        tokenizer,
        lpips.to(device),
        faces256.to(device),
        None if faces128 is None else faces128.to(device),
        None if covered is None else covered.to(device),
        settings,
        law,
        torch.Generator(device).manual_seed(seed),
        decode_plan,
        autocast=device.type == "cuda",
    )
    run = {
        "seed": seed,
        "model": refiner.config.to_json_string(),
        **asdict(trainer.settings),
        **asdict(trainer.sampler.law),
    }
    start = last = saved = time.monotonic()
    if checkpoint is not None and checkpoint.exists():
        with damage_named(checkpoint, "remove it to begin anew"):
            state = torch.load(checkpoint, device, weights_only=True)
        other = sorted(name for name, value in run.items() if state["run"].get(name) != value)
        if other:
            raise ValueError(f"{checkpoint} is of a run with another {', '.join(other)}: remove it to begin anew")
        trainer.load_state(state)
        start -= state["seconds"]
        logger.info("goes on from step %d", trainer.steps)

    def save() -> None:
        if checkpoint is not None:
            with whole_file(checkpoint) as unfinished:
                torch.save({**trainer.state(), "run": run, "seconds": time.monotonic() - start}, unfinished)

    sums, counted = torch.zeros(len(TERMS), device=device), 0
    while True:
        now = time.monotonic()
        progress = trainer.steps / steps if steps is not None else (now - start) / (60 * (minutes or 1))
        ended = progress >= 1
        if counted and (ended or now - last >= 1):
            means = (sums / counted).tolist()
            if not all(map(math.isfinite, means)):
                raise FloatingPointError(
                    f"the loss is not finite by step {trainer.steps}: {dict(zip(TERMS, means, strict=True))}"
                )
            rate = counted * trainer.settings.batch_size / max(time.monotonic() - last, 1e-6)
            if log is not None:
                row = {"seconds": round(now - start, 1), "step": trainer.steps, "pictures_per_second": round(rate, 1)}
                log({**row, **{name: round(mean, 5) for name, mean in zip(TERMS, means, strict=True)}})
            sums.zero_()
            last, counted = now, 0
        if ended or now - saved >= CHECKPOINT_EVERY:
            save()
            saved = now
        if ended:
            return trainer.finish()
        sums += trainer.step(progress)
        counted += 1


@dataclass
class RefinerTrainingConfig(Recipe):
    """
    What a recipe (YAML) for a refiner holds. A run that was stopped goes on from the state in `output_dir`.

    Args:
        output_dir: where the refiner, its log, its figures and a sheet of pictures go.
        image_tokenizer: folder or Hub name of the image tokenizer, alone or inside of a whole model.
        train, small, evaluation: fields of [`PictureSource`], one entry a source: faces of the refiner's size, smaller
            ones, and those that figures and sheet are made of; relative paths start at `data_dir`.
        covered: parquet files of faces with masks of their parts, see [`read_parsed_faces`]; on each a mask that
            people wear, a hand or a scarf is painted before training, see [`cover_faces`].
        init: folder of a refiner, or of an image tokenizer or whole model that has one, to start from; random weights
            where it is not given.
        data_dir: folder of the sources.
        lpips_weights: safetensors file of LPIPS (AlexNet).
        minutes, steps: one of them says when training ends.
        device: `"cuda"` or `"cpu"`; a GPU where there is one by default.
        seed: of weights and samples.
        model: fields of [`GPTFaceRefinerConfig`], where `init` is not given.
        samples: fields of [`SampleLaw`].
        settings: fields of [`RefinerSettings`].
    """

    output_dir: str
    image_tokenizer: str
    train: list[dict[str, Any]]
    small: list[dict[str, Any]] = field(default_factory=list)
    covered: list[str] = field(default_factory=list)
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    init: str | None = None
    data_dir: str = "."
    lpips_weights: str = "lpips_alex.safetensors"
    minutes: float | None = None
    steps: int | None = None
    device: str | None = None
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def faces(self, entries: list[dict[str, Any]], size: int) -> torch.Tensor | None:
        """
        The faces of sources, uint8 [N, size, size, 3]; each picture as often as its source's weight says, rounded.
        """
        sets = []
        for entry in entries:
            source = PictureSource(**{**entry, "path": str(Path(self.data_dir, entry["path"]))})
            faces = torch.from_numpy(decode_pictures(source, size, Path(self.output_dir, "pictures")).copy())
            sets += [faces] * max(1, round(source.weight))
        return torch.cat(sets) if sets else None

    def covered_faces(self, size: int, grid: int) -> CoveredFaces | None:
        """The faces of `covered`, something painted on each; `grid` cells of their codes along a side."""
        if not self.covered:
            return None
        parsed = read_parsed_faces([Path(self.data_dir, name) for name in self.covered], size)
        return cover_faces(parsed, grid, COVERING_EDGE, HOLE_FEATHER_RADIUS, self.seed)


def run_refiner_training(config: RefinerTrainingConfig) -> Path:
    """
    Runs a recipe, going on from the state in `output_dir` if there is one; returns the folder of the refiner: config
    and weights as fp16, beside it `log.jsonl`, and, of the faces of `evaluation`, `figures.json` and `sheet.png`
    (photo, decode, refined).

    Raises:
        FileNotFoundError: where a source or the weights of LPIPS are missing.
        ImportError: where OpenCV is missing, for `covered`.
        ValueError: a field of the recipe that cannot be right.
    """
    lpips = LPIPS(config.lpips_weights).eval()
    tokenizer = load_image_tokenizer(config.image_tokenizer)
    if config.init is None:
        refiner = new_refiner(GPTFaceRefinerConfig(**config.model), config.seed)
    elif config.model:
        raise ValueError("model describes a new refiner: leave it or init out")
    else:
        refiner = load_refiner(config.init)
    size = refiner.config.image_size
    output = Path(config.output_dir)
    faces = config.faces(config.train, size)
    if faces is None:
        raise ValueError("train names no source")
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / CHECKPOINT_NAME
    with (output / "log.jsonl").open("a" if checkpoint.exists() else "w") as stream:

        def log(row: dict[str, float]) -> None:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            logger.info("%s", row)

        refiner = train_refiner(
            tokenizer,
            faces,
            config.faces(config.small, tokenizer.config.image_size),
            config.covered_faces(size, tokenizer.config.grid_size),
            lpips=lpips,
            refiner=refiner,
            minutes=config.minutes,
            steps=config.steps,
            device=device,
            seed=config.seed,
            settings=RefinerSettings(**config.settings),
            law=SampleLaw(**config.samples),
            checkpoint=checkpoint,
            log=log,
        )
    target = save_refiner(refiner, output / "final")
    held_out = config.faces(config.evaluation, size)
    if held_out is not None:
        figures = refiner_figures(tokenizer, refiner, held_out, lpips)
        (output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
        contact_sheet(tokenizer, refiner, held_out).save(output / "sheet.png")
    return target


def new_refiner(config: GPTFaceRefinerConfig, seed: int) -> GPTFaceRefiner:
    """A refiner with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPTFaceRefiner(config)


def load_refiner(folder: str | Path) -> GPTFaceRefiner:
    """
    The fp32 refiner of a folder or Hub name, be it one alone or inside of an image tokenizer or a whole model.

    Raises:
        ValueError: where it holds no refiner.
    """
    if isinstance(AutoConfig.from_pretrained(find_checkpoint(folder)), GPTFaceRefinerConfig):
        return GPTFaceRefiner.from_pretrained(folder, dtype=torch.float32)
    refiner = load_image_tokenizer(folder).refiner
    if refiner is None:
        raise ValueError(f"{folder} holds no refiner")
    return refiner


def save_refiner(refiner: GPTFaceRefiner, folder: Path) -> Path:
    """Writes config and weights, rounded to fp16; the refiner itself stays as it is."""
    rounded = GPTFaceRefiner(refiner.config)
    rounded.load_state_dict(refiner.state_dict())
    rounded.half().to(memory_format=torch.contiguous_format).save_pretrained(folder)
    return folder
