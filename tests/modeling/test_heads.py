"""Losses and heads: what is counted, what is ignored, and what each class trains."""

import pytest
import torch
from torch import nn

from gptface import (
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForGuidedGeneration,
    GPTFaceForImageClassification,
    GPTFaceForImageTextMatching,
    GPTFaceForPreTraining,
)
from gptface.modeling_gptface.heads_gptface import MATCH_HEADS, MatchHead

HEADS = {
    "attributes": {
        "labels": ["Male", "Smiling", "Young"],
        "problem_type": "multi_label_classification",
        "trained": True,
    },
    "expression": {"labels": ["happy", "sad"], "problem_type": "single_label_classification", "trained": True},
}
EVERY_CLASS = [
    GPTFaceForPreTraining,
    GPTFaceForGuidedGeneration,
    GPTFaceForImageTextMatching,
    GPTFaceForImageClassification,
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
]


@pytest.fixture
def pretraining(tiny_model, tiny_inputs):
    model = tiny_model()
    return model, tiny_inputs(model.config)


def labels_of(inputs):
    words = torch.full_like(inputs["input_ids"], -100)
    words[0, 1], words[1, 2] = 7, 8
    return {
        "text_labels": words,
        "image_labels": torch.where(inputs["image_mask"], inputs["image_codes"], -100),
        "match_labels": torch.tensor([1, 0]),
    }


def test_each_term_is_the_mean_over_what_it_counts(pretraining):
    model, inputs = pretraining
    weights = torch.tensor([0.5, 2.0, 3.0, 1.0, 1.0])
    full, output = model(**inputs), model(**inputs, **labels_of(inputs), loss_weights=weights)
    text = -full.text_logits.log_softmax(-1)
    torch.testing.assert_close(output.text_loss, (text[0, 1, 7] + text[1, 2, 8]) / 2)
    image = -full.image_logits.log_softmax(-1).gather(-1, inputs["image_codes"][..., None])[..., 0]
    torch.testing.assert_close(output.image_loss, image[inputs["image_mask"]].mean())
    match = -full.match_logits.log_softmax(-1)
    torch.testing.assert_close(output.match_loss, (match[0, 1] + match[1, 0]) / 2)
    expected = 0.5 * output.text_loss + 2 * output.image_loss + 3 * output.match_loss
    torch.testing.assert_close(output.loss, expected)


def test_labels_change_no_logits(pretraining):
    """Metrics are computed on them in evaluation: they are over all words and cells."""
    model, inputs = pretraining
    full, output = model(**inputs), model(**inputs, **labels_of(inputs))
    assert full.text_logits.shape == (2, 5, 37) and full.image_logits.shape == (2, 9, 60)
    for name in ("text_logits", "image_logits", "match_logits"):
        assert torch.equal(getattr(output, name), getattr(full, name))


@pytest.mark.parametrize("match_head", ["cls", "cross"])
@pytest.mark.parametrize("words", [False, True])
def test_logits_at_positions_are_those_of_the_whole_sequence(tiny_model, tiny_inputs, match_head, words):
    """The cells in the order that was asked for, and the loss over their labels alone."""
    model = tiny_model(match_head=match_head)
    inputs = tiny_inputs(model.config)
    labels = labels_of(inputs)
    cells, places = torch.tensor([[8, 0, 3], [1, 2, 0]]), torch.tensor([[1, 0], [2, 3]])
    positions = {"image_positions": cells, **({"text_positions": places} if words else {})}
    full, output = model(**inputs), model(**inputs, **labels, **positions)
    rows = torch.arange(2)[:, None]
    torch.testing.assert_close(output.image_logits, full.image_logits[rows, cells])
    torch.testing.assert_close(output.text_logits, full.text_logits[rows, places] if words else full.text_logits)
    torch.testing.assert_close(output.match_logits, full.match_logits)
    chosen = labels["image_labels"].gather(1, cells)
    expected = torch.nn.functional.cross_entropy(output.image_logits[chosen >= 0], chosen[chosen >= 0])
    torch.testing.assert_close(output.image_loss, expected)
    torch.testing.assert_close(output.text_loss, model(**inputs, **labels).text_loss)


