"""
States that are kept between decoding steps: an approximation must be exact where nothing has changed, must touch
nothing that it was told to keep, and must be off unless asked for.
"""

import pytest
import torch

from gptface import GPTFaceForGuidedGeneration
from gptface.modeling_gptface.modeling_gptface import GPTFaceKeptStates

VARIANTS = {
    "default": {},
    "post-norm": {"norm_position": "post"},
    "prefix": {"attention_pattern": "prefix"},
    "convolution": {"grid_convolution": True, "code_embedding": "levels"},
    "words first": {"text_attention_bias": 2.0},
    "as embedded": {"match_head": "cross", "caption_reader": True, "grid_convolution": True},
}


@pytest.fixture(params=VARIANTS)
def model(request, tiny_model):
    return tiny_model(GPTFaceForGuidedGeneration, match_trained=True, num_hidden_layers=3, **VARIANTS[request.param])


@pytest.fixture
def inputs(tiny_inputs, model):
    """Three samples with captions of several lengths; the last one has no changing cell."""
    inputs = tiny_inputs(model.config, batch=3)
    inputs["attention_mask"][1, -2:] = 0
    inputs["image_mask"][:] = torch.tensor([[1, 1, 0, 1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1, 1, 0, 1], [0] * 9])
    return inputs


def kept_pass(model, inputs, kept):
    return model.gptface(**inputs, kept_states=kept).last_hidden_state


def test_the_same_sequence_has_the_same_states(model, inputs):
    kept = GPTFaceKeptStates(inputs["image_mask"])
    every = model.gptface(**inputs).last_hidden_state
    assert torch.equal(kept_pass(model, inputs, kept), every)  # the pass that fills it is a plain one
    torch.testing.assert_close(kept_pass(model, inputs, kept), every, atol=1e-5, rtol=1e-5)


