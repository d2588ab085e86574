"""Means over raters and prompts with intervals that hold for other raters and other prompts.   R raters, P prompts.

Answers of one rater resemble each other, and so do answers to one prompt; counting every answer as independent makes
intervals far too narrow.   B resamples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SPREAD = (0.5, 0.8)
"""Logits by which raters, and by which prompts, differ in ``power``: assumed, of the size small tests show."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside the interval."""
        return not self.low <= value <= self.high


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


def cells(
    values: npt.ArrayLike, raters: npt.ArrayLike, prompts: npt.ArrayLike, shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Sums and counts (R, P) of answers given as three equal lists: value, rater's number, prompt's number."""
    total, count = np.zeros(shape), np.zeros(shape)
    where = (np.asarray(raters, dtype=np.int64), np.asarray(prompts, dtype=np.int64))
    np.add.at(total, where, np.asarray(values, dtype=np.float64))
    np.add.at(count, where, 1.0)
    return total, count


def crossed_mean(total: Floats, count: Floats, resamples: Resamples) -> Estimate:
    """The mean of all answers and its percentile interval; a draw that holds no answer is left out.

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


def interval(draws: Floats, level: float = 0.95) -> Floats:
    """Percentile interval over the first axis, (B, ...) to (2, ...)."""
    tail = (1 - level) / 2
    return np.asarray(np.quantile(draws, [tail, 1 - tail], axis=0))


def power(
    raters: int,
    prompts: int,
    preference: float,
    *,
    rng: np.random.Generator,
    tests: int = 400,
    resamples: int = 400,
    spread: tuple[float, float] = SPREAD,
) -> float:
    """Share of simulated paired tests whose interval excludes one half, when ``preference`` is the true share.

    The answer of rater r to prompt p is a coin with logit(preference) + N(0, spread[0]) + N(0, spread[1]); at a
    preference of 0.5 this is the rate of false alarms.
    """
    if not 0 < preference < 1:
        raise ValueError(f"preference={preference} is not a share strictly between 0 and 1.")
    logit = np.log(preference / (1 - preference))
    detected = 0
    for _ in range(tests):
        lean = logit + rng.normal(0, spread[0], (raters, 1)) + rng.normal(0, spread[1], (1, prompts))
        answers = (rng.random((raters, prompts)) < 1 / (1 + np.exp(-lean))).astype(np.float64)
        draws = Resamples.draw(raters, prompts, n=resamples, rng=rng)
        low, high = interval(draws.totals(answers) / (raters * prompts))
        detected += not low <= 0.5 <= high
    return detected / tests
