"""Agreement, tests and strengths against published examples, against libraries, and against brute force."""

import itertools

import krippendorff
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from audioldm.metrics import ratings

_ = np.nan
RELIABILITY = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
"""Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example E."""

BASEBALL = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]
"""Agresti (1990), Categorical Data Analysis, table 10.10: the American League of 1987, Milwaukee to Baltimore."""

DEPRESSION = [
    (1.83, 0.878), (0.50, 0.647), (1.62, 0.598), (2.48, 2.05), (1.68, 1.06),
    (1.88, 1.29), (1.55, 1.06), (3.06, 3.14), (1.30, 1.29),
]  # fmt: skip
"""Hollander and Wolfe (1973), Nonparametric Statistical Methods, p. 29."""


@pytest.mark.parametrize(
    ("scale", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_krippendorffs_example(scale, published):
    assert round(ratings.krippendorff_alpha(RELIABILITY, scale), 3) == published


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (4, 9), elements=st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, np.nan])),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_alpha_is_the_librarys(values, scale):
    ours = ratings.krippendorff_alpha(values, scale)
    if np.isnan(ours):
        pairable = values[:, (~np.isnan(values)).sum(axis=0) > 1]
        assert len(np.unique(pairable[~np.isnan(pairable)])) < 2
        return
    theirs = krippendorff.alpha(reliability_data=values, level_of_measurement=scale)
    assert ours == pytest.approx(theirs, abs=1e-10)


def test_alpha_without_anything_to_agree_on_is_not_a_number():
    assert np.isnan(ratings.krippendorff_alpha([[1, 1], [1, 1]]))
    assert np.isnan(ratings.krippendorff_alpha([[1, _], [_, 2]]))
    assert np.isnan(ratings.krippendorff_alpha([[_, _], [_, _]]))


def test_strengths_of_the_american_league():
    strength = ratings.bradley_terry(BASEBALL, ridge=0)
    # the vignette of the R package BradleyTerry2, baseballModel1
    published = [1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0]
    assert (strength - strength[-1]).round(4).tolist() == published


def test_strengths_of_many_tables_at_once_and_of_a_system_that_always_wins():
    many = np.stack([np.array(BASEBALL), np.array(BASEBALL).T])
    both = ratings.bradley_terry(many)
    assert both[0] == pytest.approx(ratings.bradley_terry(BASEBALL), abs=1e-9)
    assert both[1] == pytest.approx(-both[0], abs=1e-9)
    always = ratings.bradley_terry([[0, 20], [0, 0]])
    assert np.isfinite(always).all()
    assert always[0] > 1
    with pytest.raises(ValueError, match=r"ridge|Singular"):
        ratings.bradley_terry([[0, 20], [0, 0]], ridge=0)


def test_signed_rank_of_the_depression_data():
    p = ratings.signed_rank([before - after for before, after in DEPRESSION])
    assert p == pytest.approx(2 * 0.01953, abs=1e-5)  # one-sided .0195 in the book's table A.4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_signed_rank_is_the_enumeration_of_all_signs(differences):
    found = ratings.signed_rank(differences)
    d = np.array([value for value in differences if value])
    if not len(d):
        assert found == 1
        return
    ranks = scipy.stats.rankdata(np.abs(d))
    sums = np.array([np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=len(d))])
    observed = ranks[d > 0].sum()
    p = min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    assert found == pytest.approx(p, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_holms_steps_reject(p):
    level, order, rejected = 0.05, sorted(range(len(p)), key=lambda i: p[i]), set()
    for step, i in enumerate(order):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(ratings.holm(p)) if value <= level} == rejected
