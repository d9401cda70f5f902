"""A bounded queue of jobs, of which those that go together are done together."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

#: Share of the last batch in the mean of the seconds that a job takes.
NEWEST = 0.2


class OverloadedError(RuntimeError):
    """
    There is no room for another job.

    Args:
        seconds: after which there should be some.
    """

    def __init__(self, seconds: float):
        super().__init__(f"too many requests are waiting: try again in {seconds:.0f} seconds")
        self.seconds = seconds


@dataclass(frozen=True, eq=False)
class _Job:
    kind: Hashable
    value: Any
    future: Future = field(default_factory=Future)


class Batcher:
    """
    Does jobs in one thread, in the order in which they came; those of one kind that wait at the same time together.

    ```python
    with Batcher(lambda kind, values: [value + kind for value in values]) as batcher:
        assert batcher.submit(1, 2).result() == 3
    ```

    Args:
        work: a kind and values of its jobs → their results; an exception in the place of a result is raised for its
            job.
        batch_size: jobs that are done together, at most.
        max_waiting: jobs that may wait.
    """

    def __init__(
        self, work: Callable[[Any, Sequence[Any]], Sequence[Any]], batch_size: int = 4, max_waiting: int = 32
    ):
        if batch_size < 1 or max_waiting < 1:
            raise ValueError(f"batch_size and max_waiting must be at least 1, got {batch_size} and {max_waiting}")
        self.work, self.batch_size, self.max_waiting = work, batch_size, max_waiting
        self.batches = 0
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._seconds = 1.0
        self._thread = threading.Thread(target=self._run, name="gptface-batches", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def check_room(self) -> None:
        """Raises `OverloadedError` where a job would find no room now."""
        if self._closed or len(self._waiting) >= self.max_waiting:
            raise OverloadedError(max(1.0, self._seconds * len(self._waiting)))

    def submit(self, kind: Hashable, value: Any) -> Future:
        """
        A job → the future of its result; one that is cancelled before its turn is left out.

        Raises:
            OverloadedError: too many wait, or the batcher is closed.
        """
        job = _Job(kind, value)
        with self._changed:
            self.check_room()
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Takes no more jobs and waits for those that it has taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _next(self) -> list[_Job]:
        """The jobs that are done next; none where there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            kind = self._waiting[0].kind
            chosen = [job for job in self._waiting if job.kind == kind][: self.batch_size]
            for job in chosen:
                self._waiting.remove(job)
        return chosen

    def _run(self) -> None:
        while jobs := self._next():
            going = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if not going:
                continue
            begin = time.monotonic()
            try:
                results = self.work(going[0].kind, [job.value for job in going])
                outcomes = list(zip(going, results, strict=True))
            except BaseException as error:  # the thread goes on, whatever it was
                outcomes = [(job, error) for job in going]
            self.batches += 1
            self._seconds += NEWEST * ((time.monotonic() - begin) / len(going) - self._seconds)
            for job, outcome in outcomes:
                if isinstance(outcome, BaseException):
                    job.future.set_exception(outcome)
                else:
                    job.future.set_result(outcome)
