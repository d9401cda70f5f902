"""Training for a given time: learning rate and end follow the clock instead of the number of steps."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

#: Upper bound of the steps of a run that ends by the clock.
UNBOUNDED_STEPS = 10**9


@dataclass
class ClockSchedule:
    """
    The learning rate over the share of the time that is spent: a linear warm-up, a constant rate, and a cosine down to
    a floor (warm-up, stable, decay; Hu et al. 2024, arXiv 2404.06395).

    Args:
        warmup: share of the time in which the rate rises from 0, in [0, 1).
        decay_from: share from which on it falls, in [`warmup`, 1).
        floor: rate at the end, as a share of the highest, in [0, 1].
        reserve_seconds: kept for writing the final model, at most a tenth of the time.
        settling_steps: first steps of a process that do not count for the schedule, since in them a compiler works.

    Raises:
        ValueError: values out of their ranges.
    """

    warmup: float = 0.03
    decay_from: float = 0.3
    floor: float = 0.02
    reserve_seconds: float = 15.0
    settling_steps: int = 2

    def __post_init__(self):
        if not 0 <= self.warmup <= self.decay_from < 1:
            raise ValueError(f"0 <= warmup <= decay_from < 1 does not hold for {self.warmup} and {self.decay_from}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is a share of the learning rate in [0, 1], got {self.floor}")

    def factor(self, share: float) -> float:
        """Factor of the learning rate in [0, 1] at a share of the time in [0, 1]."""
        if share < self.warmup:
            return share / self.warmup
        fallen = min(max(share - self.decay_from, 0.0) / (1 - self.decay_from), 1.0)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * fallen))


class TimeBudget(TrainerCallback):
    """
    Ends training when its time is over, early enough to write the final model within it.

    All ranks follow the clock of the first. Evaluations and checkpoints that would not be done in time are left out.

    Args:
        minutes: from now on; what a resumed run had spent before counts too, see [`TimeBudget.resume`].
        clock: seconds, from any start.

    Attributes:
        share: of the schedule that is done, in [0, 1].

    Raises:
        ValueError: no time at all.
    """

    def __init__(self, minutes: float, schedule: ClockSchedule, clock: Callable[[], float] = time.monotonic):
        if minutes <= 0:
            raise ValueError(f"minutes must be more than 0, got {minutes}")
        self.schedule, self.clock = schedule, clock
        self.budget = 60 * minutes
        self.training = self.budget - min(schedule.reserve_seconds, self.budget / 10)
        self.share = 0.0
        self._started = clock()
        self._before = 0.0
        self._steps = 0
        # time spent when the schedule began to run in this process, and its share then
        self._origin: tuple[float, float] | None = None
        self._seconds = {"step": 0.0, "evaluation": 0.0, "saving": 0.0}
        self._last_step = self._between = 0.0
        self._shared: list[float] | None = None
        self._group: Any = None

    @property
    def spent(self) -> float:
        """Seconds of the budget that are gone, by this process's clock."""
        return self._before + self.clock() - self._started

    @property
    def is_over(self) -> bool:
        return self.spent >= self.training

    def factor(self) -> float:
        """Factor of the learning rate now."""
        return self.schedule.factor(self.share)

    def state(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"spent_seconds": self.spent, "share": self.share}

    def resume(self, state: dict[str, float]) -> None:
        """Goes on with the time that a stopped run has left."""
        self._before, self.share = state["spent_seconds"], state["share"]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Remembers how long an `evaluation` or `saving` takes."""
        begin = self.clock()
        yield
        seconds = self.clock() - begin
        self._between += seconds
        self._seconds[name] = max(self._seconds[name], seconds)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the learning rate of the next step is set."""
        self._steps += 1
        if self._last_step:
            self._seconds["step"] = self.spent - self._last_step - self._between
        self._last_step, self._between = self.spent, 0.0
        now = self._agree()[0]
        if self._steps < self.schedule.settling_steps:
            return
        if self._origin is None:
            self._origin = (now, self.share)
        begin, share = self._origin
        self.share = min(share + (1 - share) * max(now - begin, 0.0) / max(self.training - begin, 1e-9), 1.0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self._shared is not None
        now, step, evaluation, saving = self._shared
        if now + step > self.training:
            control.should_training_stop = control.should_log = True
            if args.save_strategy != SaveStrategy.NO:
                control.should_save = True  # so that the same command does not train again
        # a final model is to be written after these
        left = self.budget - now - saving
        if control.should_evaluate and now + evaluation > self.training:
            control.should_evaluate = False
        if control.should_save and saving > left:
            control.should_save = False

    def _agree(self) -> list[float]:
        """Time spent and the durations, those of the first rank on all."""
        values = torch.tensor([self.spent, *self._seconds.values()], dtype=torch.float64)
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            if self._group is None:
                # on the CPU: nothing waits for an accelerator
                self._group = distributed.new_group(backend="gloo")
            distributed.broadcast(values, src=0, group=self._group)
        self._shared = values.tolist()
        return self._shared
