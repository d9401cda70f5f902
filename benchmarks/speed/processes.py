"""Work that needs a process of its own: peak memory of a training step, time of an import."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from .models import FULL, Size

ROOT = Path(__file__).parents[2]
IMPORTS = {
    "import gptface": "import gptface",
    "from transformers import pipeline, AutoModel": "from transformers import pipeline, AutoModel",
}


def imports(rounds: int) -> dict[str, Any]:
    """Seconds of the imports in fresh processes that alternate, the start of Python taken off."""
    wall: dict[str, list[float]] = {name: [] for name in ("pass", *IMPORTS)}
    cpu: dict[str, list[float]] = {name: [] for name in wall}
    for round_number in range(rounds + 1):
        for name in wall:
            code = f"{IMPORTS.get(name, name)}\nimport time\nprint(time.process_time())"
            start = time.perf_counter()
            run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
            if round_number:  # the first fills the caches of the file system
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(float(run.stdout.split()[-1]))
    result: dict[str, Any] = {"case": "in fresh processes, without the start of Python", "notes": []}
    result["contenders"] = [
        {
            "name": name,
            "wall_min": min(wall[name]) - min(wall["pass"]),
            "wall_median": median(wall[name]) - median(wall["pass"]),
            "cpu_min": min(cpu[name]) - min(cpu["pass"]),
            "cpu_median": median(cpu[name]) - median(cpu["pass"]),
        }
        for name in IMPORTS
    ]
    ours, peer = result["contenders"]
    ratio = ours["cpu_min"] / peer["cpu_min"]
    result["claims"] = [
        {"peer": peer["name"], "what": "CPU time (less is better)", "ratio": ratio, "target": 1.2, "met": ratio <= 1.2}
    ]
    return result


def memory(size: Size, batch: int, threads: int) -> dict[str, Any]:
    """Peak of resident memory in a training step beyond what the process held with its model, in MiB."""
    peaks = {}
    for name in ("GPTFaceForPreTraining", "BertForMaskedLM"):
        call = f"report_memory({name!r}, {size is FULL}, {batch}, {threads})"
        code = f"from benchmarks.speed import processes; processes.{call}"
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        peaks[name] = json.loads(run.stdout.splitlines()[-1])
    ours, peer = peaks.values()
    ratio = ours["step"] / peer["step"]
    notes = [
        f"{name}: {held['step']:.0f} MiB for a step, {held['process']:.0f} MiB in all" for name, held in peaks.items()
    ]
    target = {"peer": "BertForMaskedLM", "what": "memory of a step (less is better)", "ratio": ratio, "target": 0.6}
    return {
        "case": f"batch {batch}",
        "contenders": [],
        "claims": [target | {"met": ratio <= 0.6}],
        "notes": notes,
        "mebibytes": peaks,
    }


def report_memory(name: str, full: bool, batch: int, threads: int) -> None:
    """Runs in the process of its own: prints the peak of its memory as JSON."""
    import torch

    from .models import TINY, bert, gptface, joint_batch, masked_batch
    from .pretraining_step import training_step

    torch.set_num_threads(threads)
    size = FULL if full else TINY
    inputs = masked_batch(size, batch)
    if name == "BertForMaskedLM":
        model, inputs = bert(size), joint_batch(inputs, size)
    else:
        model = gptface(size)
    step = training_step(model, lambda: inputs)
    held = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(2):  # the second has the optimizer's state beside the activations
        step()
    peak = _status("VmHWM")
    print(json.dumps({"step": peak - held, "process": peak}))


def _status(field: str) -> float:
    """A number of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
