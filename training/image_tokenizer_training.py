"""Training of the image tokenizer on aligned faces by a recipe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import set_seed

from gptface.data.pictures import CropDataset, PictureDataset, PictureSource, collate_pictures, decode_pictures
from gptface.metrics.lpips_distance import load_lpips
from gptface.modeling_gptface.configuration_gptface import GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.image_tokenizer_gptface import DECODING_ONLY, GPTFaceImageTokenizer
from gptface.modeling_gptface.quantization import CodebookQuantizer

from .checkpoints import last_whole_checkpoint, save_rounded
from .codebook import CodebookConfig, kmeans, latent_vectors
from .discriminator import DiscriminatorConfig
from .image_tokenizer_init import initial_image_tokenizer, latents_of, merged_config
from .image_tokenizer_trainer import EXTRA_STATE, ImageTokenizerTrainer, tokenizer_metrics
from .recipe import Recipe


@dataclass
class ImageTokenizerTrainingConfig(Recipe):
    """
    What a recipe (YAML) for an image tokenizer holds.

    Args:
        output_dir: where checkpoints, decoded pictures and the final tokenizer go.
        train, evaluation: fields of [`PictureSource`], one entry a source; relative paths start at `data_dir`.
        data_dir: folder of the sources.
        init: folder of an image tokenizer (its `fsq_levels` may be others), or two safetensors files, encoder and
            decoder of the compact backbone; random weights where it is not given.
        model: fields of [`GPTFaceImageTokenizerConfig`]; those that replace the config's of the `init` folder.
        crop_size: side of the random crops in pixels, a multiple of the backbone's factor.
        flips: whether half of the crops are mirrored.
        lpips_weight: factor of LPIPS beside the mean absolute error, both of pixels in [-1, 1]; 0 leaves it out.
        lpips_weights: safetensors file of LPIPS (AlexNet); the `lpips` package where it is not given.
        codebook: fields of [`CodebookConfig`], for `quantizer: codebook`.
        discriminator: fields of [`DiscriminatorConfig`]; none by default.
        frozen_codes: train only what decodes: codes made with the `init` folder stay valid, and so does what was
            trained on them. A plan of the `init` folder stays then, too; without it there is none, as its codes come
            from the encoder.
        weight_average: decay of an average of the weights over the steps, which is what is evaluated and kept; none =
            the weights. For quantizers without a codebook.
        start_pictures: about as many training pictures set what is new in the quantizer.
        arguments: `TrainingArguments` by name.
    """

    output_dir: str
    train: list[dict[str, Any]]
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    data_dir: str = "."
    init: str | list[str] | None = None
    model: dict[str, Any] = field(default_factory=dict)
    crop_size: int = 64
    flips: bool = True
    lpips_weight: float = 0.5
    lpips_weights: str | None = None
    codebook: dict[str, Any] = field(default_factory=dict)
    discriminator: dict[str, Any] | None = None
    frozen_codes: bool = False
    weight_average: float | None = None
    start_pictures: int = 64
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def model_fields(self) -> dict[str, Any]:
        """What replaces fields of the configuration of the `init` folder."""
        return self.model if self.frozen_codes else {**self.model, "plan_levels": None}

    def sources(self, entries: list[dict[str, Any]]) -> list[PictureSource]:
        """The sources of `train` or `evaluation`, their paths under `data_dir`."""
        return [PictureSource(**{**entry, "path": str(Path(self.data_dir, entry["path"]))}) for entry in entries]


def _tokenizer_config(config: ImageTokenizerTrainingConfig, checkpoint: str | None) -> GPTFaceImageTokenizerConfig:
    """The configuration, known before the model itself, whose start needs pictures of its size."""
    if checkpoint:
        return GPTFaceImageTokenizerConfig.from_pretrained(checkpoint)
    if isinstance(config.init, str):
        return merged_config(GPTFaceImageTokenizerConfig.from_pretrained(config.init), config.model_fields)
    return GPTFaceImageTokenizerConfig(**config.model_fields)


def check_crop_size(crop_size: int, config: GPTFaceImageTokenizerConfig) -> None:
    """Raises `ValueError` where crops of this side in pixels do not fit the pictures or the backbone's factor."""
    if not 0 < crop_size <= config.image_size or crop_size % config.downsample_factor:
        raise ValueError(
            f"crop_size must be a multiple of {config.downsample_factor} up to {config.image_size}, got {crop_size}"
        )


