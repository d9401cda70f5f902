"""What guidance is for, on a whole model: more strength, more match, and the distributions stay near the unguided
ones.
"""

import itertools

import pytest
import torch

from gptface import GPTFaceForGuidedGeneration, ITMGuidance

SAMPLES = 24
STRENGTHS = (0.0, 0.5, 1.0, 2.0)
BUDGET = 1.0  # nats a cell at the default strength


@pytest.fixture(scope="module")
def model(tiny_model):
    """Random but fixed weights; the matching head speaks up, so that it has something to say about every code."""
    model = tiny_model(GPTFaceForGuidedGeneration, match_trained=True, code_embedding="levels")
    with torch.no_grad():
        model.match_head.output.weight.mul_(4)
    return model


def run(model, inputs, guidance, **kwargs):
    generators = [torch.Generator().manual_seed(seed) for seed in range(SAMPLES)]
    return model.generate(
        inputs["input_ids"], generator=generators, num_inference_steps=3, itm_guidance=guidance, **kwargs
    )


@pytest.mark.parametrize("estimator", ["soft", "straight_through"])
def test_match_rises_with_strength_and_the_divergence_stays_in_its_budget(model, tiny_inputs, estimator):
    inputs = tiny_inputs(model.config, batch=SAMPLES)
    outputs = [run(model, inputs, {"step_size": size, "estimator": estimator}) for size in STRENGTHS]
    matches = [float(output.match_scores.mean()) for output in outputs]
    divergences = [float(output.guidance_kl.mean()) for output in outputs]
    assert matches == sorted(matches) and matches[-1] > matches[0] + 0.1
    assert divergences[0] == 0 and all(low < high for low, high in itertools.pairwise(divergences))
    assert divergences[STRENGTHS.index(1.0)] < BUDGET


def test_the_original_constants_stay_far_inside_the_budget(model, tiny_inputs):
    output = run(model, tiny_inputs(model.config, batch=SAMPLES), ITMGuidance.original())
    assert 0 < float(output.guidance_kl.mean()) < BUDGET / 2


@pytest.mark.parametrize("decoding", ["parallel", "span", "one_shot"])
def test_no_strength_is_bit_identical_in_every_mode(model, tiny_inputs, decoding):
    inputs = tiny_inputs(model.config, batch=SAMPLES)
    plain = run(model, inputs, None, decoding=decoding)
    off = run(model, inputs, ITMGuidance(iterations=0, estimator="straight_through"), decoding=decoding)
    assert torch.equal(plain.codes, off.codes) and torch.equal(plain.match_scores, off.match_scores)
    assert (off.guidance_kl == 0).all()


def test_both_guidances_act_together(model, tiny_inputs):
    inputs = tiny_inputs(model.config, batch=SAMPLES)
    alone = [run(model, inputs, size, guidance_scale=scale).codes for size, scale in ((1.0, 1.0), (0.0, 3.0))]
    both = run(model, inputs, 1.0, guidance_scale=3.0).codes
    assert not any(torch.equal(both, codes) for codes in alone)
