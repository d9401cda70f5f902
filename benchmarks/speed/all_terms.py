"""A pre-training step with all terms of the loss beside the implementation that it took the place of, out of git, in
the same run.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from .models import FULL, Size
from .timing import Claim, Comparison, Contender

ROOT = Path(__file__).parents[2]
#: The last commit whose step looped over attributes and samples: no graph, and shapes that depended on the data.
BEFORE = "42198a390ff02958dc4bcc2dcb0f4d558f5eb684"
BATCH = 16


class StepProcess:
    """
    One implementation, see [`all_terms_process`], in a process of its own.

    Args:
        tree: folder of its source.
    """

    def __init__(self, tree: Path, size: Size, batch: int):
        shape = (size.tokens, size.width, size.layers, size.heads, size.feed_forward, batch, torch.get_num_threads())
        script = Path(__file__).with_name("all_terms_process.py")
        # the interpreter keeps its own path off, for the script's folder is part of another tree
        code = f"import runpy, sys; sys.argv[1:] = {[str(number) for number in shape]!r}; "
        code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def __call__(self, command: str) -> Any:
        """Has it do something and waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of a step ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def export(commit: str, folder: Path) -> None:
    """
    Writes the tree of a commit into a folder.

    Raises:
        LookupError: no git, or a clone without this commit.
    """
    try:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError(f"commit {commit[:7]} is not to be had from git ({error})") from error
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def comparisons(size: Size, mask_ratio: float = 0.15) -> Iterator[Comparison]:
    """The step, and the making of its batches."""
    batch = BATCH if size is FULL else 4
    with ExitStack() as stack:
        notes, processes = [], {"GPTFaceForPreTraining": StepProcess(ROOT, size, batch)}
        stack.callback(processes["GPTFaceForPreTraining"].close)
        try:
            tree = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            export(BEFORE, tree)
            processes[before := f"before ({BEFORE[:7]})"] = StepProcess(tree, size, batch)
            stack.callback(processes[before].close)
        except LookupError as error:
            notes.append(f"The implementation before is left out: {error}.")
        for name, process in processes.items():
            counts = process("operators")
            notes.append(
                f"{name}: {counts['forward'] + counts['backward']} operator calls a step "
                f"({counts['forward']} forward, {counts['backward']} backward), "
                f"{counts['without_views']} of them no views."
            )
        peers = list(processes)[1:]
        yield Comparison(
            f"all terms, batch {batch}, {size.tokens} cells",
            [_contender(name, process, "step") for name, process in processes.items()],
            [Claim(peer, "sequences", batch, batch, 1 / 0.75) for peer in peers],
            notes,
        )
        samples = processes["GPTFaceForPreTraining"]("collate")["samples"]
        yield Comparison(
            f"{samples} samples into a batch of all terms (1,000 a second and core: {samples} ms)",
            [_contender(name, process, "collate") for name, process in processes.items()],
            [Claim(peer, "samples", samples, samples) for peer in peers],
        )


def _contender(name: str, process: StepProcess, command: str) -> Contender:
    return Contender(name, lambda: process(command), clock=lambda: process("clock"))