def start_codebook(tokenizer: GPTFaceImageTokenizer, pixels: torch.Tensor, seed: int) -> None:
    """Sets the codebook to the k-means centres of the latents of training pictures [B, 3, H, W]."""
    quantizer = tokenizer.quantizer
    assert isinstance(quantizer, CodebookQuantizer)
    with torch.no_grad():
        vectors = latent_vectors(quantizer, latents_of(tokenizer, pixels))
        quantizer.codebook.weight.copy_(kmeans(vectors, quantizer.num_codes, torch.Generator().manual_seed(seed)))


def build_image_tokenizer(
    config: ImageTokenizerTrainingConfig, dataset: CropDataset, checkpoint: str | None, seed: int
) -> GPTFaceImageTokenizer:
    """The tokenizer of a recipe, or of the checkpoint where it is resumed."""
    if checkpoint:
        return GPTFaceImageTokenizer.from_pretrained(checkpoint, dtype=torch.float32)
    pixels = collate_pictures(dataset.spread(config.start_pictures))["pixel_values"]
    tokenizer = initial_image_tokenizer(config.init, config.model_fields, pixels)
    if type(tokenizer.quantizer) is CodebookQuantizer and CodebookConfig(**config.codebook).kmeans:
        start_codebook(tokenizer, pixels, seed)
    return tokenizer


def train_image_tokenizer(config: ImageTokenizerTrainingConfig) -> Path:
    """
    Runs a recipe, resuming from the last checkpoint in `output_dir` if there is one; returns the folder of the
    tokenizer. Its weights are rounded to fp16, as they are released: codes made with it are those of the released one.

    Raises:
        ValueError: a field of the recipe that cannot be right.
        FloatingPointError: a loss that is not finite; the message names the step.
    """
    perceptual = load_lpips(config.lpips_weights)
    codebook = CodebookConfig(**config.codebook)
    discriminator = None if config.discriminator is None else DiscriminatorConfig(**config.discriminator)
    train, evaluation = config.sources(config.train), config.sources(config.evaluation)
    arguments = TrainingArguments(
        output_dir=config.output_dir,
        remove_unused_columns=False,
        **{
            "report_to": "none",
            "dataloader_pin_memory": torch.cuda.is_available(),
            # all are used, a codebook only by its loss outside of `forward`: a search there would think it unused
            "ddp_find_unused_parameters": False,
            **config.arguments,
        },
    )
    set_seed(arguments.seed)
    checkpoint = last_whole_checkpoint(config.output_dir)
    tokenizer_config = _tokenizer_config(config, checkpoint)
    check_crop_size(config.crop_size, tokenizer_config)
    size = tokenizer_config.image_size
    cache = Path(config.output_dir) / "pictures"
    with arguments.main_process_first(desc="decoding pictures"):
        sets = [decode_pictures(source, size, cache) for source in train]
        evaluation_sets = [decode_pictures(source, size, cache) for source in evaluation]
    weights = [source.weight for source in train]
    dataset = CropDataset(sets, weights, config.crop_size, config.flips, arguments.seed)
    tokenizer = build_image_tokenizer(config, dataset, checkpoint, arguments.seed)
    if config.frozen_codes:
        for name, parameter in tokenizer.named_parameters():
            parameter.requires_grad_(name.startswith(DECODING_ONLY))
    trainer = ImageTokenizerTrainer(
        # 1.6 times faster on a CPU
        model=tokenizer.to(memory_format=torch.channels_last),  # type: ignore[call-arg]
        args=arguments,
        data_collator=collate_pictures,
        train_dataset=dataset,
        eval_dataset=PictureDataset(evaluation_sets) if evaluation_sets else None,
        compute_metrics=tokenizer_metrics(tokenizer.config.num_codes),
        perceptual=perceptual,
        lpips_weight=config.lpips_weight,
        codebook=codebook,
        discriminator=discriminator,
        weight_average=config.weight_average,
        extra_state=torch.load(Path(checkpoint, EXTRA_STATE), "cpu", weights_only=True) if checkpoint else None,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    target = Path(config.output_dir) / "final"
    if trainer.is_world_process_zero():
        with trainer.averaged():
            save_rounded(trainer.accelerator.unwrap_model(trainer.model), target)
    return target
