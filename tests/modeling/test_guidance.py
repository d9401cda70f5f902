"""Guidance by the gradient of the matching loss: it moves what is masked towards the prompt, and nothing else."""

import dataclasses
import itertools

import pytest
import torch

from gptface.modeling_gptface import guidance as module
from gptface.modeling_gptface.guidance import ITMGuidance, cell_saliency, classifier_free

BATCH, CELLS, CODES, WIDTH = 3, 6, 11, 5


@pytest.fixture
def problem():
    """Logits, a mask (the last sample has no masked cell), code vectors and a match score whose gradient is known."""
    random = torch.Generator().manual_seed(0)
    mask = torch.rand(BATCH, CELLS, generator=random) < 0.6
    mask[-1] = False
    direction = torch.randn(CELLS, WIDTH, generator=random)

    def match_score(vectors):
        return (vectors * direction).sum((1, 2)) - 2

    logits = torch.randn(BATCH, CELLS, CODES, generator=random) * 2
    table = torch.randn(CODES, WIDTH, generator=random)
    return logits, mask, match_score, table


def guide_logits(logits, mask, *arguments):
    """Logits of a whole grid [B, N, K] → the same, guided where the mask is True."""
    return logits.float().masked_scatter(mask[..., None], module.guide_logits(logits[mask], mask, *arguments))


def guidance_divergence(guided, unguided, mask, *arguments, **options):
    return module.guidance_divergence(guided[mask], unguided[mask], mask, *arguments, **options)


@pytest.fixture
def critic():
    """Logits of cells that their neighbours have a say in."""
    direction = torch.randn(CELLS, WIDTH, generator=torch.Generator().manual_seed(7))

    def realness(vectors):
        own = (vectors * direction.to(vectors.dtype)).sum(-1)
        return own + own.roll(1, -1).tanh() - 1

    return realness


def judged(match_score, critic):
    """The match and what is real."""
    return lambda vectors: (match_score(vectors), critic(vectors))


def soft_score(logits, mask, match_score, table):
    vectors = logits.softmax(-1) @ table
    return match_score(torch.where(mask[..., None], vectors, 0.0))


def test_no_iterations_returns_the_very_tensor(problem):
    logits, mask, match_score, table = problem
    rows = logits[mask]
    assert module.guide_logits(rows, mask, match_score, table, ITMGuidance(iterations=0)) is rows
    assert module.guide_logits(rows[:0], torch.zeros_like(mask), match_score, table, ITMGuidance()).shape == (0, CODES)


def test_match_rises_with_the_step_size(problem):
    logits, mask, match_score, table = problem
    scores = [
        soft_score(
            guide_logits(logits, mask, match_score, table, ITMGuidance(step_size=size)), mask, match_score, table
        )
        for size in (0.0, 0.5, 1.0, 2.0)
    ]
    for lower, higher in itertools.pairwise(scores):
        assert (higher[:2] > lower[:2] + 0.01).all()


def test_divergence_grows_with_the_step_size(problem):
    logits, mask, match_score, table = problem
    divergences = []
    for size in (0.25, 0.5, 1.0, 2.0):
        guided = guide_logits(logits, mask, match_score, table, ITMGuidance(step_size=size))
        log_q, log_p = guided.log_softmax(-1), logits.log_softmax(-1)
        divergences.append((log_q.exp() * (log_q - log_p)).sum(-1)[mask].mean().item())
    assert divergences == sorted(divergences) and divergences[0] > 0


def test_only_masked_cells_change(problem):
    logits, mask, match_score, table = problem
    guided = guide_logits(logits, mask, match_score, table, ITMGuidance(iterations=2))
    assert torch.equal(guided[~mask], logits[~mask])
    assert ((guided - logits)[mask].abs().sum(-1) > 0).all()


