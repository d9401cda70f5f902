"""How time grows with tokens, batch, steps, guidance iterations and threads, as a table and a plot."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gptface import GPTFaceForGuidedGeneration

from .models import FULL, Size, gptface, masked_batch
from .pretraining_step import training_step


def _fastest(run: Callable[[], Any], rounds: int) -> float:
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def scaling(size: Size, rounds: int, threads: int) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Axis → curve → (value, seconds)."""
    full = size is FULL
    cells = (8, 12, 16, 24) if full else (2, 4)
    batches = (1, 2, 4, 8, 16) if full else (1, 2)
    steps = (1, 2, 4, 8, 12, 16) if full else (1, 2)
    found: dict[str, dict[str, list[tuple[int, float]]]] = {
        axis: {} for axis in ("tokens", "batch", "steps", "guidance iterations")
    }
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        label = f"{count} thread{'s' if count > 1 else ''}"
        found["tokens"][f"training step, batch 2, {label}"] = [
            (sized.tokens + sized.text_length, _fastest(_training(sized, 2), rounds))
            for sized in (_with_cells(size, side) for side in cells)
        ]
        found["batch"][f"training step, {label}"] = [
            (batch, _fastest(_training(size, batch), rounds)) for batch in batches
        ]
        edit = _edit(size)
        found["steps"][f"edit, {label}"] = [(number, _fastest(partial(edit, number, 0), rounds)) for number in steps]
        found["guidance iterations"][f"edit, {size.steps} steps, {label}"] = [
            (number, _fastest(partial(edit, size.steps, number), rounds)) for number in (0, 1, 2, 3)
        ]
    torch.set_num_threads(threads)
    return found


def _with_cells(size: Size, side: int) -> Size:
    return Size(**{**size.__dict__, "cells": side})


def _training(size: Size, batch: int) -> Callable[[], None]:
    inputs = masked_batch(size, batch)
    return training_step(gptface(size), lambda: inputs)


def _edit(size: Size) -> Callable[[int, int], Any]:
    model = gptface(size, GPTFaceForGuidedGeneration, match_trained=True).eval()
    prompt = torch.full((1, min(16, size.text_length)), 4)
    codes = torch.zeros(1, size.tokens, dtype=torch.long)
    mask = torch.arange(size.tokens)[None] < size.tokens // 4

    def edit(steps: int, iterations: int) -> Any:
        return model.generate(
            prompt,
            image_codes=codes,
            image_mask=mask,
            num_inference_steps=steps,
            itm_guidance={"iterations": iterations} if iterations else None,
            generator=torch.Generator().manual_seed(0),
        )

    return edit


def plot(found: dict[str, dict[str, list[tuple[int, float]]]], target: Path) -> None:
    """One panel an axis. Raises `ImportError` where matplotlib is missing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(4.5 * len(found), 3.6), constrained_layout=True)
    for panel, (axis, curves) in zip(panels, found.items(), strict=True):
        for label, points in curves.items():
            panel.plot(*zip(*points, strict=True), marker="o", label=label)
        panel.set(xlabel=axis, ylabel="seconds", ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
