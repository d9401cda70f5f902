"""The image tokenizer: pixels in [-1, 1] ↔ codes in raster order, and a fingerprint that tells tokenizers apart."""

import sys

import pytest
import torch

from gptface import GPTFaceForPreTraining, GPTFaceImageTokenizer


@pytest.fixture
def tokenizer(tiny_model):
    return tiny_model().image_tokenizer


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_shapes_and_ranges(tokenizer, pixels):
    codes = tokenizer.encode(pixels)
    assert codes.shape == (2, 9) and codes.dtype == torch.long
    assert codes.unique().numel() > 3 and codes.min() >= 0 and codes.max() < 60
    assert tokenizer.embed(codes).shape == (2, 5, 3, 3)
    with torch.no_grad():
        tokenizer.decoder[-1].weight.mul_(100)
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (2, 3, 24, 24)
    assert decoded.min() == -1 and decoded.max() == 1


def test_forward_agrees_with_encode_and_decode(tokenizer, pixels):
    output = tokenizer(pixels)
    codes = tokenizer.encode(pixels)
    assert torch.equal(output.codes, codes)
    torch.testing.assert_close(output.reconstruction.clamp(-1, 1), tokenizer.decode(codes))
    assert torch.equal(tokenizer(pixels, return_dict=False)[1], codes)


def test_cells_are_in_raster_order(tiny_model):
    """What changes in the upper right corner must be found in the last cells of the first rows, both ways."""
    tokenizer = tiny_model(image_tokenizer_config={"image_size": 64}).image_tokenizer
    grey = torch.full((1, 3, 64, 64), -0.5)
    bright = grey.clone()
    bright[..., :16, 48:] = 0.9
    quantized = [tokenizer.embed(tokenizer.encode(pixels)) for pixels in (grey, bright)]
    moved = (quantized[1] - quantized[0]).abs().sum((0, 1))
    assert moved.triu(2).sum() > 2 * moved.tril(-2).sum()
    codes = tokenizer.encode(grey)
    other = codes.clone()
    other[0, 7] = (other[0, 7] + 30) % 60
    difference = (tokenizer.decode(other) - tokenizer.decode(codes)).abs().sum((0, 1))
    assert difference[:16, 48:].mean() > 3 * difference[48:, :16].mean()


def test_the_backbone_reads_pixels_from_zero_to_one(tokenizer, pixels):
    """Weights of the TAESD family expect [0, 1]; [-1, 1] would give them pictures that are too dark."""
    torch.testing.assert_close(tokenizer.latents(pixels), tokenizer.encoder((pixels + 1) / 2))
    latents = tokenizer.latents(pixels)
    torch.testing.assert_close(tokenizer.decode_latents(latents), tokenizer.decoder(latents) * 2 - 1)


@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 1, 24, 24), (1, 3, 24, 32), (1, 3, 16, 16)])
def test_pixels_of_another_shape_are_named(tokenizer, shape):
    with pytest.raises(ValueError, match=r"\[B, 3, 24, 24\]"):
        tokenizer.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(9,), (1, 8), (1, 3, 3)])
def test_codes_of_another_shape_are_named(tokenizer, shape):
    with pytest.raises(ValueError, match="square number"):
        tokenizer.decode(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("wrong", [60, -1, 65535])
def test_codes_that_there_are_not_make_no_picture(tokenizer, wrong):
    """Those of another tokenizer, or of a cell without pixels: what came out would look like a face."""
    codes = torch.zeros(1, 9, dtype=torch.long)
    codes[0, 4] = wrong
    with pytest.raises(ValueError, match="0…59"):
        tokenizer.decode(codes)
    with pytest.raises(ValueError, match="whole numbers"):
        tokenizer.decode(torch.zeros(1, 9))


def test_fingerprint_changes_with_any_weight_that_decides_the_codes(tokenizer):
    before = tokenizer.fingerprint()
    assert before == tokenizer.fingerprint()
    with torch.no_grad():
        tokenizer.quantizer.down.bias[0] += 0.01
    assert tokenizer.fingerprint() != before


def test_a_better_decoder_leaves_codes_valid(tokenizer, pixels):
    before, codes = tokenizer.fingerprint(), tokenizer.encode(pixels)
    with torch.no_grad():
        for parameter in tokenizer.decoder.parameters():
            parameter.add_(0.01)
    assert tokenizer.fingerprint() == before and torch.equal(tokenizer.encode(pixels), codes)


def test_fingerprint_survives_storing_as_fp16(tokenizer, tmp_path):
    """Codes are encoded with the model in training and read with the released one: it must be the same tokenizer."""
    before = tokenizer.fingerprint()
    tokenizer.half().save_pretrained(tmp_path)
    loaded = GPTFaceImageTokenizer.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.dtype == torch.float32
    assert loaded.fingerprint() == before


@pytest.mark.parametrize("quantizer", ["fsq", "codebook", "gumbel"])
def test_saved_alone_it_gives_the_same_codes(tiny_model, pixels, tmp_path, quantizer):
    tokenizer = tiny_model(image_tokenizer_config={"quantizer": quantizer, "codebook_size": 17}).image_tokenizer
    tokenizer.save_pretrained(tmp_path)
    loaded = GPTFaceImageTokenizer.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(pixels), tokenizer.encode(pixels))
    assert torch.equal(loaded.decode(tokenizer.encode(pixels)), tokenizer.decode(tokenizer.encode(pixels)))


VQGAN = {
    "backbone": "vqgan",
    "quantizer": "codebook",
    "image_size": 16,
    "codebook_size": 17,
    "codebook_dim": 3,
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "attention_resolutions": [8],
    "norm_num_groups": 2,
}


def test_vqgan_backbone_saves_inside_the_model(tiny_model, tmp_path):
    pytest.importorskip("diffusers")
    model = tiny_model(image_tokenizer_config=VQGAN)
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = model.image_tokenizer.encode(pixels)
    assert codes.shape == (1, 64) and codes.max() < 17
    model.save_pretrained(tmp_path)
    loaded = GPTFaceForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded.image_tokenizer.encode(pixels), codes)
    assert torch.equal(loaded.image_tokenizer.decode(codes), model.image_tokenizer.decode(codes))
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name


def test_vqgan_backbone_attends_at_the_resolutions_that_were_asked_for(tiny_config):
    pytest.importorskip("diffusers")
    from gptface.modeling_gptface.image_tokenizer_gptface import vqgan_backbone

    encoder, decoder = vqgan_backbone(tiny_config(image_tokenizer_config=VQGAN).image_tokenizer_config)
    assert [type(block).__name__ for block in encoder.down_blocks] == ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]
    assert [type(block).__name__ for block in decoder.up_blocks] == ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]


def test_without_diffusers_the_error_says_what_to_install(tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.vae", None)
    with pytest.raises(ImportError, match=r"gptface\[vqgan\]"):
        GPTFaceImageTokenizer(tiny_config(image_tokenizer_config=VQGAN).image_tokenizer_config)
