"""How well sounds and texts find one another.   n pairs, scores (n, n): text i against sound j."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def matched_and_shuffled(scores: Tensor, keys: Sequence[Hashable]) -> tuple[Tensor, Tensor]:
    """The score of each sound with its own text, and its mean over all texts with another key; both (n,).

    The mean over every wrong text is what shuffling gives on average, without the luck of one shuffle.

    >>> own, other = matched_and_shuffled(torch.tensor([[1.0, 0.2], [0.4, 0.8]]), ["a", "b"])
    >>> own.tolist(), [round(x, 6) for x in other.tolist()]
    ([1.0, 0.800000011920929], [0.4, 0.2])
    """
    n = len(keys)
    if scores.shape != (n, n):
        raise ValueError(f"scores is {tuple(scores.shape)} for {n} keys; (n, n) was due.")
    other = torch.tensor([[a != b for b in keys] for a in keys])
    if not other.any(dim=0).all():
        raise ValueError("every text has the same key; there is none to shuffle with.")
    wrong = torch.where(other, scores, torch.zeros_like(scores)).sum(dim=0) / other.sum(dim=0)
    return scores.diagonal().clone(), wrong
