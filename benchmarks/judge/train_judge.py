"""Trains the judge of edits on CelebA's attributes; about fifteen minutes on one core.

    python benchmarks/judge/train_judge.py DATA_DIR [--output benchmarks/judge/judge.safetensors]

Reads DATA_DIR/train/celeba178.parquet and celeba89.parquet, measures on DATA_DIR/validation/celeba178.parquet (other
people) and writes the weights (fp16) and a JSON file with labels and figures. Pictures are mirrored, moved,
recoloured, and a part of them blurred, shrunk, compressed or given noise, so that the judge reads what an image
tokenizer decodes.
"""

import argparse
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from gptface.data.encode import read_crop
from gptface.evaluation.judge import DEFAULT_JUDGE, AttributeJudge
from gptface.processing.whole_files import whole_file

SIDE = AttributeJudge.image_size
COLUMNS_THAT_ARE_NO_LABELS = ("image", "identity")


def read_faces(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A parquet file → crops uint8 [N, 64, 64, 3], labels float32 [N, L], names of the labels."""
    table = pq.read_table(path)
    labels = [name for name in table.column_names if name not in COLUMNS_THAT_ARE_NO_LABELS]
    pictures = [
        np.asarray(read_crop(value["bytes"], "celeba", 128).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for value in table["image"].to_pylist()
    ]
    targets = np.stack([table[name].to_numpy() for name in labels], 1).astype(np.float32)
    return np.stack(pictures), targets, labels


def degrade(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One of the ways in which a picture loses detail."""
    image = Image.fromarray(picture)
    kind = random.integers(4)
    if kind == 0:
        return np.asarray(image.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 1.5))))
    if kind == 1:
        side = int(random.integers(24, 56))
        return np.asarray(
            image.resize((side, side), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        )
    if kind == 2:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(random.integers(15, 70)))
        return np.asarray(Image.open(buffer))
    noise = random.normal(0, random.uniform(3, 14), picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def augment(pictures: np.ndarray, random: np.random.Generator) -> torch.Tensor:
    """uint8 [B, 64, 64, 3] → float [B, 3, 64, 64] in about [-1, 1]."""
    pictures = np.stack([degrade(each, random) if random.random() < 0.4 else each for each in pictures])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    size = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(random.uniform(low, high, (size, 1, 1, 1)).astype(np.float32))

    mirror = torch.from_numpy(random.choice([-1.0, 1.0], size).astype(np.float32))
    scale, shift = uniform(0.92, 1.08).flatten(), 0.08
    matrix = torch.zeros(size, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = mirror * scale, scale
    matrix[:, :, 2] = torch.from_numpy(random.uniform(-shift, shift, (size, 2)).astype(np.float32))
    grid = torch.nn.functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    pixels = torch.nn.functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    grey, mean = pixels.mean(1, keepdim=True), pixels.mean((1, 2, 3), keepdim=True)
    # Mild: hair colours and make-up are labels.
    pixels = grey + uniform(0.8, 1.2) * (pixels - grey)
    return mean + uniform(0.85, 1.15) * (pixels - mean) + uniform(-0.12, 0.12)


def figures(judge: AttributeJudge, pictures: np.ndarray, targets: np.ndarray) -> dict[str, dict[str, float]]:
    """Accuracy, balanced accuracy and AUC of each label that has both values."""
    scores = judge.probabilities([Image.fromarray(each) for each in pictures])
    result = {}
    for column, label in enumerate(judge.labels):
        truth, score = targets[:, column], scores[:, column]
        if 0 < truth.mean() < 1:
            result[label] = {
                "share": round(float(truth.mean()), 4),
                "accuracy": round(float(((score > 0.5) == truth).mean()), 4),
                "balanced_accuracy": round(float(balanced_accuracy_score(truth, score > 0.5)), 4),
                "auc": round(float(roc_auc_score(truth, score)), 4),
            }
    return result


def train(
    pictures: np.ndarray, targets: np.ndarray, labels: list[str], epochs: int, batch_size: int, seed: int
) -> AttributeJudge:
    """AdamW with one cycle of the learning rate; the result is a moving average of the weights."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    judge = AttributeJudge(labels).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        judge, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3, weight_decay=0.05)
    steps = len(pictures) // batch_size
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        order = random.permutation(len(pictures))
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            pixels = augment(pictures[rows], random).contiguous(memory_format=torch.channels_last)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(judge(pixels), torch.from_numpy(targets[rows]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            cycle.step()
            average.update_parameters(judge)
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / steps:.4f}, {time.perf_counter() - start:.0f} s", flush=True)
    return average.module.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=DEFAULT_JUDGE)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    parts = [read_faces(options.data / "train" / f"{name}.parquet") for name in ("celeba178", "celeba89")]
    pictures, targets = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    labels = parts[0][2]
    validation, truth, _ = read_faces(options.data / "validation" / "celeba178.parquet")
    judge = train(pictures, targets, labels, options.epochs, options.batch_size, options.seed)

    state = {
        name: tensor.half().contiguous() for name, tensor in judge.state_dict().items() if tensor.is_floating_point()
    }
    judge.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    random = np.random.default_rng(options.seed)
    degraded = np.stack([degrade(each, random) for each in validation])
    report = {
        "labels": labels,
        "trained_on": ["CelebA train/celeba178", "CelebA train/celeba89"],
        "terms": "non-commercial research, as the pictures",
        "validation": figures(judge, validation, truth),
        "validation_degraded": figures(judge, degraded, truth),
    }
    with whole_file(options.output) as unfinished:
        save_file(state, unfinished)
        os.chmod(unfinished, 0o644)  # safetensors writes for the owner alone
    options.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["validation"]))


if __name__ == "__main__":
    main()
