"""The bootstrap over raters and prompts: its variance in closed form, its coverage, and the power of a test."""

import numpy as np
import pytest

from audioldm.metrics.interval import Resamples, crossed_mean, power


def pigeonhole_variance(table):
    """Exact variance of the resampled mean of a full (R, P) table, from the moments of two multinomials.

    E[w w'] of n draws among n is (1 - 1/n) 11' + I, so the variance is three sums of squares.
    """
    r, p = table.shape
    rows = (1 - 1 / r) * np.ones((r, r)) + np.eye(r)
    columns = (1 - 1 / p) * np.ones((p, p)) + np.eye(p)
    second = np.einsum("rp,rs,sq,pq->", table, rows, table, columns)
    return second / (r * p) ** 2 - table.mean() ** 2


def test_variance_is_owens():
    rng = np.random.default_rng(0)
    table = rng.normal(0, 1, (6, 1)) + rng.normal(0, 2, (1, 9)) + rng.normal(0, 1, (6, 9))
    draws = Resamples.draw(6, 9, n=40_000, rng=rng).totals(table) / table.size
    # the variance of 40,000 draws has a relative standard error of about sqrt(2 / 40,000) = 0.7 %
    assert draws.var() == pytest.approx(pigeonhole_variance(table), rel=0.03)
    naive = table.var() / table.size
    assert draws.var() > 4 * naive, "clustered answers are worth far less than as many independent ones"


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        table = rng.normal(0, 0.7, (12, 1)) + rng.normal(0, 0.7, (1, 20)) + rng.normal(0, 1, (12, 20))
        draws = Resamples.draw(12, 20, n=300, rng=rng)
        estimate = crossed_mean(table, draws)
        covered += estimate.low <= 0 <= estimate.high
    # percentile intervals of 12 raters are a little narrow, those of the pigeonhole a little wide
    assert 0.88 <= covered / 300 <= 0.99


def test_incomplete_tables():
    table = np.array([[2.0, np.nan], [np.nan, 5.0]])
    estimate = crossed_mean(table, Resamples.draw(2, 2, n=500, rng=np.random.default_rng(0)))
    assert estimate == (3.5, 2, 5), "a draw without answers is left out"


def test_power_grows_and_false_alarms_are_few():
    ask = {"rng": np.random.default_rng(0), "tests": 200}
    few, more, alarms = power(6, 10, 0.7, **ask), power(12, 40, 0.7, **ask), power(12, 40, 0.5, **ask)
    # measured with 400 tests: .49, .95, .04; the standard error of 200 tests is at most .035
    assert few < 0.62
    assert more > 0.85
    assert alarms < 0.10