def slow_guidance(logits, mask, match_score, table, guidance, critic):
    """
    The equations, one sample and one number at a time, with the gradient from finite differences in double precision.
    """
    result = logits.double().clone()
    for sample in range(len(logits)):
        cells = mask[sample].nonzero()[:, 0].tolist()
        if not cells:
            continue
        original = logits[sample].double()

        def loss(delta, cells=cells, original=original, sample=sample):
            vectors = torch.zeros(len(logits), *original.shape[:1], table.shape[1], dtype=torch.double)
            divergence = 0.0
            for row, cell in enumerate(cells):
                p = (original[cell] / guidance.temperature).softmax(-1)
                q = ((original[cell] + delta[row]) / guidance.temperature).softmax(-1)
                vectors[sample, cell] = sum(q[code] * table[code].double() for code in range(len(q)))
                divergence += (q * (q / p).log()).sum() / len(cells)
            unreal = -critic(vectors)[sample][cells].sigmoid().log().mean()
            return (
                -match_score(vectors)[sample].sigmoid().log()
                + guidance.kl_weight * divergence
                + guidance.critic_weight * unreal
            )

        delta = torch.zeros(len(cells), original.shape[-1], dtype=torch.double)
        for _ in range(guidance.iterations):
            gradient = torch.zeros_like(delta)
            for row in range(delta.shape[0]):
                for code in range(delta.shape[1]):
                    step = torch.zeros_like(delta)
                    step[row, code] = 1e-5
                    gradient[row, code] = (loss(delta + step) - loss(delta - step)) / 2e-5
            norm = (sum(gradient[row].norm() ** 2 for row in range(len(cells))) / len(cells)) ** 0.5
            for row, cell in enumerate(cells):
                spread = original[cell].std()
                delta[row] -= guidance.step_size * spread * gradient[row] / norm**guidance.gradient_power
        for row, cell in enumerate(cells):
            p = original[cell].softmax(-1)
            q = (original[cell] + delta[row]).softmax(-1)
            fused = q**guidance.fusion * p ** (1 - guidance.fusion)
            result[sample, cell] = (fused / fused.sum()).log()
    return result


@pytest.mark.parametrize(
    "guidance",
    [
        ITMGuidance(),
        ITMGuidance(iterations=2, step_size=0.3, gradient_power=1.5, kl_weight=0.5, fusion=0.6),
        ITMGuidance(temperature=1.7, fusion=1.0),
        ITMGuidance(critic_weight=0.8),
        ITMGuidance(iterations=2, step_size=0.3, gradient_power=1.5, temperature=1.7, critic_weight=3.0),
    ],
)
def test_it_computes_the_equations(problem, critic, guidance):
    logits, mask, match_score, table = problem
    guided = guide_logits(logits, mask, judged(match_score, critic), table, guidance)
    expected = slow_guidance(logits, mask, match_score, table, guidance, critic)
    # distributions, since logits are free up to a constant for each cell
    torch.testing.assert_close(guided.double().softmax(-1)[mask], expected.softmax(-1)[mask], atol=2e-5, rtol=1e-3)


def test_a_critic_without_weight_changes_nothing(problem, critic):
    """Pictures of guidance by matching alone stay as they were, bit for bit."""
    logits, mask, match_score, table = problem
    guided = guide_logits(logits, mask, judged(match_score, critic), table, ITMGuidance(iterations=2))
    assert torch.equal(guided, guide_logits(logits, mask, match_score, table, ITMGuidance(iterations=2)))


def test_what_matches_is_not_bought_with_what_is_unreal(problem, critic):
    """The more weight the critic has, the more real what is drawn, at the cost of the match."""
    logits, mask, match_score, table = problem
    matches, real = [], []
    for weight in (0.0, 1.0, 10.0):
        guidance = ITMGuidance(step_size=0.5, critic_weight=weight)
        guided = guide_logits(logits, mask, judged(match_score, critic), table, guidance)
        matches.append(soft_score(guided, mask, match_score, table)[:2])
        vectors = torch.where(mask[..., None], guided.softmax(-1) @ table, 0.0)
        real.append(torch.stack([critic(vectors)[row][mask[row]].mean() for row in range(2)]))
    for less, more in itertools.pairwise(range(3)):
        assert (real[more] > real[less] + 0.01).all() and (matches[more] < matches[less]).all()


def test_a_weight_without_a_critic_is_an_error(problem):
    logits, mask, match_score, table = problem
    with pytest.raises(ValueError, match="needs a critic"):
        guide_logits(logits, mask, match_score, table, ITMGuidance(critic_weight=0.5))


