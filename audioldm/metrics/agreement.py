"""How well sounds and texts find one another.   n pairs, scores (n, n): text i against sound j."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


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
    """Share of texts (rows) that find a sound with their own key among their ``k`` best; ties count by place.

    >>> recall_at(torch.tensor([[0.1, 0.9], [0.2, 0.3]]), ["a", "b"], 1)
    0.5
    """
    return float(same_key(keys).gather(1, scores.topk(k, dim=1).indices).any(dim=1).double().mean())


def same_key(keys: Sequence[Hashable]) -> Tensor:
    """Which texts and sounds share a key, (n, n)."""
    return torch.tensor([[a == b for b in keys] for a in keys])


def tag_accuracy(generated: Tensor, reference: Tensor, *, among: int = 1) -> float:
    """Share of pairs whose reference's first tag is among the generated sound's ``among`` first; scores (n, K)."""
    best = generated.topk(among, dim=1).indices
    return float((best == reference.argmax(dim=1)[:, None]).any(dim=1).double().mean())
