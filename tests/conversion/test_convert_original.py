"""A checkpoint of the original stack must compute the same numbers after conversion, and come back as it was."""

import json
from pathlib import Path

import numpy as np
import original_stack
import pytest
import torch
from original_stack import CELLS, NUM_CODES, TEXT_LENGTH, VOCABULARY, Variant, write_checkpoint

from gptface import GPTFaceForPreTraining, GPTFaceProcessor
from gptface.conversion.original import convert_original, export_original
from gptface.conversion.report import ConversionError

REAL = Path(__file__).parents[3] / "shared" / "conversion" / "tiny_pre_norm"
VARIANTS = {
    "pre-norm, tanh GELU": Variant(),
    "post-norm, erf GELU, embedding norm": Variant("post", "gelu", embedding_norm=True),
    "pre-norm, erf GELU, embedding norm": Variant("pre", "gelu", embedding_norm=True),
    "post-norm, tanh GELU, no matching": Variant("post", matching=False),
    "tied decoder": Variant(tied=True),
    "autoregressive sibling": Variant(autoregressive=True),
    "autoregressive sibling, no bias": Variant("post", autoregressive=True, lm_bias=False),
    "more positions than are used": Variant(spare_positions=3),
    "GumbelVQ": Variant(gumbel=True),
}


def convert(folder: Path, variant: Variant, **options) -> Path:
    source = folder / "source"
    source.mkdir()
    files = write_checkpoint(source, variant)
    convert_original(**files, output=folder / "model", max_text_length=TEXT_LENGTH, **options)
    return folder / "model"


@pytest.fixture(scope="module", params=list(VARIANTS.values()), ids=list(VARIANTS))
def converted(request, tmp_path_factory) -> tuple[Variant, Path]:
    """A variant and the folder that it was converted into; the files that it came from are beside it, in `source`."""
    return request.param, convert(tmp_path_factory.mktemp("variant"), request.param)


