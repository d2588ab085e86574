"""Fidelity and variety apart: are generated sounds near real ones, every real one near one, and how different are they?

n generated and m real rows, D wide.   A real row's ball reaches to its ``k``-th nearest neighbour among real rows.
"""

import torch
from torch import Tensor


def coverage(generated: Tensor, real: Tensor, *, k: int = 5) -> dict[str, float]:
    """Precision and density rise with fidelity, recall and coverage with variety; density may exceed 1.

    Kynkäänniemi et al. (arXiv:1904.06991) eq. 1-2 for precision and recall; Naeem et al. (arXiv:2002.09797) eq. 5-6.
    More than ``k`` rows of each are needed.

    >>> points = torch.arange(6.0)[:, None]
    >>> coverage(points, points, k=1)
    {'precision': 1.0, 'recall': 1.0, 'density': 2.6666666666666665, 'coverage': 1.0}
    """
    x, y = generated.double(), real.double()

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")

    def radii(rows: Tensor) -> Tensor:  # of each row to its k-th nearest other row
        return distances(rows, rows).kthvalue(k + 1, dim=1).values

    across = distances(x, y)
    near_real, near_generated = across <= radii(y)[None, :], across <= radii(x)[:, None]
    return {
        "precision": float(near_real.any(dim=1).double().mean()),
        "recall": float(near_generated.any(dim=0).double().mean()),
        "density": float(near_real.double().sum(dim=1).mean() / k),
        "coverage": float(near_real.any(dim=0).double().mean()),
    }


def mean_pairwise_cosine_distance(rows: Tensor) -> float:
    """1 - cos, averaged over all pairs of different rows (n, D), n >= 2.

    >>> mean_pairwise_cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    1.0
    """
    unit, n = torch.nn.functional.normalize(rows.double(), dim=1), len(rows)
    return float(1 - (unit.sum(dim=0).square().sum() - n) / (n * (n - 1)))
