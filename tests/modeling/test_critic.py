"""The critic of drawn tokens: what it reads, what it needs, and what survives saving."""

import pytest
import torch

from gptface import GPTFaceForGuidedGeneration, GPTFaceModel
from gptface.modeling_gptface.decoding import DecodingSchedule, fill_masked
from gptface.modeling_gptface.generation_gptface import Captions
from gptface.modeling_gptface.modeling_gptface import GPTFaceKeptStates

PLAN = {"image_tokenizer_config": {"image_size": 32, "plan_levels": [2, 3, 4]}, "code_embedding": "levels"}
CRITIC = {"critic_channels": 8, "critic_trained": True}


@pytest.fixture
def model(tiny_model):
    """Its plan has 2×2 tokens."""
    return tiny_model(GPTFaceForGuidedGeneration, **PLAN, **CRITIC)


@pytest.fixture
def plan():
    return torch.tensor([[0, 5, 17, 23], [3, 3, 12, 20]])


def test_every_token_of_the_plan_gets_a_logit(model, plan):
    real = model.criticise(plan)
    assert real.shape == (2, 4) and real.dtype == torch.float32
    torch.testing.assert_close(model.criticise(plan[1:]), real[1:])
    other = plan.clone()
    other[0, 3] = 1
    changed = model.criticise(other)
    assert not torch.equal(changed[0], real[0])
    torch.testing.assert_close(changed[1], real[1])


def test_a_caption_is_read_where_it_is_given(model, plan, tiny_inputs):
    words = tiny_inputs(model.config)["input_ids"]
    assert not torch.allclose(model.criticise(plan, words), model.criticise(plan))


def test_without_a_plan_it_reads_the_codes(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceForGuidedGeneration, **CRITIC)
    codes = tiny_inputs(model.config)["image_codes"]
    assert model.criticise(codes).shape == codes.shape


def test_grids_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match="grids of 4 tokens"):
        model.criticise(torch.zeros(1, 16, dtype=torch.long))


@pytest.mark.parametrize("critic", [{}, {"critic_channels": 8}], ids=["none", "not trained"])
def test_what_needs_a_trained_critic_says_so(tiny_model, plan, critic):
    model = tiny_model(GPTFaceForGuidedGeneration, **PLAN, **critic)
    with pytest.raises(ValueError, match="gptface train-critic"):
        model.criticise(plan)


def test_it_is_saved_and_opened_again(model, plan, tmp_path):
    model.save_pretrained(tmp_path)
    again = GPTFaceForGuidedGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(again.criticise(plan), model.criticise(plan))
    assert not any(parameter.requires_grad for parameter in again.critic.parameters())
    _, info = GPTFaceModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]


def test_a_folder_that_lacks_its_weights_is_not_believed(tiny_model, plan, tmp_path):
    """An edited config.json must not make random weights judge photos."""
    tiny_model(GPTFaceForGuidedGeneration, **PLAN).save_pretrained(tmp_path)
    opened = GPTFaceForGuidedGeneration.from_pretrained(tmp_path, **CRITIC)
    assert not opened.config.critic_trained
    with pytest.raises(ValueError, match="no trained critic"):
        opened.criticise(plan)


def test_a_critic_chooses_what_is_drawn_again():
    """In each pass what it finds least real of all that may change, and not what was drawn with least confidence."""
    given, mask = torch.full((1, 8), 9), torch.tensor([[True] * 6 + [False] * 2])
    asked = []

    def predict(codes, masked):
        asked.append(masked[0].tolist())
        return torch.randn(int(masked.sum()), 10, generator=torch.Generator().manual_seed(len(asked)))

    def critic(codes):
        # the first cell is never real; what must not change even less so
        return torch.tensor([[-5.0, 3, 2, 1, 4, 5, -9, -9]]).expand(len(codes), -1)

    schedule = DecodingSchedule(2, 1.0, 0.0, "critic", corrections=2)
    codes = fill_masked(given, mask, predict, schedule, [torch.Generator().manual_seed(0)], critic=critic)
    assert len(asked) == schedule.most_passes == 4 and asked[0] == mask[0].tolist()
    assert all(pass_[0] for pass_ in asked), "the least real cell is drawn in every pass"
    assert [sum(pass_) for pass_ in asked] == [6, 4, 2, 2], "rounds of correction draw a quarter of the cells"
    assert codes[0, 6:].tolist() == [9, 9]