@torch.no_grad()
def compute(model: GPTFaceForPreTraining, src: torch.Tensor, seg: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the original computes for a sequence, by the converted model."""
    length, words = model.config.max_text_length, model.config.vocab_size
    image = src[:, length:]
    outputs = model.gptface(
        src[:, :length],
        (seg[:, :length] > 0).long(),
        image_codes=(image - words).clamp(min=0),
        image_mask=image == model.config.mask_token_id,
    )
    states = outputs.last_hidden_state
    logits = [model.lm_head.text(states), model.lm_head.image(states, model.gptface.embeddings.code_table())]
    return {"hidden": states, "logits": torch.cat(logits, -1), "match": model.match_head(outputs.pooler_output)}


def test_converted_model_computes_what_the_original_does(converted):
    variant, folder = converted
    model = GPTFaceForPreTraining.from_pretrained(folder).eval()
    src, seg = original_stack.sequences()
    expected = original_stack.forward(variant, variant.state(), src, seg)
    computed = compute(model, src, seg)
    for name, tensor in expected.items():
        torch.testing.assert_close(computed[name], tensor, atol=1e-4, rtol=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.match_trained == ("match" in expected)


def test_round_trip_gives_the_same_tensors(converted, tmp_path):
    variant, folder = converted
    source, back = folder.parent / "source", tmp_path / "back"
    export_original(folder, back)
    image, image_back = (torch.load(f / "vqgan.ckpt", weights_only=True)["state_dict"] for f in (source, back))
    transformer_back = torch.load(back / "transformer.bin", weights_only=True)
    for expected, found in ((variant.state(), transformer_back), (image, image_back)):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            rounding = 2e-7 if name.endswith("gamma") else 0
            torch.testing.assert_close(found[name], tensor, atol=0, rtol=rounding, msg=name)
    assert json.loads((back / "transformer_config.json").read_text()) == variant.config()


def test_exported_checkpoint_converts_again(tmp_path):
    """The configuration files that the reverse writes are those that the converter reads."""
    model = convert(tmp_path, Variant(gumbel=True, spare_positions=3))
    for extra in ("original_config.json", "original_positions.safetensors"):
        (model / extra).unlink()  # a model that was fine-tuned and saved elsewhere has not got them
    export_original(model, tmp_path / "back")
    names = {"transformer": "transformer.bin", "config": "transformer_config.json"}
    names |= {"vqgan": "vqgan.ckpt", "vqgan_config": "vqgan.yaml"}
    convert_original(**{key: tmp_path / "back" / name for key, name in names.items()}, output=tmp_path / "again")
    first, second = (GPTFaceForPreTraining.from_pretrained(path).state_dict() for path in (model, tmp_path / "again"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=0, rtol=4e-7, msg=name)


def test_text_part_takes_all_positions_before_the_image_by_default(tmp_path):
    files = write_checkpoint(tmp_path, Variant(spare_positions=3))
    convert_original(**files, output=tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["max_text_length"] == TEXT_LENGTH + 3


def test_vocabulary_becomes_the_tokenizer_and_comes_back(tmp_path):
    entries = [f"word{index}" for index in range(VOCABULARY)]
    entries[3:8] = "[SEP]", "[PAD]", "[MASK]", "[UNK]", "[CLS]"
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(f"{entry}\n" for entry in entries))
    model = convert(tmp_path, Variant(), vocab=vocab)
    processor = GPTFaceProcessor.from_pretrained(model)
    assert processor(text="Word20 word9")["input_ids"].tolist() == [[7, 20, 9, 3]]
    assert processor.image_processor.size == {"height": 8, "width": 8}
    config = GPTFaceForPreTraining.from_pretrained(model).config
    assert (config.pad_token_id, config.cls_token_id, config.sep_token_id, config.mask_token_id) == (4, 7, 3, 5)
    export_original(model, tmp_path / "back")
    assert (tmp_path / "back" / "vocab.txt").read_text() == vocab.read_text()


def test_report_names_every_tensor_with_its_shape(tmp_path):
    files = write_checkpoint(tmp_path, Variant(matching=False))
    vqgan = torch.load(files["vqgan"], weights_only=True)
    vqgan["state_dict"]["loss.discriminator.weight"] = torch.zeros(2, 3)
    torch.save(vqgan, files["vqgan"])
    report = convert_original(**files, output=tmp_path / "model")
    text = "\n".join(report.lines())
    words, codes = (f"gptface.embeddings.{kind}_embeddings.weight" for kind in ("word", "code"))
    assert (
        f"embedding.word.embedding.weight [{VOCABULARY + NUM_CODES}, 30] → "
        f"{words} [{VOCABULARY}, 30] + {codes} [{NUM_CODES}, 30]" in text
    )
    assert "loss.discriminator.weight [2, 3]: loss of the VQGAN's training" in text
    assert "match_head.output.weight [2, 30]: normal, standard deviation 0.02" in text
    assert len(list(report.records())) == len(report.mapped) + 1 + 4


def test_all_misfits_are_listed_and_nothing_is_written(tmp_path):
    files = write_checkpoint(tmp_path, Variant())
    state = Variant().state()
    del state["encoder.layer_norm.gamma"]
    state["target.cls.weight"] = torch.zeros(2, 30)
    state["embedding.seg.embedding.weight"] = torch.zeros(2, 30)
    torch.save(state, files["transformer"])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError) as error:
        convert_original(**files, output=tmp_path / "model")
    for line in (
        "missing encoder.layer_norm.gamma [30]",
        "surplus target.cls.weight [2, 30]",
        "shape   embedding.seg.embedding.weight [2, 30], expected [3, 30]",
    ):
        assert line in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emb_size": 15}, "emb_size 15 is not hidden_size 30"),
        ({"rotary_position_embedding": True}, "rotary_position_embedding is True, not False"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish', not 'gelu' or 'gelu_fast' or 'relu'"),
        ({"mask": "causal"}, "mask is 'causal'"),
        ({"target": ["mlm", "lm"]}, "target is"),
        ({"dropout": None}, "dropout is None, no number"),
        ({"target": "mlm"}, "target is 'mlm', not of type list"),
        ({"vocab_size": None}, "vocab_size is None, not of type int"),
        ({"max_seq_length": CELLS}, "a text of 0 and an image of 16 cells do not fit"),
        ({"vocab_size": 100}, "give --vocab"),
        ({"image_tokenizer": {"image_vocab_size": 99}}, "image_vocab_size is 99, the VQGAN's is 11"),
        ({"image_width": 16}, "image_width is 16, the VQGAN's is 8"),
    ],
)
def test_a_configuration_that_cannot_be_converted_says_why(tmp_path, changes, message):
    files = write_checkpoint(tmp_path, Variant())
    files["config"].write_text(json.dumps(Variant().config() | changes))
    with pytest.raises(ConversionError, match=message):
        convert_original(**files, output=tmp_path / "model")


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    files = write_checkpoint(tmp_path, Variant())
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nface\n")
    with pytest.raises(ConversionError, match="has 6 entries, the model's vocabulary 107"):
        convert_original(**files, output=tmp_path / "model", vocab=vocab)
    vocab.write_text("[PAD]\nface\nface\n")
    with pytest.raises(ConversionError, match="'face'"):
        convert_original(**files, output=tmp_path / "model", vocab=vocab)


def test_weights_that_are_said_to_be_tied_must_be_equal(tmp_path):
    files = write_checkpoint(tmp_path, Variant(tied=True))
    state = Variant(tied=True).state()
    state["target.mlm.linear_2.weight"] = state["embedding.word.embedding.weight"] + 1
    torch.save(state, files["transformer"])
    with pytest.raises(ConversionError, match="tie_weights is true"):
        convert_original(**files, output=tmp_path / "model")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_model_that_the_original_stack_cannot_hold_is_refused(tmp_path):
    from gptface import GPTFaceConfig

    GPTFaceForPreTraining(
        GPTFaceConfig(
            vocab_size=110,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=37,
            grid_convolution=True,
            image_tokenizer_config={"hidden_channels": 8, "latent_channels": 4},
        )
    ).save_pretrained(tmp_path / "model")
    with pytest.raises(ConversionError, match="grid_convolution"):
        export_original(tmp_path / "model", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the checkpoint that the original stack wrote is not beside the repository"
)
def test_a_checkpoint_of_the_stack_itself(tmp_path):
    files = {name: REAL / file for name, file in (("transformer", "transformer.bin"), ("vqgan", "vqgan.ckpt"))}
    files |= {"config": REAL / "transformer_config.json", "vqgan_config": REAL / "vqgan.yaml"}
    convert_original(**files, output=tmp_path / "model", max_text_length=12)
    model = GPTFaceForPreTraining.from_pretrained(tmp_path / "model").eval()
    expected = {name: torch.from_numpy(array) for name, array in np.load(REAL / "io.npz").items()}
    computed = compute(model, expected["src"], expected["seg"])
    for name, source in (("hidden", "hidden"), ("logits", "mlm_logits"), ("match", "match_logits")):
        torch.testing.assert_close(computed[name], expected[source], atol=1e-4, rtol=0)
    image = model.image_tokenizer(expected["pixels"])
    assert torch.equal(image.codes, expected["codes"])
    torch.testing.assert_close(image.reconstruction, expected["reconstruction"], atol=1e-4, rtol=0)
    export_original(tmp_path / "model", tmp_path / "back")
    found = torch.load(tmp_path / "back" / "transformer.bin", weights_only=True)
    for name, tensor in torch.load(files["transformer"], weights_only=True).items():
        torch.testing.assert_close(found[name], tensor, atol=0, rtol=2e-7 * name.endswith("gamma"), msg=name)
