"""The quantizers against their definitions: other programs read stored codes, and have only the definition."""

import itertools
import math

import pytest
import torch

from gptface.modeling_gptface.quantization import (
    CodebookQuantizer,
    FiniteScalarQuantizer,
    GumbelQuantizer,
    code_levels,
)

LEVELS = [3, 4, 5]


@pytest.fixture
def fsq():
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(LEVELS, latent_channels=7)
    with torch.no_grad():
        quantizer.down.weight.mul_(5)
    return quantizer


@pytest.fixture
def latents():
    return torch.randn(2, 7, 4, 5, generator=torch.Generator().manual_seed(1))


def test_fsq_is_the_formula_of_mentzer_et_al(fsq, latents):
    """
    Written out in plain Python for each number: half = (L−1)(1+1e-3)/2, offset 0.5 for even L, then tanh and rounding.
    """
    squeezed = fsq.down(latents)
    quantized, codes = fsq(latents)
    for image, row, column in itertools.product(range(2), range(4), range(5)):
        code, radix, values = 0, 1, []
        for dimension, level in enumerate(LEVELS):
            half = (level - 1) * (1 + 1e-3) / 2
            offset = 0.5 if level % 2 == 0 else 0.0
            value = squeezed[image, dimension, row, column].item()
            integer = round(math.tanh(value + math.atanh(offset / half)) * half - offset)
            code += (integer + level // 2) * radix
            radix *= level
            values.append(integer / (level // 2))
        assert codes[image, row, column].item() == code
        expected = fsq.up(torch.tensor(values).view(1, -1, 1, 1))[0, :, 0, 0]
        torch.testing.assert_close(quantized[image, :, row, column], expected)


def test_embedding_the_codes_gives_what_forward_gave(fsq, latents):
    quantized, codes = fsq(latents)
    assert codes.unique().numel() > 10
    torch.testing.assert_close(fsq.embed(codes), quantized)


def test_every_code_has_levels_of_its_own(fsq):
    levels = code_levels(torch.arange(fsq.num_codes), LEVELS)
    assert fsq.num_codes == 60
    assert {tuple(row) for row in levels.tolist()} == set(itertools.product(range(3), range(4), range(5)))
    radix = torch.tensor([1, 3, 12])
    assert torch.equal((levels * radix).sum(-1), torch.arange(60))


def test_every_code_can_be_reached():
    """A level that no input reaches would be a row of the code embedding that never learns."""
    quantizer = FiniteScalarQuantizer(LEVELS, latent_channels=3)
    with torch.no_grad():
        quantizer.down.weight.copy_(torch.eye(3)[:, :, None, None])
        quantizer.down.bias.zero_()
    line = torch.linspace(-6, 6, 41)
    cube = torch.stack(torch.meshgrid(line, line, line, indexing="ij")).reshape(1, 3, 41, 41 * 41)
    assert quantizer(cube)[1].unique().tolist() == list(range(60))


def test_codes_are_whole_in_bfloat16():
    """bfloat16 cannot hold 1,001; codes summed in it would be those of other pictures."""
    quantizer = FiniteScalarQuantizer([8, 6, 5, 5], latent_channels=4)
    with torch.no_grad():
        quantizer.down.weight.copy_(torch.eye(4)[:, :, None, None])
        quantizer.down.bias.zero_()
    latents = torch.randn(1, 4, 20, 20, generator=torch.Generator().manual_seed(2)) * 3
    reduced = quantizer.to(torch.bfloat16)
    integers = reduced.integers(latents.bfloat16()).float().round()
    expected = sum(
        (integers[:, dimension].long() + level // 2) * radix
        for dimension, (level, radix) in enumerate(zip([8, 6, 5, 5], [1, 8, 48, 240], strict=True))
    )
    codes = reduced(latents.bfloat16())[1]
    assert codes.max() > 256 and torch.equal(codes, expected)


def test_fsq_gradient_passes_the_rounding(fsq, latents):
    """The gradient of the rounded output is that of the same output without rounding."""
    latents.requires_grad_(True)
    weight = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    (straight,) = torch.autograd.grad((fsq.integers(latents) * weight).sum(), latents)
    half = torch.tensor([(level - 1) * (1 + 1e-3) / 2 for level in LEVELS]).view(1, -1, 1, 1)
    offset = torch.tensor([0.0, 0.5, 0.0]).view(1, -1, 1, 1)
    smooth = torch.tanh(fsq.down(latents) + torch.atanh(offset / half)) * half - offset
    (expected,) = torch.autograd.grad((smooth * weight).sum(), latents)
    assert straight.abs().sum() > 0
    torch.testing.assert_close(straight, expected)


@pytest.fixture
def learned():
    torch.manual_seed(0)
    return CodebookQuantizer(codebook_size=13, codebook_dim=3, latent_channels=7)


def test_codebook_takes_the_nearest_vector(learned, latents):
    quantized, codes = learned(latents)
    vectors = learned.down(latents).movedim(1, -1).flatten(0, 2)
    for vector, code in zip(vectors, codes.flatten(), strict=True):
        distances = [(vector - entry).norm().item() for entry in learned.codebook.weight]
        assert code.item() == distances.index(min(distances))
    torch.testing.assert_close(quantized, learned.embed(codes))


def test_codebook_gradient_passes_straight_through(learned, latents):
    latents.requires_grad_(True)
    (straight,) = torch.autograd.grad(learned(latents)[0].sum(), latents)
    (expected,) = torch.autograd.grad(learned.up(learned.down(latents)).sum(), latents)
    torch.testing.assert_close(straight, expected)


def test_gumbel_takes_the_likeliest_code_every_time(latents):
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(codebook_size=13, codebook_dim=3, latent_channels=7)
    quantized, codes = quantizer(latents)
    assert torch.equal(codes, quantizer.proj(quantizer.down(latents)).argmax(1))
    assert torch.equal(codes, quantizer(latents)[1])
    torch.testing.assert_close(quantized, quantizer.embed(codes))
