"""How good reconstructions are, and how well codes are used: figures for training logs and for evaluation."""

import torch


def psnr(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Peak signal-to-noise ratio of each picture in dB on the [0, 1] scale; two batches [B, 3, H, W] in [-1, 1] → [B].
    """
    return -10 * ((pictures - targets) / 2).pow(2).mean((1, 2, 3)).log10()


def code_usage(codes: torch.Tensor, num_codes: int) -> dict[str, float]:
    """
    Codes of any shape (long, 0…K−1) → `codes_used` (how many occur) and `perplexity` (exp of their entropy, 1…K).
    """
    counts = torch.bincount(codes.flatten(), minlength=num_codes).double()
    shares = counts[counts > 0] / counts.sum()
    return {"codes_used": len(shares), "perplexity": float(torch.exp(-(shares * shares.log()).sum()))}
