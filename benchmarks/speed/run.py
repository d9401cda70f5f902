"""
Speed beside what a user would take instead, as a table and as JSON:

python -m benchmarks.speed --output speed.json
python -m benchmarks.speed --rows editing classifier --rounds 15
python -m benchmarks.speed --rows --plot scaling.png
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).parents[2]))
    __package__ = "benchmarks.speed"

import torch
import transformers

from gptface.processing.whole_files import write_text

from . import (
    all_terms,
    classifier,
    data_loading,
    editing,
    gpu_step,
    masking,
    photo,
    pretraining_step,
    processes,
    scaling,
)
from .models import FULL, TINY
from .timing import measure, table

COMPARED = {
    "pretraining": pretraining_step,
    "all_terms": all_terms,
    "masking": masking,
    "editing": editing,
    "classifier": classifier,
    "photo": photo,
    "data": data_loading,
}
ROWS = (*COMPARED, "gpu", "memory", "import")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each contender, alternating (default: 7)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mask-ratio", type=float, default=0.15, help="masked share in training (default: 0.15)")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--plot", type=Path, help="PNG of how time grows; needs matplotlib")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that everything runs")
    options = parser.parse_args(arguments)
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the processes that this one starts
    size = TINY if options.tiny else FULL
    report: dict[str, Any] = {
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": sys.version.split()[0],
        },
        "machine": platform.processor() or platform.machine(),
        "threads": options.threads,
        "rounds": options.rounds,
        "size": size.__dict__,
        "rows": {},
    }
    for row in options.rows:
        if row in COMPARED:
            results = []
            for comparison in COMPARED[row].comparisons(size, options.mask_ratio):
                results.append(measure(comparison, options.rounds))
        elif row == "gpu":
            results = gpu_step.steps(size, options.rounds)
        elif row == "memory":
            results = [processes.memory(size, max(size.batches), options.threads)]
        else:
            results = [processes.imports(options.rounds)]
        report["rows"][row] = results
        print("\n".join(table(row, results)), flush=True)
        _write(report, options.output)
    if options.plot:
        report["scaling"] = scaling.scaling(size, options.rounds, options.threads)
        scaling.plot(report["scaling"], options.plot)
        _write(report, options.output)
    return 0


def _write(report: dict[str, Any], target: Path | None) -> None:
    if target is not None:
        write_text(target, json.dumps(report, indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
