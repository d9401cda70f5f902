"""An ONNX file must give what torch gives, for people who have neither torch nor this package; a wrong one must not be
written.
"""

import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
from transformers import pipeline

from gptface import (
    GPTFaceForPreTraining,
)
from gptface.cli import main
from gptface.conversion import onnx_export
from gptface.conversion.onnx_comparison import differences, tied
from gptface.conversion.onnx_export import export_onnx
from gptface.conversion.onnx_graph import OPSET
from gptface.conversion.report import ConversionError
from gptface.modeling_gptface.heads_gptface import make_classifier
from gptface.modeling_gptface.quantization import CodebookQuantizer, FiniteScalarQuantizer, GumbelQuantizer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ENCODER, DECODER = "image_tokenizer_encoder.onnx", "image_tokenizer_decoder.onnx"
FILES = ["attributes.onnx", "face_parser.onnx", "grid.onnx", DECODER, ENCODER]
VQGAN = {
    "backbone": "vqgan",
    "block_out_channels": [8, 12],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_resolutions": [12],
}
CODEBOOK = {"codebook_size": 19, "codebook_dim": 3}


def open_file(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, value):
    """Outputs by name of a file with one input."""
    session = open_file(path)
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {session.get_inputs()[0].name: np.asarray(value)})
    return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}


def pictures(batch, size):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(7)) * 2 - 1


def random_codes(config, batch):
    generator = torch.Generator().manual_seed(8)
    return torch.randint(config.num_codes, (batch, config.grid_size**2), generator=generator)


@torch.no_grad()
def assert_same_codes(path, tokenizer, batch):
    pixels = pictures(batch, tokenizer.config.image_size)
    encoded, expected = run(path, pixels), tokenizer(pixels)
    assert torch.equal(encoded["image_codes"], expected.codes)
    assert len(expected.codes.unique()) > 3, "a test with one code shows nothing"
    torch.testing.assert_close(encoded["latents"], expected.latents, atol=1e-4, rtol=0)


