"""How a learned codebook is trained: k-means start, moving averages, revival of dead codes.

This is apart from [`CodebookQuantizer`], because a checkpoint that is only used needs none of it.
"""

from dataclasses import dataclass

import torch
from torch import distributed, nn

from gptface.modeling_gptface.quantization import CodebookQuantizer


@dataclass
class CodebookConfig:
    """
    Args:
        update: `"ema"`: each vector is the moving average of the latents that chose it (van den Oord et al. 2017,
            appendix A.1); `"gradient"`: the optimizer moves it towards them.
        decay: of the moving averages.
        commitment_weight: factor of the loss that draws latents to their vectors.
        kmeans: whether the first codebook are clusters of the latents of training pictures, or what there is.
        revive_below: a code that is used less than this share of the mean use is dead: a latent of the batch replaces
            it.
    """

    update: str = "ema"
    decay: float = 0.99
    commitment_weight: float = 0.25
    kmeans: bool = True
    revive_below: float = 0.01

    def __post_init__(self) -> None:
        if self.update not in ("ema", "gradient"):
            raise ValueError(f"codebook.update must be 'ema' or 'gradient', got {self.update!r}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"codebook.decay must lie in [0, 1), got {self.decay}")


@torch.no_grad()
def nearest(vectors: torch.Tensor, centres: torch.Tensor, chunk: int = 8192) -> torch.Tensor:
    """
    Index of the nearest of `centres` [K, D] for each of `vectors` [N, D] → [N] (long), in chunks to bound the memory.
    """
    offset = centres.pow(2).sum(1)
    return torch.cat([(offset - 2 * part @ centres.t()).argmin(1) for part in vectors.split(chunk)])


@torch.no_grad()
def kmeans(vectors: torch.Tensor, clusters: int, generator: torch.Generator, iterations: int = 20) -> torch.Tensor:
    """
    Lloyd's algorithm from random vectors; an empty cluster starts again at a random vector.

    Args:
        vectors: [N, D].
        generator: on the CPU.

    Returns:
        Centres [clusters, D]. With fewer vectors than clusters some centres are near copies.
    """

    def draw(count: int) -> torch.Tensor:
        if count > len(vectors):
            rows = torch.randint(len(vectors), (count,), generator=generator)
        else:
            rows = torch.randperm(len(vectors), generator=generator)[:count]
        return vectors[rows.to(vectors.device)]

    centres = draw(clusters)
    for _ in range(iterations):
        counts, sums = cluster_sums(vectors, nearest(vectors, centres), clusters)
        empty = counts == 0
        centres = sums / counts.clamp(min=1)[:, None]
        centres[empty] = draw(int(empty.sum()))
    return centres


def cluster_sums(vectors: torch.Tensor, codes: torch.Tensor, clusters: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors [N, D] with codes [N] → how many have each code [K], and their sums [K, D]."""
    counts = torch.bincount(codes, minlength=clusters).to(vectors.dtype)
    return counts, vectors.new_zeros(clusters, vectors.shape[1]).index_add_(0, codes, vectors)


class CodebookUpdater(nn.Module):
    """
    Keeps a quantizer's codebook in use: moving averages (`update="ema"`) and revival (both updates).

    Its buffers `counts` [K] and `sums` [K, D] are moving averages of what each code got in a step; they are part of a
    training checkpoint, not of the model.
    """

    counts: torch.Tensor
    sums: torch.Tensor

    def __init__(self, codebook: nn.Embedding, config: CodebookConfig):
        super().__init__()
        self.config = config
        weight = codebook.weight
        if config.update == "ema":
            weight.requires_grad_(False)  # the optimizer must not move it too
        self.register_buffer("counts", torch.ones(len(weight), device=weight.device))
        self.register_buffer("sums", weight.detach().float().clone())

    @torch.no_grad()
    def step(
        self, weight: torch.Tensor, vectors: torch.Tensor, codes: torch.Tensor, generator: torch.Generator
    ) -> int:
        """
        One update of the codebook in place; returns how many codes were revived. Over several ranks, which must all
        call it, counts and sums are those of all, and rank 0 gives the vectors for dead codes.

        Args:
            weight: the codebook [K, D].
            vectors: latents of the batch [N, D].
            codes: their codes [N].
            generator: on the CPU, the same on every rank.
        """
        decay = self.config.decay
        vectors = vectors.float()
        counts, sums = cluster_sums(vectors, codes, len(weight))
        if distributed.is_initialized():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.counts.mul_(decay).add_(counts, alpha=1 - decay)
        self.sums.mul_(decay).add_(sums, alpha=1 - decay)
        mean = self.counts.mean()
        if self.config.update == "ema":
            # the counts are smoothed (Laplace), so that a code that is hardly used does not blow up
            smoothed = (self.counts + 1e-5) * self.counts.sum() / (self.counts.sum() + len(weight) * 1e-5)
            weight.copy_(self.sums / smoothed[:, None])
        dead = self.counts < self.config.revive_below * mean
        revived = int(dead.sum())
        if revived:
            rows = torch.randint(len(vectors), (revived,), generator=generator).to(vectors.device)
            replacement = vectors[rows]
            if distributed.is_initialized():
                distributed.broadcast(replacement, 0)
            weight[dead] = replacement.to(weight.dtype)
            # as if used like the others: it has time to find its place
            self.counts[dead] = mean
            self.sums[dead] = replacement * mean
        return revived


def latent_vectors(quantizer: CodebookQuantizer, latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, C, h, w] → what is compared with the codebook, [B·h·w, D], in the order of the flat codes."""
    return quantizer.down(latents).movedim(1, -1).flatten(0, 2)
