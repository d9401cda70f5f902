"""A pre-training step with all terms on an accelerator: sequences a second and model FLOPs utilisation, compiled, in
bfloat16.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gptface.training.pretraining import train_vocabulary

from .all_terms_process import TEXT_LENGTH, make_collator, make_model, make_table
from .models import FULL, Size

BATCHES = (256, 1024)
#: Sequences a second that a model of the embedded size should reach.
TARGET = 5000
#: Dense products in bfloat16, FLOP a second, by a part of the device's name.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


def steps(size: Size, rounds: int) -> list[dict[str, Any]]:
    """A result for each batch size; without an accelerator one that says so."""
    if not torch.cuda.is_available():
        return [{"case": "no GPU", "contenders": [], "claims": [], "notes": ["left out: it needs a CUDA device"]}]
    return list(_on_device(size, "cuda", BATCHES if size is FULL else (4,), rounds))


def _on_device(
    size: Size, device: str, batches: tuple[int, ...], rounds: int, compiled: bool = True
) -> Iterator[dict[str, Any]]:
    table = make_table(size.tokens)
    tokenizer = train_vocabulary(table, 700, TEXT_LENGTH, captions=2000)
    shape = (size.tokens, size.width, size.layers, size.heads, size.feed_forward)
    for batch in batches:
        collator = make_collator(table, tokenizer, batch, captions=64, pairs=batch)
        inputs = collator([{"row": row % len(table), "id": row, "epoch": 0} for row in range(batch)])
        inputs.pop("label_counts")
        flops = count_flops(make_model(tokenizer, *shape), inputs)
        model = make_model(tokenizer, *shape).to(device)
        seconds = time_step(model, _moved(inputs, device), device, rounds, compiled)
        notes = [f"{flops / batch / 1e9:.2f} GFLOP a sequence, forward and backward; matrix products in bfloat16."]
        name = torch.cuda.get_device_name() if device == "cuda" else device
        peak = next((peak for part, peak in PEAKS.items() if part in name), None)
        if peak is not None:
            notes.append(f"{flops / seconds / peak:.1%} of the {peak / 1e12:.0f} TFLOP a second of {name}.")
        speed = batch / seconds
        claim = {"peer": f"a target on {name}", "what": "sequences", "ratio": speed / TARGET, "per_second": speed}
        yield {
            "case": f"all terms, batch {batch}, {size.tokens} cells",
            "contenders": [],
            "claims": [claim | {"target": 1.0, "met": speed >= TARGET}],
            "notes": notes,
            "seconds": seconds,
            "flops": flops,
        }


def count_flops(model: Any, inputs: dict[str, Any]) -> int:
    """Of a forward and backward, attention as the matrix products that it is; on shapes alone."""
    model = model.to("meta")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**_moved(inputs, "meta")).loss.backward()
    return counter.get_total_flops()


def time_step(model: Any, inputs: dict[str, Any], device: str, rounds: int, compiled: bool = True) -> float:
    """Seconds of a step: the least of some rounds of ten, after those in which the compiler works."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    forward = torch.compile(model, fullgraph=True) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = forward(**inputs).loss
        loss.backward()
        optimizer.step()

    def wait() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(3):
        step()
    seconds = []
    for _ in range(rounds):
        start = wait()
        for _ in range(10):
            step()
        seconds.append((wait() - start) / 10)
    return min(seconds)


def _moved(inputs: dict[str, Any], device: str) -> dict[str, Any]:
    return {
        name: _moved(value, device) if isinstance(value, dict) else value.to(device) for name, value in inputs.items()
    }
