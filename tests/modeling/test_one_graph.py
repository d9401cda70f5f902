"""The pre-training step is one graph: the losses that their definitions say, and nothing that waits for the data."""

import copy
from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from gptface.modeling_gptface.heads_gptface import LOSS_TERMS
from gptface.training.pretraining_collator import packed_rows

ATTRIBUTES = {"labels": ["Male", "Smiling", "Young"], "problem_type": "multi_label_classification", "trained": True}
DESIGN = {
    "caption_reader": True,
    "match_head": "cross",
    "code_embedding": "levels",
    "position_init": "sine",
    "grid_convolution": True,
    "text_attention_bias": 1.0,
    "heads": {"attributes": ATTRIBUTES},
    "auxiliary_head": "attributes",
}
#: Operators whose result has a shape, or a value in Python, that depends on the data.
DATA_DEPENDENT = (
    "_local_scalar_dense",
    "_unique",
    "index by Booleans",
    "is_nonzero",
    "masked_scatter",
    "masked_select",
    "nonzero",
    "repeat_interleave.Tensor",
)
#: Operators of a forward and of a backward at most.
BOUNDS = (613, 987)


@pytest.fixture
def model(tiny_model):
    return tiny_model(**DESIGN).train()


@pytest.fixture(params=["own captions", "every caption", "every caption, packed"])
def matching(request):
    return request.param


@pytest.fixture(params=[None, 2, 9], ids=["all cells", "2 cells", "9 cells"])
def budget(request):
    return request.param


def make_batch(model, inputs, matching="every caption", budget=None):
    """Four faces with all terms of the loss; the last carries no MILM loss, one is asked for nothing at all."""
    generator = torch.Generator().manual_seed(3)
    inputs["attention_mask"][1, -2:] = 0
    inputs["image_mask"][2] = True
    words, codes, masked = inputs["input_ids"], inputs["image_codes"], inputs["image_mask"]
    text_labels = torch.full_like(words, -100)
    text_labels[0, 1:3], text_labels[1, 2] = words[0, 1:3], words[1, 2]
    image_labels = codes.masked_fill(~masked, -100)
    image_labels[3] = -100
    batch = {**inputs, "text_labels": text_labels, "image_labels": image_labels}
    batch["labels"] = torch.tensor([[1, 0, -1], [-1, -1, -1], [0, 1, 1], [1, -1, 0]])
    if budget is not None:
        batch["image_positions"] = torch.rand(4, 9, generator=generator).argsort(1)[:, :budget]
    if matching == "own captions":
        batch["match_labels"] = torch.tensor([1, 0, -100, 1])
    else:
        captions = torch.randint(5, 37, (3, 6), generator=generator)
        labels = torch.tensor([[1, 0, -100], [0, -100, 1], [-100, -100, 0], [1, 1, -100]])
        mask = torch.arange(6) < torch.tensor([[6], [3], [4]])
        batch["match"] = {"input_ids": captions, "attention_mask": mask.long(), "labels": labels}
    # pairs of a picture and an attribute with as many cells as there are: of the second fewer, of the last two none is
    # asked
    pictures = torch.tensor([0, 2, 2, 1, 3])
    positions = torch.full((5, 4), -1)
    for pair, picture in enumerate(pictures.tolist()):
        cells = (image_labels[picture] != -100).nonzero()[:, 0][: 1 if pair == 1 else 4]
        positions[pair, : len(cells)] = cells
    phrases = torch.randint(5, 37, (4, 3), generator=generator)
    batch["contrast"] = {
        "input_ids": phrases,
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]),
        "phrases": torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3], [0, 1]]),
        "pictures": pictures,
        "positions": positions,
        "labels": torch.tensor([1, 0, 1, -100, -100]),
    }
    if matching == "every caption, packed":
        for part in (batch, batch["match"], batch["contrast"]):
            part["packing"] = packed(part["attention_mask"])
    return batch


def packed(attention_mask):
    """Captions of a mask [P, T] in rows of 8 words; nothing stands in the last."""
    lengths = attention_mask.sum(1).tolist()
    rows = torch.from_numpy(packed_rows(lengths, attention_mask.shape[1], 8, 1))
    assert len(rows) < len(lengths)
    return torch.cat([rows, torch.full_like(rows[:1], -1)])


@pytest.fixture
def batch(model, tiny_inputs, matching, budget):
    return make_batch(model, tiny_inputs(model.config, batch=4), matching, budget)


