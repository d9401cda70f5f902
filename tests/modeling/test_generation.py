"""Generation: repeatable, faithful to what was given, and unchanged where guidance is off."""

import pytest
import torch

from gptface import GPTFaceForGuidedGeneration, ITMGuidance
from gptface.modeling_gptface.generation_gptface import Captions, as_guidance, per_sample_generators


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(GPTFaceForGuidedGeneration, match_trained=True, code_embedding="levels")


@pytest.fixture(scope="module")
def inputs(model, tiny_inputs):
    return tiny_inputs(model.config, batch=3)


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def generate(model, inputs, *seeds, **kwargs):
    return model.generate(**inputs, generator=seeded(*seeds), num_inference_steps=4, **kwargs)


def test_given_cells_are_kept_and_all_others_filled(model, inputs):
    """Half of the cells are given; the same start codes under the mask must not matter."""
    output = generate(model, inputs, 1, 2, 3)
    given = ~inputs["image_mask"]
    assert torch.equal(output.codes[given], inputs["image_codes"][given])
    other = {**inputs, "image_codes": torch.where(given, inputs["image_codes"], 0)}
    assert torch.equal(generate(model, other, 1, 2, 3).codes, output.codes)
    assert output.match_scores.shape == (3,) and not output.codes.requires_grad


def test_samples_differ_and_repeat(model, inputs):
    """Different seeds give different faces, the same seed the same one; codes are not all alike."""
    everything = {**inputs, "image_mask": torch.ones_like(inputs["image_mask"])}
    output = generate(model, everything, 1, 2, 3)
    assert torch.equal(output.codes, generate(model, everything, 1, 2, 3).codes)
    assert not torch.equal(output.codes, generate(model, everything, 4, 5, 6).codes)
    assert output.codes.unique().numel() > 5


@pytest.mark.parametrize("guidance", [{}, {"itm_guidance": 1.0}, {"guidance_scale": 2.0}])
def test_a_sample_is_the_same_alone_and_in_a_batch(model, inputs, guidance):
    together = generate(model, inputs, 1, 2, 3, **guidance)
    for index in range(3):
        alone = generate(model, {name: t[index : index + 1] for name, t in inputs.items()}, index + 1, **guidance)
        assert torch.equal(alone.codes[0], together.codes[index])
        torch.testing.assert_close(alone.match_scores[0], together.match_scores[index])


def test_guidance_of_no_iterations_is_bit_identical_to_none(model, inputs):
    plain = generate(model, inputs, 1, 2, 3)
    for off in (None, 0, 0.0, False, ITMGuidance(iterations=0), {"iterations": 0}):
        output = generate(model, inputs, 1, 2, 3, itm_guidance=off)
        assert torch.equal(output.codes, plain.codes) and torch.equal(output.match_scores, plain.match_scores)


def test_guidance_raises_the_match(model, tiny_inputs):
    """What the guidance is for, over enough samples that luck does not decide."""
    inputs = tiny_inputs(model.config, batch=32)
    inputs["image_mask"][:] = True
    plain = generate(model, inputs, *range(32))
    guided = generate(model, inputs, *range(32), itm_guidance={"iterations": 3, "step_size": 2.0})
    assert guided.match_scores.mean() > plain.match_scores.mean() + 3 * plain.match_scores.std() / 32**0.5