def test_ignored_samples_do_not_count(pretraining):
    model, inputs = pretraining
    one = model(**inputs, match_labels=torch.tensor([-100, 0])).match_loss
    torch.testing.assert_close(one, -model(**inputs).match_logits[1].log_softmax(-1)[0])


def test_a_term_without_labels_is_zero_and_trains_on(pretraining):
    """A batch without one masked word must not turn the weights into NaN."""
    model, inputs = pretraining
    labels = {name: torch.full_like(label, -100) for name, label in labels_of(inputs).items()}
    output = model(**inputs, **labels)
    assert output.loss == output.text_loss == output.image_loss == output.match_loss == 0
    output.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_no_labels_no_loss(pretraining):
    model, inputs = pretraining
    output = model(**inputs)
    assert output.loss is None and output.text_loss is None and output.image_loss is None and output.match_loss is None
    only_match = model(**inputs, match_labels=torch.tensor([1, 1]))
    assert only_match.text_loss is None
    torch.testing.assert_close(only_match.loss, only_match.match_loss)
    weighed = model(**inputs, match_labels=torch.tensor([1, 1]), loss_weights=torch.arange(5.0))
    torch.testing.assert_close(weighed.loss, 2 * only_match.match_loss)


def test_labels_stay_as_the_caller_gave_them(pretraining):
    model, inputs = pretraining
    labels = labels_of(inputs)
    copies = {name: label.clone() for name, label in labels.items()}
    model(**inputs, **labels)
    assert all(torch.equal(labels[name], copies[name]) for name in labels)


def test_matching_agrees_with_pretraining(tiny_model, tiny_inputs):
    pretraining, matching = tiny_model(), tiny_model(GPTFaceForImageTextMatching)
    matching.load_state_dict(pretraining.state_dict())
    inputs = tiny_inputs(matching.config)
    labels = torch.tensor([1, -100])
    expected, output = pretraining(**inputs, match_labels=labels), matching(**inputs, match_labels=labels)
    torch.testing.assert_close(output.match_logits, expected.match_logits)
    torch.testing.assert_close(output.loss, expected.match_loss)


def test_single_label_head(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceForFacialExpression, heads=HEADS)
    codes = tiny_inputs(model.config)["image_codes"]
    output = model(image_codes=codes, labels=torch.tensor([1, 0]))
    assert output.logits.shape == (2, 2)
    log = output.logits.log_softmax(-1)
    torch.testing.assert_close(output.loss, -(log[0, 1] + log[1, 0]) / 2)


@pytest.mark.parametrize("unknown", [-1.0, -100.0, float("nan")])
def test_multi_label_head_ignores_what_is_unknown(tiny_model, tiny_inputs, unknown):
    model = tiny_model(GPTFaceForFaceAttributeClassification, heads=HEADS)
    codes = tiny_inputs(model.config)["image_codes"]
    output = model(image_codes=codes, labels=torch.tensor([[1, 0, unknown], [unknown, unknown, 1]]))
    score = output.logits.sigmoid()
    expected = -(score[0, 0].log() + (1 - score[0, 1]).log() + score[1, 2].log()) / 3
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert torch.isfinite(model.classifiers["attributes"].query.weight.grad).all()


def test_a_subclass_names_the_labels_of_its_head(tiny_config):
    attributes = GPTFaceForFaceAttributeClassification(tiny_config(heads=HEADS))
    assert attributes.config.id2label == {0: "Male", 1: "Smiling", 2: "Young"} and attributes.config.num_labels == 3
    expression = GPTFaceForFacialExpression(tiny_config(heads=HEADS))
    assert expression.config.label2id == {"happy": 0, "sad": 1}
    assert expression.config.problem_type == "single_label_classification"
    assert GPTFaceForImageClassification(tiny_config(heads=HEADS)).head_name == "attributes"