def test_the_step_does_not_depend_on_the_size_of_the_region(problem):
    """A user's guidance strength must mean the same for a mouth and for a whole face."""
    _, _, _, table = problem
    logits = torch.randn(1, 1, CODES, generator=torch.Generator().manual_seed(1))

    def match_score(vectors):
        return vectors.sum((1, 2))

    # the same cell over and over: each copy must move as the single one does
    single = guide_logits(logits, torch.ones(1, 1, dtype=torch.bool), match_score, table, ITMGuidance(kl_weight=0.0))
    many = guide_logits(
        logits.expand(1, 8, CODES), torch.ones(1, 8, dtype=torch.bool), match_score, table, ITMGuidance(kl_weight=0.0)
    )
    torch.testing.assert_close(many, single.expand(1, 8, CODES), atol=1e-5, rtol=1e-5)


def test_a_sample_is_guided_the_same_in_any_batch(problem):
    logits, mask, match_score, table = problem
    together = guide_logits(logits, mask, match_score, table, ITMGuidance(iterations=2))
    alone = guide_logits(logits[:1], mask[:1], match_score, table, ITMGuidance(iterations=2))
    torch.testing.assert_close(alone, together[:1])


def test_it_works_where_gradients_are_off(problem):
    """Pipelines run the model under no_grad."""
    logits, mask, match_score, table = problem
    expected = guide_logits(logits, mask, match_score, table, ITMGuidance())
    with torch.no_grad():
        guided = guide_logits(logits, mask, match_score, table, ITMGuidance())
    assert torch.equal(guided, expected) and not guided.requires_grad


def test_parameters_get_no_gradient(problem):
    logits, mask, _, table = problem
    layer = torch.nn.Linear(WIDTH, 1)
    table = torch.nn.Parameter(table)
    guide_logits(logits, mask, lambda vectors: layer(vectors).tanh().sum((1, 2)), table, ITMGuidance())
    assert layer.weight.grad is None and layer.bias.grad is None and table.grad is None


def test_a_guidance_that_cannot_act_is_an_error(problem):
    logits, mask, _, table = problem
    with pytest.raises(RuntimeError, match="cannot act"):
        guide_logits(logits, mask, lambda vectors: (vectors * 0).sum((1, 2)), table, ITMGuidance(kl_weight=0.0))


def test_one_sample_that_cannot_be_guided_is_an_error_in_any_batch(problem):
    """Alone it would be one: in a batch it must not come back unguided."""
    logits, mask, match_score, table = problem
    reached = torch.tensor([1.0, 0.0, 1.0])
    with pytest.raises(RuntimeError, match="cannot act"):
        guide_logits(logits, mask, lambda vectors: match_score(vectors) * reached, table, ITMGuidance(kl_weight=0.0))


def test_what_matches_well_already_is_guided_in_float16_too(problem):
    """The gradient of a match of 20 log-odds is smaller than float16 can hold."""
    logits, mask, match_score, table = problem
    half = table.half()
    guided = guide_logits(
        logits, mask, lambda vectors: match_score(vectors.half()).float() + 20, half, ITMGuidance(kl_weight=0.0)
    )
    assert (guided[: int(mask[0].sum())] != logits[: int(mask[0].sum())]).any()


def test_a_gradient_that_is_not_finite_is_an_error(problem):
    logits, mask, _, table = problem
    with pytest.raises(FloatingPointError, match="iteration 1"):
        guide_logits(logits, mask, lambda vectors: (vectors * float("nan")).sum((1, 2)), table, ITMGuidance())


def test_logits_of_low_precision_are_guided_in_float32(problem):
    logits, mask, match_score, table = problem
    guided = guide_logits(logits.half(), mask, match_score, table, ITMGuidance())
    assert guided.dtype == torch.float32 and torch.isfinite(guided).all()


@pytest.mark.parametrize(
    "field",
    [
        {"iterations": -1},
        {"step_size": -0.1},
        {"temperature": 0.0},
        {"fusion": 1.5},
        {"estimator": "hard"},
        {"critic_weight": -0.5},
        {"critic_weight": float("nan")},
    ],
)
def test_impossible_constants_are_refused(field):
    with pytest.raises(ValueError):
        ITMGuidance(**field)