def read(head, readers, others, mask):
    """Vectors [Q, H] that look at others [R, H], head by head, and are compared with what each found: [Q, H]."""
    others = others[mask.bool()] if mask is not None else others
    query, key, value = head.query(readers), head.key(others), head.value(others)
    size = query.shape[1] // head.num_heads
    found = []
    for start in range(0, query.shape[1], size):
        part = slice(start, start + size)
        weights = (query[:, part] @ key[:, part].T / size**0.5).softmax(-1)
        found.append(weights @ value[:, part])
    found = torch.cat(found, 1)
    return head.activation(head.combine(torch.cat([readers, found, readers * found], 1)))


def log_odds(head, words, mask, cells):
    """How much a caption [T, H] speaks for a picture [N, H]."""
    found = read(head, head.text_norm(words), head.image_norm(cells), None)
    return head.evidence(found)[mask.bool()].sum()


def code_logits(model, cells, words, mask):
    """Logits over codes of single cells [M, H] under a caption [T, H]."""
    reader = model.lm_head.caption_reader
    cells = cells + reader.output(read(reader, reader.image_norm(cells), reader.text_norm(words), mask))
    table = model.gptface.embeddings.code_table()
    return model.lm_head.transform(cells) @ table.T + model.lm_head.image_bias


def mean(losses):
    return torch.stack(losses).mean()


def terms_by_definition(model, batch):
    """Each term, sample by sample and cell by cell, of the rows that count alone."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "image_codes", "image_mask")}
    outputs = model.gptface(**inputs)
    length = batch["input_ids"].shape[1]
    words, cells = outputs.last_hidden_state[:, :length], outputs.last_hidden_state[:, length:]

    def captions(ids, mask):
        return model.gptface(ids, mask).last_hidden_state

    own, own_mask = captions(batch["input_ids"], batch["attention_mask"]), batch["attention_mask"]
    terms = {}
    counted = batch["text_labels"] != -100
    text_logits = model.lm_head.text(words[counted])
    terms["text_loss"] = functional.cross_entropy(text_logits, batch["text_labels"][counted])

    losses = []
    for picture in range(len(cells)):
        labels = batch["image_labels"][picture]
        predicted = batch["image_positions"][picture].tolist() if "image_positions" in batch else range(len(labels))
        for cell in predicted:
            if labels[cell] != -100:
                logits = code_logits(model, cells[picture, cell][None], own[picture], own_mask[picture])
                losses.append(functional.cross_entropy(logits, labels[cell][None]))
    terms["image_loss"] = mean(losses)

    losses = []
    if "match" in batch:
        match = batch["match"]
        others, mask = captions(match["input_ids"], match["attention_mask"]), match["attention_mask"]
        asked = [(row, column, int(match["labels"][row, column])) for row in range(4) for column in range(3)]
    else:
        others, mask = own, own_mask
        asked = [(row, row, int(label)) for row, label in enumerate(batch["match_labels"])]
    for picture, caption, label in asked:
        if label != -100:
            odds = log_odds(model.match_head, others[caption], mask[caption], cells[picture])
            losses.append(-functional.logsigmoid(odds if label else -odds))
    terms["match_loss"] = mean(losses)

    known = batch["labels"] >= 0
    logits = model.classify("attributes", outputs)[known]
    terms["label_loss"] = functional.binary_cross_entropy_with_logits(logits, batch["labels"][known].float())

    contrast, losses = batch["contrast"], []
    phrases = captions(contrast["input_ids"], contrast["attention_mask"])
    for pair, label in enumerate(contrast["labels"].tolist()):
        if label < 0:
            continue
        picture, places = contrast["pictures"][pair], contrast["positions"][pair]
        places = places[places >= 0]
        likelihoods = []
        for phrase in contrast["phrases"][pair]:
            logits = code_logits(model, cells[picture, places], phrases[phrase], contrast["attention_mask"][phrase])
            likelihoods.append(
                -functional.cross_entropy(logits, batch["image_labels"][picture, places], reduction="sum")
            )
        odds = likelihoods[1] - likelihoods[0]
        losses.append(-functional.logsigmoid(odds if label else -odds))
    terms["contrast_loss"] = mean(losses)
    return terms


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_each_term_and_its_gradient_are_what_its_definition_says(model, batch):
    """Whoever trains on pairs relies on this: the one graph is faster, and learns the same."""
    weights = torch.tensor([0.5, 3.0, 2.0, 4.0, 1.5])
    output = model(**batch, loss_weights=weights)
    expected = terms_by_definition(model, batch)
    for name in LOSS_TERMS:
        torch.testing.assert_close(getattr(output, name), expected[name], atol=1e-5, rtol=1e-5, msg=name)
    loss = sum(weight * expected[name] for weight, name in zip(weights, LOSS_TERMS, strict=True))
    torch.testing.assert_close(output.loss, loss, atol=1e-5, rtol=1e-5)
    found, wanted = gradients(model, output.loss), gradients(model, loss)
    assert found.keys() == wanted.keys() and len(found) > 40
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_loss_weights_are_1_where_they_are_not_given(model, batch):
    output = model(**batch)
    torch.testing.assert_close(output.loss, sum(getattr(output, name) for name in LOSS_TERMS))


def test_what_is_left_of_a_budget_weighs_nothing(model, tiny_inputs):
    """A picture with fewer masked cells than the budget names others: they must not be learned."""
    batch = make_batch(model, tiny_inputs(model.config, batch=4))
    every = model(**batch)
    order = (batch["image_labels"] == -100).long().argsort(dim=1, stable=True)
    some = model(**batch, image_positions=order[:, : int((batch["image_labels"] != -100).sum(1).max())])
    torch.testing.assert_close(some.image_loss, every.image_loss, atol=1e-5, rtol=1e-5)


def test_it_compiles_to_one_graph_with_all_terms(model, tiny_inputs):
    """`fullgraph` raises where anything in the step depends on the data."""
    batch = make_batch(model, tiny_inputs(model.config, batch=4), "every caption, packed", budget=3)
    plain = model(**batch)
    wanted = gradients(model, plain.loss)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output = compiled(**batch)
    for name in LOSS_TERMS:
        torch.testing.assert_close(getattr(output, name), getattr(plain, name), msg=name)
    found = gradients(model, output.loss)
    torch._dynamo.reset()
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


class CountedOperators(TorchDispatchMode):
    """Counts the operators that reach the device, those that take Booleans as an index apart."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = str(operator).removeprefix("aten.")
        indices = args[1] if name.startswith(("index.", "index_put", "_unsafe_index")) else ()
        booleans = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        self.counts["index by Booleans" if booleans else name] += 1
        return operator(*args, **(kwargs or {}))

    def waiting(self):
        """Those that depend on the data."""
        return [name for name in self.counts if name.startswith(DATA_DEPENDENT)]


