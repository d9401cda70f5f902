"""The plan of the image tokenizer: coarse codes beside the fine ones, which must not notice that it is there."""

import pytest
import torch

from gptface import GPTFaceForPreTraining, GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.image_tokenizer_gptface import PlanEncoder

PLAN = {"image_size": 48, "plan_levels": [3, 4, 2], "plan_channels": 16}


@pytest.fixture
def tokenizer(tiny_model):
    return tiny_model(image_tokenizer_config=PLAN).image_tokenizer


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_shapes_and_ranges(tokenizer, pixels):
    config = tokenizer.config
    assert (config.plan_grid_size, config.num_plan_tokens, config.num_plan_codes) == (3, 9, 24)
    codes = tokenizer.encode_plan(pixels)
    assert codes.shape == (2, 9) and codes.dtype == torch.long
    assert codes.unique().numel() > 1 and codes.min() >= 0 and codes.max() < 24
    assert tokenizer.embed_plan(codes).shape == tokenizer.latents(pixels).shape == (2, 5, 6, 6)
    with torch.no_grad():
        tokenizer.decoder[-1].weight.mul_(100)
    decoded = tokenizer.decode_plan(codes)
    assert decoded.shape == (2, 3, 48, 48)
    assert decoded.min() == -1 and decoded.max() == 1


def test_latents_give_the_same_codes_as_their_pixels(tokenizer, pixels):
    """Data sets are encoded into both kinds of codes with one run of the encoder."""
    assert torch.equal(tokenizer.encode_plan(latents=tokenizer.latents(pixels)), tokenizer.encode_plan(pixels))


def test_autocast_leaves_the_codes_as_they_are(tokenizer, pixels):
    """Codes made within a training loop must be those that editing makes."""
    expected = tokenizer.encode_plan(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.encode_plan(pixels), expected)


def test_training_sees_the_latents_that_codes_give(tokenizer, pixels):
    latents = tokenizer.latents(pixels)
    values, codes = tokenizer.plan(latents)
    assert torch.equal(codes.flatten(1), tokenizer.encode_plan(pixels))
    torch.testing.assert_close(values, tokenizer.embed_plan(codes.flatten(1)))


def test_gradients_reach_all_of_the_plan(tokenizer, pixels):
    tokenizer.plan.requires_grad_(True)(tokenizer.latents(pixels))[0].square().mean().backward()
    for name, parameter in tokenizer.plan.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_cell_of_the_plan_reads_its_own_latents_alone():
    """An edit of one place must not change what the plan says of another."""
    torch.manual_seed(0)
    encoder, latents = PlanEncoder(5, 16), torch.randn(1, 5, 6, 6)
    other = latents.clone()
    other[..., 2:4, 4:6] += 1
    changed = (encoder(other) != encoder(latents)).any(1)[0]
    assert changed.nonzero().tolist() == [[1, 2]]


def test_the_codes_and_their_fingerprint_know_nothing_of_the_plan(tiny_config, pixels):
    """Codes that were made before there was a plan stay valid."""
    torch.manual_seed(0)
    config = tiny_config(image_tokenizer_config=PLAN).image_tokenizer_config
    tokenizer = GPTFaceImageTokenizer(config)
    without = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**{**config.to_diff_dict(), "plan_levels": None}))
    without.load_state_dict(
        {name: tensor for name, tensor in tokenizer.state_dict().items() if not name.startswith("plan.")}
    )
    assert without.fingerprint() == tokenizer.fingerprint()
    assert torch.equal(without.encode(pixels), tokenizer.encode(pixels))


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("encoder.0.weight", True),
        ("plan.encoder.input.weight", True),
        ("plan.quantizer.down.bias", True),
        ("plan.quantizer.up.weight", False),
        ("plan.decoder.output.weight", False),
        ("quantizer.down.bias", False),
        ("decoder.1.weight", False),
    ],
)
def test_plan_fingerprint_changes_with_what_decides_its_codes_alone(tokenizer, name, matters):
    before = tokenizer.plan_fingerprint()
    with torch.no_grad():
        tokenizer.get_parameter(name).add_(0.01)
    assert (tokenizer.plan_fingerprint() != before) == matters


def test_plan_fingerprint_tells_levels_apart_that_no_weight_does(tokenizer):
    before = tokenizer.plan_fingerprint()
    tokenizer.config.plan_levels = [3, 4, 3]
    assert tokenizer.plan_fingerprint() != before


def test_it_is_saved_inside_the_model(tiny_model, pixels, tmp_path):
    model = tiny_model(image_tokenizer_config=PLAN)
    codes = model.image_tokenizer.encode_plan(pixels)
    model.save_pretrained(tmp_path)
    loaded = GPTFaceForPreTraining.from_pretrained(tmp_path).image_tokenizer
    assert torch.equal(loaded.encode_plan(pixels), codes)
    assert torch.equal(loaded.decode_plan(codes), model.image_tokenizer.decode_plan(codes))
    assert loaded.plan_fingerprint() == model.image_tokenizer.plan_fingerprint()


def test_plan_fingerprint_survives_storing_as_fp16(tokenizer, tmp_path):
    before = tokenizer.plan_fingerprint()
    tokenizer.half().save_pretrained(tmp_path)
    assert GPTFaceImageTokenizer.from_pretrained(tmp_path, dtype=torch.float32).plan_fingerprint() == before


def test_without_a_plan_the_error_says_how_to_get_one(tiny_model, pixels):
    tokenizer = tiny_model(image_tokenizer_config={"image_size": 48}).image_tokenizer
    assert tokenizer.config.num_plan_tokens == tokenizer.config.num_plan_codes == tokenizer.config.plan_grid_size == 0
    codes = torch.zeros(1, 9, dtype=torch.long)
    for call in (
        lambda: tokenizer.encode_plan(pixels),
        lambda: tokenizer.embed_plan(codes),
        lambda: tokenizer.decode_plan(codes),
        tokenizer.plan_fingerprint,
    ):
        with pytest.raises(ValueError, match=r"no plan.*train-plan"):
            call()


def test_arguments_that_do_not_do_are_named(tokenizer, pixels):
    with pytest.raises(ValueError, match="one of them"):
        tokenizer.encode_plan()
    with pytest.raises(ValueError, match="one of them"):
        tokenizer.encode_plan(pixels, latents=tokenizer.latents(pixels))
    with pytest.raises(ValueError, match=r"\[B, 3, 48, 48\]"):
        tokenizer.encode_plan(pixels[..., :24])
    with pytest.raises(ValueError, match="square number"):
        tokenizer.decode_plan(torch.zeros(1, 8, dtype=torch.long))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 24}, "side must be even.*gives 3"),
        ({"plan_levels": []}, "at least 2"),
        ({"plan_levels": [8, 1]}, "at least 2"),
        ({"plan_channels": 24}, "multiple of 16"),
    ],
)
def test_configurations_that_cannot_be_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        GPTFaceImageTokenizerConfig(**{**PLAN, **fields})
