"""Work that is left out because nobody needs its result: what is needed, and its gradients, must be as without the
saving.
"""

import pytest
import torch

from gptface import GPTFaceForGuidedGeneration, GPTFaceForImageTextMatching, GPTFaceForPreTraining
from gptface.modeling_gptface.generation_gptface import Captions
from gptface.modeling_gptface.quantization import code_levels

VARIANTS = {
    "default": {},
    "post-norm": {"norm_position": "post", "embedding_norm": True},
    "prefix": {"attention_pattern": "prefix"},
    "levels": {"code_embedding": "levels", "position_init": "sine", "grid_convolution": True},
    "words first": {"text_attention_bias": 2.0},
    "cross": {"match_head": "cross"},
    "caption reader": {"caption_reader": True},
    "one layer": {"num_hidden_layers": 1},
}
TERMS = ("text_loss", "image_loss", "match_loss")


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


@pytest.fixture
def inputs(tiny_inputs, tiny_config):
    """Three samples with captions of several lengths; the last one has no masked cell."""
    inputs = tiny_inputs(tiny_config(), batch=3)
    inputs["attention_mask"][1, -2:] = 0
    inputs["image_mask"][2] = False
    return inputs


def training_labels(inputs):
    text_labels = torch.full_like(inputs["input_ids"], -100)
    text_labels[0, 1:3] = inputs["input_ids"][0, 1:3]
    image_labels = torch.where(inputs["image_mask"], inputs["image_codes"], -100)
    return {"text_labels": text_labels, "image_labels": image_labels, "match_labels": torch.tensor([0, 1, 1])}


def full_states(model, monkeypatch):
    """Makes the model compute every state, whatever it is asked for."""
    monkeypatch.setattr(model.gptface, "_queries", lambda *arguments: None)


def test_the_states_that_are_asked_for_are_those_of_the_whole_sequence(tiny_model, inputs, variant):
    model = tiny_model(**variant).gptface
    words = torch.tensor([[0, 1, 0, 0, 1]]).bool()
    asked = model(**inputs, text_state_mask=words, image_state_mask=inputs["image_mask"])
    every = model(**inputs).last_hidden_state
    needed = torch.cat([words.expand(3, -1), inputs["image_mask"]], 1)
    needed[:, 0] = True  # [CLS]
    torch.testing.assert_close(asked.last_hidden_state[needed], every[needed], atol=1e-5, rtol=1e-5)
    assert (asked.last_hidden_state[~needed] == 0).all()
    torch.testing.assert_close(asked.pooler_output, every[:, 0], atol=1e-5, rtol=1e-5)


def predicted_positions(labels):
    """As many positions of each sample as the one with most labels has, those with a label first."""
    order = (labels == -100).long().argsort(dim=1, stable=True)
    return order[:, : int((labels != -100).sum(1).max())]


