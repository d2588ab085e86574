"""Distances between what a classifier says of two sounds.   n clips, K classes; logits or probabilities (n, K)."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) = sum p ln(p / q) in nats over the last axis; rows are probabilities.   0 ln 0 is 0; q = 0 < p is inf.

    >>> p, q = torch.tensor([0.1, 0.4, 0.5]), torch.tensor([0.8, 0.15, 0.05])
    >>> round(float(kl_divergence(p, q)), 6)
    1.33568
    """
    p, q = p.double(), q.double()
    for name, part in (("p", p), ("q", q)):
        total = part.sum(dim=-1)
        if bool((part < 0).any()) or not torch.allclose(total, torch.ones_like(total), atol=1e-4):
            raise ValueError(f"{name} is no distribution over its last axis.")
    return torch.where(p > 0, p * (p.log() - q.log()), torch.zeros_like(p)).sum(dim=-1)


def kl_of_logits(reference: Tensor, generated: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(generated)) of each pair (n,), in float64 through log-softmax: no epsilon.

    This is the direction of AudioLDM's tables; swap the arguments for the other one.   Published numbers differ in
    classifier, direction and epsilon, so state all three.
    """
    if reference.shape != generated.shape:
        raise ValueError(f"logits are {tuple(reference.shape)} and {tuple(generated.shape)}; pairs were due.")
    p, q = (part.double().log_softmax(dim=-1) for part in (reference, generated))
    return (p.exp() * (p - q)).sum(dim=-1)


@dataclass(frozen=True)
class InceptionScore:
    """Mean over splits, and their deviation, which is no confidence interval."""

    mean: float
    deviation: float
    splits: int


def inception_score(
    logits: Tensor, *, splits: int = 10, generator: Generator | None = None
) -> InceptionScore:
    """exp(E KL(p(y|x) || p(y))), the mean over ``splits`` equal parts.   Salimans et al. (arXiv:1606.03498) sec. 4.

    It depends on n and on ``splits``; ``generator`` shuffles first.   From 1 to K.

    >>> inception_score(torch.zeros(20, 4), splits=2).mean
    1.0
    """
    n = len(logits)
    if logits.ndim != 2 or not 1 <= splits <= n:
        raise ValueError(
            f"logits are {tuple(logits.shape)} with {splits} splits; give (n, K), splits up to n."
        )
    order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
    p = logits[order].double().softmax(dim=1)
    parts = [p[i * n // splits : (i + 1) * n // splits] for i in range(splits)]
    scores = torch.stack(
        [kl_divergence(part, part.mean(dim=0).expand_as(part)).mean().exp() for part in parts]
    )
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)), splits)
