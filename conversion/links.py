"""The tensors of two layouts, linked by name both ways, and the plan that a conversion makes, then streams."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from .checkpoint import Shapes, StateDict
from .report import ConversionError, ConversionReport, NamedShape

Tensors = tuple[torch.Tensor, ...]


def _unchanged(*tensors: torch.Tensor) -> Tensors:
    return tensors


@dataclass(frozen=True)
class Link:
    """
    Tensors of a source layout and the tensors of a target layout that hold the same numbers.

    `forward` maps the sources to the targets, `backward` the targets to the sources. Both also take meta tensors,
    which is how the shapes that one side must have follow from the other side.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    forward: Callable[..., Tensors] = _unchanged
    backward: Callable[..., Tensors] = _unchanged

    def reversed(self) -> "Link":
        """The same link, seen from the target layout."""
        return Link(self.targets, self.sources, self.backward, self.forward)

    def source_shapes(self, target_shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """Shapes of the sources that go with these targets."""
        targets = (torch.empty(target_shapes[name], device="meta") for name in self.targets)
        return {name: tuple(t.shape) for name, t in zip(self.sources, self.backward(*targets), strict=True)}


def same(source: str, target: str) -> Link:
    """One tensor under two names."""
    return Link((source,), (target,))


def scaled(source: str, target: str, factor: float) -> Link:
    """target = factor · source, computed in float64 so that the way back differs by rounding only."""
    return Link(
        (source,),
        (target,),
        lambda tensor: ((tensor.double() * factor).float(),),
        lambda tensor: ((tensor.double() / factor).float(),),
    )


def split(source: str, targets: tuple[str, str], rows: int) -> Link:
    """The first `rows` rows of the source are the first target, the others the second."""
    return Link((source,), targets, lambda table: (table[:rows], table[rows:]), lambda *parts: (torch.cat(parts),))


def pointwise(source: str, target: str) -> Link:
    """A 1×1 convolution [out, in, 1, 1] that the target writes as a linear layer [out, in]."""
    return Link((source,), (target,), lambda kernel: (kernel.flatten(1),), lambda weight: (weight[:, :, None, None],))


class Plan:
    """
    How every tensor of a target layout comes about.

    Args:
        shapes: what the target layout consists of.
    """

    def __init__(self, shapes: Shapes):
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.report = ConversionReport()
        self._builders: dict[str, Callable[[], torch.Tensor]] = {}

    def link(self, what: str, links: Iterable[Link], source: StateDict, skip: Mapping[str, str] | None = None) -> None:
        """
        Takes targets out of `source`.

        Args:
            what: name of the source for messages.
            skip: prefixes of source names that have no place in the target, and why.

        Raises:
            ConversionError: lists the missing and surplus tensors and the wrong shapes of the source.
        """
        used: set[str] = set()
        problems: list[str] = []
        for link in links:
            used.update(link.sources)
            shapes = link.source_shapes(self.shapes)
            problems += _misfits(shapes, source)
            for index, name in enumerate(link.targets):
                self._builders[name] = partial(_build, link, source, index)
            self.report.mapped.append((_named(shapes), _named({name: self.shapes[name] for name in link.targets})))
        for name in sorted(source.keys() - used):
            tensor = NamedShape(name, tuple(source[name].shape))
            reason = next((why for prefix, why in (skip or {}).items() if name.startswith(prefix)), None)
            if reason is None:
                problems.append(f"surplus {tensor}")
            else:
                self.report.skipped.append((tensor, reason))
        if problems:
            raise ConversionError(f"{what} does not fit its configuration", problems)

    def initialise(self, name: str, how: str, build: Callable[[], torch.Tensor]) -> None:
        """The target tensor `name`, which the source says nothing about, starts as `build()`."""
        self.report.initialised.append((NamedShape(name, self.shapes[name]), how))
        self._builders[name] = build

    def initialise_normal(self, name: str, std: float) -> None:
        """Starts a weight from a normal distribution; the same at each conversion."""
        seed = zlib.crc32(name.encode())  # tensors of equal shape must not start equal

        def build() -> torch.Tensor:
            return torch.randn(self.shapes[name], generator=torch.Generator().manual_seed(seed)) * std

        self.initialise(name, f"normal, standard deviation {std:g}", build)

    def initialise_constant(self, name: str, value: float) -> None:
        """Starts a bias or a norm's scale from a constant."""
        self.initialise(name, f"{value:g}", lambda: torch.full(self.shapes[name], value))

    def unplanned(self) -> list[str]:
        """Target tensors that nothing has been said about yet."""
        return [name for name in self.shapes if name not in self._builders]

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) in the order of `shapes`, each built when it is asked for."""
        for name in self.shapes:
            yield name, self._builders[name]()


def _build(link: Link, source: StateDict, index: int) -> torch.Tensor:
    return link.forward(*(source[name] for name in link.sources))[index]


def _named(shapes: Shapes) -> list[NamedShape]:
    return [NamedShape(name, tuple(shape)) for name, shape in shapes.items()]


def _misfits(expected: Shapes, source: StateDict) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in source:
            yield f"missing {NamedShape(name, tuple(shape))}"
        elif tuple(source[name].shape) != tuple(shape):
            yield f"shape   {NamedShape(name, tuple(source[name].shape))}, expected {list(shape)}"
