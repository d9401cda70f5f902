"""What a conversion did with every tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message lists everything that is wrong with it."""

    def __init__(self, what: str, problems: Sequence[str]):
        super().__init__("\n  ".join([f"{what}:", *problems]) if problems else what)


@dataclass(frozen=True)
class NamedShape:
    """A tensor's name and shape."""

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


@dataclass
class ConversionReport:
    """
    Args:
        mapped: source tensors and the target tensors that hold them.
        skipped: source tensors that have no place in the target, and why.
        initialised: target tensors that the source says nothing about, and how they start.
    """

    mapped: list[tuple[list[NamedShape], list[NamedShape]]] = field(default_factory=list)
    skipped: list[tuple[NamedShape, str]] = field(default_factory=list)
    initialised: list[tuple[NamedShape, str]] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report for people: three paragraphs, one line an entry."""
        yield f"mapped ({len(self.mapped)}):"
        for sources, targets in self.mapped:
            yield f"  {' + '.join(map(str, sources))} → {' + '.join(map(str, targets))}"
        for title, entries in (("skipped", self.skipped), ("initialised", self.initialised)):
            yield f"{title} ({len(entries)}):"
            for tensor, why in entries:
                yield f"  {tensor}: {why}"

    def records(self) -> Iterator[dict[str, Any]]:
        """The report for programs: one JSON-ready record an entry, told apart by its `kind`."""
        for sources, targets in self.mapped:
            shapes = ({tensor.name: list(tensor.shape) for tensor in side} for side in (sources, targets))
            yield dict(zip(("kind", "sources", "targets"), ("mapped", *shapes), strict=True))
        for kind, entries in (("skipped", self.skipped), ("initialised", self.initialised)):
            for tensor, why in entries:
                yield {"kind": kind, "name": tensor.name, "shape": list(tensor.shape), "why": why}
