"""Few-shot protocol: 1 %, 10 % and 100 % of the training labels, three seeds, all methods for the same minutes.

    python benchmarks/few_shot.py attributes --train DATA_DIR/train/celeba178.parquet \\
        --data DATA_DIR/validation/celeba178.parquet --results few_shot.json --minutes 5

Methods: `pretrained` (the checkpoint's transformer with a fresh head), `scratch` (the same with random weights) and `vit` (a
transformers ViT of the same width and depth on the same crops, from scratch). All train on the same rows and mirror images with
AdamW, warm-up and cosine over the minutes. Each finished cell is written into the results, and a stopped run goes on behind it.
GPTFace reads codes, which are made once and kept beside the results; that time is given as `encoding_seconds`.

Captions are made from labels: a checkpoint whose pre-training saw captions of these very faces has seen all of their labels.
For a claim about few labels, give with `--model` one that has not.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from gptface import DEFAULT_CHECKPOINT, GPTFaceForFaceAttributeClassification, GPTFaceForFacialExpression
from gptface.evaluation.calibration import choose_thresholds, probabilities
from gptface.evaluation.scores import attribute_scores, expression_scores
from gptface.modeling_gptface.heads_gptface import GPTFaceForImageClassification
from gptface.training.classification_data import ClassificationData, load_classification_data
from gptface.training.encode import encode_images
from gptface.training.heads import HeadTraining, fit_classifier, fresh_classifier

METHODS = ("pretrained", "scratch", "vit")
FIGURES = ("accuracy", "balanced_accuracy", "f1")
MODELS = {"attributes": GPTFaceForFaceAttributeClassification, "expression": GPTFaceForFacialExpression}


def load_crops(
    path: Path, multi_label: bool, names: list[str], size: int, limit: int | None
) -> tuple[np.ndarray, ClassificationData]:
    """Crops [rows, size, size, 3] uint8 and the labels; at most `limit` rows, evenly spread."""
    data = load_classification_data([path], multi_label, names=names)
    rows = np.linspace(0, len(data) - 1, min(len(data), limit or len(data))).astype(int)
    data.pictures, data.layouts = [data.pictures[row] for row in rows], [data.layouts[row] for row in rows]
    data.targets = data.targets[rows]
    return np.stack([np.asarray(data.crop(row, size)) for row in range(len(data))]), data


def cached_codes(model: GPTFaceForImageClassification, crops: np.ndarray, file: Path) -> torch.Tensor:
    """Codes of the crops and their mirror images [rows, 2, cells], made once."""
    from PIL import Image

    stamp = np.array([model.image_tokenizer.fingerprint(), str(len(crops))])
    if file.exists():
        with np.load(file) as stored:
            if (stored["stamp"] == stamp).all():
                return torch.from_numpy(stored["codes"].astype(np.int64))
    tokenizer = model.image_tokenizer.to(memory_format=torch.channels_last)
    codes = [encode_images(tokenizer, [Image.fromarray(crop) for crop in side]) for side in (crops, crops[:, :, ::-1])]
    unfinished = file.with_suffix(".tmp.npz")
    np.savez(unfinished, codes=np.stack(codes, 1), stamp=stamp)
    os.replace(unfinished, file)
    return torch.from_numpy(np.stack(codes, 1).astype(np.int64))


def few_rows(targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """About `share` of the rows, drawn from the seed; of exclusive classes at least one row each."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(targets))
    count = max(1, round(share * len(targets)))
    chosen = order[:count]
    if targets.ndim == 1:
        firsts = [order[np.flatnonzero(targets[order] == label)[0]] for label in np.unique(targets[targets >= 0])]
        chosen = np.union1d(chosen, firsts)
    return np.sort(chosen)


