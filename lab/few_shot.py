"""Few-shot protocol: 1 %, 10 % and 100 % of the training labels, three seeds, all methods for the same minutes.

    python lab/few_shot.py attributes --train DATA_DIR/train/celeba178.parquet \\
        --data DATA_DIR/validation/celeba178.parquet --results few_shot.json --minutes 5

Methods: `pretrained` (the checkpoint's transformer with a fresh head), `scratch` (the same with random weights) and
`vit` (a transformers ViT of the same width and depth on the same crops, from scratch). All train on the same rows and
mirror images with AdamW, warm-up and cosine over the minutes. Each finished cell is written into the results, and a
stopped run goes on behind it. GPTFace reads pixels where the checkpoint has a pixel reader (`--input codes`: it reads
codes), which `scratch` starts at random too. Codes are made once and kept beside the results; that time is given as
`encoding_seconds`.

Of several `--learning-rates` each method takes the one that is best on training faces: trained on the first of the
shares without a tenth of the people, judged on these. `--layer-decays` are tried likewise for `pretrained` and for
`scratch`; 0 trains the head alone, which makes several times as many steps in the same minutes: `scratch` with it
tells what of a gain is pre-training and what is steps.

Captions are made from labels: a checkpoint whose pre-training saw captions of these very faces has seen all of their
labels. For a claim about few labels, give with `--model` one that has not.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from gptface import (
    DEFAULT_CHECKPOINT,
    GPTFaceConfig,
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
)
from gptface.data.classification_data import ClassificationData, load_classification_data
from gptface.data.code_dataset import spread_rows
from gptface.data.encode import encode_images
from gptface.data.phrases import EMOTION_PHRASES, PHRASES
from gptface.metrics.calibration import choose_thresholds, probabilities
from gptface.metrics.recognition_scores import attribute_scores, expression_scores
from gptface.modeling_gptface.configuration_gptface import INPUTS
from gptface.modeling_gptface.heads_gptface import GPTFaceForImageClassification
from gptface.processing.whole_files import whole_file, write_text
from gptface.training.finetuning import distance_from_head
from gptface.training.head_training import HeadTraining, fit_classifier, fresh_classifier

METHODS = ("pretrained", "scratch", "vit")
FIGURES = ("accuracy", "balanced_accuracy", "f1")
MODELS = {"attributes": GPTFaceForFaceAttributeClassification, "expression": GPTFaceForFacialExpression}
#: Of a checkpoint that has no such head yet.
LABELS = {"attributes": list(PHRASES), "expression": list(EMOTION_PHRASES)}
#: What learning rates are chosen by: accuracy rewards a method that always says what is common.
CHOSEN_BY = "balanced_accuracy"


class Setting(NamedTuple):
    """How a method is trained."""

    learning_rate: float
    layer_decay: float = 1.0


def load_crops(
    path: Path, multi_label: bool, names: list[str], size: int, limit: int | None
) -> tuple[np.ndarray, ClassificationData]:
    """Crops [rows, size, size, 3] uint8 and the labels; at most `limit` rows, evenly spread."""
    data = load_classification_data([path], multi_label, names=names, search=True)
    rows = spread_rows(len(data), limit)
    data.pictures, data.layouts = [data.pictures[row] for row in rows], [data.layouts[row] for row in rows]
    data.targets = data.targets[rows]
    data.people = None if data.people is None else data.people[rows]
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
    with whole_file(file) as unfinished:
        np.savez(unfinished, codes=np.stack(codes, 1), stamp=stamp)
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
    method: str, kind: str, read: str, checkpoint: str, data: ClassificationData, targets: torch.Tensor, seed: int
) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    """A model whose head reads codes or pixels, and what maps a batch of its inputs to logits."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = load_model(kind, checkpoint, data.names)
    model.config.heads = {**model.config.heads, kind: {**model.config.heads[kind], "input": read}}
    model.freeze_unused_parts()
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
        return vit, lambda crops: vit(pixel_values=pixels_of(crops)).logits
    if method == "scratch":
        tokenizer_weights = model.image_tokenizer.state_dict()
        model = MODELS[kind](model.config)
        model.image_tokenizer.load_state_dict(tokenizer_weights)
    model.classifiers[kind] = fresh_classifier(model.config, kind, targets, generator)
    if read == "pixels":
        return model, lambda crops: model.classify(kind, model.read_for(kind, pixels_of(crops)))
    return model, lambda codes: model.classify(kind, model.read_for(kind, image_codes=codes))


