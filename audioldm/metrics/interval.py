"""How sure a mean or a share is, but no Fréchet distance: resampling biases it.   R raters, P prompts, B resamples."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from torch import Generator, Tensor

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Tensor, *, generator: Generator, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the mean of n values over ``draws`` resamples of clips.   Efron (1979)."""
    index = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values.double()[index].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a fraction.   E. B. Wilson, JASA 22 (1927).

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    low, high = binomtest(hits, trials).proportion_ci(method="wilson")
    return float(low), float(high)


class Resamples(NamedTuple):
    """How often each rater (B, R) and prompt (B, P) was drawn: answers of one are not independent of each other."""

    raters: Floats
    prompts: Floats

    @classmethod
    def draw(cls, raters: int, prompts: int, *, n: int, rng: np.random.Generator) -> "Resamples":
        """``n`` draws with replacement of both sides, independently.   Owen (2007), "The pigeonhole bootstrap"."""
        sides = [rng.multinomial(size, np.full(size, 1 / size), size=n) for size in (raters, prompts)]
        return cls(sides[0].astype(np.float64), sides[1].astype(np.float64))

    def totals(self, cells: Floats) -> Floats:
        """Weighted sums (B, ...) of cells (R, P, ...)."""
        by_rater = np.tensordot(self.raters, cells, axes=1)  # (B, P, ...)
        return np.asarray(np.einsum("bp,bp...->b...", self.prompts, by_rater))


def interval(draws: Floats) -> Floats:
    """95 % percentile interval over the first axis, (B, ...) to (2, ...)."""
    return np.asarray(np.quantile(draws, [0.025, 0.975], axis=0))


def crossed_mean(table: Floats, resamples: Resamples) -> Estimate:
    """The mean of a table (R, P) of answers, NaN where there is none, and its interval, without draws of no answer."""
    drawn = resamples.totals(np.stack([np.nan_to_num(table), ~np.isnan(table)], axis=-1))
    drawn = drawn[drawn[:, 1] > 0]
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    return Estimate(float(np.nanmean(table)), float(low), float(high))


def power(raters: int, prompts: int, share: float, *, rng: np.random.Generator, tests: int = 400) -> float:
    """Share of simulated paired tests whose interval excludes one half, when ``share`` (0 to 1) is the true share.

    The answer of rater r to prompt p is a coin with logit(share) + N(0, 0.5) of the rater + N(0, 0.8) of the
    prompt: assumed, of the size small tests show.   At a share of 0.5 this is the rate of false alarms.
    """
    logit, detected = np.log(share / (1 - share)), 0
    for _ in range(tests):
        lean = logit + rng.normal(0, 0.5, (raters, 1)) + rng.normal(0, 0.8, (1, prompts))
        answers = (rng.random((raters, prompts)) < 1 / (1 + np.exp(-lean))).astype(np.float64)
        draws = Resamples.draw(raters, prompts, n=400, rng=rng)
        low, high = interval(draws.totals(answers) / (raters * prompts))
        detected += not low <= 0.5 <= high
    return detected / tests
