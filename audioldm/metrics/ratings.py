"""What listeners answered, as numbers: agreement, tests, strengths.   R raters, U units, K systems; float64.

The interval of a mean over raters and prompts is in ``crossed.py``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Scale = Literal["nominal", "ordinal", "interval", "ratio"]

EXACT_PAIRS = 200
"""Up to here the signed-rank distribution is summed exactly; its table grows with the third power."""


def krippendorff_alpha(values: npt.ArrayLike, scale: Scale = "interval") -> float:
    """Agreement of raters on units, (R, U) with NaN where a rater gave none: 1 full, 0 as by chance.

    NaN where no unit was rated twice or all ratings are equal: there is nothing to agree or disagree on.
    Krippendorff (2011), "Computing Krippendorff's alpha-reliability", sec. D.

    >>> round(krippendorff_alpha([[1, 2, 3, 3], [1, 2, 3, 2]], "nominal"), 3)
    0.667
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"values has shape {table.shape}; give (raters, units).")
    levels = np.unique(table[~np.isnan(table)])
    counts = np.stack([(table == level).sum(axis=0) for level in levels], axis=1) if len(levels) else None
    if counts is None or len(levels) < 2:
        return float("nan")
    counts = counts[counts.sum(axis=1) > 1].astype(np.float64)  # (U, L), pairable units
    if not len(counts):
        return float("nan")
    coincidence = np.einsum("ul,um,u->lm", counts, counts, 1 / (counts.sum(axis=1) - 1))
    coincidence -= np.diag((counts / (counts.sum(axis=1, keepdims=True) - 1)).sum(axis=0))
    totals = coincidence.sum(axis=0)
    distance = squared_distance(levels, totals, scale)
    expected = float(totals @ distance @ totals)
    if expected == 0:
        return float("nan")
    observed = float((coincidence * distance).sum())
    return 1 - observed * (float(totals.sum()) - 1) / expected


def squared_distance(levels: Floats, totals: Floats, scale: Scale) -> Floats:
    """Krippendorff's difference function between ``levels`` (L,), which occur ``totals`` (L,) times: (L, L)."""
    a, b = levels[:, None], levels[None, :]
    if scale == "nominal":
        return np.asarray(a != b, dtype=np.float64)
    if scale == "interval":
        return np.square(a - b)
    if scale == "ratio":
        total = a + b
        return np.square(np.divide(a - b, total, out=np.zeros_like(total), where=total != 0))
    if scale == "ordinal":
        reach = np.cumsum(totals) - totals / 2  # where the middle of each level lies among all ratings
        return np.square(reach[:, None] - reach[None, :])
    raise ValueError(f"scale={scale!r} is not a scale; use nominal, ordinal, interval or ratio.")


def holm(p_values: npt.ArrayLike) -> Floats:
    """P values adjusted for having asked so many questions: the smallest times n, the next times n - 1, and so on.

    Holm (1979), Scandinavian Journal of Statistics 6:65.

    >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's test of "as often above as below 0"."""

    statistic: float
    """sum of the ranks of the differences above 0"""
    p: float
    """two-sided"""
    n: int
    """differences that are not 0"""


def signed_rank(differences: npt.ArrayLike) -> SignedRank:
    """Wilcoxon's signed-rank test, two-sided; differences of 0 are left out and ties share their mean rank.

    Exact up to 200 differences (ties included), then the normal approximation with ties and continuity corrected.
    Wilcoxon (1945), Biometrics Bulletin 1:80.

    >>> signed_rank([1.0, 2.0, 3.0, 4.0, 5.0])
    SignedRank(statistic=15.0, p=0.0625, n=5)
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]
    if not len(d):
        return SignedRank(0.0, 1.0, 0)
    ranks = stats.rankdata(np.abs(d))
    statistic = float(ranks[d > 0].sum())
    if len(d) <= EXACT_PAIRS:
        return SignedRank(statistic, exact_tail(ranks, statistic), len(d))
    p = stats.wilcoxon(d, zero_method="wilcox", correction=True, method="approx").pvalue
    return SignedRank(statistic, float(p), len(d))


def exact_tail(ranks: Floats, statistic: float) -> float:
    """Two-sided p of a sum of ``ranks``, each taken or not with probability 1/2."""
    doubled = np.rint(2 * ranks).astype(int)  # mean ranks are halves
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        shifted = np.concatenate([np.zeros(rank), chance[:-rank]])
        chance = (chance + shifted) / 2
    reached = round(2 * statistic)
    return min(1.0, 2 * float(min(chance[: reached + 1].sum(), chance[reached:].sum())))


def bradley_terry(wins: npt.ArrayLike, *, ridge: float = 0.01) -> Floats:
    """Log-strengths (..., K), mean 0, from wins (..., K, K) of row over column; a tie is half a win each.

    P(i beats j) = sigmoid(s_i - s_j).   Bradley and Terry (1952), Biometrika 39:324; maximum likelihood by Newton's
    method.   ``ridge`` is a Gaussian prior's precision: with 0 the estimate does not exist if one system never loses.

    >>> bradley_terry([[0, 3], [1, 0]], ridge=0).round(4).tolist()  # half of log 3 each way
    [0.5493, -0.5493]
    """
    won = np.asarray(wins, dtype=np.float64)
    k = won.shape[-1]
    if won.ndim < 2 or won.shape[-2] != k:
        raise ValueError(f"wins has shape {won.shape}; give (..., systems, systems).")
    played = won + np.swapaxes(won, -1, -2)
    strength = np.zeros(won.shape[:-1])
    level = np.ones((k, k)) / k  # pins the mean, which no comparison tells
    diverged = "the strengths do not converge: some system never loses. Use a ridge above 0."
    for _ in range(100):
        beat = 1 / (1 + np.exp(strength[..., None, :] - strength[..., :, None]))
        slope = (won - played * beat).sum(-1) - ridge * strength
        bend = -played * beat * (1 - beat)
        bend[..., range(k), range(k)] = 0.0
        bend[..., range(k), range(k)] = ridge - bend.sum(-1)
        try:
            step = np.linalg.solve(bend + level, slope[..., None])[..., 0]
        except np.linalg.LinAlgError:
            raise ValueError(diverged) from None
        largest = np.abs(step).max(-1, keepdims=True)
        strength = strength + step * np.minimum(1.0, 2 / np.maximum(largest, 1e-300))
        if largest.max() < 1e-10:
            return np.asarray(strength - strength.mean(-1, keepdims=True))
    raise ValueError(diverged)
