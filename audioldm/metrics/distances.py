"""How far generated embeddings are from real ones, and how different from one another.   n and m rows, D wide.

Fréchet distance of two Gaussians; maximum mean discrepancy (Gretton et al., JMLR 13, 2012), which few clips do not
bias; fidelity and variety apart, where a real row's ball reaches to its ``k``-th nearest neighbour among real rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.stats import linregress
from torch import Generator, Tensor


def frechet_rows(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussians of two clouds of rows (n, D) and (m, D), n and m of 2 or more.

    |m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2), Dowson and Landau (1982); as FAD in Kilgour et al. (arXiv:1812.08466).
    With X and Y the centred rows over sqrt(n - 1) and sqrt(m - 1), A = X^T X and B = Y^T Y, so tr((A B)^1/2) is the
    nuclear norm of X Y^T, and of R_x R_y^T of their QR decompositions: no covariance is formed, and none has to be
    regular.   ValueError for other shapes and for values that are not finite.

    >>> a = torch.tensor([[0.0], [2.0]]); round(frechet_rows(a, a + 3), 9)
    9.0
    """
    for rows in (a, b):
        if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != a.shape[1]:
            raise ValueError(f"rows are {tuple(a.shape)} and {tuple(b.shape)}; give (n, D), n of 2 or more.")
        if not rows.isfinite().all():
            raise ValueError("the rows hold values that are not finite.")
    a, b = a.double(), b.double()
    x, y = ((rows - rows.mean(dim=0)) / (len(rows) - 1) ** 0.5 for rows in (a, b))
    first, second = (torch.linalg.qr(rows, mode="r").R for rows in (x, y))
    cross = torch.linalg.matrix_norm(first @ second.T, "nuc")
    gap = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return max(float(gap + x.square().sum() + y.square().sum() - 2 * cross), 0.0)


class Extrapolation(NamedTuple):
    """A distance at 1/n = 0 (endless clips), its standard error from the regression, and how straight the line was."""

    value: float
    error: float
    r2: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def line(counts: Sequence[int], distances: Sequence[float]) -> Extrapolation:
    """Least squares of distance = a + b / n, of 3 pairs or more.   The error is that of ordinary regression."""
    fit = linregress([1 / count for count in counts], distances)
    r2 = float(fit.rvalue) ** 2 if max(distances) > min(distances) else 1.0
    value, error = float(fit.intercept), float(fit.intercept_stderr)
    return Extrapolation(value, error, r2, tuple(counts), tuple(distances))


def infinity(
    clips: Sequence[Tensor], reference: Sequence[Tensor], *, generator: Generator, draws: int = 1
) -> Extrapolation:
    """The distance of ``clips`` to ``reference``, rows (P, D) of each, without the bias of few clips in both sets.

    Both are thinned together, from a third of the smaller one (of 12 clips or more) to all of it: Chong and Forsyth
    (arXiv:1911.07023) sec. 3, Gui et al. (arXiv:2311.01616) sec. 2.3 for audio.   Subsets are drawn without
    replacement: drawing with it shrinks the number of different clips, and the line then ends at the biased value of
    all n.   A clip is drawn with all its rows.   Each point is the mean over ``draws`` pairs of subsets.
    """
    n = min(len(clips), len(reference))
    counts = [round(1 / x) for x in torch.linspace(3 / n, 1 / n, 12, dtype=torch.float64).tolist()]

    def thinned(rows: Sequence[Tensor], count: int) -> Tensor:
        order = torch.randperm(len(rows), generator=generator)[:count].tolist()
        return torch.cat([rows[place] for place in order])

    distances = []
    for count in counts:
        times = 1 if count == len(clips) == len(reference) else draws
        values = [frechet_rows(thinned(clips, count), thinned(reference, count)) for _ in range(times)]
        distances.append(sum(values) / times)
    return line(counts, distances)


def median_bandwidth(reference: Tensor) -> float:
    """The median distance between rows of the reference alone, so that every checkpoint is judged by one kernel."""
    distances = torch.pdist(reference.double())
    return float(distances.quantile(0.5)) if len(distances) < 2**24 else float(distances.median())


def gaussian(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """exp(-|x - y|^2 / (2 bandwidth^2)), (n, m), row from row: |x|^2 + |y|^2 - 2xy would lose digits."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth={bandwidth} is not above 0; the reference has equal rows.")
    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-distances.square() / (2 * bandwidth**2))


def mmd_squared(generated: Tensor, reference: Tensor, bandwidth: float) -> float:
    """The unbiased estimate, 0 on average for equal distributions, so at times negative.   Gretton (2012) eq. 3."""

    def within(rows: Tensor) -> Tensor:
        values, n = gaussian(rows, rows, bandwidth), len(rows)
        return (values.sum() - values.diagonal().sum()) / (n * (n - 1))

    x, y = generated.double(), reference.double()
    return float(within(x) + within(y) - 2 * gaussian(x, y, bandwidth).mean())


def kad(generated: Tensor, reference: Tensor) -> float:
    """Kernel audio distance: 100 x Gaussian MMD^2, bandwidth of the reference.   Chung et al. (arXiv:2502.15602)."""
    return 100 * mmd_squared(generated, reference, median_bandwidth(reference))


def coverage(generated: Tensor, real: Tensor, *, k: int = 5) -> dict[str, float]:
    """Precision and density rise with fidelity, recall and coverage with variety; density may exceed 1.

    Kynkäänniemi et al., arXiv:1904.06991 eq. 1-2; Naeem et al., arXiv:2002.09797 eq. 5-6.   Needs more than k rows.
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
    """1 - cos, averaged over all pairs of different rows (n, D), n >= 2."""
    unit, n = torch.nn.functional.normalize(rows.double(), dim=1), len(rows)
    return float(1 - (unit.sum(dim=0).square().sum() - n) / (n * (n - 1)))