def test_guidance_leaves_the_parameters_alone(model, inputs):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    generate(model, inputs, 1, 2, 3, itm_guidance=1.0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_source_caption_guides_away_from_it(model, inputs):
    source = {"source_input_ids": inputs["input_ids"].flip(0), "source_attention_mask": inputs["attention_mask"]}
    plain = generate(model, inputs, 1, 2, 3, itm_guidance=2.0)
    assert not torch.equal(generate(model, inputs, 1, 2, 3, itm_guidance=2.0, **source).codes, plain.codes)


def test_a_caption_against_itself_cannot_guide(model, inputs):
    source = {"source_input_ids": inputs["input_ids"], "source_attention_mask": inputs["attention_mask"]}
    with pytest.raises(RuntimeError, match="cannot act"):
        generate(model, inputs, 1, 2, 3, itm_guidance={"kl_weight": 0.0}, **source)


def test_classifier_free_guidance_uses_the_negative_prompt(model, inputs):
    """The empty caption is the default; the prompt as its own negative is no guidance at all."""
    empty = torch.tensor([[model.config.cls_token_id, model.config.sep_token_id]]).expand(3, -1)
    default = generate(model, inputs, 1, 2, 3, guidance_scale=4.0)
    explicit = generate(model, inputs, 1, 2, 3, guidance_scale=4.0, negative_input_ids=empty)
    assert torch.equal(default.codes, explicit.codes)
    own = {"negative_input_ids": inputs["input_ids"], "negative_attention_mask": inputs["attention_mask"]}
    itself = generate(model, inputs, 1, 2, 3, guidance_scale=4.0, **own)
    assert torch.equal(itself.codes, generate(model, inputs, 1, 2, 3).codes)
    assert not torch.equal(default.codes, itself.codes)


def test_guidance_by_an_untrained_match_head_is_refused(tiny_model, inputs):
    untrained = tiny_model(GPTFaceForGuidedGeneration, code_embedding="levels")
    with pytest.raises(ValueError, match="not trained"):
        generate(untrained, inputs, 1, 2, 3, itm_guidance=1.0)
    with pytest.raises(ValueError, match="not trained"):
        untrained.saliency(inputs["image_codes"], inputs["input_ids"])
    assert generate(untrained, inputs, 1, 2, 3).codes.shape == (3, 9)


def test_weights_that_are_not_finite_raise(tiny_model, inputs):
    broken = tiny_model(GPTFaceForGuidedGeneration, match_trained=True, code_embedding="levels")
    with torch.no_grad():
        broken.lm_head.image_bias[3] = float("nan")
    with pytest.raises(FloatingPointError):
        generate(broken, inputs, 1, 2, 3)


def test_the_callback_sees_every_step(model, inputs):
    seen = []
    output = generate(model, inputs, 1, 2, 3, callback_on_step_end=lambda *state: seen.append(state))
    assert [step for _, step, *_ in seen] == list(range(len(seen))) and 2 <= len(seen) <= 4
    assert all(each is model for each, *_ in seen) and seen[0][2] == 3
    masked = [int(state["mask"].sum()) for *_, state in seen]
    assert masked == sorted(masked, reverse=True) and masked[-1] == 0
    assert torch.equal(seen[-1][-1]["codes"], output.codes)


def test_nothing_masked_returns_what_was_given(model, inputs):
    nothing = {**inputs, "image_mask": torch.zeros_like(inputs["image_mask"])}
    output = generate(model, nothing, 1, 2, 3, itm_guidance=1.0)
    assert torch.equal(output.codes, inputs["image_codes"])


def test_text_to_face_needs_no_codes(model, inputs):
    output = model.generate(inputs["input_ids"], num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    again = model.generate(inputs["input_ids"], num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert output.codes.shape == (3, 9) and torch.equal(output.codes, again.codes)
    assert not torch.equal(output.codes[0], output.codes[1])
    assert model.image_tokenizer.decode(output.codes).shape == (3, 3, 24, 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_codes": None}, "image_mask without image_codes"),
        ({"image_codes": torch.zeros(3, 8, dtype=torch.long)}, r"must be \[3, 9\]"),
        ({"image_mask": torch.ones(2, 9, dtype=torch.bool)}, r"must be \[3, 9\]"),
        ({"negative_input_ids": torch.tensor([[2, 3]] * 3)}, "guidance_scale"),
        ({"generator": [torch.Generator()]}, "1 generators for a batch of 3"),
        ({"num_inference_steps": 0}, "num_steps"),
        ({"itm_guidance": -1.0}, "step_size"),
    ],
)
def test_wrong_calls_are_named(model, inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**{**inputs, **changes})


def test_saliency_tells_how_much_each_cell_matters(model, inputs):
    caption = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    with torch.no_grad():
        saliency = model.saliency(inputs["image_codes"], **caption)
    assert saliency.shape == (3, 9) and (saliency > 0).all()
    # against finite differences along the steepest direction of one cell
    vectors = model.gptface.embeddings.embed_codes(inputs["image_codes"]).detach().requires_grad_(True)
    odds = model.match_log_odds(**caption, image_embeds=vectors)
    (gradient,) = torch.autograd.grad(odds.sum(), vectors)
    moved = vectors.detach().clone()
    moved[0, 4] += 1e-2 * gradient[0, 4] / gradient[0, 4].norm()
    with torch.no_grad():
        difference = (model.match_log_odds(**caption, image_embeds=moved) - odds)[0] / 1e-2
    torch.testing.assert_close(saliency[0, 4], difference, rtol=0.05, atol=1e-4)


def test_saliency_against_a_source_caption_is_that_of_the_difference(model, inputs):
    caption = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    other = {"input_ids": inputs["input_ids"].flip(0), "attention_mask": inputs["attention_mask"]}
    source = {f"source_{name}": tensor for name, tensor in other.items()}
    vectors = model.gptface.embeddings.embed_codes(inputs["image_codes"]).detach().requires_grad_(True)
    difference = model.match_log_odds(**caption, image_embeds=vectors) - model.match_log_odds(
        **other, image_embeds=vectors
    )
    (gradient,) = torch.autograd.grad(difference.sum(), vectors)
    torch.testing.assert_close(model.saliency(inputs["image_codes"], **caption, **source), gradient.norm(dim=-1))


def test_guidance_values_that_users_may_give():
    assert as_guidance(0.7) == ITMGuidance(step_size=0.7)
    assert as_guidance({"iterations": 3}) == ITMGuidance(iterations=3)
    assert as_guidance(ITMGuidance.original()) == ITMGuidance.original()
    assert as_guidance(None).iterations == as_guidance(0).iterations == 0


def test_one_generator_seeds_all_samples():
    first = per_sample_generators(torch.Generator().manual_seed(0), 3)
    second = per_sample_generators(torch.Generator().manual_seed(0), 3)
    assert [g.initial_seed() for g in first] == [g.initial_seed() for g in second]
    assert len({g.initial_seed() for g in first}) == 3
    assert len({g.initial_seed() for g in per_sample_generators(None, 3)}) == 3


@pytest.mark.parametrize("match_head", ["cls", "cross"])
def test_guidance_scores_a_grid_as_the_match_of_both_captions(tiny_model, tiny_inputs, match_head):
    """Captions that are read once, apart from the picture, must give the score that users see."""
    model = tiny_model(GPTFaceForGuidedGeneration, match_trained=True, match_head=match_head)
    inputs = tiny_inputs(model.config, batch=3)
    prompt = Captions(inputs["input_ids"], inputs["attention_mask"])
    source = Captions(inputs["input_ids"].flip(1)[:, :3])  # shorter
    known = model.gptface.embeddings.embed_codes(inputs["image_codes"])
    vectors = known.flip(0)
    grid = torch.where(inputs["image_mask"][..., None], vectors, known)
    expected = model.match_log_odds(**prompt.arguments(), image_embeds=grid)
    torch.testing.assert_close(model._match_score([prompt])(grid), expected)
    difference = expected - model.match_log_odds(**source.arguments(), image_embeds=grid)
    torch.testing.assert_close(model._match_score([prompt, source])(grid), difference, atol=1e-5, rtol=1e-5)
