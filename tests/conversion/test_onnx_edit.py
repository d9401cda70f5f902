"""Who runs edits without torch must get the logits and the gradient that the package computes."""

import numpy as np
import pytest
import torch

from gptface import GPTFaceForGuidedGeneration
from gptface.conversion.onnx_edit import (
    MASKED,
    DecodingStep,
    _Examples,
    edit_graphs,
    has_edit_graphs,
    match_loss,
    picture_graphs,
)
from gptface.conversion.onnx_export import export_onnx
from gptface.conversion.onnx_graph import check_graph, write_graph
from gptface.modeling_gptface.guidance import ITMGuidance, guide_logits

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

INPUTS = 20
STEPS = ["plan_encoder", "plan_decoder", "caption_reader", "plan_step", "fill_step", "match_gradient"]


@pytest.fixture(scope="module")
def model(planned_checkpoint):
    model = GPTFaceForGuidedGeneration.from_pretrained(planned_checkpoint).eval()
    model.face_parser.classifier.bias.data.zero_()  # of a parser that is sure of all, equal numbers would tell nothing
    return model


def test_each_step_of_an_edit_is_as_in_torch_on_twenty_inputs(model, tmp_path):
    names = []
    for graph in (*edit_graphs(model, {"made_by": "a test"}, count=INPUTS), *picture_graphs(model, {}, count=INPUTS)):
        path = tmp_path / f"{graph.name}.onnx"
        write_graph(graph, path)
        assert len(graph.examples) == INPUTS
        check_graph(graph, path)
        names.append(graph.name)
    assert names == [*STEPS, "refiner", "face_parser"]
    says = onnxruntime.InferenceSession(tmp_path / "match_gradient.onnx").get_modelmeta().custom_metadata_map
    assert says == {"made_by": "a test", "kl_weight": "0.01", "temperature": "1.0"}


def test_the_gradient_is_the_one_that_guides(model):
    """A step along it must be the step of `guide_logits`: else the page would draw other faces than the package."""
    _, logits, codes, words, mask = _Examples(model, 6, 1).gradient()
    guidance, drawn = ITMGuidance(step_size=4.0), codes < 0
    table = model.gptface.embeddings.code_table(codes.shape[1]).detach()
    known = table[codes.clamp(min=0)]

    def score(vectors):
        outputs = model.gptface(image_embeds=torch.where(drawn[..., None], vectors, known))
        logits = model.match_head(model.split_states(outputs)[1], words, mask)
        return logits[:, 1] - logits[:, 0]

    expected = guide_logits(logits[drawn], drawn, score, table, guidance)
    gradient = torch.func.grad(match_loss(model, guidance))(torch.zeros_like(logits), logits, codes, words, mask)
    assert not gradient[~drawn].any(), "a known token has nothing to be drawn"
    steepest = gradient[drawn] / gradient[drawn].square().sum(-1).mean().sqrt()
    found = logits[drawn] - 0.9 * 4.0 * logits[drawn].std(-1, keepdim=True) * steepest
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("plan", [True, False])
def test_a_step_gives_the_logits_of_generate(model, plan):
    """One caption: no guidance, whatever its scale; two: that of `generate`."""
    examples = _Examples(model, 6, 1)
    step = DecodingStep(model, plan).eval()
    codes, positions, ids, mask, words, scale, *above = examples.step(plan, captions=2)
    both = step(codes, positions, ids, mask, words, scale, *above)
    first, second = (
        step(codes, positions, ids[[row]], mask[[row]], words[[row]], torch.tensor(7.0), *above) for row in (0, 1)
    )
    torch.testing.assert_close(both, second + 1.5 * (first - second), atol=1e-4, rtol=0)
    seen = []

    def watch(model, step, timestep, state):
        seen.append(state["codes"])

    hidden = codes == MASKED
    model.generate(
        ids[:1], mask[:1], codes.clamp(min=0), hidden, *above, num_inference_steps=1, temperature=0.0,
        callback_on_step_end=watch,
    )  # fmt: skip
    assert torch.equal(seen[0][hidden], first.argmax(-1))


def test_the_folder_has_them_and_a_model_without_a_plan_has_not(planned_checkpoint, tiny_model, tmp_path, monkeypatch):
    for name in ("write_graph", "check_graph"):
        monkeypatch.setattr(f"gptface.conversion.onnx_export.{name}", lambda graph, path: path.touch(), raising=True)
    names = [name.removesuffix(".onnx") for name in export_onnx(planned_checkpoint, tmp_path / "onnx")]
    assert {*STEPS, "refiner", "face_parser", "image_tokenizer_encoder"} <= set(names)
    assert not has_edit_graphs(tiny_model(GPTFaceForGuidedGeneration))
    assert np.all([name.isidentifier() for name in names])
