"""Means over raters and prompts with intervals that hold for other raters and other prompts.   R raters, P prompts.

Answers of one rater resemble each other, and so do answers to one prompt; counting every answer as independent makes
intervals far too narrow.   B resamples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """How often each rater and each prompt was drawn: (B, R) and (B, P)."""

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


def crossed_mean(total: Floats, count: Floats, resamples: Resamples) -> Estimate:
    """The mean of all answers and its percentile interval from their sums and counts (R, P) in each cell.

    A draw that holds no answer is left out.

    >>> draws = Resamples.draw(4, 5, n=200, rng=np.random.default_rng(0))
    >>> crossed_mean(np.ones((4, 5)), np.ones((4, 5)), draws)
    Estimate(mean=1.0, low=1.0, high=1.0)
    """
    if not count.sum():
        raise ValueError("no answers to take the mean of.")
    drawn = resamples.totals(np.stack([total, count], axis=-1))
    drawn = drawn[drawn[:, 1] > 0]
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    return Estimate(float(total.sum() / count.sum()), float(low), float(high))


def interval(draws: Floats) -> Floats:
    """95 % percentile interval over the first axis, (B, ...) to (2, ...)."""
    return np.asarray(np.quantile(draws, [0.025, 0.975], axis=0))


def power(
    raters: int, prompts: int, preference: float, *, rng: np.random.Generator, tests: int = 400
) -> float:
    """Share of simulated paired tests whose interval excludes one half, when ``preference`` is the true share.

    The answer of rater r to prompt p is a coin with logit(preference) + N(0, 0.5) of the rater + N(0, 0.8) of the
    prompt: assumed, of the size small tests show.   At a preference of 0.5 this is the rate of false alarms.
    """
    if not 0 < preference < 1:
        raise ValueError(f"preference={preference} is not a share strictly between 0 and 1.")
    logit = np.log(preference / (1 - preference))
    detected = 0
    for _ in range(tests):
        lean = logit + rng.normal(0, 0.5, (raters, 1)) + rng.normal(0, 0.8, (1, prompts))
        answers = (rng.random((raters, prompts)) < 1 / (1 + np.exp(-lean))).astype(np.float64)
        draws = Resamples.draw(raters, prompts, n=400, rng=rng)
        low, high = interval(draws.totals(answers) / (raters * prompts))
        detected += not low <= 0.5 <= high
    return detected / tests
