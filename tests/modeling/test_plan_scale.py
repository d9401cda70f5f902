"""The coarse scale in the transformer, and cells without pixels: what reads what, and what must not notice."""

from dataclasses import replace

import pytest
import torch

from gptface import GPTFaceForGuidedGeneration, GPTFaceForPreTraining
from gptface.modeling_gptface.image_tokenizer_gptface import cells_below, with_neighbours

PLAN = {"image_size": 32, "plan_levels": [2, 3, 4]}
DESIGN = {
    "image_tokenizer_config": PLAN,
    "code_embedding": "levels",
    "position_init": "sine",
    "grid_convolution": True,
    "caption_reader": True,
}


@pytest.fixture
def model(tiny_model):
    """A grid of 4×4 codes below a plan of 2×2 tokens with 24 codes."""
    return tiny_model(**DESIGN)


@pytest.fixture
def inputs(model, tiny_inputs):
    return tiny_inputs(model.config)


@pytest.fixture
def plan(inputs):
    """The same captions with the coarse scale instead of the codes."""
    codes = torch.tensor([[0, 5, 17, 23], [3, 3, 12, 20]])
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    return {**inputs, "image_codes": codes, "image_mask": mask}


def fill(module, value):
    with torch.no_grad():
        module.weight.fill_(value)


def test_the_same_network_predicts_plan_codes(model, plan):
    labels = plan["image_codes"].masked_fill(~plan["image_mask"], -100)
    output = model(**plan, image_labels=labels)
    assert output.image_logits.shape == (2, 4, 24)
    expected = torch.nn.functional.cross_entropy(output.image_logits[labels >= 0], labels[labels >= 0])
    torch.testing.assert_close(output.image_loss, expected)
    some = model(**plan, image_labels=labels, image_positions=torch.tensor([[2, 0], [3, 1]]))
    torch.testing.assert_close(some.image_logits[:, 0], output.image_logits[[0, 1], [2, 3]])


def test_plan_tokens_have_vectors_positions_and_a_bias_of_their_own(model, inputs, plan):
    """Else what one scale learns would move the other."""
    embeddings = model.gptface.embeddings
    before = model(**inputs).image_logits, model(**plan).image_logits
    changed = {
        "fine": (embeddings.code_embeddings.weight, embeddings.level_embeddings.weight, model.lm_head.image_bias),
        "plan": (
            embeddings.plan.code_embeddings.weight,
            embeddings.plan.level_embeddings.weight,
            embeddings.plan.position_embeddings.weight,
            model.lm_head.plan_bias,
        ),
    }
    for scale, parameters in changed.items():
        for parameter in parameters:
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
            after = model(**inputs).image_logits, model(**plan).image_logits
            own, other = (0, 1) if scale == "fine" else (1, 0)
            assert torch.equal(after[other], before[other]) and not torch.allclose(after[own], before[own], atol=1e-2)
            with torch.no_grad():
                parameter.copy_(kept)
    # positions of cells
    kept = embeddings.position_embeddings.weight.detach().clone()
    with torch.no_grad():
        embeddings.position_embeddings.weight[model.config.max_text_length :] += 1
    assert torch.equal(model(**plan).image_logits, before[1])
    with torch.no_grad():
        embeddings.position_embeddings.weight.copy_(kept)


def test_a_code_of_the_plan_is_the_sum_of_its_levels(model):
    plan = model.gptface.embeddings.plan
    table, levels = plan.code_table(), plan.level_embeddings.weight
    for code in (0, 1, 13, 23):
        digits = code % 2, code // 2 % 3, code // 6
        parts = levels[digits[0]] + levels[2 + digits[1]] + levels[5 + digits[2]]
        torch.testing.assert_close(table[code], plan.code_embeddings.weight[code] + parts)
    torch.testing.assert_close(model.gptface.embeddings.code_table(4), table)
    assert model.gptface.embeddings.code_table(16).shape[0] == 60


def test_a_plan_token_tells_the_four_codes_below_it_and_no_other(model, inputs):
    embeddings = []
    model.gptface.embeddings.register_forward_hook(lambda _, __, output: embeddings.append(output))
    for plan in ([[3, 4, 5, 6]] * 2, [[3, 4, 9, 6], [3, 4, 5, 6]], [[3, 4, -1, 6], [-1, -1, -1, -1]]):
        model.gptface(**inputs, plan_codes=torch.tensor(plan))
    model.gptface(**inputs)
    told, other, some, without = (vectors[:, 5:] for vectors in embeddings)
    changed = ((told - other).abs().amax(-1) > 0).unflatten(1, (4, 4))
    # the third token, lower left
    assert changed[0].nonzero().tolist() == [[2, 0], [2, 1], [3, 0], [3, 1]] and not changed[1].any()
    # -1 adds nothing
    below = torch.zeros(4, 4, dtype=torch.bool)
    below[2:, :2] = True
    assert torch.equal(some[0][below.flatten()], without[0][below.flatten()])
    assert torch.equal(some[0][~below.flatten()], told[0][~below.flatten()])
    assert torch.equal(some[1], without[1])


