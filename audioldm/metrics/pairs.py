"""How well pairs belong together.   n pairs, K classes; logits (n, K); scores (n, n): text i against sound j."""

from collections.abc import Hashable, Sequence

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
    logits: Tensor, *, splits: int, generator: Generator | None = None
) -> tuple[float, float]:
    """exp(E KL(p(y|x) || p(y))) of logits (n, K): mean and deviation over ``splits`` equal parts, from 1 to K.

    Salimans et al. (arXiv:1606.03498) sec. 4.   It depends on n and on ``splits``; ``generator`` shuffles first.
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


def matched_and_shuffled(scores: Tensor, keys: Sequence[Hashable]) -> tuple[Tensor, Tensor]:
    """The score of each sound with its own text, and its mean over all texts with another key; both (n,).

    The mean over every wrong text is what shuffling gives on average, without the luck of one shuffle.

    >>> right, wrong = matched_and_shuffled(torch.tensor([[1.0, 0.2], [0.4, 0.8]]), ["a", "b"])
    >>> right.tolist(), [round(x, 6) for x in wrong.tolist()]
    ([1.0, 0.800000011920929], [0.4, 0.2])
    """
    other = ~same_key(keys)
    if not other.any(dim=0).all():
        raise ValueError("every text has the same key; there is none to shuffle with.")
    return scores.diagonal().clone(), (scores * other).sum(dim=0) / other.sum(dim=0)


def recall_at(scores: Tensor, keys: Sequence[Hashable], k: int) -> float:
    """Share of texts (rows) that find a sound with their own key among their ``k`` best; ties count by place."""
    return float(same_key(keys).gather(1, scores.topk(k, dim=1).indices).any(dim=1).double().mean())


def same_key(keys: Sequence[Hashable]) -> Tensor:
    """Which texts and sounds share a key, (n, n)."""
    return torch.tensor([[a == b for b in keys] for a in keys])


def tag_accuracy(generated: Tensor, reference: Tensor, *, among: int = 1) -> float:
    """Share of pairs whose reference's first tag is among the generated sound's ``among`` first; scores (n, K)."""
    best = generated.topk(among, dim=1).indices
    return float((best == reference.argmax(dim=1)[:, None]).any(dim=1).double().mean())
