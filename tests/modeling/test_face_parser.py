"""The face parser: what a user of `GPTFaceParser`, or of a checkpoint that holds one, relies on."""

import pytest
import torch

from gptface import GPTFaceConfig, GPTFaceForPreTraining, GPTFaceModel, GPTFaceParser, GPTFaceParserConfig
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES

TINY = {"image_size": 32, "block_out_channels": [8, 8, 16, 16], "dilations": [2]}


@pytest.fixture
def parser():
    torch.manual_seed(0)
    return GPTFaceParser(GPTFaceParserConfig(**TINY)).eval()


def test_every_pixel_gets_every_class(parser):
    logits = parser(torch.randn(2, 3, 48, 32)).logits
    assert logits.shape == (2, len(FACE_CLASSES), 48, 32)
    probabilities = parser.probabilities(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 32, 32))
    assert parser.config.id2label[10] == "hair"


def test_a_face_is_parsed_alike_alone_and_in_a_batch(parser):
    pixels = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(parser(pixels[1:2]).logits[0], parser(pixels).logits[1], atol=1e-5, rtol=1e-4)


def test_pixels_that_do_not_count_leave_the_loss_alone(parser):
    pixels, labels = torch.randn(1, 3, 32, 32), torch.randint(16, (1, 32, 32))
    labels[:, :16] = -100
    other = labels.clone()
    loss = parser(pixels, labels).loss
    logits = parser(pixels).logits
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[:, :, 16:], other[:, 16:]))


def test_it_is_as_small_as_a_part_of_the_checkpoint_must_be():
    parameters = sum(parameter.numel() for parameter in GPTFaceParser(GPTFaceParserConfig()).parameters())
    assert parameters <= 500_000


@pytest.mark.parametrize(
    ("pixels", "message"), [((1, 1, 32, 32), "pixel_values"), ((1, 3, 30, 32), "multiples of 16")]
)
def test_wrong_pixels_are_refused(parser, pixels, message):
    with pytest.raises(ValueError, match=message):
        parser(torch.zeros(pixels))


def test_damaged_weights_give_no_classes(parser):
    with torch.no_grad():
        parser.stem[0].weight[0] = float("nan")
    with pytest.raises(FloatingPointError):
        parser.probabilities(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    "values", [{"block_out_channels": [8, 8, 12, 16]}, {"block_out_channels": [8, 8, 16]}, {"image_size": 40}]
)
def test_configurations_that_cannot_work(values):
    with pytest.raises(ValueError):
        GPTFaceParserConfig(**values)


def test_it_comes_back_from_its_folder(parser, tmp_path):
    parser.save_pretrained(tmp_path)
    again = GPTFaceParser.from_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again(pixels).logits, parser(pixels).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model_class", [GPTFaceForPreTraining, GPTFaceModel])
def test_a_checkpoint_carries_it(tiny_model, tmp_path, model_class):
    model = tiny_model(face_parser_config=TINY)
    assert not any(parameter.requires_grad for parameter in model.face_parser.parameters())
    model.save_pretrained(tmp_path)
    again, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert isinstance(again.config.face_parser_config, GPTFaceParserConfig)
    weights, others = model.face_parser.state_dict(), again.face_parser.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_checkpoint_from_before_has_none(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model, info = GPTFaceForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert model.face_parser is None and not info["missing_keys"]
    assert GPTFaceConfig.from_pretrained(tmp_path).face_parser_config is None


def test_what_is_no_configuration_of_a_parser_is_refused():
    with pytest.raises(TypeError, match="face_parser_config"):
        GPTFaceConfig(face_parser_config="yes")
