"""A VQGAN must give the same codes and pixels in taming's layout, in the image tokenizer and in diffusers."""

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from original_stack import Variant, write_checkpoint
from taming_files import (
    IMAGE_SIZE,
    NUM_CODES,
    diffusers_model,
    taming_config,
    taming_state,
    write_files,
    write_vqgan,
)

from gptface import GPTFaceImageTokenizer
from gptface.conversion.diffusers_export import export_diffusers
from gptface.conversion.original import convert_original
from gptface.conversion.report import ConversionError
from gptface.conversion.vqgan import convert_vqgan


def pictures(size: int = IMAGE_SIZE) -> torch.Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def diffusers_codes_and_pixels(model: VQModel, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    latents = model.encode(pixels).latents
    codes = model.quantize(latents)[2][2]
    return codes.view(len(pixels), -1), model.decode(latents).sample


@torch.no_grad()
def assert_same(tokenizer: GPTFaceImageTokenizer, codes: torch.Tensor, pixels: torch.Tensor, source: torch.Tensor):
    output = tokenizer.eval()(source)
    assert torch.equal(output.codes, codes)
    assert torch.equal(tokenizer.encode(source), codes)
    assert len(codes.unique()) > 3, "a test with one code shows nothing"
    torch.testing.assert_close(output.reconstruction, pixels, atol=1e-5, rtol=0)
    torch.testing.assert_close(tokenizer.decode(codes), pixels.clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("attending", "attention"),
    [((True, False), (8,)), ((False, True), (4,)), ((True, True), (8, 4)), ((False, False), ())],
)
def test_converted_tokenizer_gives_the_same_codes_and_pixels(tmp_path, attending, attention):
    """Attention stands at the resolutions that the configuration names, with one head."""
    model = diffusers_model(attending)
    files = write_files(tmp_path, taming_state(model), taming_config(attention))
    convert_vqgan(*files, tmp_path / "tokenizer")
    tokenizer = GPTFaceImageTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert_same(tokenizer, *diffusers_codes_and_pixels(model, pictures()), pictures())


def test_pictures_of_another_size_than_the_vqgan_was_trained_on(tmp_path):
    """The levels that attend stay the same, although their resolutions do not."""
    model = diffusers_model((True, False))
    files = write_files(tmp_path, taming_state(model), taming_config((64,), resolution=64))
    convert_vqgan(*files, tmp_path / "tokenizer", image_size=16)
    tokenizer = GPTFaceImageTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert_same(tokenizer, *diffusers_codes_and_pixels(model, pictures(16)), pictures(16))


def test_first_stage_of_a_transformer_checkpoint(tmp_path):
    model = diffusers_model()
    state = {f"first_stage_model.{name}": tensor for name, tensor in taming_state(model).items()}
    state |= {"first_stage_model.loss.logvar": torch.zeros(1), "transformer.tok_emb.weight": torch.zeros(4, 2)}
    stage = taming_config()["model"]
    target = "taming.models.cond_transformer.Net2NetTransformer"
    files = write_files(tmp_path, state, {"model": {"target": target, "params": {"first_stage_config": stage}}})
    report = convert_vqgan(*files, tmp_path / "tokenizer")
    assert [tensor.name for tensor, _ in report.skipped] == ["loss.logvar", "transformer.tok_emb.weight"]
    tokenizer = GPTFaceImageTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert_same(tokenizer, *diffusers_codes_and_pixels(model, pictures()), pictures())


@torch.no_grad()
def test_gumbel_vq_takes_the_likeliest_code(tmp_path):
    model, *files = write_vqgan(tmp_path, gumbel=True)
    state = torch.load(files[0], weights_only=True)["state_dict"]
    convert_vqgan(*files, tmp_path / "tokenizer")
    scores = torch.nn.functional.conv2d(
        model.encode(pictures()).latents, state["quantize.proj.weight"], state["quantize.proj.bias"]
    )
    codes = scores.argmax(1)
    vectors = state["quantize.embed.weight"][codes].movedim(-1, 1)
    pixels = model.decoder(model.post_quant_conv(vectors))
    tokenizer = GPTFaceImageTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert_same(tokenizer, codes.flatten(1), pixels, pictures())


@pytest.mark.parametrize(("gumbel", "inside_model"), [(False, True), (True, False)])
def test_diffusers_opens_the_export_and_gives_the_same_pixels(tmp_path, gumbel, inside_model):
    if inside_model:
        convert_original(**write_checkpoint(tmp_path, Variant(gumbel=gumbel)), output=tmp_path / "source")
        from gptface import GPTFaceModel

        tokenizer = GPTFaceModel.from_pretrained(tmp_path / "source").image_tokenizer
    else:
        convert_vqgan(*write_vqgan(tmp_path, gumbel)[1:], tmp_path / "source")
        tokenizer = GPTFaceImageTokenizer.from_pretrained(tmp_path / "source")
    export_diffusers(tmp_path / "source", tmp_path / "vqmodel")
    model = VQModel.from_pretrained(tmp_path / "vqmodel").eval()
    assert_same(tokenizer, *diffusers_codes_and_pixels(model, pictures()), pictures())


def test_straight_through_gradient_of_the_gumbel_quantizer():
    """
    Training goes on after a conversion: the encoder learns through the codes, the classifier through its softmax.
    """
    from gptface.modeling_gptface.quantization import GumbelQuantizer

    quantizer = GumbelQuantizer(NUM_CODES, 4, 6)
    latents = torch.randn(2, 6, 3, 3, requires_grad=True)
    quantized, codes = quantizer(latents)
    torch.testing.assert_close(quantized, quantizer.embed(codes))
    quantized.square().mean().backward()
    for tensor in (latents, quantizer.proj.weight):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_misfits_are_listed_and_nothing_is_written(tmp_path):
    state = taming_state(diffusers_model())
    state["decoder.extra.weight"] = torch.zeros(1)
    state["quantize.embedding.weight"] = torch.zeros(NUM_CODES, 5)
    del state["encoder.mid.attn_1.q.bias"]
    files = write_files(tmp_path, state, taming_config())
    with pytest.raises(ConversionError) as error:
        convert_vqgan(*files, tmp_path / "tokenizer")
    for line in (
        "missing encoder.mid.attn_1.q.bias [64]",
        "surplus decoder.extra.weight [1]",
        "shape   quantize.embedding.weight [11, 5], expected [11, 4]",
    ):
        assert line in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vqgan.ckpt", "vqgan.yaml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("model"), "lacks the section 'model'"),
        (lambda config: config["model"].update(target="ldm.models.AutoencoderKL"), "describes a AutoencoderKL"),
        (lambda config: config["model"]["params"].pop("n_embed"), "missing n_embed"),
        (lambda config: config["model"]["params"]["ddconfig"].pop("ch"), "missing ch"),
        (
            lambda config: config["model"]["params"]["ddconfig"].update(ch_mult="1,2"),
            "ch_mult is '1,2', not of type list",
        ),
        (lambda config: config["model"]["params"]["ddconfig"].update(double_z=True), "double_z"),
        (lambda config: config["model"]["params"].update(remap="subset.npy"), "remap"),
    ],
)
def test_a_configuration_that_cannot_be_converted_says_why(tmp_path, change, message):
    config = taming_config()
    change(config)
    files = write_files(tmp_path, {"quant_conv.bias": torch.zeros(1)}, config)
    with pytest.raises(ConversionError, match=message):
        convert_vqgan(*files, tmp_path / "tokenizer")


def test_a_tokenizer_that_is_no_vqgan_is_not_exported(tmp_path):
    from gptface import GPTFaceImageTokenizerConfig

    config = GPTFaceImageTokenizerConfig(hidden_channels=8, latent_channels=4)
    GPTFaceImageTokenizer(config).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ConversionError, match="backbone='compact'"):
        export_diffusers(tmp_path / "tokenizer", tmp_path / "vqmodel")
    assert not (tmp_path / "vqmodel").exists()