@torch.no_grad()
def assert_same_pixels(path, tokenizer, batch):
    codes = random_codes(tokenizer.config, batch)
    torch.testing.assert_close(run(path, codes)["pixel_values"], tokenizer.decode(codes), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def source(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint (compact backbone, FSQ) with a trained head of each kind and one that is not. Read only."""
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    model = GPTFaceForPreTraining.from_pretrained(folder)
    model.face_parser.classifier.bias.data.zero_()  # of a parser that is sure of all, equal numbers would tell nothing
    grid = {"labels": ["a", "b", "c"], "problem_type": "single_label_classification", "reader": "convolution"}
    model.config.heads = {
        **model.config.heads,
        "expression": {**model.config.heads["expression"], "trained": False},
        "grid": {**grid, "trained": True},
    }
    torch.manual_seed(0)
    model.classifiers["grid"] = make_classifier(model.config, "grid")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    """What `gptface export --onnx` makes of it."""
    folder = tmp_path_factory.mktemp("onnx") / "repository"
    assert main(["export", str(source), str(folder), "--onnx"]) == 0
    return folder


@pytest.mark.parametrize("batch", [1, 3])
def test_exported_files_give_the_numbers_of_torch(exported, source, batch):
    model = GPTFaceForPreTraining.from_pretrained(source).eval()
    assert_same_codes(exported / "onnx" / ENCODER, model.image_tokenizer, batch)
    assert_same_pixels(exported / "onnx" / DECODER, model.image_tokenizer, batch)
    codes = random_codes(model.config.image_tokenizer_config, batch)
    with torch.no_grad():
        outputs = model.gptface(image_codes=codes)
        for name in ("attributes", "grid"):
            logits = run(exported / "onnx" / f"{name}.onnx", codes)["logits"]
            torch.testing.assert_close(logits, model.classify(name, outputs), atol=1e-4, rtol=0)


def test_the_command_adds_the_files_to_the_repository(exported):
    """One folder to push; no file is beside another that it would need, none carries parts that it does not use."""
    assert sorted(file.name for file in (exported / "onnx").iterdir()) == FILES
    assert (exported / "README.md").is_file() and (exported / "model.safetensors").is_file()
    for name in FILES:
        graph = onnx.load(exported / "onnx" / name)
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
        dimension = graph.graph.input[0].type.tensor_type.shape.dim[0]
        assert dimension.dim_param == "batch"
    head = onnx.load(exported / "onnx" / "attributes.onnx")
    shapes = [list(tensor.dims) for tensor in head.graph.initializer]
    assert [60, 32] in shapes, "vectors of the codes"
    vocabulary = json.loads((exported / "config.json").read_text())["vocab_size"]
    assert [vocabulary, 32] not in shapes, "vectors of the words"
    assert [8, 8, 3, 3] not in shapes, "the image tokenizer"


def test_a_picture_is_classified_as_in_the_pipeline(exported, tiny_checkpoint, face_picture):
    """With PIL, numpy, onnxruntime and what the files say about themselves."""
    encoder = open_file(exported / "onnx" / ENCODER)
    head = open_file(exported / "onnx" / "attributes.onnx")
    says = encoder.get_modelmeta().custom_metadata_map
    assert says["resample"] == "bicubic" and says["channels"] == "RGB"
    size, mean, std, factor = (
        json.loads(says[key]) for key in ("image_size", "image_mean", "image_std", "rescale_factor")
    )
    crop = np.asarray(face_picture.convert("RGB").resize((size, size), 3), np.float32)
    pixels = ((crop * factor - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    codes = encoder.run(["image_codes"], {"pixel_values": pixels})[0]
    logits = head.run(["logits"], {"image_codes": codes})[0][0]
    about_head = head.get_modelmeta().custom_metadata_map
    assert about_head["image_tokenizer"] == says["image_tokenizer"]
    assert about_head["problem_type"] == "multi_label_classification"
    found = dict(zip(json.loads(about_head["labels"]), 1 / (1 + np.exp(-logits)), strict=True))
    classify = pipeline("face-attribute-classification", model=str(tiny_checkpoint))
    expected = {entry["label"]: entry["score"] for entry in classify(face_picture, aligned=True)}
    assert found == pytest.approx(expected, abs=1e-4)


def test_an_image_tokenizer_alone(tiny_model, tmp_path):
    """A VQGAN with a learned codebook, as `gptface convert vqgan` writes it."""
    tokenizer = tiny_model(image_tokenizer_config={**VQGAN, **CODEBOOK, "quantizer": "codebook"}).image_tokenizer
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert export_onnx(tmp_path / "tokenizer", tmp_path / "onnx") == [DECODER, ENCODER]
    for batch in (1, 3):
        assert_same_codes(tmp_path / "onnx" / ENCODER, tokenizer, batch)
        assert_same_pixels(tmp_path / "onnx" / DECODER, tokenizer, batch)


def test_codes_that_a_classifier_picks(tiny_model, tmp_path):
    """GumbelVQ; its decoder is that of any learned codebook, and a plain convolution will do for its encoder."""
    fields = {**CODEBOOK, "quantizer": "gumbel", "image_size": 32}
    tokenizer = tiny_model(image_tokenizer_config=fields).image_tokenizer
    torch.manual_seed(0)
    tokenizer.encoder = torch.nn.Conv2d(3, 5, 8, stride=8)
    with torch.no_grad():
        tokenizer.encoder.weight *= 8  # so that the codes differ from cell to cell
    encoder = next(onnx_export._graphs(tokenizer, None))
    onnx_export.write_graph(encoder, tmp_path / ENCODER)
    onnx_export.check_graph(encoder, tmp_path / ENCODER)
    for batch in (1, 3):
        assert_same_codes(tmp_path / ENCODER, tokenizer, batch)


def test_a_file_that_differs_from_torch_is_not_kept(exported, source, tmp_path, monkeypatch, capsys):
    """As if the exporter had written the weights of another model."""
    other = tmp_path / "other"
    shutil.copytree(source, other)
    model = GPTFaceForPreTraining.from_pretrained(other)
    with torch.no_grad():
        model.classifiers["attributes"].output.bias += 0.01
    model.save_pretrained(other)
    monkeypatch.setattr(
        onnx_export, "write_graph", lambda graph, path: shutil.copy(exported / "onnx" / path.name, path)
    )
    assert main(["export", str(other), str(tmp_path / "out"), "--onnx"]) == 2
    error = capsys.readouterr().err
    assert "attributes.onnx gives other numbers than torch" in error and "logits differs by up to 0.01" in error
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_what_torch_cannot_write_is_said_in_a_line(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise torch.onnx.OnnxExporterError("long advice") from ValueError("no operator aten.new\nmore")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert main(["export", str(tiny_checkpoint), str(tmp_path / "out"), "--onnx"]) == 2
    assert "torch cannot write image_tokenizer_encoder.onnx:\n  no operator aten.new\n" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_says_what_to_install(tiny_checkpoint, tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(tiny_checkpoint), str(tmp_path / "out"), "--onnx"]) == 2
    assert 'pip install "gptface[onnx]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_heads_that_were_not_trained_are_left_out(source, tmp_path, monkeypatch, caplog):
    """The pipelines refuse them too: nobody is to get answers from random weights."""
    monkeypatch.setattr(onnx_export, "write_graph", lambda graph, path: path.touch())
    monkeypatch.setattr(onnx_export, "check_graph", lambda graph, path: None)
    with caplog.at_level(logging.WARNING):
        assert export_onnx(source, tmp_path / "onnx") == FILES
    assert "not trained, so not exported: expression" in caplog.text


def test_a_head_whose_name_is_that_of_another_file_is_refused(tiny_model, tmp_path):
    """Names come from a config.json that somebody else may have written."""
    head = {"labels": ["a", "b"], "problem_type": "single_label_classification", "trained": True}
    tiny_model(heads={"image_tokenizer_encoder": head}).save_pretrained(tmp_path / "source")
    with pytest.raises(ConversionError, match="cannot be names of files"):
        export_onnx(tmp_path / "source", tmp_path / "onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", ["/escaped", "a/b"])
def test_a_head_whose_name_is_no_file_name_is_no_head(tiny_model, name):
    with pytest.raises(ValueError, match="called by a word"):
        tiny_model(heads={name: {"labels": ["a", "b"], "problem_type": "single_label_classification"}})


def test_an_incomplete_checkpoint_is_refused(tiny_model, tmp_path):
    """transformers would draw what is missing at random."""
    tokenizer = tiny_model().image_tokenizer
    state = {name: tensor for name, tensor in tokenizer.state_dict().items() if name != "quantizer.down.bias"}
    tokenizer.save_pretrained(tmp_path / "tokenizer", state_dict=state)
    with pytest.raises(ConversionError, match=r"not complete; missing:\n  quantizer\.down\.bias"):
        export_onnx(tmp_path / "tokenizer", tmp_path / "onnx")
    model = tiny_model()
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "gptface.norm.weight"}
    model.save_pretrained(tmp_path / "model", state_dict=state)
    with pytest.raises(ConversionError, match=r"gptface\.norm\.weight"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")


@pytest.mark.parametrize("model_type", ["bert", None])
def test_folders_of_other_models_are_refused(tmp_path, model_type):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConversionError, match="no GPTFace model"):
        export_onnx(tmp_path / "source", tmp_path / "onnx")
    with pytest.raises(OSError):
        export_onnx(tmp_path / "missing", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def fsq_latents(quantizer, bounded):
    """Latents [1, D, 1, cells] that the quantizer bounds to `bounded` [D, cells]."""
    with torch.no_grad():
        quantizer.down.weight.copy_(torch.eye(len(quantizer.levels))[..., None, None])
        quantizer.down.bias.zero_()
        quantizer.up.bias.zero_()
    half = quantizer._column([(level - 1) * (1 + 1e-3) / 2 for level in quantizer.levels], bounded)[0, :, :, 0]
    offset = quantizer._column([0.5 if level % 2 == 0 else 0.0 for level in quantizer.levels], bounded)[0, :, :, 0]
    latents = torch.atanh((bounded + offset) / half) - torch.atanh(offset / half)
    return latents[None, :, None]


def test_fsq_codes_are_tied_on_the_border_of_rounding_only():
    quantizer = FiniteScalarQuantizer([3, 5], 2)
    # the second dimension of the cells: on a border, beside it, on one, on one
    latents = fsq_latents(quantizer, torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.50004, 0.6, 0.50004, 0.49997]]))
    level = lambda first, second: first + 1 + 3 * (second + 2)  # noqa: E731
    codes = torch.tensor([[level(0, 1), level(0, 1), level(0, 1), level(0, 0)]])
    others = torch.tensor([[level(0, 0), level(0, 0), level(0, -1), level(1, 1)]])
    assert torch.equal(quantizer(latents)[1].flatten(1), codes)
    assert tied(quantizer, latents, codes, others).tolist() == [[True, False, False, False]]
    assert tied(quantizer, latents, codes, codes).all()


@pytest.mark.parametrize("quantizer_class", [CodebookQuantizer, GumbelQuantizer])
def test_learned_codes_are_tied_where_they_fit_alike(quantizer_class):
    quantizer = quantizer_class(3, 1, 1)
    with torch.no_grad():
        for layer in (quantizer.down, quantizer.up):
            layer.weight.fill_(1)
            layer.bias.zero_()
        quantizer.codebook.weight.copy_(torch.tensor([[-1.0], [1.0], [2.0]]))
        if quantizer_class is GumbelQuantizer:
            quantizer.proj.weight.copy_(quantizer.codebook.weight[..., None, None])
            quantizer.proj.bias.copy_(-(quantizer.codebook.weight[:, 0] ** 2) / 2)
    latents = torch.tensor([0.00001, 0.2, 1.5])[None, None, None]
    codes, others = torch.tensor([[1, 1, 2]]), torch.tensor([[0, 0, 1]])
    assert tied(quantizer, latents, codes, others).tolist() == [[True, False, True]]


def test_ties_are_forgiven_as_long_as_they_are_rare():
    quantizer = FiniteScalarQuantizer([3], 1)
    latents = fsq_latents(quantizer, torch.full((1, 2000), 0.50003))
    codes = quantizer(latents)[1].flatten(1)
    expected = {"latents": latents, "image_codes": codes}
    for count, problems in ((0, 0), (2, 0), (3, 1)):
        found = codes.clone()
        found[:, :count] -= 1
        assert len(list(differences(expected, {**expected, "image_codes": found}, quantizer))) == problems
    (problem,) = differences(expected, {**expected, "latents": latents * float("nan")}, quantizer)
    assert "latents differs by up to nan" in problem
    (problem,) = differences(expected, {**expected, "image_codes": codes[:, 1:]}, quantizer)
    assert problem.startswith("image_codes has the shape [1, 1999]")


def test_a_head_that_reads_pixels_takes_pixels(tiny_model, tmp_path):
    """Who serves recognition by onnxruntime needs one file, no tokenizer in front of it."""
    head = {"labels": ["a", "b"], "problem_type": "single_label_classification", "trained": True, "input": "pixels"}
    model = tiny_model(
        image_tokenizer_config={"image_size": 48},
        image_reader={"channels": [8, 8, 8], "adapter_rank": 2},
        heads={"expression": head, "age": {**head, "labels": ["age"], "problem_type": "regression"}},
    )
    model.save_pretrained(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "onnx")
    pixels = torch.rand(5, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name in ("expression", "age"):
        session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / f"{name}.onnx"))
        assert [entry.name for entry in session.get_inputs()] == ["pixel_values"]
        with torch.no_grad():
            expected = model.classify(name, model.read_for(name, pixels))
        found = torch.from_numpy(session.run(None, {"pixel_values": pixels.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