@pytest.mark.parametrize(
    ("model_class", "name", "problem_type"),
    [
        (GPTFaceForImageClassification, "labels", "single_label_classification"),
        (GPTFaceForFaceAttributeClassification, "attributes", "multi_label_classification"),
        (GPTFaceForFacialExpression, "expression", "single_label_classification"),
    ],
)
def test_a_new_head_takes_its_labels_from_the_configuration(tiny_config, model_class, name, problem_type):
    """Someone fine-tunes on labels of their own: the head is theirs, and nobody takes it for trained."""
    model = model_class(tiny_config(id2label={0: "cat", 1: "dog", 2: "fox"}))
    assert model.config.heads[name] == {
        "labels": ["cat", "dog", "fox"],
        "problem_type": problem_type,
        "trained": False,
    }
    assert model(image_codes=torch.zeros(1, 9, dtype=torch.long)).logits.shape == (1, 3)


def test_classification_without_a_picture_is_refused(tiny_model):
    model = tiny_model(GPTFaceForImageClassification, heads=HEADS)
    with pytest.raises(ValueError, match="needs a picture"):
        model(input_ids=torch.tensor([[2, 3]]))


def test_each_label_pools_the_cells_that_its_query_asks_for(tiny_model):
    head = tiny_model(GPTFaceForFacialExpression, heads=HEADS).classifiers["expression"]
    states = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    normal = head.norm(states)
    for label in range(2):
        weights = (normal @ head.query.weight[label]).softmax(1)
        pooled = (weights[..., None] * normal).sum(1)
        expected = pooled @ head.output.weight[label] + head.output.bias[label]
        torch.testing.assert_close(head(states)[:, label], expected)


def with_convolutions():
    return {**HEADS, "expression": {**HEADS["expression"], "reader": "convolution"}}


def test_convolutions_read_states_and_codes_and_no_other_face(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceForFacialExpression, heads=with_convolutions()).eval()
    codes = tiny_inputs(model.config)["image_codes"]
    torch.testing.assert_close(model(image_codes=codes).logits[:1], model(image_codes=codes[:1]).logits)
    head = model.classifiers["expression"]
    parts = [torch.randn(1, 9, 32, requires_grad=True) for _ in range(2)]
    head(*parts).sum().backward()
    assert all((part.grad.abs().sum(-1) > 0).all() for part in parts)
    with pytest.raises(ValueError, match="give both"):
        head(parts[0])


def test_convolutions_do_not_see_what_is_masked(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceForFacialExpression, heads=with_convolutions()).eval()
    codes = tiny_inputs(model.config)["image_codes"][:1]
    mask = torch.zeros_like(codes, dtype=torch.bool)
    mask[:, 4] = True
    other = torch.where(mask, (codes + 1) % model.config.num_codes, codes)
    seen, unseen = (model(image_codes=picture, image_mask=mask).logits for picture in (codes, other))
    assert torch.equal(seen, unseen)


def test_a_head_with_convolutions_comes_back_from_a_folder_and_gives_way_to_other_labels(tiny_model, tmp_path):
    model = tiny_model(GPTFaceForFacialExpression, heads=with_convolutions()).eval()
    codes = torch.arange(9)[None] % model.config.num_codes
    model.save_pretrained(tmp_path)
    again = GPTFaceForFacialExpression.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(image_codes=codes).logits, model(image_codes=codes).logits)
    others = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    other = GPTFaceForFacialExpression.from_pretrained(tmp_path, **others, ignore_mismatched_sizes=True)
    assert "reader" not in other.config.heads["expression"]
    assert not other.config.heads["expression"]["trained"]
    assert other(image_codes=codes).logits.shape == (1, 3)


def test_an_unknown_kind_of_head_is_refused(tiny_model):
    heads = {"x": {"labels": ["a"], "problem_type": "regression", "reader": "transformer"}}
    with pytest.raises(ValueError, match=r"must be one of \('attention', 'convolution'\), got 'transformer'"):
        tiny_model(heads=heads)
    with pytest.raises(ValueError, match=r"must be one of \('cls', 'cross'\), got 'late'"):
        tiny_model(match_head="late")


