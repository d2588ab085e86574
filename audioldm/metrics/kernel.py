"""Maximum mean discrepancy: a distance that few clips do not bias.   Gretton et al., JMLR 13 (2012).

n and m rows, D wide.
"""

import torch
from torch import Tensor


def median_bandwidth(reference: Tensor) -> float:
    """The median distance between different rows of the reference (two or more), and of the reference only.

    A bandwidth that followed the generated set would judge every checkpoint with another kernel.

    >>> median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    distances = torch.pdist(reference.double())
    return float(distances.quantile(0.5)) if len(distances) < 2**24 else float(distances.median())


def gaussian(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """exp(-|x - y|^2 / (2 bandwidth^2)), (n, m).

    Distances are taken row from row: |x|^2 + |y|^2 - 2xy would lose digits.
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth={bandwidth} is not above 0; the reference has equal rows.")
    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-distances.square() / (2 * bandwidth**2))


def mmd_squared(generated: Tensor, reference: Tensor, bandwidth: float) -> float:
    """The unbiased estimate: means over pairs of different rows within each set, minus twice the mean across.

    It is 0 on average for equal distributions, and so may be negative.   Gretton et al. (2012) eq. 3.
    """

    def within(rows: Tensor) -> Tensor:
        values, n = gaussian(rows, rows, bandwidth), len(rows)
        return (values.sum() - values.diagonal().sum()) / (n * (n - 1))

    x, y = generated.double(), reference.double()
    return float(within(x) + within(y) - 2 * gaussian(x, y, bandwidth).mean())


def kad(generated: Tensor, reference: Tensor) -> float:
    """Kernel audio distance: 100 x Gaussian MMD^2, bandwidth of the reference.   Chung et al. (arXiv:2502.15602)."""
    return 100 * mmd_squared(generated, reference, median_bandwidth(reference))