def test_only_what_may_change_changes(model, inputs):
    changing = inputs.pop("image_mask")
    kept = GPTFaceKeptStates(changing)
    before = kept_pass(model, inputs, kept)
    other = {**inputs, "image_codes": (inputs["image_codes"] + 7) % model.config.num_codes}  # given cells too
    after = kept_pass(model, other, kept)
    moved = (after - before).abs().amax(-1) > 1e-5
    cells = moved[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(cells, changing)
    assert not moved[:, 1 : inputs["input_ids"].shape[1]].any()
    if model.config.attention_pattern == "bidirectional":
        assert moved[:2, 0].all()  # [CLS] goes along: a matching head may read it


def test_where_everything_changes_but_the_words_nothing_is_approximated_about_the_cells(model, inputs):
    """With one layer the words' keys do not depend on the cells, so that a wholly changing grid is exact."""
    model.gptface.layers = model.gptface.layers[:1]
    inputs["image_mask"] = torch.ones_like(inputs["image_mask"])
    kept = GPTFaceKeptStates(inputs["image_mask"])
    kept_pass(model, inputs, kept)
    shown = {**inputs, "image_mask": inputs["image_mask"] & (torch.arange(9) % 2 == 0)}
    cells = slice(inputs["input_ids"].shape[1], None)
    expected = model.gptface(**shown).last_hidden_state[:, cells]
    torch.testing.assert_close(kept_pass(model, shown, kept)[:, cells], expected, atol=1e-5, rtol=1e-5)


def test_gradients_reach_what_changes(model, inputs):
    mask = inputs["image_mask"]
    vectors = model.gptface.embeddings.embed_codes(inputs.pop("image_codes"), inputs.pop("image_mask"))
    kept = GPTFaceKeptStates(mask)
    kept_pass(model, {**inputs, "image_embeds": vectors}, kept)
    changed = vectors.detach().requires_grad_(True)
    states = kept_pass(model, {**inputs, "image_embeds": changed}, kept)
    # a square: the sum of what a norm gives does not depend on its input
    (gradient,) = torch.autograd.grad(states.square().mul(torch.arange(32)).sum(), changed)
    assert torch.equal(gradient.abs().sum(-1) > 0, mask)


def test_hidden_states_of_such_a_pass_are_refused(model, inputs):
    with pytest.raises(ValueError, match="kept_states go with neither"):
        model.gptface(**inputs, kept_states=GPTFaceKeptStates(inputs["image_mask"]), output_hidden_states=True)


def test_states_of_another_sequence_are_refused(model, inputs):
    kept = GPTFaceKeptStates(inputs["image_mask"])
    kept_pass(model, inputs, kept)
    shorter = {**inputs, "input_ids": inputs["input_ids"][:, :3], "attention_mask": inputs["attention_mask"][:, :3]}
    with pytest.raises(ValueError, match="were filled by states"):
        kept_pass(model, shorter, kept)
    for wrong in (inputs["image_mask"][:2], inputs["image_mask"].long(), torch.ones(3, 20, dtype=torch.bool)):
        with pytest.raises(ValueError, match="are no mask of a sequence"):
            kept_pass(model, inputs, GPTFaceKeptStates(wrong))


def test_a_pass_that_breaks_off_keeps_nothing(model, inputs, monkeypatch):
    kept = GPTFaceKeptStates(inputs["image_mask"])
    with monkeypatch.context() as patch:
        patch.setattr(model.gptface.layers[-1], "forward", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kept_pass(model, inputs, kept)
    assert torch.equal(kept_pass(model, inputs, kept), model.gptface(**inputs).last_hidden_state)


def generate(model, inputs, **options):
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    return model.generate(**inputs, num_inference_steps=4, generator=generators, **options)


SOURCE = torch.tensor([[2, 9, 3]]).expand(3, -1)
GUIDANCE = {
    "none": {},
    "CFG": {"guidance_scale": 2.0},
    "ITM": {"itm_guidance": {"iterations": 3}},
    "source": {"itm_guidance": 1.0, "source_input_ids": SOURCE},
}


@pytest.mark.parametrize("guidance", GUIDANCE.values(), ids=GUIDANCE)
def test_given_cells_stay_and_the_batch_does_not_matter(model, inputs, guidance):
    inputs["attention_mask"][:] = 1
    together = generate(model, inputs, state_refresh=3, **guidance)
    mask = inputs["image_mask"]
    assert torch.equal(together.codes[~mask], inputs["image_codes"][~mask])
    for row in range(3):
        alone = model.generate(
            **{name: value[row : row + 1] for name, value in inputs.items()},
            num_inference_steps=4,
            generator=[torch.Generator().manual_seed(row)],
            state_refresh=3,
            **{name: value[row : row + 1] if torch.is_tensor(value) else value for name, value in guidance.items()},
        )
        assert torch.equal(alone.codes[0], together.codes[row])


def test_nothing_is_kept_unless_asked_for(model, inputs, monkeypatch):
    monkeypatch.setattr(GPTFaceKeptStates, "__init__", lambda *arguments: 1 / 0)
    generate(model, inputs, itm_guidance=1.0)
    with pytest.raises(ZeroDivisionError):
        generate(model, inputs, state_refresh=2)


@pytest.mark.parametrize("guidance", GUIDANCE.values(), ids=GUIDANCE)
def test_a_single_step_is_exact(model, inputs, guidance):
    """Also where guidance takes several iterations in it: states are kept between steps, not within one."""
    first = [
        model.generate(
            **inputs,
            num_inference_steps=1,
            generator=[torch.Generator().manual_seed(seed) for seed in range(3)],
            state_refresh=refresh,
            **guidance,
        )
        for refresh in (1, 4)
    ]
    assert torch.equal(first[0].codes, first[1].codes)
    torch.testing.assert_close(first[0].guidance_kl, first[1].guidance_kl)


def test_fewer_positions_are_computed(model, inputs):
    """The work that a user wants to save: in the steps between, no layer sees more than the region and [CLS]."""
    rows = []
    model.gptface.layers[0].feed_forward.register_forward_hook(
        lambda _, args, __: rows.append(args[0].shape[:-1].numel())
    )
    generate(model, inputs, state_refresh=2)
    whole = inputs["input_ids"].numel() + inputs["image_codes"].numel()
    first = rows.index(whole)  # a caption that is read apart comes before
    assert rows[first : first + 4] == [whole, int(inputs["image_mask"].sum()) + 3] * 2


@pytest.mark.parametrize("refresh", [0, -1])
def test_a_refresh_below_one_is_refused(model, inputs, refresh):
    with pytest.raises(ValueError, match="state_refresh must be at least 1"):
        generate(model, inputs, state_refresh=refresh)
