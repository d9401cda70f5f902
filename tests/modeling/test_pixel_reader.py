"""The pixel reader: recognition reads pixels, and what reads codes must not notice that it is there."""

import pytest
import torch

from gptface import (
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForGuidedGeneration,
    GPTFaceForImageTextMatching,
    GPTFaceForPreTraining,
)
from gptface.modeling_gptface.modeling_gptface import GPTFaceLowRankChange

READER = {"channels": [8, 16, 24], "blocks": [1, 0, 2], "adapter_rank": 3}
HEADS = {
    "attributes": {"labels": ["Male", "Smiling"], "problem_type": "multi_label_classification", "trained": True},
    "expression": {
        "labels": ["happy", "sad", "neutral"],
        "problem_type": "single_label_classification",
        "input": "pixels",
        "trained": True,
    },
}
WITH_READER = {
    "image_tokenizer_config": {"image_size": 48},
    "grid_convolution": True,
    "position_init": "sine",
    "image_reader": READER,
    "heads": HEADS,
}


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def model(tiny_model):
    return tiny_model(GPTFaceForFacialExpression, **WITH_READER)


def test_pixels_become_states_of_a_coarser_grid(model, pixels):
    outputs = model.gptface(pixel_values=pixels, read_pixels=True)
    assert outputs.image_embeds.shape == (3, 9, 32) and outputs.image_codes is None
    assert model.split_states(outputs)[1].shape == (3, 9, 32)
    assert model(pixel_values=pixels).logits.shape == (3, 3)
    single = torch.cat([model(pixel_values=face[None]).logits for face in pixels])
    torch.testing.assert_close(model(pixel_values=pixels).logits, single, msg="no face depends on those beside it")


def test_a_token_comes_from_its_own_place(model, pixels):
    """Labels look at places: tokens in another order than the cells would tell an eye from the mouth's place."""
    changed = pixels.clone()
    changed[:, :, 36:44, 4:12] += 1  # bottom left
    before, after = (model.gptface.pixel_reader(each) for each in (pixels, changed))
    assert (after - before).abs().sum((0, 2)).argmax() == 6


@pytest.mark.parametrize("model_class", [GPTFaceForGuidedGeneration, GPTFaceForImageTextMatching])
def test_what_reads_codes_is_the_same_bit_by_bit(tiny_model, tiny_inputs, model_class):
    """A checkpoint that learns to recognise must edit and match as before."""
    with_reader = tiny_model(model_class, **WITH_READER)
    plain_heads = {name: {**head, "input": "codes"} for name, head in HEADS.items()}
    without = tiny_model(model_class, **{**WITH_READER, "image_reader": None, "heads": plain_heads})
    without.load_state_dict(
        {name: tensor for name, tensor in with_reader.state_dict().items() if "pixel_reader" not in name}
    )
    inputs = tiny_inputs(with_reader.config)
    if model_class is GPTFaceForImageTextMatching:
        assert torch.equal(with_reader(**inputs).match_logits, without(**inputs).match_logits)
    words = {"input_ids": inputs["input_ids"], "image_codes": inputs["image_codes"]}
    assert torch.equal(with_reader.gptface(**words).last_hidden_state, without.gptface(**words).last_hidden_state)


def test_heads_read_what_they_were_trained_on(model, tiny_model, pixels):
    attributes = tiny_model(GPTFaceForFaceAttributeClassification, **WITH_READER)
    attributes.load_state_dict(model.state_dict())
    codes = model.image_tokenizer.encode(pixels)
    torch.testing.assert_close(attributes(pixel_values=pixels).logits, attributes(image_codes=codes).logits)
    with pytest.raises(ValueError, match="reads pixels, not codes"):
        model(image_codes=codes)


