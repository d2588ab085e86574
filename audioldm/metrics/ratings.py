"""What listeners answered, as numbers: agreement, tests, strengths.   R raters, U units, K systems; float64.

The interval of a mean over raters and prompts is in ``crossed.py``.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Scale = Literal["nominal", "ordinal", "interval"]

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
    counts = (table[:, :, None] == levels).sum(axis=0)
    counts = counts[counts.sum(axis=1) > 1].astype(np.float64)  # (U, L), pairable units
    coincidence = np.einsum("ul,um,u->lm", counts, counts, 1 / (counts.sum(axis=1) - 1))
    coincidence -= np.diag((counts / (counts.sum(axis=1, keepdims=True) - 1)).sum(axis=0))
    totals = coincidence.sum(axis=0)
    distance = squared_distance(levels, totals, scale)
    expected = float(totals @ distance @ totals)
    observed = float((coincidence * distance).sum())
    return 1 - observed * (float(totals.sum()) - 1) / expected if expected else float("nan")


def squared_distance(levels: Floats, totals: Floats, scale: Scale) -> Floats:
    """Krippendorff's difference function between ``levels`` (L,), which occur ``totals`` (L,) times: (L, L)."""
    if scale == "ordinal":
        levels = np.cumsum(totals) - totals / 2  # where the middle of each level lies among all ratings
    gaps = levels[:, None] - levels[None, :]
    return np.asarray(gaps != 0, dtype=np.float64) if scale == "nominal" else np.square(gaps)


def holm(p_values: npt.ArrayLike) -> Floats:
    """P values adjusted for having asked so many questions: the smallest times n, the next times n - 1, and so on.

    Holm (1979), Scandinavian Journal of Statistics 6:65.

    >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def signed_rank(differences: npt.ArrayLike) -> float:
    """P value of Wilcoxon's signed-rank test of "as often above as below 0", two-sided.

    Differences of 0 are left out and ties share their mean rank.   Exact up to 200 differences (ties included), then
    the normal approximation with ties and continuity corrected.   Wilcoxon (1945), Biometrics Bulletin 1:80.

    >>> signed_rank([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]
    if not len(d):
        return 1.0
    if len(d) > EXACT_PAIRS:
        return float(stats.wilcoxon(d, zero_method="wilcox", correction=True, method="approx").pvalue)
    doubled = np.rint(2 * stats.rankdata(np.abs(d))).astype(int)  # mean ranks are halves
    chance = np.zeros(doubled.sum() + 1)  # of each sum of ranks, every one taken or not with probability 1/2
    chance[0] = 1.0
    for rank in doubled:
        chance = (chance + np.concatenate([np.zeros(rank), chance[:-rank]])) / 2
    reached = doubled[d > 0].sum()
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
