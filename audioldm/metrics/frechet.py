"""Fréchet distance between two clouds of embeddings, each taken as one Gaussian.   n rows, D width."""

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
    """Least squares of distance = a + b / n, of 3 pairs or more.   The error is that of ordinary regression.

    >>> fit = line([10, 20, 40], [3.0, 2.5, 2.25])
    >>> round(fit.value, 9), round(fit.error, 9), round(fit.r2, 9)
    (2.0, 0.0, 1.0)
    """
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
    all n.   A clip is drawn with all its rows, which are not independent.   Each point is the mean over ``draws``
    pairs of subsets.
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
