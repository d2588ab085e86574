"""How different sounds are from one another.   n rows, D width."""

import torch
from torch import Tensor


def mean_pairwise_cosine_distance(rows: Tensor) -> float:
    """1 - cos, averaged over all pairs of different rows (n, D), n >= 2.

    >>> mean_pairwise_cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    1.0
    """
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"rows has shape {tuple(rows.shape)}; give (n, D) with n of 2 or more.")
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    n = len(unit)
    return float(1 - (unit.sum(dim=0).square().sum() - n) / (n * (n - 1)))
