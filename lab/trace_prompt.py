"""How many files a prompt passes on its way to the picture: python lab/trace_prompt.py "smiling" [--photo FILE]
[--model DIR].

One edit runs under `sys.setprofile`. A function counts once, however often it is called, and what it defines within
itself is part of it. A move is a call out of one of our files into another, and counts once for each two files; what
transformers or torch call in between is passed over.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT, load_pipeline

ROOT = Path(__file__).resolve().parents[1]
NETWORK = "modeling_gptface/"
PORTRAIT = ROOT / "examples" / "serious.jpg"

Function = tuple[str, str]


@dataclass
class Trace:
    """
    Args:
        functions: (file, function) in the order in which they were called first.
        moves: (file that calls, file that is called).
    """

    functions: dict[Function, None] = field(default_factory=dict)
    moves: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (called := own_function(frame)) is None:
            return
        self.functions.setdefault(called)
        caller = frame.f_back
        while caller is not None and (calling := own_function(caller)) is None:
            caller = caller.f_back
        if caller is not None and calling is not None and calling[0] != called[0]:
            self.moves.add((calling[0], called[0]))

    @property
    def files(self) -> list[str]:
        """The files, in the order in which they were reached."""
        return list(dict.fromkeys(file for file, _ in self.functions))


def own_function(frame: FrameType) -> Function | None:
    """
    File in the checkout and name of a frame's function; None of modules of others, of this one and of bodies of
    modules.
    """
    path = Path(frame.f_code.co_filename)
    if path == Path(__file__).resolve() or not path.is_relative_to(ROOT) or frame.f_code.co_name == "<module>":
        return None
    return path.relative_to(ROOT).as_posix(), frame.f_code.co_qualname.partition(".<locals>")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--photo", type=Path, default=PORTRAIT)
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    options = parser.parse_args()
    edit = load_pipeline("guided-face-editing", options.model)
    trace = Trace()
    sys.setprofile(trace)
    try:
        edit(str(options.photo), prompt=options.prompt, seed=0)
    finally:
        sys.setprofile(None)
    functions = Counter(file for file, _ in trace.functions)
    for file in trace.files:
        from_here = sorted(Path(called).stem for calling, called in trace.moves if calling == file)
        print(f"{file:46} {functions[file]:3} functions → {', '.join(from_here)}")
    around = {file for file in trace.files if not file.startswith(NETWORK)}
    for name, chosen in (("all", set(trace.files)), (f"outside {NETWORK}", around)):
        moves = [move for move in trace.moves if chosen.issuperset(move)]
        count = sum(functions[file] for file in chosen)
        print(f"{name}: {len(chosen)} files, {count} functions, {len(moves)} moves between files")


if __name__ == "__main__":
    main()