def with_positions(labels):
    return {
        **labels,
        **{f"{name}_positions": predicted_positions(labels[f"{name}_labels"]) for name in ("text", "image")},
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_last_layer_works_on_what_is_predicted_alone(tiny_model, inputs, variant, attention):
    """What it leaves out must not have been needed: losses and gradients stay."""
    model = tiny_model(GPTFaceForPreTraining, **variant).train()
    model.set_attn_implementation(attention)
    labels, rows, results = training_labels(inputs), [], []
    model.gptface.layers[-1].feed_forward.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[:-1]))
    for given in (with_positions(labels), labels):
        model.zero_grad()
        output = model(**inputs, **given)
        output.loss.backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        results.append((output, gradients))
    (saved, saved_gradients), (plain, plain_gradients) = results
    if model.config.match_head == "cls":  # the other one reads every cell
        assert rows[0] == (3, 1 + 2 + int(inputs["image_mask"].sum(1).max()))  # [CLS], words, cells
    for term in TERMS:
        torch.testing.assert_close(getattr(saved, term), getattr(plain, term), atol=1e-5, rtol=1e-5)
    assert saved_gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(saved_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_positions_are_taken_where_all_states_are_computed(tiny_model, inputs):
    """Who looks at the layers gets the same answer, and whole layers."""
    model = tiny_model(GPTFaceForPreTraining)
    labels = with_positions(training_labels(inputs))
    saved, whole = model(**inputs, **labels), model(**inputs, **labels, output_hidden_states=True)
    assert whole.hidden_states[-1].shape[1] == 5 + 9
    for name in (*TERMS, "text_logits", "image_logits"):
        torch.testing.assert_close(getattr(saved, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


def test_terms_that_read_every_cell_get_every_cell(tiny_model, inputs):
    heads = {"mood": {"labels": ["calm", "tense"], "problem_type": "single_label_classification", "trained": True}}
    model = tiny_model(GPTFaceForPreTraining, heads=heads, auxiliary_head="mood")
    labels = {**training_labels(inputs), "labels": torch.tensor([0, 1, 1])}
    expected = model(**inputs, **labels)
    output = model(**inputs, **labels, image_positions=predicted_positions(labels["image_labels"]))
    for term in (*TERMS, "label_loss"):
        torch.testing.assert_close(getattr(output, term), getattr(expected, term), atol=1e-5, rtol=1e-5)


def test_whoever_asks_for_hidden_states_gets_all_of_them(tiny_model, inputs):
    model = tiny_model(GPTFaceForPreTraining)
    outputs = model(**inputs, **training_labels(inputs), output_hidden_states=True)
    every = model.gptface(**inputs).last_hidden_state
    assert all(states.shape == every.shape for states in outputs.hidden_states)
    torch.testing.assert_close(outputs.hidden_states[-1], every)


def test_a_match_reads_one_state_and_gives_the_same_logits(tiny_model, inputs, monkeypatch):
    model = tiny_model(GPTFaceForImageTextMatching)
    saved = model(**inputs).match_logits
    full_states(model, monkeypatch)
    torch.testing.assert_close(saved, model(**inputs).match_logits, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_nothing(tiny_model, inputs):
    model = tiny_model(GPTFaceForPreTraining).train()
    plain = model(**inputs, **training_labels(inputs)).loss
    model.gradient_checkpointing_enable()
    loss = model(**inputs, **training_labels(inputs)).loss
    loss.backward()
    torch.testing.assert_close(loss, plain)


def test_code_vectors_are_the_sum_of_their_levels(tiny_model):
    embeddings = tiny_model(code_embedding="levels").gptface.embeddings
    expected = embeddings.code_embeddings.weight
    levels = code_levels(torch.arange(60), [3, 4, 5])
    for dimension, first in enumerate([0, 3, 7]):
        expected = expected + embeddings.level_embeddings.weight[levels[:, dimension] + first]
    torch.testing.assert_close(embeddings.code_table(), expected, atol=0, rtol=0)


def test_one_pass_for_both_branches_of_classifier_free_guidance(tiny_model, inputs, variant):
    """The empty caption is padded to the prompt: its logits must be those that it has alone."""
    model = tiny_model(GPTFaceForGuidedGeneration, **variant)
    table = model.gptface.embeddings.code_table()
    prompt = Captions(inputs["input_ids"], inputs["attention_mask"])
    empty = Captions(model.gptface.empty_caption(3))
    vectors = torch.nn.functional.embedding(inputs["image_codes"], table)
    together = model._image_logits([prompt, empty], table)(vectors, inputs["image_mask"])
    for caption, logits in zip((prompt, empty), together, strict=True):
        (alone,) = model._image_logits([caption], table)(vectors, inputs["image_mask"])
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)
        masked = {"image_codes": inputs["image_codes"], "image_mask": inputs["image_mask"]}
        plain = model(**caption.arguments(), **masked).image_logits[inputs["image_mask"]]
        torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