def test_another_kind_of_match_head_is_registered_in_one_place(tiny_model, tiny_inputs, monkeypatch):
    """Guidance, matching and pre-training ask a head how it reads, not which one it is."""

    class MeanHead(MatchHead):
        reads_pairs = False

        def __init__(self, config):
            super().__init__()
            self.output = nn.Linear(config.hidden_size, 2)

        def forward(self, states, words=None, attention_mask=None):
            return self.output(states.mean(1) * words.mean(1))

    monkeypatch.setitem(MATCH_HEADS, "mean", MeanHead)
    model = tiny_model(GPTFaceForGuidedGeneration, match_head="mean", match_trained=True).eval()
    inputs = {name: tiny_inputs(model.config)[name] for name in ("input_ids", "attention_mask", "image_codes")}
    assert model(**inputs, match_labels=torch.tensor([1, 0])).match_loss > 0
    mask = torch.zeros_like(inputs["image_codes"], dtype=torch.bool)
    mask[:, :4] = True
    made = model.generate(**inputs, image_mask=mask, itm_guidance=1.0, num_inference_steps=2)
    assert torch.isfinite(made.match_scores).all()


TRAINED = {
    GPTFaceForPreTraining: {"gptface", "lm_head", "match_head"},
    GPTFaceForGuidedGeneration: {"gptface", "lm_head", "match_head"},
    GPTFaceForImageTextMatching: {"gptface", "match_head"},
    GPTFaceForImageClassification: {"gptface", "classifiers.attributes"},
    GPTFaceForFaceAttributeClassification: {"gptface", "classifiers.attributes"},
    GPTFaceForFacialExpression: {"gptface", "classifiers.expression"},
}


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("model_class", EVERY_CLASS)
def test_a_class_trains_its_own_parts_alone(tiny_config, tmp_path, model_class, loaded):
    """A frozen part that trained would drift away without a loss of its own; DDP would wait for its gradient."""
    model = model_class(tiny_config(heads=HEADS))
    if loaded:
        model.save_pretrained(tmp_path)
        model = model_class.from_pretrained(tmp_path)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parts = {".".join(name.split(".")[: 2 if name.startswith("classifiers") else 1]) for name in trained}
    assert parts == TRAINED[model_class]
    assert not any("image_tokenizer" in name for name in trained)


@pytest.mark.parametrize("model_class", EVERY_CLASS)
def test_every_trained_parameter_gets_a_gradient(tiny_model, tiny_inputs, model_class):
    model = tiny_model(
        model_class, heads=HEADS, code_embedding="levels", grid_convolution=True, embedding_norm=True
    ).train()
    inputs = tiny_inputs(model.config)
    if "classifiers" in model.trained_heads:
        labels = torch.ones(2, 3) if model.head_name == "attributes" else torch.tensor([0, 1])
        model(**inputs, labels=labels).loss.backward()
    elif model_class is GPTFaceForImageTextMatching:
        model(**inputs, match_labels=torch.tensor([0, 1])).loss.backward()
    else:
        model(**inputs, **labels_of(inputs)).loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []


def test_the_base_class_takes_the_head_of_the_labels_asked_for(tiny_config):
    """`num_labels` and `id2label` mean what every fine-tuning script of transformers takes them for."""
    expression = GPTFaceForImageClassification(tiny_config(heads=HEADS, id2label={0: "happy", 1: "sad"}))
    assert expression.head_name == "expression"
    own = GPTFaceForImageClassification(tiny_config(heads=HEADS, num_labels=2))
    assert own.head_name == "labels" and own.config.heads["labels"]["labels"] == ["LABEL_0", "LABEL_1"]
    assert not own.config.heads["labels"]["trained"] and own.config.heads.keys() == {"labels", *HEADS}
    regression = tiny_config(heads=HEADS, id2label={0: "happy", 1: "sad"}, problem_type="regression")
    assert GPTFaceForImageClassification(regression).head_name == "labels"


