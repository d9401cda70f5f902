"""The loss that makes codes hear words: a likelihood ratio, as its definition says."""

import pytest
import torch

from gptface.modeling_gptface.caption_contrast import caption_contrast_loss


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(0)
    batch, cells, codes, size, attributes = 3, 6, 5, 4, 2
    states = torch.randn(batch, cells, size, generator=generator)
    image_labels = torch.randint(codes, (batch, cells), generator=generator)
    image_labels[:, ::3] = -100
    words = torch.randn(2 * attributes, 2, size, generator=generator)
    head = torch.randn(size, codes, generator=generator)
    regions = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]]).bool()
    labels = torch.tensor([[1, -100], [0, 1], [-100, -1]])

    def cell_logits(states, spoken, mask, cells):
        return ((states + (spoken * mask[..., None]).sum(1, keepdim=True)) @ head)[cells]

    return cell_logits, states, image_labels, words, torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0]]), regions, labels


def test_it_is_the_cross_entropy_of_the_log_likelihood_ratio(example):
    cell_logits, states, image_labels, words, mask, regions, labels = example
    expected = []
    for picture, attribute in ((0, 0), (1, 0), (1, 1)):
        sums = []
        for value in (0, 1):
            phrase = 2 * attribute + value
            counted = regions[attribute] & (image_labels[picture] != -100)
            logits = cell_logits(states[[picture]], words[[phrase]], mask[[phrase]], torch.ones_like(counted)[None])
            sums.append(
                sum(logits[cell].log_softmax(-1)[image_labels[picture, cell]] for cell in counted.nonzero()[:, 0])
            )
        odds = sums[1] - sums[0] if labels[picture, attribute] else sums[0] - sums[1]
        expected.append(-torch.nn.functional.logsigmoid(odds))
    loss = caption_contrast_loss(*example)
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_where_nothing_is_asked_it_is_zero(example):
    *inputs, labels = example
    assert caption_contrast_loss(*inputs, torch.full_like(labels, -100)) == 0


def test_a_model_without_a_caption_reader_says_what_is_missing(tiny_model, tiny_inputs):
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    with pytest.raises(ValueError, match="caption_reader"):
        model(
            **inputs,
            image_labels=inputs["image_codes"],
            contrast_input_ids=model.gptface.empty_caption(2),
            contrast_cells=torch.ones(1, 9, dtype=torch.bool),
            contrast_labels=torch.ones(2, 1, dtype=torch.long),
        )
