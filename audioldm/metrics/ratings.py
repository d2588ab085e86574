"""What listeners answered, as numbers: agreement, tests, strengths.   R raters, U units, K systems; float64."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from audioldm.metrics.interval import Floats

Scale = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(values: npt.ArrayLike, scale: Scale = "interval") -> float:
    """Agreement of raters on units, (R, U) with NaN where a rater gave none: 1 full, 0 as by chance.

    NaN where no unit was rated twice or all ratings are equal: there is nothing to agree or disagree on.
    Krippendorff (2011), "Computing Krippendorff's alpha-reliability", sec. D.
    """
    table = np.asarray(values, dtype=np.float64)
    levels = np.unique(table[~np.isnan(table)])
    counts = (table[:, :, None] == levels).sum(axis=0)
    counts = counts[counts.sum(axis=1) > 1].astype(np.float64)  # (U, L), pairable units
    coincidence = np.einsum("ul,um,u->lm", counts, counts, 1 / (counts.sum(axis=1) - 1))
    coincidence -= np.diag((counts / (counts.sum(axis=1, keepdims=True) - 1)).sum(axis=0))
    totals = coincidence.sum(axis=0)
    if scale == "ordinal":
        levels = np.cumsum(totals) - totals / 2  # where the middle of each level lies among all ratings
    gaps = levels[:, None] - levels[None, :]
    distance = (gaps != 0).astype(np.float64) if scale == "nominal" else gaps**2
    expected, observed = float(totals @ distance @ totals), float((coincidence * distance).sum())
    return 1 - observed * (float(totals.sum()) - 1) / expected if expected else float("nan")


def holm(p_values: npt.ArrayLike) -> Floats:
    """P values for n questions: the smallest times n, the next n - 1, ...   Holm (1979), Scand. J. Stat. 6:65."""
    p = np.asarray(p_values, dtype=np.float64)
    order, adjusted = np.argsort(p, kind="stable"), np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def signed_rank(differences: npt.ArrayLike) -> float:
    """Two-sided P value of Wilcoxon's signed-rank test without zeros; exact up to 50 (ties: 13).   Wilcoxon (1945)."""
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]
    return float(stats.wilcoxon(d).pvalue) if len(d) else 1.0


def bradley_terry(wins: npt.ArrayLike, *, ridge: float = 0.01) -> Floats:
    """Log-strengths (..., K), mean 0, from wins (..., K, K) of row over column; a tie is half a win each.

    P(i beats j) = sigmoid(s_i - s_j).   Bradley and Terry (1952), Biometrika 39:324; maximum likelihood by Newton's
    method.   ``ridge`` is a Gaussian prior's precision: with 0 the estimate does not exist if one system never loses,
    which raises ValueError.

    >>> bradley_terry([[0, 3], [1, 0]], ridge=0).round(4).tolist()  # half of log 3 each way
    [0.5493, -0.5493]
    """
    won = np.asarray(wins, dtype=np.float64)
    played, k = won + np.swapaxes(won, -1, -2), won.shape[-1]
    strength = np.zeros(won.shape[:-1])
    for _ in range(100):
        beat = 1 / (1 + np.exp(strength[..., None, :] - strength[..., :, None]))
        slope = (won - played * beat).sum(-1) - ridge * strength
        bend = played * beat * (1 - beat)
        curvature = (bend.sum(-1) + ridge)[..., None] * np.eye(k) - bend
        # 1 / k pins the mean, which no comparison tells
        step = np.linalg.solve(curvature + 1 / k, slope[..., None])[..., 0]
        strength = strength + step.clip(-2, 2)
        if np.abs(step).max() < 1e-10:
            return np.asarray(strength - strength.mean(-1, keepdims=True))
    raise ValueError("the strengths do not converge: some system never loses. Use a ridge above 0.")
