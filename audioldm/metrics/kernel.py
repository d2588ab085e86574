"""Maximum mean discrepancy: a distance that few clips do not bias.   Gretton et al., JMLR 13 (2012).

n and m rows, D wide.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]  # (n, D), (m, D) -> (n, m)


def median_bandwidth(reference: Tensor) -> float:
    """The median distance between different rows of the reference, and of the reference only.

    A bandwidth that followed the generated set would judge every checkpoint with another kernel.

    >>> median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    if len(reference) < 2:
        raise ValueError("a bandwidth needs 2 rows or more.")
    distances = torch.pdist(reference.double())
    return float(distances.quantile(0.5)) if len(distances) < 2**24 else float(distances.median())


def gaussian(bandwidth: float) -> Kernel:
    """exp(-|x - y|^2 / (2 bandwidth^2)).   Distances are taken row from row: |x|^2 + |y|^2 - 2xy would lose digits."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth={bandwidth} is not above 0; the reference has equal rows.")

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-distances.square() / (2 * bandwidth**2))

    return kernel


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / D + 1)^3: the kernel of KID.   Binkowski et al. (arXiv:1801.01401) eq. 4."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd_squared(generated: Tensor, reference: Tensor, kernel: Kernel) -> float:
    """The unbiased estimate: means over pairs of different rows within each set, minus twice the mean across.

    It is 0 on average for equal distributions, and so may be negative.   Gretton et al. (2012) eq. 3.
    """
    n, m = len(generated), len(reference)
    if n < 2 or m < 2 or generated.shape[1] != reference.shape[1]:
        raise ValueError(
            f"rows are {tuple(generated.shape)} and {tuple(reference.shape)}; 2 or more were due."
        )
    x, y = generated.double(), reference.double()
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x = (xx.sum() - xx.diagonal().sum()) / (n * (n - 1))
    within_y = (yy.sum() - yy.diagonal().sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * xy.mean())


def kad(generated: Tensor, reference: Tensor) -> float:
    """Kernel audio distance: 100 x Gaussian MMD^2, bandwidth of the reference.   Chung et al. (arXiv:2502.15602)."""
    return 100 * mmd_squared(generated, reference, gaussian(median_bandwidth(reference)))


def kid(
    generated: Tensor, reference: Tensor, *, subsets: int = 100, size: int = 1000, generator: Generator
) -> tuple[float, float]:
    """Mean and deviation of the cubic MMD^2 over random subsets of ``size`` (or of all rows if there are fewer)."""
    size = min(size, len(generated), len(reference))
    if size == len(generated) == len(reference):
        return mmd_squared(generated, reference, cubic), 0.0
    values = []
    for _ in range(subsets):
        a = generated[torch.randperm(len(generated), generator=generator)[:size]]
        b = reference[torch.randperm(len(reference), generator=generator)[:size]]
        values.append(mmd_squared(a, b, cubic))
    distances = torch.tensor(values, dtype=torch.float64)
    return float(distances.mean()), float(distances.std(correction=0))
