"""The Trainer of the image tokenizer: its losses, its discriminator, its codebook's upkeep, its figures."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from gptface.data.epochs import EpochSetter
from gptface.metrics.reconstruction import code_usage, psnr
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerOutput
from gptface.modeling_gptface.quantization import CodebookQuantizer

from .codebook import CodebookConfig, CodebookUpdater, latent_vectors
from .discriminator import DiscriminatorConfig, PatchDiscriminator, adaptive_weight, hinge_loss, last_convolution
from .weight_average import WeightAverage

# What a checkpoint holds besides the Trainer's files: discriminator, its optimizer, averages of the codebook and of
# the weights.
EXTRA_STATE = "tokenizer_training.pt"
FIGURES = ("psnr", "lpips", "l1")


class ImageTokenizerTrainer(Trainer):
    """
    Trainer of a [`GPTFaceImageTokenizer`] on batches of `pixel_values` [B, 3, H, W] in [-1, 1].

    Reports every loss term, stops at a loss that is not finite, evaluates PSNR, LPIPS and the use of the codes.

    Args:
        perceptual: (pictures, targets) → distances [B].
        lpips_weight: factor of the perceptual distance in the loss.
        codebook: how a learned codebook is trained.
        discriminator: settings of the discriminator, none = without one.
        weight_average: decay of the average of the weights that is evaluated and kept, see [`WeightAverage`]; none =
            the weights.
        extra_state: what a checkpoint holds in `EXTRA_STATE`, to resume.
    """

    def __init__(
        self,
        *args: Any,
        perceptual: torch.nn.Module,
        lpips_weight: float = 0.5,
        codebook: CodebookConfig | None = None,
        discriminator: DiscriminatorConfig | None = None,
        weight_average: float | None = None,
        extra_state: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.add_callback(EpochSetter())
        # forward takes **kwargs, but its loss knows nothing of accumulation
        self.model_accepts_loss_kwargs = False
        self.perceptual = perceptual.to(self.args.device)
        self.lpips_weight = lpips_weight
        self.codebook = codebook
        self.adversary = discriminator
        self._term_sums: Counter[str] = Counter()
        self._term_steps = 0
        self._last: tuple[torch.Tensor, GPTFaceImageTokenizerOutput] | None = None
        self.updater: CodebookUpdater | None = None
        assert isinstance(self.model, GPTFaceImageTokenizer)
        quantizer = self.model.quantizer
        if codebook is not None and type(quantizer) is CodebookQuantizer:
            self.updater = CodebookUpdater(quantizer.codebook, codebook)
        if discriminator is not None:
            network = PatchDiscriminator(discriminator.channels, discriminator.layers, self.model.config.num_channels)
            optimizer = torch.optim.AdamW(network.parameters(), discriminator.learning_rate, betas=(0.5, 0.9))
            network = network.to(self.args.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if extra_state:
                network.load_state_dict(extra_state["discriminator"])
                optimizer.load_state_dict(extra_state["discriminator_optimizer"])
            self.discriminator, self.discriminator_optimizer = self.accelerator.prepare(network, optimizer)
        self.average: WeightAverage | None = None
        if weight_average is not None:
            if self.args.load_best_model_at_end:
                raise ValueError("weight_average keeps the last average: load_best_model_at_end would be ignored")
            if isinstance(quantizer, CodebookQuantizer):
                raise ValueError("weight_average is for quantizers without a codebook: codes that are revived jump")
            self.average = WeightAverage(weight_average, (extra_state or {}).get("average"))
            self.add_callback(self.average)
        if extra_state and self.updater is not None:
            self.updater.load_state_dict(extra_state["codebook"])

    @property
    def discriminator_is_active(self) -> bool:
        """Whether the discriminator has started."""
        return self.adversary is not None and self.state.global_step >= self.adversary.start

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        pixels = inputs["pixel_values"]
        outputs = model(pixels)
        reconstruction = outputs.reconstruction.float()
        terms = {"l1": (reconstruction - pixels).abs().mean()}
        loss = terms["l1"]
        if self.lpips_weight:
            terms["lpips"] = self.perceptual(reconstruction, pixels).mean()
            loss = loss + self.lpips_weight * terms["lpips"]
        tokenizer = self.accelerator.unwrap_model(model)
        if self.adversary is not None and self.discriminator_is_active and model.training:
            terms["adversarial"] = self._adversarial_loss(reconstruction)
            balance = adaptive_weight(loss, terms["adversarial"], last_convolution(tokenizer.decoder))
            terms["adaptive_weight"] = balance
            loss = loss + self.adversary.weight * balance * terms["adversarial"]
        losses = tokenizer.quantizer.training_losses(outputs.latents, _grid(outputs.codes, outputs.latents))
        if self.updater is not None and self.codebook is not None and self.codebook.update == "ema":
            losses.pop("codebook_loss")  # the averages move the vectors
        for name, value in losses.items():
            terms[name] = value
            weighted = self.codebook is not None and name == "commitment_loss"
            loss = loss + (self.codebook.commitment_weight if weighted else 1.0) * value  # type: ignore[union-attr]
        if not torch.isfinite(loss):
            values = {name: float(value.detach()) for name, value in terms.items()}
            raise FloatingPointError(f"the loss is not finite in step {self.state.global_step + 1}: {values}")
        if model.training:
            self._count(terms)
            self._term_steps += 1
            self._last = pixels, outputs
        return (loss, outputs) if return_outputs else loss

    def _adversarial_loss(self, reconstruction: torch.Tensor) -> torch.Tensor:
        # the discriminator itself must not learn from the generator's loss
        network = self.accelerator.unwrap_model(self.discriminator).requires_grad_(False)
        loss = -network(reconstruction).mean()
        network.requires_grad_(True)
        return loss

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        assert self._last is not None
        (pixels, outputs), self._last = self._last, None
        if self.discriminator_is_active:
            assert outputs.reconstruction is not None
            self._count(
                {"discriminator_loss": self._discriminator_step(pixels, outputs.reconstruction.detach().float())}
            )
        if self.updater is not None:
            assert outputs.codes is not None and outputs.latents is not None
            quantizer = self.accelerator.unwrap_model(model).quantizer
            generator = torch.Generator().manual_seed((self.args.seed << 32) ^ self.state.global_step)
            with torch.no_grad():
                vectors = latent_vectors(quantizer, outputs.latents.detach())
            revived = self.updater.step(quantizer.codebook.weight, vectors, outputs.codes.flatten(), generator)
            self._count({"revived_codes": torch.tensor(float(revived))})
        return loss

    def _discriminator_step(self, pixels: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        self.discriminator.train()
        with self.compute_loss_context_manager():
            # one pass over both: some wrappers of several GPUs allow only one before the gradients
            real, fake = self.discriminator(torch.cat([pixels, reconstruction])).chunk(2)
            loss = hinge_loss(real, fake)
        self.accelerator.backward(loss / self.current_gradient_accumulation_steps)
        # both do nothing before the last batch of an accumulated step
        self.discriminator_optimizer.step()
        self.discriminator_optimizer.zero_grad()
        return loss

    def _count(self, terms: dict[str, torch.Tensor]) -> None:
        self._term_sums.update({name: float(value.detach()) for name, value in terms.items()})

    def log(self, logs, start_time=None):
        if "loss" in logs and self._term_steps:
            logs = {**logs, **{name: round(total / self._term_steps, 4) for name, total in self._term_sums.items()}}
            self._term_sums.clear()
            self._term_steps = 0
        super().log(logs, start_time)

    def evaluate(self, *args, **kwargs):
        with self.averaged():
            return super().evaluate(*args, **kwargs)

    def averaged(self) -> AbstractContextManager[None]:
        """The model has the weights that are to be kept while this context lasts."""
        if self.average is None:
            return nullcontext()
        return self.average.in_place(self.accelerator.unwrap_model(self.model))

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """
        Figures of each picture [B, 3] in the order of `FIGURES` in place of logits, its codes in place of labels.
        """
        with torch.no_grad():
            inputs = self._prepare_inputs(inputs)
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
            pixels, reconstruction = inputs["pixel_values"], outputs.reconstruction.float().clamp(-1, 1)
            absolute = (reconstruction - pixels).abs().mean((1, 2, 3)) / 2  # on the [0, 1] scale
            figures = [psnr(reconstruction, pixels), self.perceptual(reconstruction, pixels), absolute]
        return loss.detach(), torch.stack(figures, 1), outputs.codes

    def _save_checkpoint(self, model, trial):
        # first, so that the Trainer's own state, which it writes last, is there only when everything is
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.extra_state(), folder / EXTRA_STATE)
        super()._save_checkpoint(model, trial)

    def extra_state(self) -> dict[str, Any]:
        """State of what is trained beside the model."""
        state: dict[str, Any] = {}
        if self.adversary is not None:
            state["discriminator"] = self.accelerator.unwrap_model(self.discriminator).state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        if self.updater is not None:
            state["codebook"] = self.updater.state_dict()
        if self.average is not None:
            state["average"] = self.average.average
        return state


def _grid(codes: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    return codes.view(len(codes), *latents.shape[-2:])


def tokenizer_metrics(num_codes: int) -> Callable[[EvalPrediction], dict[str, float]]:
    """Means of the figures over the pictures, and how many of `num_codes` codes are used."""

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        means = np.asarray(prediction.predictions).mean(0)
        usage = code_usage(torch.from_numpy(np.asarray(prediction.label_ids)), num_codes)
        return {**dict(zip(FIGURES, map(float, means), strict=True)), **usage}

    return metrics
