"""Weights of several ONNX graphs in one file, each once and as narrow as it can be without loss."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from gptface.modeling_gptface.heads_gptface import GPTFaceTaskModel

if TYPE_CHECKING:
    import onnx

#: Fewer numbers stay in the graph.
SMALL = 256
#: Names of the parts whose matrices are rounded to 8 bits. Convolutions are not: pixels and codes come out of them.
ROUNDED = ("gptface.layers.", "lm_head.", "match_head.")
#: Where a number starts in the file: at a multiple of so many bytes.
ALIGNMENT = 64


@torch.no_grad()
def round_weights(model: GPTFaceTaskModel) -> None:
    """
    Rounds, in place, the matrices of the transformer and its heads and the vectors of the codes to 8 bits a number
    with a scale a row. What a code's levels add is then part of its vector.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(ROUNDED):
            module.weight.copy_(_rounded(module.weight))
    embeddings = model.gptface.embeddings
    for part in (embeddings, embeddings.plan):
        if part is not None:
            table = _rounded(part.code_table())
            if part.level_embeddings is not None:
                part.level_embeddings.weight.zero_()
            part.code_embeddings.weight.copy_(table)


def _rounded(matrix: torch.Tensor) -> torch.Tensor:
    """[M, N] → the same in 255 steps a row."""
    most = matrix.abs().amax(1, keepdim=True).float().clamp(min=1e-12)
    # of 8 significant bits, so that every step is a float32; rounded down, so that the largest is 127 steps
    scale = (most / 127).view(torch.int32).bitwise_and(-65536).view(torch.float32)
    return (matrix / scale).round().clamp(-127, 127) * scale


def share_weights(models: Iterable["onnx.ModelProto"], location: str) -> bytes:
    """
    Moves the weights of graphs, in place, to one file beside them, whose content it gives back. They are stored as
    integers of 8 bits with a scale a row or column, or as float16, where that is exactly what they are; the graphs
    then begin with what makes them float32 again.
    """
    import onnx
    from onnx import numpy_helper

    stored: dict[bytes, int] = {}
    content = bytearray()

    def store(array: np.ndarray, name: str) -> "onnx.TensorProto":
        raw = np.ascontiguousarray(array).tobytes()
        if raw not in stored:
            content.extend(bytes(-len(content) % ALIGNMENT))
            stored[raw] = len(content)
            content.extend(raw)
        tensor = onnx.TensorProto(
            name=name,
            dims=array.shape,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=onnx.TensorProto.EXTERNAL,
        )
        described = {"location": location, "offset": stored[raw], "length": len(raw)}
        for key, value in described.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    for model in models:
        graph = model.graph
        tensors, widened = [], []
        for tensor in graph.initializer:
            if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < SMALL:
                tensors.append(tensor)
                continue
            name, array = tensor.name, numpy_helper.to_array(tensor)
            narrow, scale = _narrowed(array)
            if narrow.dtype == np.float32:
                tensors.append(store(narrow, name))
                continue
            tensors.append(store(narrow, f"{name}.stored"))
            cast = name if scale is None else f"{name}.cast"
            widened.append(onnx.helper.make_node("Cast", [f"{name}.stored"], [cast], to=onnx.TensorProto.FLOAT))
            if scale is not None:
                tensors.append(store(scale, f"{name}.scale"))
                widened.append(onnx.helper.make_node("Mul", [cast, f"{name}.scale"], [name]))
        nodes = [*widened, *graph.node]
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(tensors)
        graph.node.extend(nodes)
    return bytes(content)


def _narrowed(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """A float32 array → the same as int8 with a scale, as float16, or as it is."""
    if array.ndim == 2:
        for axis in (1, 0):
            most = np.abs(array).max(axis, keepdims=True)
            scale = np.where(most > 0, most / np.float32(127), np.float32(1))
            steps = np.rint(array / scale)
            if (steps * scale == array).all():
                return steps.astype(np.int8), scale
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return (half, None) if (half.astype(np.float32) == array).all() else (array, None)
