"""Losses of the game between a generator and its discriminators.   Lists of (logits, features) in, scalar out."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

Outputs = Sequence[tuple[Tensor, Sequence[Tensor]]]


def hinge_discriminator(real: Outputs, fake: Outputs) -> Tensor:
    """Mean over discriminators of E[max(0, 1 - D(x))] + E[max(0, 1 + D(G))].   Lim & Ye 2017 (arXiv:1705.02894)."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([nnf.relu(1 - r).mean() + nnf.relu(1 + f).mean() for (r, _), (f, _) in pairs]).mean()


def hinge_generator(fake: Outputs) -> Tensor:
    """Mean over discriminators of -E[D(G)]."""
    return torch.stack([-logits.mean() for logits, _ in fake]).mean()


def least_squares_discriminator(real: Outputs, fake: Outputs) -> Tensor:
    """Sum over discriminators of E[(D(x) - 1)^2] + E[D(G)^2].   LSGAN (arXiv:1611.04076) eq. 9, HiFi-GAN eq. 1."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([(r - 1).square().mean() + f.square().mean() for (r, _), (f, _) in pairs]).sum()


def least_squares_generator(fake: Outputs) -> Tensor:
    """Sum over discriminators of E[(D(G) - 1)^2].   HiFi-GAN eq. 2 and 5."""
    return torch.stack([(logits - 1).square().mean() for logits, _ in fake]).sum()


def feature_matching(real: Outputs, fake: Outputs) -> Tensor:
    """Sum over discriminators and layers of the L1 of features; real ones are constants.   HiFi-GAN eq. 4 and 5."""
    pairs = [pair for r, f in zip(real, fake, strict=True) for pair in zip(r[1], f[1], strict=True)]
    return torch.stack([(f - r.detach()).abs().sum(dtype=torch.float32) / f.numel() for r, f in pairs]).sum()