def test_only_the_reader_and_its_head_are_for_recognition_alone(model, tiny_model):
    reader = {name for name, p in model.named_parameters() if "pixel_reader" in name and p.requires_grad}
    assert len(reader) == sum("pixel_reader" in name for name, _ in model.named_parameters())
    for model_class in (GPTFaceForPreTraining, GPTFaceForFaceAttributeClassification):
        other = tiny_model(model_class, **WITH_READER)
        assert not any(p.requires_grad for name, p in other.named_parameters() if "pixel_reader" in name)


def test_gradients_reach_all_of_the_reader(model, pixels):
    model(pixel_values=pixels, labels=torch.tensor([0, 1, 2])).loss.backward()
    for name, parameter in model.gptface.pixel_reader.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_fresh_adapter_changes_nothing(tiny_config, pixels):
    torch.manual_seed(0)
    model = GPTFaceForFacialExpression(tiny_config(**WITH_READER)).eval()
    before = model(pixel_values=pixels).logits
    with torch.no_grad():
        for adapter in model.gptface.pixel_reader.adapters:
            for name, parameter in adapter.named_parameters():
                if name.endswith("down"):
                    parameter.add_(1)
    assert torch.equal(model(pixel_values=pixels).logits, before)


def test_few_and_many_rows_pass_the_same_change():
    """One photo and a batch take different ways through the adapters; the result is one."""
    linear, change = torch.nn.Linear(12, 20), GPTFaceLowRankChange(12, 20, 2)
    torch.nn.init.normal_(change.up)
    torch.nn.init.normal_(change.down)
    states = torch.randn(40, 12)
    expected = linear(states) + states @ change.down.T @ change.up.T
    torch.testing.assert_close(change(linear, states), expected)
    torch.testing.assert_close(change(linear, states[:3]), expected[:3])


def test_saved_and_opened_again(model, pixels, tmp_path):
    model.save_pretrained(tmp_path)
    opened = GPTFaceForFacialExpression.from_pretrained(tmp_path)
    assert not opened.missing_weights
    assert torch.equal(opened(pixel_values=pixels).logits, model(pixel_values=pixels).logits)


def test_mistakes_are_named(tiny_config, tiny_model, model, pixels):
    with pytest.raises(ValueError, match="needs image_reader"):
        tiny_config(heads=HEADS)
    with pytest.raises(ValueError, match="'input'"):
        tiny_config(heads={"a": {"labels": ["x"], "problem_type": "regression", "input": "sound"}})
    with pytest.raises(ValueError, match="multiple of 16"):
        tiny_config(image_reader={})
    with pytest.raises(ValueError, match="may have channels"):
        tiny_config(image_tokenizer_config={"image_size": 48}, image_reader={"width": 3})
    with pytest.raises(ValueError, match="multiples of 8"):
        tiny_config(image_tokenizer_config={"image_size": 48}, image_reader={"channels": [8, 9, 24]})
    with pytest.raises(ValueError, match="pre-training reads codes"):
        tiny_config(**WITH_READER, auxiliary_head="expression")
    with pytest.raises(ValueError, match="must be"):
        model(pixel_values=pixels[..., :32, :32])
    with pytest.raises(ValueError, match="takes no mask"):
        model.gptface(pixel_values=pixels, read_pixels=True, image_mask=torch.ones(3, 36, dtype=torch.bool))
    with pytest.raises(ValueError, match="no pixel reader"):
        tiny_model(image_tokenizer_config={"image_size": 48}).gptface(pixel_values=pixels, read_pixels=True)


@pytest.mark.parametrize("rows", [1, 500])
def test_a_layer_with_something_around_it_keeps_its_part(rows):
    """Low-rank changes by peft, or quantized layers, must not be passed by where pixels are read."""

    class Wrapped(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, states):
            return self.layer(states) + 1

    generator = torch.Generator().manual_seed(0)
    layer, change = torch.nn.Linear(32, 32), GPTFaceLowRankChange(32, 32, 2)
    with torch.no_grad():
        for parameter in change.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    states = torch.randn(rows, 32, generator=generator)
    torch.testing.assert_close(change(Wrapped(layer), states), change(layer, states) + 1)