def step_operators(loss_of):
    """The operators of a forward and of its backward."""
    with CountedOperators() as forward:
        loss = loss_of()
    with CountedOperators() as backward:
        loss.backward()
    return forward, backward


def moved(value, move):
    return {name: moved(part, move) for name, part in value.items()} if isinstance(value, dict) else move(value)


def test_nothing_waits_for_the_device(model, batch):
    """Each such operator stops the CPU until the GPU has caught up; on meta tensors one that needs a value raises."""
    model, batch = copy.deepcopy(model).to("meta"), moved(batch, lambda value: value.to("meta"))
    for part in step_operators(lambda: model(**batch).loss):
        assert sum(part.counts.values()) > 100 and part.waiting() == []


def test_a_count_of_operators_sees_those_that_wait():
    states = torch.ones(3)
    with CountedOperators() as counted:
        assert states.max().item() == 1 and states[states > 0].sum() == 3
        states.nonzero()
    assert {"index by Booleans", "_local_scalar_dense.default", "nonzero.default"} <= set(counted.waiting())


def test_it_runs_on_fake_tensors(model, batch):
    """What has shapes and no data, as compilers and those who plan memory run it."""
    with FakeTensorMode(allow_non_fake_inputs=False):

        def fake(value):
            return torch.empty(value.shape, dtype=value.dtype, device="meta", requires_grad=value.requires_grad)

        weights = moved(model.state_dict(keep_vars=True), fake)
        inputs = moved(batch, fake)
        output = torch.func.functional_call(model, weights, kwargs=inputs, tie_weights=False)
        output.loss.backward()
    assert output.image_logits.shape[:2] == batch.get("image_positions", batch["image_codes"]).shape


@pytest.mark.parametrize("pictures", [4, 12])
def test_a_step_has_as_many_operators_whatever_the_batch(model, tiny_inputs, pictures):
    """Two layers with all terms. A loop over samples, attributes or phrases would be slow on any device, and grow."""
    inputs = tiny_inputs(model.config, batch=4)
    batch = make_batch(model, inputs, budget=4)
    apart = ("match", "contrast")
    repeated = {
        name: value.repeat(pictures // 4, *[1] * (value.ndim - 1))
        for name, value in batch.items()
        if name not in apart
    }
    repeated["match"] = {**batch["match"], "labels": batch["match"]["labels"].repeat(pictures // 4, 1)}
    repeated["contrast"] = batch["contrast"]
    forward, backward = (sum(part.counts.values()) for part in step_operators(lambda: model(**repeated).loss))
    assert forward <= BOUNDS[0] and backward <= BOUNDS[1], (forward, backward)
