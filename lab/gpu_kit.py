"""
Makes ready what the GPU run carries along, in folders that git ignores, and proves that it runs.

    python lab/gpu_kit.py PACKS LPIPS [--target .gpu] [--prove]

`PACKS` is what `lab/pack_faces.py` wrote. Two loads of less than 64 MB with the repository itself, since more does not
travel at once: `a` (faces of 256 pixels, a part of the others, LPIPS in half precision) and `b` (the other faces).
With `--prove`, ten steps of everything run here first.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 64 * 2**20
LOADS = {"a": ("pack128_a", "pack256"), "b": ("pack128_b",)}
TINY = {
    "limit": 64,
    "copies": 2,
    "plan": {"steps": 4, "batch_size": 4, "latent_batch_size": 8},
    "parser": {"steps": 2, "batch_size": 4},
    "refiner": {"steps": 2, "settings": {"batch_size": 4}},
    "run_minutes": 2,
    "arguments": {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "bf16": False,
        "torch_compile": False,
        "dataloader_num_workers": 1,
        "logging_steps": 1,
        "save_steps": 2,
    },
}


def tree_bytes() -> int:
    """What of the repository travels."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sum((ROOT / name).stat().st_size for name in names.split("\0") if name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", type=Path)
    parser.add_argument("lpips", type=Path)
    parser.add_argument("--target", type=Path, default=ROOT / ".gpu")
    parser.add_argument("--prove", action="store_true")
    options = parser.parse_args()
    for load, names in LOADS.items():
        folder = options.target / load
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(options.packs / f"{name}.parquet", folder)
    half = {name: tensor.half() for name, tensor in load_file(options.lpips).items()}
    save_file(half, options.target / "a" / "lpips_alex.safetensors")
    for load in LOADS:
        carried = sum(path.stat().st_size for path in (options.target / load).iterdir())
        total = carried + tree_bytes()
        print(
            f"load {load}: {carried / 2**20:.1f} MiB, with the repository {total / 2**20:.1f} of {LIMIT / 2**20:.0f}"
        )
        if total > LIMIT:
            sys.exit("too much: make the packs smaller")
    if options.prove:
        work = options.target / "proof"
        command = [sys.executable, ROOT / "lab/gpu_run.py", "smoke", options.target / "a", work, work / "out"]
        subprocess.run([*map(str, command), "--device", "cpu", "--how", json.dumps(TINY)], check=True)


if __name__ == "__main__":
    main()
