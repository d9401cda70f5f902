"""A page must load fast: weights are stored narrow, but a network must stay what it was compared as."""

import numpy as np
import pytest
import torch

from gptface import GPTFaceForGuidedGeneration
from gptface.conversion.web_weights import round_weights, share_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@torch.no_grad()
def test_rounding_moves_a_weight_by_half_a_step_at_most(planned_checkpoint):
    model = GPTFaceForGuidedGeneration.from_pretrained(planned_checkpoint)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grids = (model.config.num_image_tokens, model.config.num_plan_tokens)
    tables = [model.gptface.embeddings.code_table(cells).clone() for cells in grids]
    round_weights(model)
    after = model.state_dict()
    pairs = [(before[name], after[name]) for name in after if name.endswith("query.weight") and "layers" in name]
    pairs += [(table, model.gptface.embeddings.code_table(cells)) for table, cells in zip(tables, grids, strict=True)]
    for was, becomes in pairs:
        step = was.abs().amax(1, keepdim=True) / 127
        assert 0 < ((was - becomes).abs() / step).max() < 1.1  # the largest of a row is cut by a step at most
    untouched = [name for name in after if "image_tokenizer" in name or name.endswith(".bias")]
    assert untouched and all(torch.equal(before[name], after[name]) for name in untouched)


def network(weights):
    """`weights` as a network that gives them back, two of them transposed as another graph has them."""
    names = [f"weight{index}" for index in range(len(weights))]
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}.out"]) for name in names]
    outputs = [onnx.helper.make_tensor_value_info(f"{name}.out", onnx.TensorProto.FLOAT, None) for name in names]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in zip(names, weights, strict=True)]
    graph = onnx.helper.make_graph(nodes, "weights", [], outputs, tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


def test_weights_are_stored_once_and_come_back_bit_for_bit(tmp_path):
    generator = np.random.default_rng(0)
    steps = generator.integers(-127, 128, (32, 64)).astype(np.float32)
    steps[:, 0] = 127
    eight = steps * np.float32(2**-9)
    sixteen = generator.normal(size=(40, 50)).astype(np.float16).astype(np.float32)
    exact = generator.normal(size=(40, 50)).astype(np.float32)
    few = generator.normal(size=5).astype(np.float32)
    given = {"one": [eight, sixteen, exact, few], "two": [sixteen, eight.T.copy(), exact]}
    models = {name: network(weights) for name, weights in given.items()}
    content = share_weights(models.values(), "weights.bin")
    assert len(content) < eight.size * 2 + sixteen.size * 2 + exact.size * 4 + 1000
    (tmp_path / "weights.bin").write_bytes(content)
    for name, weights in given.items():
        (tmp_path / name).write_bytes(models[name].SerializeToString())
        found = onnxruntime.InferenceSession(str(tmp_path / name)).run(None, {})
        for expected, value in zip(weights, found, strict=True):
            np.testing.assert_array_equal(value, expected)
