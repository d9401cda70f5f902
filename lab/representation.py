"""Which representation of a face a classification head should read: heads trained for the same time on the same faces.

    python lab/representation.py attributes --train DATA_DIR/train/celeba178.parquet \\
        --data DATA_DIR/validation/celeba178.parquet --train-rows 2000 --seconds 30
    python lab/representation.py expression --train DATA_DIR/train/fer48.parquet \\
        --data DATA_DIR/validation/fer48.parquet

The backbone is frozen; what it gives is computed once, each head is then trained alone. Every n-th row is taken, so
that files sorted by label give all of them. "Quantized" latents hold what the codes hold: they tell what the quantizer
discards from what a way around the transformer gains.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gptface import DEFAULT_CHECKPOINT, GPTFaceForPreTraining
from gptface.data.classification_data import ClassificationData, load_classification_data, readable_crops
from gptface.data.code_dataset import spread_rows
from gptface.data.encode import pixels_from_images
from gptface.metrics.calibration import probabilities
from gptface.metrics.recognition_scores import attribute_scores, expression_scores
from gptface.modeling_gptface.heads_gptface import GPTFaceClassifier, GPTFaceConvolutionClassifier
from gptface.training.head_training import HeadTraining, fit_classifier, fresh_classifier

Features = dict[str, torch.Tensor]


class VectorHead(nn.Module):
    """One vector a face [B, H] → logits: norm and linear layer."""

    def __init__(self, size: int, labels: int):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, labels))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.layers(vectors)


class CellHead(nn.Module):
    """
    Attention pooling over the cells of states, of other features, or of their sum.

    Args:
        classifier: the head that reads vectors of the cells.
        channels: of the other features [B, N, C]; they are projected and get a position, which they do not tell; 0 =
            none.
    """

    def __init__(self, classifier: GPTFaceClassifier, size: int, cells: int, channels: int):
        super().__init__()
        self.classifier, self.size = classifier, size
        self.project = nn.Linear(channels, size) if channels else None
        self.position = nn.Parameter(0.02 * torch.randn(cells, size)) if channels else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """States and other features side by side [B, N, H + C] (either may be missing) → logits."""
        if self.project is None:
            return self.classifier(features)
        channels = self.project.in_features
        vectors = self.project(features[..., -channels:]) + self.position
        if features.shape[-1] > channels:
            vectors = vectors + features[..., :-channels]
        return self.classifier(vectors)


class GridHead(nn.Module):
    """The head that reads states and the vectors of the codes with convolutions."""

    def __init__(self, classifier: GPTFaceConvolutionClassifier, size: int):
        super().__init__()
        self.classifier, self.size = classifier, size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """States and vectors of the codes side by side [B, N, 2H] → logits."""
        return self.classifier(features[..., : self.size], features[..., self.size :])


@torch.no_grad()
def compute_features(
    model: GPTFaceForPreTraining, data: ClassificationData, rows: np.ndarray
) -> tuple[Features, np.ndarray]:
    """What the backbone and the image tokenizer give for some rows, as fp16, and their targets."""
    parts: list[Features] = []
    kept: list[int] = []
    tokenizer = model.image_tokenizer.to(memory_format=torch.channels_last)
    for start in range(0, len(rows), 16):
        crops = dict(readable_crops(data, rows[start : start + 16], tokenizer.config.image_size))
        if not crops:
            continue
        latents = tokenizer.latents(pixels_from_images(list(crops.values())))
        quantized, codes = tokenizer.quantizer(latents)
        outputs = model.gptface(image_codes=codes.flatten(1))
        parts.append(
            {
                "cls": outputs.pooler_output.half(),
                "states": model.split_states(outputs)[1].half(),
                "embedded": model.gptface.embeddings.embed_codes(codes.flatten(1)).half(),
                "latents": latents.flatten(2).mT.half(),
                "quantized": quantized.flatten(2).mT.half(),
            }
        )
        kept += list(crops)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, data.targets[kept]


def representations() -> Iterator[tuple[str, Callable[[Features], torch.Tensor], str | None]]:
    """(name, what a head reads of the features, which of them are no states, or that convolutions read them)."""
    yield "[CLS]", lambda f: f["cls"], None
    yield "mean of image states", lambda f: f["states"].float().mean(1), None
    yield "image states, attention", lambda f: f["states"], None
    yield "codes embedded, attention", lambda f: f["embedded"], "embedded"
    yield "latents, attention", lambda f: f["latents"], "latents"
    yield "states + quantized latents", lambda f: torch.cat([f["states"], f["quantized"]], -1), "quantized"
    yield "states + latents", lambda f: torch.cat([f["states"], f["latents"]], -1), "latents"
    yield "states + codes, convolutions", lambda f: torch.cat([f["states"], f["embedded"]], -1), "convolution"


def measure(
    model: GPTFaceForPreTraining, training: ClassificationData, validation: ClassificationData, options
) -> list[dict[str, Any]]:
    """A row of the table for each representation."""
    names, config = training.names, model.config
    features, targets = compute_features(model, training, spread_rows(len(training), options.train_rows))
    judged, truth = compute_features(model, validation, spread_rows(len(validation), options.rows))
    training_targets = torch.from_numpy(targets)
    table = []
    for name, read, other in representations():
        torch.manual_seed(options.seed)
        generator = torch.Generator().manual_seed(options.seed)
        inputs = read(features)
        reader = "convolution" if other == "convolution" else "attention"
        config.heads[options.head] = {"labels": names, "problem_type": training.problem_type, "reader": reader}
        classifier = fresh_classifier(config, options.head, training_targets, generator)
        if inputs.ndim == 2:
            head: nn.Module = VectorHead(config.hidden_size, len(names))
        elif isinstance(classifier, GPTFaceConvolutionClassifier):
            head = GridHead(classifier, config.hidden_size)
        else:
            channels = features[other].shape[-1] if other else 0
            head = CellHead(classifier, config.hidden_size, config.num_image_tokens, channels)
        history = fit_classifier(
            lambda batch, head=head: head(batch.float()),
            head.parameters(),
            inputs,
            training_targets,
            generator,
            HeadTraining(),
            options.seconds,
        )
        head.eval()
        with torch.no_grad():
            logits = torch.cat([head(batch.float()) for batch in read(judged).split(64)]).numpy()
        scores = probabilities(logits, training.multi_label)
        report = (attribute_scores if training.multi_label else expression_scores)(scores, truth, names)
        keys = ("accuracy", "balanced_accuracy", "f1", "ap", "ece")
        table.append({"representation": name, "epochs": len(history), **{k: report[k] for k in keys if k in report}})
        if not options.json:
            print_row(table)
    return table


def print_row(table: list[dict[str, Any]]) -> None:
    """The newest row, with the head of the table before the first."""
    row = table[-1]
    if len(table) == 1:
        print("".join(f"{key:<30}" if key == "representation" else f"{key:>19}" for key in row))
    print("".join(f"{v:<30}" if isinstance(v, str) else f"{v:>19.4g}" for v in row.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=["attributes", "expression"])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--train-rows", type=int, help="most training faces")
    parser.add_argument("--rows", type=int, help="most validation faces")
    parser.add_argument("--seconds", type=float, default=30, help="training time of each head")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    model = GPTFaceForPreTraining.from_pretrained(options.model).eval()
    multi_label = options.head == "attributes"
    names = model.config.heads[options.head]["labels"]
    training, validation = (
        load_classification_data([path], multi_label, names=names) for path in (options.train, options.data)
    )
    if training.names != validation.names:
        raise ValueError(f"{options.train} and {options.data} have other labels")
    table = measure(model, training, validation, options)
    if options.json:
        print(json.dumps({"head": options.head, "seconds": options.seconds, "table": table}))


if __name__ == "__main__":
    main()
