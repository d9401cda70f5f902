"""Interleaved timing of contenders, their parameters and FLOPs."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Contender:
    """
    Args:
        name: what the table calls it.
        run: the work, once.
        modules: what does the work, for the number of parameters.
        flops: whether those of `run` are counted.
        clock: seconds of CPU time so far, of the process that does the work.
    """

    name: str
    run: Callable[[], Any]
    modules: Sequence[nn.Module] = ()
    flops: bool = True
    clock: Callable[[], float] = time.process_time

    def parameters(self) -> int:
        """Different parameters of the modules."""
        found = {id(parameter): parameter.numel() for module in self.modules for parameter in module.parameters()}
        return sum(found.values())

    def count_flops(self) -> int | None:
        """FLOPs of one run, with attention counted as the matrix products that it is."""
        if not (self.modules and self.flops):
            return None
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.run()
        return counter.get_total_flops()


@dataclass(frozen=True)
class Claim:
    """
    The first contender does at least `target` times as much work a second as the contender `peer`.

    Args:
        what: the unit of the work.
        items: how much of it the first contender does in a run.
        peer_items: how much the other does.
        target: None = reported without one.
    """

    peer: str
    what: str
    items: float
    peer_items: float
    target: float | None = None


@dataclass
class Comparison:
    """Contenders whose runs alternate; the claims are about the first. `notes` go under the table."""

    case: str
    contenders: list[Contender]
    claims: list[Claim]
    notes: list[str] = field(default_factory=list)


def measure(comparison: Comparison, rounds: int) -> dict[str, Any]:
    """A B A B …: minimum and median of wall and CPU seconds of a run, after one run of each that does not count."""
    wall: dict[str, list[float]] = {each.name: [] for each in comparison.contenders}
    cpu: dict[str, list[float]] = {each.name: [] for each in comparison.contenders}
    for each in comparison.contenders:
        each.run()
    for _ in range(rounds):
        for each in comparison.contenders:
            gc.collect()
            gc.disable()
            try:
                cpu_start = each.clock()
                start = time.perf_counter()
                each.run()
                wall[each.name].append(time.perf_counter() - start)
                cpu[each.name].append(each.clock() - cpu_start)
            finally:
                gc.enable()
    return {
        "case": comparison.case,
        "contenders": [
            {
                "name": each.name,
                "wall_min": min(wall[each.name]),
                "wall_median": statistics.median(wall[each.name]),
                "cpu_min": min(cpu[each.name]),
                "cpu_median": statistics.median(cpu[each.name]),
                "parameters": each.parameters() or None,
                "flops": each.count_flops(),
                "wall": wall[each.name],
            }
            for each in comparison.contenders
        ],
        "claims": [_judge(claim, comparison.contenders[0].name, wall) for claim in comparison.claims],
        "notes": comparison.notes,
    }


def _judge(claim: Claim, first: str, wall: dict[str, list[float]]) -> dict[str, Any]:
    def ratio(statistic: Callable[[Sequence[float]], float]) -> float:
        return (claim.items / statistic(wall[first])) / (claim.peer_items / statistic(wall[claim.peer]))

    return {
        "peer": claim.peer,
        "what": claim.what,
        "ratio": ratio(min),
        "ratio_of_medians": ratio(statistics.median),
        "per_second": claim.items / min(wall[first]),
        "target": claim.target,
        "met": None if claim.target is None else ratio(min) >= claim.target,
    }


def table(row: str, results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines that a reader sees."""
    yield f"\n## {row}"
    for result in results:
        yield f"\n{result['case']}"
        for each in result["contenders"]:
            size = f"{each['parameters'] / 1e6:7.2f} M" if each.get("parameters") else " " * 9
            work = f"{each['flops'] / 1e9:8.2f} GFLOP" if each.get("flops") else ""
            yield (
                f"  {each['name']:<34} "
                f"{_milliseconds(each['wall_min'])} min {_milliseconds(each['wall_median'])} median, "
                f"CPU {_milliseconds(each['cpu_min'])} min {_milliseconds(each['cpu_median'])} median {size} {work}"
            )
        for claim in result["claims"]:
            target = (
                ""
                if claim["target"] is None
                else f", target {claim['target']:g}: {'met' if claim['met'] else 'MISSED'}"
            )
            speed = f" ({claim['per_second']:.1f} a second)" if claim.get("per_second") else ""
            yield f"  → {claim['what']}: {claim['ratio']:.2f} × {claim['peer']}{speed}{target}"
        yield from (f"  {note}" for note in result["notes"])


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:9.1f} ms"