def test_each_of_the_four_places_is_told_its_own(model):
    """A plan token is wider than a code: what it says of its left half is not what it says of its right."""
    parents = model.gptface.embeddings.plan.parents(torch.tensor([[7, 0, 0, 0]]))[0].unflatten(0, (4, 4))
    places = [parents[row, column] for row in (0, 1) for column in (0, 1)]
    weights = model.gptface.embeddings.plan.parent_embeddings.weight
    for place, vector in enumerate(places):
        digits = 7 % 2, 7 // 2 % 3, 7 // 6
        rows = [9 * place + digits[0], 9 * place + 2 + digits[1], 9 * place + 5 + digits[2]]
        torch.testing.assert_close(vector, weights[rows].sum(0))


def test_masked_codes_hear_the_plan_too(model, inputs):
    """They are those that it is there for."""
    everything = {**inputs, "image_mask": torch.ones_like(inputs["image_mask"])}
    one, other = (model(**everything, plan_codes=torch.full((2, 4), code)).image_logits for code in (2, 21))
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_plan_begins_as_no_change(tiny_config, tiny_inputs):
    """A model that is trained gets a plan: on the first step its codes are what they were."""
    torch.manual_seed(0)
    model = GPTFaceForPreTraining(tiny_config(**DESIGN)).eval()
    inputs = tiny_inputs(model.config)
    assert not model.gptface.embeddings.plan.parent_embeddings.weight.any() and not model.lm_head.plan_bias.any()
    told = model(**inputs, plan_codes=torch.tensor([[0, 5, 17, 23]] * 2))
    assert torch.equal(told.image_logits, model(**inputs).image_logits)


def test_a_checkpoint_without_a_plan_gets_one_and_predicts_as_before(tiny_model, tiny_inputs, tmp_path):
    before = tiny_model(**{**DESIGN, "image_tokenizer_config": {"image_size": 32}})
    before.save_pretrained(tmp_path)
    config = before.config.__class__.from_pretrained(tmp_path)
    config.image_tokenizer_config.plan_levels = PLAN["plan_levels"]
    model = GPTFaceForPreTraining.from_pretrained(tmp_path, config=config)
    inputs = tiny_inputs(model.config)
    labels = {"image_labels": inputs["image_codes"], "text_labels": inputs["input_ids"]}
    expected, output = before(**inputs, **labels), model(**inputs, **labels)
    for name in ("image_logits", "text_logits", "match_logits", "loss"):
        assert torch.equal(getattr(output, name), getattr(expected, name)), name
    told = model(**inputs, plan_codes=torch.tensor([[0, 5, 17, 23]] * 2))
    assert torch.equal(told.image_logits, expected.image_logits)
    assert model(image_codes=torch.tensor([[0, 5, 17, 23]])).image_logits.shape == (1, 4, 24)


