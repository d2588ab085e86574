"""Losses of what nets encode to: the rate of a posterior, and how near vectors of text and audio lie."""

import torch
from torch import Tensor
from torch.nn import functional as nnf


def info_nce(text: Tensor, audio: Tensor, scale: Tensor | float, *, same: Tensor | None = None) -> Tensor:
    """Symmetric contrastive loss of unit vectors (B, D); ``same`` (B, B) marks what matches.   CLIP fig. 3; SupCon."""
    logits = scale * text @ audio.T
    target = (torch.eye(len(text), device=text.device) if same is None else same).to(text.dtype)
    rows = target / target.sum(1, keepdim=True)
    columns = target.T / target.T.sum(1, keepdim=True)
    return 0.5 * (nnf.cross_entropy(logits, rows) + nnf.cross_entropy(logits.T, columns))


def cosine_distance(student: Tensor, target: Tensor) -> Tensor:
    """1 - cos between rows, averaged: how a student follows a teacher's direction."""
    return (1 - nnf.cosine_similarity(student, target, dim=-1)).mean()


def kl_to_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats, a MEAN over channels, frames and bins: (B,).   arXiv:1312.6114 app. B."""
    # AudioLDM's weight of 1000 multiplies this mean, beside an error summed over pixels; Stable Diffusion's the sum
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).flatten(1).mean(1)
