"""Frechet distance between two clouds of embeddings, each taken as one Gaussian.   n rows, D width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean (D,) and scatter (D, D) of rows, float64.

    The scatter is the sum of centred outer products, so that a large mean costs no digits.

    >>> moments = Moments.of(torch.tensor([[0.0], [2.0], [4.0]]))
    >>> moments.count, moments.mean.tolist(), moments.cov.tolist()
    (3, [2.0], [[4.0]])
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "Moments":
        """The moments of ``rows`` (n, D), n >= 1."""
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"rows has shape {tuple(rows.shape)}; give (n, D) with n of 1 or more.")
        rows = rows.double()
        mean = rows.mean(dim=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    @property
    def cov(self) -> Tensor:
        """The unbiased covariance (D, D); it has rank below D while ``count`` is D or less."""
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 rows or more; there is {self.count}.")
        return self.scatter / (self.count - 1)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, *, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared 2-Wasserstein distance of two Gaussians: |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2).

    Means (D,), covariances (D, D), symmetric, singular ones included.   Dowson and Landau (1982); as FAD in
    Kilgour et al. (arXiv:1812.08466).   Two symmetric eigendecompositions in float64 replace the general
    square root of A B, which is unstable where A or B is singular.

    >>> one, zero = torch.eye(2), torch.zeros(2)
    >>> round(frechet_distance(zero, one, mean_b=zero + 3, cov_b=4 * one), 9)
    20.0
    """
    mean_a, cov_a, mean_b, cov_b = (part.double() for part in (mean_a, cov_a, mean_b, cov_b))
    width = mean_a.shape[0]
    for name, part, shape in (
        ("mean_a", mean_a, (width,)),
        ("cov_a", cov_a, (width, width)),
        ("mean_b", mean_b, (width,)),
        ("cov_b", cov_b, (width, width)),
    ):
        if part.shape != shape:
            raise ValueError(f"{name} has shape {tuple(part.shape)}, not {shape}.")
        if not part.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite.")
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def frechet_between(a: Moments, b: Moments) -> float:
    """The Frechet distance of two accumulated clouds."""
    return frechet_distance(a.mean, a.cov, mean_b=b.mean, cov_b=b.cov)


def frechet_rows(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of two clouds of rows (n, D) and (m, D): the same number by the cheaper of two routes.

    With fewer rows than columns no covariance is formed: tr((A B)^1/2) is the nuclear norm of X Y^T, where X and Y
    are the centred rows over sqrt(n - 1) and sqrt(m - 1), because A = X^T X and B = Y^T Y.

    >>> a = torch.tensor([[0.0], [2.0]]); round(frechet_rows(a, a + 3), 9)
    9.0
    """
    for rows in (a, b):
        if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != a.shape[1]:
            raise ValueError(f"rows are {tuple(a.shape)} and {tuple(b.shape)}; give (n, D), n of 2 or more.")
        if not rows.isfinite().all():
            raise ValueError("the rows hold values that are not finite.")
    if min(len(a), len(b)) > a.shape[1]:
        return frechet_between(Moments.of(a), Moments.of(b))
    a, b = a.double(), b.double()
    x, y = ((rows - rows.mean(dim=0)) / (len(rows) - 1) ** 0.5 for rows in (a, b))
    cross = torch.linalg.matrix_norm(x @ y.T, "nuc")
    gap = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return max(float(gap + x.square().sum() + y.square().sum() - 2 * cross), 0.0)


Distance = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Extrapolation:
    """A distance at 1/n = 0 (endless clips), its standard error from the regression, and how straight the line was."""

    value: float
    error: float
    r2: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def line(counts: Sequence[int], distances: Sequence[float]) -> Extrapolation:
    """Least squares of distance = a + b / n.   The error is that of ordinary regression (n - 2 degrees of freedom).

    >>> fit = line([10, 20, 40], [3.0, 2.5, 2.25])
    >>> round(fit.value, 9), round(fit.error, 9), round(fit.r2, 9)
    (2.0, 0.0, 1.0)
    """
    if len(counts) != len(distances) or len(set(counts)) < 2 or len(counts) < 3:
        raise ValueError(
            f"{len(counts)} counts and {len(distances)} distances; give 3 pairs or more at 2 different counts."
        )
    x = 1 / torch.tensor(counts, dtype=torch.float64)
    y = torch.tensor(distances, dtype=torch.float64)
    spread = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    value = y.mean() - slope * x.mean()
    rest = (y - value - slope * x).square().sum()
    error = (rest / (len(counts) - 2) * (1 / len(counts) + x.mean().square() / spread)).sqrt()
    total = (y - y.mean()).square().sum()
    r2 = float(1 - rest / total) if float(total) > 0 else 1.0
    return Extrapolation(float(value), float(error), r2, tuple(counts), tuple(distances))


def infinity(
    rows: Tensor,
    reference: Tensor,
    distance: Distance,
    *,
    generator: Generator,
    points: int = 12,
    draws: int = 1,
) -> Extrapolation:
    """The distance of ``rows`` (n, D) to ``reference`` (m, D) with the bias of few clips taken out of both sets.

    Both are thinned together, from a third of the smaller one to all of it: Chong and Forsyth (arXiv:1911.07023)
    sec. 3, Gui et al. (arXiv:2311.01616) sec. 2.3 for audio.   Subsets are drawn without replacement: drawing with it
    shrinks the number of different clips, and the line then ends at the biased value of all n.   A row should be a
    clip, since the frames of one clip are not independent.   Each point is the mean over ``draws`` pairs of subsets.
    """
    n = min(len(rows), len(reference))
    if points < 3 or n < 12:
        raise ValueError(f"{n} clips and {points} points; 12 clips and 3 points are the least.")
    counts = [round(1 / x) for x in torch.linspace(3 / n, 1 / n, points, dtype=torch.float64).tolist()]
    distances = []
    for count in counts:
        values = []
        for _ in range(1 if count == len(rows) == len(reference) else draws):
            a = rows[torch.randperm(len(rows), generator=generator)[:count]]
            b = reference[torch.randperm(len(reference), generator=generator)[:count]]
            values.append(distance(a, b))
        distances.append(sum(values) / len(values))
    return line(counts, distances)