def test_both_scales_train_together(model, inputs, plan):
    """Every weight gets a gradient from one of them."""
    model.train()
    plan_codes = plan["image_codes"]
    fine = model(
        **inputs, plan_codes=plan_codes, image_labels=inputs["image_codes"], match_labels=torch.ones(2).long()
    )
    coarse = model(**plan, image_labels=plan["image_codes"], text_labels=plan["input_ids"])
    (fine.loss + coarse.loss).backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []
    assert model.gptface.embeddings.plan.parent_embeddings.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan_codes": torch.zeros(2, 5, dtype=torch.long)}, "5 tokens, the plan 4"),
        ({"plan_codes": torch.zeros(2, 4, dtype=torch.long), "image_codes": None, "image_mask": None}, "above a fine"),
        ({"image_codes": torch.full((2, 4), 24), "image_mask": None}, "0…23"),
        (
            {"image_codes": torch.zeros(2, 9, dtype=torch.long), "image_mask": None},
            "9 cells, the model's grid 16 or 4",
        ),
    ],
)
def test_wrong_plans_are_named(model, inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        model(**{**inputs, **changes})


def test_a_model_without_a_plan_says_so(tiny_model, tiny_inputs):
    model = tiny_model()
    with pytest.raises(ValueError, match="plan_levels"):
        model(**tiny_inputs(model.config), plan_codes=torch.zeros(2, 4, dtype=torch.long))


@pytest.mark.parametrize("bias", [0.0, 2.0])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_nothing_is_read_at_cells_without_pixels(tiny_model, tiny_inputs, attention, bias):
    """A tight crop must not teach that faces end in a frame: the rest comes out the same whatever stands there."""
    model = tiny_model(text_attention_bias=bias)
    model.set_attn_implementation(attention)
    inputs = tiny_inputs(model.config)
    absent = torch.zeros(2, 9, dtype=torch.bool)
    absent[0, 6:], absent[1, 4] = True, True
    inputs["image_codes"][absent] = -1
    present = torch.cat([torch.ones(2, 5, dtype=torch.bool), ~absent], 1)
    states = model.gptface(**inputs).last_hidden_state
    # neither a mask over them, nor their positions, nor the vector of [MASK] that they are read as
    masked = {**inputs, "image_mask": inputs["image_mask"] | absent}
    torch.testing.assert_close(model.gptface(**masked).last_hidden_state[present], states[present])
    vectors = model.gptface.embeddings.embed_codes(inputs["image_codes"], inputs["image_mask"])
    embed = model.gptface.embeddings.embed_codes
    model.gptface.embeddings.embed_codes = lambda *arguments: torch.where(absent[..., None], 9.0, embed(*arguments))
    assert not torch.equal(model.gptface.embeddings.embed_codes(inputs["image_codes"]), vectors)
    other = model.gptface(**inputs).last_hidden_state
    torch.testing.assert_close(other[present], states[present], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(other[~present], states[~present], atol=1e-2)


def test_a_cell_without_pixels_looks_masked(model, inputs):
    codes = inputs["image_codes"].clone()
    codes[:, 3] = -1
    vectors = model.gptface.embeddings.embed_codes(codes)
    assert torch.equal(vectors[:, 3], model.gptface.embeddings.mask_vector().expand(2, -1))
    assert torch.equal(vectors[:, 4], model.gptface.embeddings.code_table(16)[codes[:, 4]])


def test_saliency_of_the_plan_is_that_of_its_tokens(tiny_model, plan):
    """`region="auto"` looks there: it must be the gradient at the coarse scale, whose vectors and positions differ."""
    model = tiny_model(GPTFaceForGuidedGeneration, **DESIGN, match_head="cross", match_trained=True)
    caption = {name: plan[name] for name in ("input_ids", "attention_mask")}
    saliency = model.saliency(plan["image_codes"], **caption)
    assert saliency.shape == (2, 4) and (saliency > 0).all()
    vectors = model.gptface.embeddings.embed_codes(plan["image_codes"]).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.match_log_odds(**caption, image_embeds=vectors).sum(), vectors)
    torch.testing.assert_close(saliency, gradient.norm(dim=-1))


def test_the_cells_below_a_token_are_its_two_by_two():
    below = cells_below(torch.arange(4)[None]).unflatten(1, (4, 4))
    assert below.tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]]


def test_what_touches_a_token_is_beside_it():
    """A corner counts, the other edge of the grid does not."""
    tokens = torch.zeros(2, 16, dtype=torch.bool)
    tokens[0, 3] = True  # top right
    near = with_neighbours(tokens).unflatten(1, (4, 4))
    assert near[0].nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]] and not near[1].any()


def test_cells_beside_a_changed_token_are_drawn_with_it(tiny_model, plan, monkeypatch):
    """Else half of a mouth stays beside half of another; cells outside the mask stay whatever is beside them."""
    model = tiny_model(GPTFaceForGuidedGeneration, **DESIGN, match_head="cross", match_trained=True)
    caption = {name: plan[name] for name in ("input_ids", "attention_mask")}
    own, codes = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 16, dtype=torch.long)
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[:, 15] = False
    drawn, generate = own.clone(), model.generate
    drawn[0, 0] = 1  # of the first face one token came out another way, of the second none

    def draws(*arguments, **options):
        output = generate(*arguments, **options)
        return replace(output, codes=drawn) if output.codes.shape[1] == 4 else output

    monkeypatch.setattr(model, "generate", draws)
    output = model.generate_plan_first(**caption, image_codes=codes, image_mask=mask, plan_codes=own, generator=None)
    assert torch.equal(output.filled[0], mask[0]) and not output.filled[1].any()
