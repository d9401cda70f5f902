"""Learned codebooks in training: a codebook that collapses or drifts from its definition costs days of training."""

import pytest
import torch

from gptface.modeling_gptface.quantization import CodebookQuantizer, FiniteScalarQuantizer, GumbelQuantizer
from gptface.training.codebook import CodebookConfig, CodebookUpdater, cluster_sums, kmeans, latent_vectors, nearest


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def blobs():
    """Three tight clusters of 20 points, shuffled, and their centres."""
    centres = torch.tensor([[0.0, 5.0], [6.0, 0.0], [-4.0, -4.0]])
    points = centres.repeat(20, 1) + 0.1 * torch.randn(60, 2, generator=generator())
    return points[torch.randperm(60, generator=generator())], centres


def test_kmeans_finds_the_clusters(blobs):
    points, centres = blobs
    # the start is random: the best of a few, as everybody uses k-means
    found = min((kmeans(points, 3, generator(seed)) for seed in range(5)), key=lambda c: spread(points, c))
    order = nearest(centres, found)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert (found[order] - centres).abs().max() < 0.2


def spread(points, centres):
    return torch.cdist(points, centres).min(1).values.pow(2).sum().item()


def test_kmeans_lowers_the_distances_and_repeats_with_its_seed():
    points = torch.randn(200, 3, generator=generator())
    start, done = (kmeans(points, 12, generator(1), iterations) for iterations in (0, 15))
    assert spread(points, done) < 0.8 * spread(points, start)
    assert torch.equal(done, kmeans(points, 12, generator(1), 15))


def test_kmeans_with_more_clusters_than_points_stays_finite():
    assert torch.isfinite(kmeans(torch.randn(5, 3, generator=generator()), 12, generator(1))).all()


def test_nearest_is_the_same_in_chunks():
    points, centres = torch.randn(31, 4, generator=generator()), torch.randn(7, 4, generator=generator(1))
    assert torch.equal(nearest(points, centres, chunk=8), torch.cdist(points, centres).argmin(1))


def test_averages_are_those_of_the_definition():
    """N ← γN + (1−γ)n, m ← γm + (1−γ)Σv, e = m / N (van den Oord et al. 2017, equations 6 to 8)."""
    codebook = torch.nn.Embedding(3, 2)
    updater = CodebookUpdater(codebook, CodebookConfig(decay=0.9, revive_below=0.0))
    counts, sums = torch.ones(3), codebook.weight.detach().clone()
    for step in range(4):
        vectors = torch.randn(10, 2, generator=generator(step))
        codes = torch.randint(3, (10,), generator=generator(step))
        updater.step(codebook.weight, vectors, codes, generator())
        for code in range(3):
            own = vectors[codes == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(own)
            sums[code] = 0.9 * sums[code] + 0.1 * own.sum(0)
        torch.testing.assert_close(codebook.weight.detach(), sums / counts[:, None], rtol=1e-4, atol=1e-5)


def test_the_optimizer_does_not_move_what_the_averages_move():
    codebook = torch.nn.Embedding(3, 2)
    CodebookUpdater(codebook, CodebookConfig(update="ema"))
    assert not codebook.weight.requires_grad
    CodebookUpdater(other := torch.nn.Embedding(3, 2), CodebookConfig(update="gradient"))
    assert other.weight.requires_grad


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_dead_codes_become_latents_of_the_batch(update):
    codebook = torch.nn.Embedding(4, 2)
    with torch.no_grad():
        codebook.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [90.0, 90.0], [80.0, -80.0]]))
    updater = CodebookUpdater(codebook, CodebookConfig(update=update, decay=0.5, revive_below=0.1))
    revived = []
    for step in range(12):
        vectors = torch.rand(20, 2, generator=generator(step))
        codes = nearest(vectors, codebook.weight)
        revived.append(updater.step(codebook.weight, vectors, codes, generator(step)))
        if revived[-1] == 2:
            assert all((vectors == row).all(1).any() for row in codebook.weight[2:])
    # both far codes at once, and then they live
    assert 2 in revived and sum(revived[revived.index(2) + 1 :]) <= 1
    assert (codebook.weight.abs() <= 1.5).all()


def test_codes_in_use_are_left_alone():
    codebook = torch.nn.Embedding(4, 2)
    updater = CodebookUpdater(codebook, CodebookConfig(update="gradient", decay=0.5))
    before = codebook.weight.detach().clone()
    for step in range(10):
        vectors = torch.rand(40, 2, generator=generator(step))
        assert updater.step(codebook.weight, vectors, torch.arange(40) % 4, generator()) == 0
    assert torch.equal(codebook.weight, before)


def test_commitment_moves_latents_and_codebook_loss_moves_vectors():
    torch.manual_seed(0)
    quantizer = CodebookQuantizer(codebook_size=13, codebook_dim=3, latent_channels=7)
    latents = torch.randn(2, 7, 4, 5, generator=generator(1))
    codes = quantizer(latents)[1]
    losses = quantizer.training_losses(latents, codes)
    vectors = latent_vectors(quantizer, latents)
    distance = (vectors - quantizer.codebook.weight[codes.flatten()]).pow(2).mean()
    torch.testing.assert_close(losses["commitment_loss"], distance)
    torch.testing.assert_close(losses["codebook_loss"], distance)
    (down,) = torch.autograd.grad(losses["commitment_loss"], quantizer.down.weight, retain_graph=True)
    assert down.abs().sum() > 0
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(losses["commitment_loss"], quantizer.codebook.weight, retain_graph=True)
    (moved,) = torch.autograd.grad(losses["codebook_loss"], quantizer.codebook.weight)
    used = torch.zeros(13, dtype=torch.bool).index_fill_(0, codes.flatten().unique(), True)
    assert torch.equal(moved.abs().sum(1) > 0, used)


def test_quantizers_without_own_losses_have_none():
    latents = torch.randn(2, 7, 4, 5, generator=generator(1))
    for quantizer in (FiniteScalarQuantizer([3, 4], 7), GumbelQuantizer(13, 3, 7)):
        assert quantizer.training_losses(latents, quantizer(latents)[1]) == {}


def test_sums_of_clusters():
    counts, sums = cluster_sums(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([1, 1, 3]), 4)
    assert counts.tolist() == [0, 2, 0, 1] and sums.flatten().tolist() == [0, 3, 0, 5]


@pytest.mark.parametrize(
    ("options", "problem"), [({"update": "sgd"}, "'ema' or 'gradient'"), ({"decay": 1.0}, "decay")]
)
def test_settings_that_cannot_be_right_are_named(options, problem):
    with pytest.raises(ValueError, match=problem):
        CodebookConfig(**options)
