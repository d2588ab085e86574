"""Distances between what a classifier says of two sounds.   n clips, K classes; logits (n, K)."""

import torch
from torch import Generator, Tensor


def kl_of_logits(reference: Tensor, generated: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(generated)) of each pair (n,), in float64 through log-softmax: no epsilon.

    This is the direction of AudioLDM's tables; swap the arguments for the other one.   Published numbers differ in
    classifier, direction and epsilon, so state all three.
    """
    if reference.shape != generated.shape:
        raise ValueError(f"logits are {tuple(reference.shape)} and {tuple(generated.shape)}; pairs were due.")
    p, q = (part.double().log_softmax(dim=-1) for part in (reference, generated))
    return (p.exp() * (p - q)).sum(dim=-1)


def inception_score(
    logits: Tensor, *, splits: int = 10, generator: Generator | None = None
) -> tuple[float, float]:
    """exp(E KL(p(y|x) || p(y))) of logits (n, K): mean and deviation over ``splits`` equal parts, from 1 to K.

    Salimans et al. (arXiv:1606.03498) sec. 4.   It depends on n and on ``splits``; ``generator`` shuffles first.

    >>> inception_score(torch.zeros(20, 4), splits=2)
    (1.0, 0.0)
    """
    n, scores = len(logits), []
    order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
    log_p, ends = logits[order].double().log_softmax(dim=1), [i * n // splits for i in range(1, splits)]
    for part in log_p.tensor_split(ends):
        p = part.exp()
        to_mean = (p * part - torch.xlogy(p, p.mean(dim=0))).sum(dim=1)  # KL of each row
        scores.append(to_mean.mean().exp())
    each = torch.stack(scores)
    return float(each.mean()), float(each.std(correction=0))