def make_method(
    method: str, kind: str, checkpoint: str, data: ClassificationData, targets: torch.Tensor, seed: int
) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    """A model, and what maps a batch of its inputs to logits."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = MODELS[kind].from_pretrained(checkpoint)
    if method == "vit":
        config = model.config
        tokenizer = config.image_tokenizer_config
        vit = ViTForImageClassification(
            ViTConfig(
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                intermediate_size=config.intermediate_size,
                image_size=tokenizer.image_size,
                patch_size=tokenizer.downsample_factor,
                num_labels=len(data.names),
            )
        )
        return vit, lambda pixels: vit(pixel_values=pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).logits
    if method == "scratch":
        tokenizer_weights = model.image_tokenizer.state_dict()
        model = MODELS[kind](model.config)
        model.image_tokenizer.load_state_dict(tokenizer_weights)
    model.classifiers[kind] = fresh_classifier(model.config, targets, data.names, generator)
    head = model.classifiers[kind]
    return model, lambda codes: head(model.split_states(model.gptface(image_codes=codes))[1])


def run_cell(
    method: str,
    kind: str,
    options: argparse.Namespace,
    data: ClassificationData,
    inputs: torch.Tensor,
    validation: tuple[torch.Tensor, np.ndarray],
    share: float,
    seed: int,
) -> dict[str, Any]:
    """Trains one method on a share of the labels for the minutes and measures it. `inputs` are [rows, 2 sides, …]."""
    rows = few_rows(data.targets, share, seed)
    targets = torch.from_numpy(data.targets[rows])
    model, classify = make_method(method, kind, options.model, data, targets, seed)
    model.train()
    generator = torch.Generator().manual_seed(seed)

    def classify_a_side(chosen: torch.Tensor) -> torch.Tensor:
        sides = torch.randint(2, (len(chosen),), generator=generator)
        return classify(inputs[chosen, sides])

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = HeadTraining(
        batch_size=min(options.batch_size, len(rows)), learning_rate=options.learning_rate, max_grad_norm=1.0
    )
    history = fit_classifier(
        classify_a_side, parameters, torch.from_numpy(rows), targets, generator, training, 60 * options.minutes
    )
    model.eval()
    with torch.no_grad():
        logits = torch.cat([classify(batch) for batch in validation[0].split(32)]).numpy()
    scores = probabilities(logits, data.multi_label)
    if data.multi_label:
        # thresholds are chosen on the labels that the method was given
        report = attribute_scores(scores, validation[1], data.names, choose_thresholds(data.targets[rows]))
    else:
        report = expression_scores(scores, validation[1], data.names)
    size = sum(parameter.numel() for parameter in parameters)
    return {"rows": len(rows), "epochs": len(history), "parameters": size, **{name: report[name] for name in FIGURES}}


def summary(cells: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds for each method and share."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, cell in cells.items():
        method, share, _ = key.split("/")
        groups.setdefault((share, method), []).append(cell)
    table = []
    for (share, method), rows in groups.items():
        row: dict[str, Any] = {"labels": share, "method": method, "seeds": len(rows)}
        for name in FIGURES:
            values = [cell[name] for cell in rows if cell[name] is not None]
            row[name] = f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}" if values else "-"
        table.append(row)
    return table


def write_results(results: dict[str, Any], file: Path) -> None:
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(results, indent=1))
    os.replace(unfinished, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=["attributes", "expression"])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True, help="JSON file of the finished cells")
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--minutes", type=float, default=5, help="training time of a cell")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--train-rows", type=int, help="take 100 % to be so many rows")
    parser.add_argument("--rows", type=int, help="measure on so many rows")
    options = parser.parse_args()

    protocol = {
        name: str(getattr(options, name))
        for name in ("head", "train", "data", "model", "minutes", "batch_size", "learning_rate", "train_rows", "rows")
    }
    results: dict[str, Any] = {"protocol": protocol, "cells": {}}
    if options.results.exists():
        results = json.loads(options.results.read_text())
        if results["protocol"] != protocol:
            raise SystemExit(
                f"{options.results} holds cells of another protocol, {results['protocol']}: name another file"
            )
    multi_label = options.head == "attributes"
    model = MODELS[options.head].from_pretrained(options.model)
    names = list(model.config.heads[options.head]["labels"])
    size = model.config.image_tokenizer_config.image_size
    sets = {}
    start = time.monotonic()
    for part, path, limit in (("train", options.train, options.train_rows), ("data", options.data, options.rows)):
        crops, data = load_crops(path, multi_label, names, size, limit)
        codes = cached_codes(model, crops, options.results.with_name(f"{options.results.stem}_{part}.npz"))
        sets[part] = (torch.from_numpy(np.stack([crops, crops[:, :, ::-1]], 1)), codes, data)
    results.setdefault("encoding_seconds", round(time.monotonic() - start, 1))
    pixels, codes, data = sets["train"]
    # seeds outermost: a run that is stopped early holds every row of the table once
    for seed, share, method in itertools.product(range(options.seeds), options.shares, options.methods):
        key = f"{method}/{share:g}/{seed}"
        if key not in results["cells"]:
            kind = 0 if method == "vit" else 1
            judged = sets["data"][kind][:, 0], sets["data"][2].targets
            cell = run_cell(method, options.head, options, data, pixels if kind == 0 else codes, judged, share, seed)
            results["cells"][key] = cell
            write_results(results, options.results)
            print(key, json.dumps(cell), flush=True)
    table = summary(results["cells"])
    for row in [dict(zip(table[0], table[0], strict=True)), *table]:
        print("  ".join(f"{value!s:<18}" for value in row.values()))


if __name__ == "__main__":
    main()
