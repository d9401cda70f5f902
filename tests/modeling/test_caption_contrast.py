"""The loss that makes codes hear words: a likelihood ratio, as its definition says."""

import pytest
import torch

from gptface.modeling_gptface.heads_gptface import caption_contrast_loss


@pytest.fixture
def example():
    """Three pictures and two attributes: three pairs, and one for which nothing is asked."""
    generator = torch.Generator().manual_seed(0)
    batch, cells, codes, size, attributes = 3, 6, 5, 4, 2
    states = torch.randn(batch, cells, size, generator=generator)
    image_labels = torch.randint(codes, (batch, cells), generator=generator)
    image_labels[:, ::3] = -100
    words = torch.randn(2 * attributes, 2, size, generator=generator)
    head = torch.randn(size, codes, generator=generator)
    contrast = {
        "attention_mask": torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0]]),
        "phrases": torch.tensor([[0, 1], [0, 1], [2, 3], [2, 3]]),
        "pictures": torch.tensor([0, 1, 1, 2]),
        # of the first attribute cells 0 to 2, of the second 2 to 5; those without a label do not count
        "positions": torch.tensor([[0, 1, 2, -1], [2, 1, -1, -1], [2, 3, 4, 5], [2, 3, 4, 5]]),
        "labels": torch.tensor([1, 0, 1, -100]),
    }

    def cell_logits(states, spoken, mask):
        return (states + (spoken * mask[..., None]).sum(1, keepdim=True)) @ head

    return cell_logits, states, image_labels, words, contrast


def test_it_is_the_cross_entropy_of_the_log_likelihood_ratio(example):
    cell_logits, states, image_labels, words, contrast = example
    mask, regions, expected = contrast["attention_mask"], ((1, 2), (2, 4, 5)), []
    for picture, attribute, label in ((0, 0, 1), (1, 0, 0), (1, 1, 1)):
        sums = []
        for value in (0, 1):
            phrase = 2 * attribute + value
            logits = cell_logits(states[[picture]], words[[phrase]], mask[[phrase]])[0]
            sums.append(sum(logits[cell].log_softmax(-1)[image_labels[picture, cell]] for cell in regions[attribute]))
        odds = sums[1] - sums[0] if label else sums[0] - sums[1]
        expected.append(-torch.nn.functional.logsigmoid(odds))
    torch.testing.assert_close(caption_contrast_loss(*example), torch.stack(expected).mean())


def test_where_nothing_is_asked_it_is_zero(example):
    *inputs, contrast = example
    nothing = {**contrast, "labels": torch.full_like(contrast["labels"], -100)}
    assert caption_contrast_loss(*inputs, nothing) == 0
    empty = {**contrast, "labels": torch.full_like(contrast["labels"], -100), "positions": torch.full((4, 4), -1)}
    assert caption_contrast_loss(*inputs, empty) == 0


@pytest.mark.parametrize("options", [{}, {"caption_reader": True, "image_labels": None}])
def test_a_model_that_cannot_tell_says_what_is_missing(tiny_model, tiny_inputs, options):
    labels = options.pop("image_labels", 0)
    model = tiny_model(**options)
    inputs = tiny_inputs(model.config)
    contrast = {
        "input_ids": model.gptface.empty_caption(2),
        "phrases": torch.tensor([[0, 1]]),
        "pictures": torch.tensor([0]),
        "positions": torch.tensor([[0, 1]]),
        "labels": torch.tensor([1]),
    }
    with pytest.raises(ValueError, match="contrast needs image_labels, and caption_reader"):
        model(**inputs, image_labels=None if labels is None else inputs["image_codes"], contrast=contrast)
