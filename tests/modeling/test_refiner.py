"""The refiner: what it may see, what it starts from, and how it lives inside of an image tokenizer."""

import pytest
import torch

from gptface import GPTFaceImageTokenizer, GPTFaceImageTokenizerConfig, GPTFaceRefiner, GPTFaceRefinerConfig
from gptface.modeling_gptface.refiner_gptface import high_pass, push_pull_fill, refiner_inputs

TINY = {"image_size": 32, "hidden_channels": [4, 6, 8], "dilations": [1, 2]}


@pytest.fixture
def refiner():
    torch.manual_seed(0)
    return GPTFaceRefiner(GPTFaceRefinerConfig(**TINY)).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:24, 10:20] = 1
    mask[:, :, 7, 10:20] = 0.5  # a soft edge
    return {
        "decoded": torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1,
        "photo": torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1,
        "mask": mask,
    }


def trained(refiner):
    """Random weights everywhere, the two that start at zero too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in refiner.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return refiner


def test_an_untrained_refiner_changes_nothing(refiner, inputs):
    enlarged = torch.nn.functional.interpolate(inputs["decoded"], (32, 32), mode="bicubic")
    torch.testing.assert_close(refiner(**inputs), enlarged)
    torch.testing.assert_close(refiner(**{**inputs, "decoded": enlarged}), enlarged)


def test_what_the_mask_hides_is_not_seen(refiner, inputs):
    """Glasses that an edit takes off must not shine through."""
    other = torch.where(inputs["mask"] > 0, -inputs["photo"], inputs["photo"])
    with torch.no_grad():
        pictures = [trained(refiner)(**{**inputs, "photo": photo}) for photo in (inputs["photo"], other)]
    torch.testing.assert_close(*pictures)


def test_likeness_lets_high_frequencies_through_and_no_tone(refiner, inputs):
    likeness = torch.ones_like(inputs["mask"])
    lighter = inputs["photo"] + 0.3
    with torch.no_grad():
        hidden = trained(refiner)(**inputs)
        seen = refiner(**inputs, likeness=likeness)
    assert (hidden - seen).abs().max() > 1e-3
    torch.testing.assert_close(high_pass(lighter), high_pass(inputs["photo"]), atol=1e-5, rtol=0)


def test_the_photo_and_the_strength_of_tone_count(refiner, inputs):
    with torch.no_grad():
        first = trained(refiner)(**inputs)
        assert (refiner(**{**inputs, "photo": inputs["photo"] * 0.5}) - first).abs().max() > 1e-3
        assert (refiner(**inputs, tone=torch.zeros(2, 1)) - first).abs().max() > 1e-3


def test_an_even_error_around_a_hole_is_its_fill(inputs):
    """A face that was decoded too dark is too dark in the hole as well."""
    photo = torch.full((2, 3, 32, 32), 0.25)
    decoded = torch.full((2, 3, 32, 32), -0.25)
    inputs = refiner_inputs(decoded, photo, inputs["mask"], torch.zeros(2, 1, 32, 32), torch.ones(2, 1))
    assert inputs.shape == (2, 12, 32, 32)
    error, fill = inputs[:, 3:6], inputs[:, 6:9]
    outside, inside = inputs[:, 9:10] == -1, inputs[:, 9:10] == 1
    torch.testing.assert_close(error, error.max() * outside.expand_as(error))
    torch.testing.assert_close(fill[inside.expand_as(fill)], error.max().expand(inside.sum() * 3))


def test_the_fill_keeps_what_is_known_and_stays_within_it():
    generator = torch.Generator().manual_seed(0)
    values, known = torch.rand(3, 2, 16, 16, generator=generator), torch.rand(3, 1, 16, 16, generator=generator) < 0.1
    filled = push_pull_fill(values, known.float())
    torch.testing.assert_close(filled * known, values * known)
    least, most = (
        getattr(values.masked_fill(~known, other), name)(dim=(2, 3)) for name, other in (("amin", 9), ("amax", -9))
    )
    assert (filled >= least[..., None, None] - 1e-5).all()
    assert (filled <= most[..., None, None] + 1e-5).all()
    assert not push_pull_fill(values, torch.zeros_like(values[:, :1])).any()


def test_a_whole_face_needs_no_photo(refiner, inputs):
    everything = torch.ones_like(inputs["mask"])
    with torch.no_grad():
        picture = trained(refiner)(inputs["decoded"], torch.zeros_like(inputs["photo"]), everything)
    assert torch.isfinite(picture).all()


def test_the_default_is_small():
    assert sum(parameter.numel() for parameter in GPTFaceRefiner(GPTFaceRefinerConfig()).parameters()) <= 900_000


@pytest.mark.parametrize(
    ("name", "shape"),
    [("photo", (2, 3, 16, 16)), ("mask", (2, 3, 32, 32)), ("likeness", (1, 1, 32, 32)), ("tone", (2,))],
)
def test_wrong_shapes_are_named(refiner, inputs, name, shape):
    with pytest.raises(ValueError, match=f"{name} must have shape"):
        refiner(**{**inputs, name: torch.zeros(shape)})


@pytest.mark.parametrize("fields", [{"image_size": 48}, {"image_size": 4}, {"hidden_channels": [8]}])
def test_configurations_that_cannot_be_are_refused(fields):
    with pytest.raises(ValueError, match=r"image_size|hidden_channels"):
        GPTFaceRefinerConfig(**{**TINY, **fields})


def test_a_tokenizer_keeps_its_refiner_and_its_fingerprint(tmp_path, inputs):
    """Codes made before there was a refiner stay valid, and old folders open without one."""
    fields = {"image_size": 16, "hidden_channels": 4, "latent_channels": 4}
    plain = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**fields))
    assert plain.refiner is None
    tokenizer = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**fields, refiner_config=TINY))
    trained(tokenizer.refiner)
    tokenizer.load_state_dict(plain.state_dict(), strict=False)
    assert tokenizer.fingerprint() == plain.fingerprint()
    for each in (plain, tokenizer):
        each.save_pretrained(tmp_path)
        opened = GPTFaceImageTokenizer.from_pretrained(tmp_path)
        assert type(opened.config.refiner_config) is type(each.config.refiner_config)
    assert opened.refiner is not None
    torch.testing.assert_close(opened.refiner(**inputs), tokenizer.refiner(**inputs))


def test_it_can_be_exported(refiner, inputs):
    exported = torch.export.export(trained(refiner), (), inputs).module()
    torch.testing.assert_close(exported(**inputs), refiner(**inputs))


def test_codes_of_no_photo_are_decoded_at_the_size_of_the_refiner():
    fields = {"image_size": 16, "hidden_channels": 4, "latent_channels": 4}
    plain = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**fields)).eval()
    refined = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig(**fields, refiner_config=TINY)).eval()
    codes = plain.encode(torch.zeros(2, 3, 16, 16))
    with torch.no_grad():
        assert torch.equal(plain.decode_refined(codes), plain.decode(codes))
        picture = refined.decode_refined(codes)
    assert picture.shape == (2, 3, TINY["image_size"], TINY["image_size"]) and picture.abs().max() <= 1