def test_the_constants_of_the_original():
    assert dataclasses.asdict(ITMGuidance.original()) == {
        "iterations": 3,
        "step_size": 0.02,
        "gradient_power": 1.5,
        "kl_weight": 0.01,
        "fusion": 0.9,
        "temperature": 1.0,
        "estimator": "soft",
        "critic_weight": 0.0,
    }
    assert ITMGuidance.original("straight_through").estimator == "straight_through"


def test_saliency_is_the_norm_of_each_cells_gradient():
    direction = torch.randn(2, CELLS, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        saliency = cell_saliency(lambda vectors: (vectors * direction).sum((1, 2)), torch.zeros(2, CELLS, WIDTH))
    torch.testing.assert_close(saliency, direction.norm(dim=-1))


def test_classifier_free_guidance_extrapolates():
    conditional, unconditional = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 4.0])
    assert torch.equal(classifier_free(conditional, unconditional, 1.0), conditional)
    assert torch.equal(classifier_free(conditional, unconditional, 3.0), torch.tensor([3.0, 1.0]))


def seeded(count=BATCH):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_straight_through_reads_vectors_of_codes(problem):
    """A matching head that was trained on codes never saw their mixtures."""
    logits, mask, match_score, table = problem
    seen = []

    def watching(vectors):
        seen.append(vectors.detach()[mask])
        return match_score(vectors)

    guidance = ITMGuidance(iterations=2, estimator="straight_through")
    guided = guide_logits(logits, mask, watching, table, guidance, seeded())
    for vectors in seen:
        distance = torch.cdist(vectors, table).min(-1).values
        assert (distance < 1e-5).all()
    assert len(seen) == 2 and not torch.equal(guided[mask], logits[mask])
    assert torch.equal(guided[~mask], logits[~mask])


def test_straight_through_has_the_gradient_of_the_mean_where_the_score_is_linear(problem):
    """With a linear score and no KL both estimators know the same gradient, up to the slope of the log-sigmoid."""
    logits, mask, match_score, table = problem
    soft, hard = (ITMGuidance(kl_weight=0.0, estimator=estimator) for estimator in ("soft", "straight_through"))
    expected = guide_logits(logits, mask, match_score, table, soft)
    guided = guide_logits(logits, mask, match_score, table, hard, seeded())
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)


def test_straight_through_is_the_same_in_any_batch(problem):
    logits, mask, match_score, table = problem
    guidance = ITMGuidance(iterations=2, estimator="straight_through")
    together = guide_logits(logits, mask, match_score, table, guidance, seeded())
    alone = guide_logits(logits[:1], mask[:1], match_score, table, guidance, seeded(1))
    torch.testing.assert_close(alone, together[:1])


def test_straight_through_needs_generators(problem):
    logits, mask, match_score, table = problem
    with pytest.raises(ValueError, match="generators"):
        guide_logits(logits, mask, match_score, table, ITMGuidance(estimator="straight_through"))


def test_divergence_is_the_mean_over_masked_cells(problem):
    logits, mask, _, _ = problem
    guided = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))
    divergence = guidance_divergence(guided, logits, mask, temperature=0.5)
    q, p = (guided / 0.5).softmax(-1), (logits / 0.5).softmax(-1)
    expected = (q * (q / p).log()).sum(-1)
    for sample in range(2):
        torch.testing.assert_close(divergence[sample], expected[sample][mask[sample]].mean())
    assert divergence[2] == 0  # nothing is masked
    assert torch.equal(guidance_divergence(logits, logits, mask), torch.zeros(BATCH))


@pytest.mark.parametrize("estimator", ["soft", "straight_through"])
def test_the_constants_of_the_original_move_a_little_and_in_the_right_direction(problem, estimator):
    logits, mask, match_score, table = problem
    original = ITMGuidance.original(estimator)
    guided = guide_logits(logits, mask, match_score, table, original, seeded())
    gain = soft_score(guided, mask, match_score, table) - soft_score(logits, mask, match_score, table)
    assert (gain[:2] > 0).all() and gain[2] == 0
    assert (guidance_divergence(guided, logits, mask)[:2] < 0.5).all()