def test_a_sample_is_decoded_alone_as_in_a_batch(model, plan, tiny_inputs):
    words = tiny_inputs(model.config)["input_ids"]

    def draw(rows):
        generators = [torch.Generator().manual_seed(row) for row in rows]
        options = {"decoding": "critic", "corrections": 1, "generator": generators}
        return model.generate(words[rows], image_codes=plan[rows], **options)

    together, alone = draw([0, 1]), draw([1])
    assert torch.equal(together.codes[1:], alone.codes)
    torch.testing.assert_close(together.realness[1:], alone.realness)
    least = model.criticise(together.codes).min(1).values
    torch.testing.assert_close(together.realness, least)


def guided(model, words, plan, weight, **options):
    """Codes under guidance by matching in which the critic has so much weight."""
    options.setdefault("generator", [torch.Generator().manual_seed(row) for row in range(len(words))])
    guidance = {"step_size": 3.0, "critic_weight": weight}
    return model.generate(words, image_codes=plan, num_inference_steps=4, itm_guidance=guidance, **options).codes


@pytest.fixture(params=["cls", "cross"])
def matching(request, tiny_model):
    """Models that read caption and picture together for the match, and apart."""
    return tiny_model(GPTFaceForGuidedGeneration, **PLAN, **CRITIC, match_head=request.param, match_trained=True)


def test_guidance_reads_the_critic_as_criticise_does(matching, plan, tiny_inputs):
    """Whether the match reads the grid alone, with its caption, or a part of it."""
    words = tiny_inputs(matching.config)["input_ids"]
    known = matching.gptface.embeddings.embed_codes(plan)
    score = matching._match_score([Captions(words)], None, matching.critic)
    kept = GPTFaceKeptStates(torch.ones_like(plan, dtype=torch.bool))
    for states in (None, kept, kept):
        match, real = score(known, states)
        torch.testing.assert_close(real, matching.criticise(plan))
        torch.testing.assert_close(match, matching.match_log_odds(words, image_codes=plan))


def test_guidance_in_which_the_critic_has_a_say_draws_what_is_more_real(matching, plan, tiny_inputs):
    words = tiny_inputs(matching.config)["input_ids"][:1].repeat(24, 1)
    plans = plan[:1].repeat(24, 1)
    without, little, much = (matching.criticise(guided(matching, words, plans, weight)) for weight in (0, 1, 1e4))
    assert much.mean() > without.mean() and not torch.equal(little, without)


def test_a_sample_is_guided_by_the_critic_alone_as_in_a_batch(matching, plan, tiny_inputs):
    words = tiny_inputs(matching.config)["input_ids"]
    together = guided(matching, words, plan, 1.0)
    alone = guided(matching, words[1:], plan[1:], 1.0, generator=[torch.Generator().manual_seed(1)])
    assert torch.equal(together[1:], alone)


def test_kept_states_do_not_change_what_the_critic_reads(matching, plan, tiny_inputs):
    """The states that the match keeps are those of few cells; the critic needs all of a grid."""
    words = tiny_inputs(matching.config)["input_ids"]
    assert guided(matching, words, plan, 1.0, state_refresh=2).shape == plan.shape


def test_guidance_by_a_critic_needs_one_that_reads_the_grid(tiny_model, matching, plan, tiny_inputs):
    words = tiny_inputs(matching.config)["input_ids"]
    with pytest.raises(ValueError, match="plan_first=True"):
        guided(matching, words, None, 1.0)
    with pytest.raises(ValueError, match="faces that are drawn"):
        codes = tiny_inputs(matching.config)["image_codes"]
        matching.generate_text(words, image_codes=codes, itm_guidance={"critic_weight": 1.0})
    model = tiny_model(GPTFaceForGuidedGeneration, **PLAN, match_trained=True)
    with pytest.raises(ValueError, match="gptface train-critic"):
        guided(model, words, plan, 1.0)


def test_decoding_by_a_critic_needs_one(tiny_model, plan, tiny_inputs):
    model = tiny_model(GPTFaceForGuidedGeneration, **PLAN)
    words = tiny_inputs(model.config)["input_ids"]
    with pytest.raises(ValueError, match="no trained critic"):
        model.generate(words, image_codes=plan, decoding="critic")
    assert model.generate(words, image_codes=plan, num_inference_steps=2).realness is None