def test_a_subclass_gives_its_head_new_labels(tiny_config):
    model = GPTFaceForFacialExpression(tiny_config(heads=HEADS, id2label={0: "calm", 1: "tense", 2: "tired"}))
    assert model.config.heads["expression"]["labels"] == ["calm", "tense", "tired"]
    assert not model.config.heads["expression"]["trained"] and model.config.heads["attributes"]["trained"]
    assert model(image_codes=torch.zeros(1, 9, dtype=torch.long)).logits.shape == (1, 3)


def test_labels_of_another_head_do_not_touch_this_one(tiny_config):
    """A folder that was saved by one subclass names its labels; the other subclass must keep its own head."""
    config = tiny_config(heads=HEADS)
    GPTFaceForFaceAttributeClassification(config)
    assert config.num_labels == 3
    assert GPTFaceForFacialExpression(config).config.heads == HEADS


def test_regression_head(tiny_model, tiny_inputs):
    """An age or a pose: squared error, and what is not known is NaN, since values may be negative."""
    model = tiny_model(GPTFaceForImageClassification, id2label={0: "yaw", 1: "pitch"}, problem_type="regression")
    codes = tiny_inputs(model.config)["image_codes"]
    output = model(image_codes=codes, labels=torch.tensor([[-3.0, 1.0], [float("nan"), 2.0]]))
    logits = output.logits
    expected = ((logits[0, 0] + 3) ** 2 + (logits[0, 1] - 1) ** 2 + (logits[1, 1] - 2) ** 2) / 3
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert torch.isfinite(model.classifiers["labels"].query.weight.grad).all()


def test_cross_match_head_compares_words_with_cells(tiny_model, tiny_inputs):
    """Its log-odds depend on what the words say, on what the cells show, and on no padding."""
    model = tiny_model(GPTFaceForImageTextMatching, match_head="cross")
    inputs = tiny_inputs(model.config)
    logits = model(**inputs).match_logits
    torch.testing.assert_close(logits.sum(1), torch.zeros(2))
    swapped = {name: value.flip(0) for name, value in inputs.items() if name.startswith("image")}
    assert not torch.allclose(model(**{**inputs, **swapped}).match_logits, logits, atol=1e-4)
    words = {name: value.flip(0) for name, value in inputs.items() if not name.startswith("image")}
    assert not torch.allclose(model(**{**inputs, **words}).match_logits, logits, atol=1e-4)


def test_every_picture_with_every_caption_is_each_pair_alone(tiny_model, tiny_inputs):
    """Training compares many pairs at once, users ask for one: the same pair must get the same score."""
    model = tiny_model(match_head="cross")
    inputs = tiny_inputs(model.config)
    pictures = {name: value for name, value in inputs.items() if name.startswith("image")}
    captions = torch.cat([inputs["input_ids"], inputs["input_ids"].flip(1)])
    mask = torch.ones_like(captions)
    mask[1, 3:] = 0
    match = {"input_ids": captions, "attention_mask": mask}
    logits = model(**pictures, match=match).match_logits
    assert logits.shape == (2, 4, 2)
    for caption in range(4):
        words, seen = captions[caption].expand(2, -1), mask[caption].expand(2, -1)
        torch.testing.assert_close(model.match(words, seen, **pictures)[0], logits[:, caption], atol=1e-5, rtol=1e-4)
    labels = torch.tensor([[1, 0, -100, -100], [-100, 1, 0, -100]])
    output = model(**pictures, match={**match, "labels": labels})
    expected = torch.nn.functional.cross_entropy(logits[labels >= 0], labels[labels >= 0])
    torch.testing.assert_close(output.match_loss, expected)


def test_captions_apart_need_the_head_that_reads_them_apart(tiny_model, tiny_inputs):
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    with pytest.raises(ValueError, match="cross"):
        model(image_codes=inputs["image_codes"], match={"input_ids": inputs["input_ids"]})


def test_cross_match_reads_the_picture_without_its_caption(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceForImageTextMatching, match_head="cross")
    inputs = tiny_inputs(model.config)
    states = model(**inputs, output_hidden_states=True).hidden_states[-1]
    assert states.shape[1] == 2 + model.config.num_image_tokens
