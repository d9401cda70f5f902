"""Where the seconds of a command go."""

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: When the command line was imported, in seconds of `time.perf_counter`.
STARTED = time.perf_counter()
#: Stages of a pipeline by their methods.
STAGES = {"preprocess": "faces", "_forward": "drawing", "postprocess": "blending"}


class Stopwatch:
    """
    Seconds of the parts of a command.

    ```python
    watch = Stopwatch()
    with watch.part("saving"):
        ...
    watch.tell()  # "saving 0.1 s, all 2.3 s" on stderr
    ```
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the seconds of the block to a part."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose calls are a part."""

        @functools.wraps(function)
        def call(*values: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*values, **options)

        return call

    def follow(self, pipe: Any) -> None:
        """From now on the stages of a pipeline are parts."""
        for method, name in STAGES.items():
            setattr(pipe, method, self.timed(name, getattr(pipe, method)))

    def tell(self) -> None:
        """Prints the parts, and all since the command line was imported, on stderr."""
        parts = {**self.seconds, "all": time.perf_counter() - STARTED}
        print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items()), file=sys.stderr)
