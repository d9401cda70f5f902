"""One part of a model → one ONNX file, compared with torch before it is kept."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gptface.modeling_gptface.quantization import Quantizer

from .onnx_comparison import Outputs, differences
from .report import ConversionError

#: Version of the ONNX operators: the one in which the exporter of torch thinks, so that nothing is translated a second
#: time.
OPSET = 18
#: Axes of a tensor whose lengths are free, with their names.
FreeAxes = dict[int, str]


@dataclass(frozen=True)
class Graph:
    """
    What becomes one file.

    Args:
        module: takes the inputs in their order, gives the outputs as a tensor or a tuple in the order of `outputs`.
        reference: the same by the model's own methods.
        inputs, outputs: their names.
        examples: inputs on which the file is compared; the first of them is traced.
        free: of each input the axes that may have other lengths than in the traced example.
        metadata: what the file says about itself.
        quantizer: where codes are among the outputs, what made them of the `latents` of the reference.
    """

    name: str
    module: nn.Module
    reference: Callable[..., Outputs]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    examples: Sequence[tuple[torch.Tensor, ...]]
    free: tuple[FreeAxes, ...]
    metadata: dict[str, str]
    quantizer: Quantizer | None = None


def write_graph(graph: Graph, path: Path) -> None:
    """
    Writes one file; weights of more than 2 GB stand beside it, which the format asks for.

    Raises:
        ConversionError: where torch cannot express the model in ONNX.
    """
    exported_program(graph, path.name).save(path)


def exported_program(graph: Graph, name: str) -> Any:
    """
    The `torch.onnx.ONNXProgram` of a graph; `name` is what errors call it. Raises what [`write_graph`] raises.
    """
    # torch takes named axes that are not free for a mistake
    free: Any = tuple(axes or None for axes in graph.free)
    with torch.no_grad(), _quiet_exporter():
        try:
            program = torch.onnx.export(
                graph.module.eval(),
                graph.examples[0],
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=free if any(graph.free) else None,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise ConversionError(f"torch cannot write {name}", [reason]) from error
    assert program is not None  # as it is with dynamo=True
    program.model.metadata_props.update(graph.metadata)
    return program


@torch.no_grad()
def check_graph(graph: Graph, path: Path) -> None:
    """
    Compares a file with torch.

    Raises:
        ConversionError: says which outputs differ and by how much.
    """
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for example in graph.examples:
        given = {name: value.numpy() for name, value in zip(graph.inputs, example, strict=True)}
        found = map(torch.from_numpy, session.run(list(graph.outputs), given))
        problems = list(
            differences(graph.reference(*example), dict(zip(graph.outputs, found, strict=True)), graph.quantizer)
        )
        if problems:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
            raise ConversionError(f"{path.name} gives other numbers than torch, with {shapes}", problems)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's warnings about itself and about torchvision, which nothing here uses."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
