"""Losses of the game between a generator and its discriminators.   Lists of (logits, features) in, scalar out."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as nnf

Outputs = Sequence[tuple[Tensor, Sequence[Tensor]]]


def hinge_discriminator(real: Outputs, fake: Outputs) -> Tensor:
    """Mean over discriminators of E[max(0, 1 - D(x))] + E[max(0, 1 + D(G))].   Lim & Ye 2017 (arXiv:1705.02894)."""
    terms = [
        nnf.relu(1 - r).mean() + nnf.relu(1 + f).mean() for (r, _), (f, _) in zip(real, fake, strict=True)
    ]
    return sum(terms[1:], terms[0]) / len(terms)


def hinge_generator(fake: Outputs) -> Tensor:
    """Mean over discriminators of -E[D(G)]."""
    terms = [-logits.mean() for logits, _ in fake]
    return sum(terms[1:], terms[0]) / len(terms)


def least_squares_discriminator(real: Outputs, fake: Outputs) -> Tensor:
    """Sum over discriminators of E[(D(x) - 1)^2] + E[D(G)^2].   LSGAN (arXiv:1611.04076) eq. 9, HiFi-GAN eq. 1."""
    terms = [(r - 1).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    return sum(terms[1:], terms[0])


def least_squares_generator(fake: Outputs) -> Tensor:
    """Sum over discriminators of E[(D(G) - 1)^2].   HiFi-GAN eq. 2 and 5."""
    terms = [(logits - 1).square().mean() for logits, _ in fake]
    return sum(terms[1:], terms[0])


def feature_matching(real: Outputs, fake: Outputs) -> Tensor:
    """Sum over discriminators and layers of the L1 of features; real ones are constants.   HiFi-GAN eq. 4 and 5."""
    terms = [
        nnf.l1_loss(f.float(), r.detach().float())
        for (_, reals), (_, fakes) in zip(real, fake, strict=True)
        for r, f in zip(reals, fakes, strict=True)
    ]
    return sum(terms[1:], terms[0])