def pixels_of(crops: torch.Tensor) -> torch.Tensor:
    """Crops [B, S, S, 3] uint8 → pixels [B, 3, S, S] in [-1, 1]."""
    return crops.permute(0, 3, 1, 2).float() / 127.5 - 1


def load_model(kind: str, checkpoint: str, names: list[str]) -> GPTFaceForImageClassification:
    """A checkpoint with the head of these labels, which it need not have."""
    id2label = dict(enumerate(names))
    label2id = {name: index for index, name in id2label.items()}
    return MODELS[kind].from_pretrained(checkpoint, id2label=id2label, label2id=label2id, ignore_mismatched_sizes=True)


def parameter_groups(model: nn.Module, layer_decay: float) -> list[dict[str, Any]]:
    """
    The trained parameters, with the share of the learning rate that layers far from the head get; 0 freezes them.
    """
    if layer_decay == 1:
        return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if layer_decay == 0 and name.startswith("gptface."):
            parameter.requires_grad_(False)  # no gradient is computed for what does not change
        if parameter.requires_grad:
            groups.setdefault(distance_from_head(name, model.config.num_hidden_layers), []).append(parameter)
    return [{"params": parameters, "scale": layer_decay**distance} for distance, parameters in groups.items()]


def train_and_measure(
    method: str,
    setting: Setting,
    options: argparse.Namespace,
    minutes: float,
    data: ClassificationData,
    inputs: torch.Tensor,
    rows: np.ndarray,
    judged: tuple[torch.Tensor, np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """Trains a method on some rows of the data for the minutes and measures it. `inputs` are [rows, 2 sides, …]."""
    targets = torch.from_numpy(data.targets[rows])
    model, classify = make_method(method, options.head, options.input, options.model, data, targets, seed)
    model.train()
    generator = torch.Generator().manual_seed(seed)

    def classify_a_side(chosen: torch.Tensor) -> torch.Tensor:
        sides = torch.randint(2, (len(chosen),), generator=generator)
        return classify(inputs[chosen, sides])

    size = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    training = HeadTraining(
        batch_size=min(options.batch_size, len(rows)), learning_rate=setting.learning_rate, max_grad_norm=1.0
    )
    history = fit_classifier(
        classify_a_side,
        parameter_groups(model, setting.layer_decay),
        torch.from_numpy(rows),
        targets,
        generator,
        training,
        60 * minutes,
    )
    model.eval()
    with torch.no_grad():
        logits = torch.cat([classify(batch) for batch in judged[0].split(32)]).numpy()
    scores = probabilities(logits, data.multi_label)
    if data.multi_label:
        # thresholds are chosen on the labels that the method was given
        report = attribute_scores(scores, judged[1], data.names, choose_thresholds(data.targets[rows]))
    else:
        report = expression_scores(scores, judged[1], data.names)
    return {"rows": len(rows), "epochs": len(history), "parameters": size, **{name: report[name] for name in FIGURES}}


def choose_setting(
    method: str, options: argparse.Namespace, data: ClassificationData, inputs: torch.Tensor
) -> tuple[Setting, dict[str, float]]:
    """The best setting on people of the training data that are not trained on, and what each setting reached there."""
    decays = [1.0] if method == "vit" else options.layer_decays
    settings = [Setting(*pair) for pair in itertools.product(options.learning_rates, decays)]
    if len(settings) == 1:
        return settings[0], {}
    kept, held_out = data.split(np.arange(len(data)), 0.1, seed=0)
    held_out = held_out[spread_rows(len(held_out), options.choice_rows)]
    rows = kept[few_rows(data.targets[kept], options.shares[0], seed=0)]
    judged = inputs[held_out, 0], data.targets[held_out]
    minutes = options.choice_minutes or options.minutes
    reached = [
        train_and_measure(method, setting, options, minutes, data, inputs, rows, judged, seed=0)[CHOSEN_BY] or 0
        for setting in settings
    ]
    names = [f"learning rate {setting.learning_rate:g}, layer decay {setting.layer_decay:g}" for setting in settings]
    return settings[int(np.argmax(reached))], dict(zip(names, reached, strict=True))


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
    write_text(file, json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=["attributes", "expression"])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True, help="JSON file of the finished cells")
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--input", choices=INPUTS, help="what GPTFace reads; pixels where it has a reader of them")
    parser.add_argument("--minutes", type=float, default=5, help="training time of a cell")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[5e-4])
    parser.add_argument("--layer-decays", type=float, nargs="+", default=[1.0], help="of GPTFace; 0 = head alone")
    parser.add_argument("--choice-minutes", type=float, help="training time of each setting tried; that of a cell")
    parser.add_argument("--choice-rows", type=int, help="most training faces that settings are judged on")
    parser.add_argument("--train-rows", type=int, help="take 100 % to be so many rows")
    parser.add_argument("--rows", type=int, help="measure on so many rows")
    options = parser.parse_args()
    config = GPTFaceConfig.from_pretrained(options.model)
    options.input = options.input or ("codes" if config.image_reader is None else "pixels")
    if options.input == "pixels" and config.image_reader is None:
        parser.error(f"--input pixels: {options.model} has no pixel reader")

    # the cells of a file share all but these
    extent = ("results", "shares", "seeds", "methods")
    protocol = {name: str(value) for name, value in vars(options).items() if name not in extent}
    results: dict[str, Any] = {"protocol": protocol, "choices": {}, "cells": {}}
    if options.results.exists():
        results = json.loads(options.results.read_text())
        if results["protocol"] != protocol:
            raise SystemExit(
                f"{options.results} holds cells of another protocol, {results['protocol']}: name another file"
            )
    multi_label = options.head == "attributes"
    names = list(config.heads[options.head]["labels"]) if options.head in config.heads else LABELS[options.head]
    model = load_model(options.head, options.model, names)
    size = model.config.image_tokenizer_config.image_size
    sets = {}
    start = time.monotonic()
    for part, path, limit in (("train", options.train, options.train_rows), ("data", options.data, options.rows)):
        crops, data = load_crops(path, multi_label, names, size, limit)
        pixels = torch.from_numpy(np.stack([crops, crops[:, :, ::-1]], 1))
        codes = pixels
        if options.input == "codes":
            codes = cached_codes(model, crops, options.results.with_name(f"{options.results.stem}_{part}.npz"))
        sets[part] = {"vit": pixels, "gptface": codes}, data
    results.setdefault("encoding_seconds", round(time.monotonic() - start, 1))
    inputs, data = sets["train"]
    judged_inputs, judged_data = sets["data"]
    for method in options.methods:
        if method not in results["choices"]:
            setting, reached = choose_setting(method, options, data, inputs["vit" if method == "vit" else "gptface"])
            results["choices"][method] = {"setting": setting._asdict(), "reached": reached}
            write_results(results, options.results)
            print(method, json.dumps(results["choices"][method]), flush=True)
    # seeds outermost: a run that is stopped early holds every row of the table once
    for seed, share, method in itertools.product(range(options.seeds), options.shares, options.methods):
        key = f"{method}/{share:g}/{seed}"
        if key not in results["cells"]:
            kind = "vit" if method == "vit" else "gptface"
            judged = judged_inputs[kind][:, 0], judged_data.targets
            setting = Setting(**results["choices"][method]["setting"])
            rows = few_rows(data.targets, share, seed)
            cell = train_and_measure(method, setting, options, options.minutes, data, inputs[kind], rows, judged, seed)
            results["cells"][key] = cell
            write_results(results, options.results)
            print(key, json.dumps(cell), flush=True)
    table = summary(results["cells"])
    for row in [dict(zip(table[0], table[0], strict=True)), *table]:
        print("  ".join(f"{value!s:<18}" for value in row.values()))


if __name__ == "__main__":
    main()
