"""Each metric where its value is known: hand values, closed forms, laws."""

import math

import pytest
import torch

from audioldm.metrics.distances import (
    coverage,
    frechet_rows,
    infinity,
    kad,
    line,
    median_bandwidth,
    mmd_squared,
)
from audioldm.metrics.interval import bootstrap_mean
from audioldm.metrics.pairs import (
    inception_score,
    kl_of_logits,
    matched_and_shuffled,
    recall_at,
    tag_accuracy,
)

P = [0.05, 0.1, 0.2, 0.05, 0.15, 0.25, 0.08, 0.12]
Q = [0.3, 0.1, 0.2, 0.1, 0.1, 0.02, 0.08, 0.1]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=rng(seed))


def spd(width: int, seed: int) -> torch.Tensor:
    rows = draw(width + 4, width, seed=seed)
    return rows.T @ rows


def cloud(mean: torch.Tensor, cov: torch.Tensor, n: int = 30, seed: int = 9) -> torch.Tensor:
    """n rows with this mean and this unbiased covariance."""
    rows = draw(n, len(cov), seed=seed)
    white = torch.linalg.qr(rows - rows.mean(0)).Q * (n - 1) ** 0.5
    return white @ torch.linalg.cholesky(cov).T + mean


@pytest.mark.parametrize("width", [1, 7, 20])
def test_commuting_covariances_have_a_closed_form(width: int) -> None:
    basis = torch.linalg.qr(draw(width, width)).Q
    a, b = draw(width, seed=1).abs() + 0.01, draw(width, seed=2).abs() + 0.01
    mean = draw(width, seed=3)
    first = cloud(mean, basis @ a.diag() @ basis.T)
    second = cloud(torch.zeros(width), basis @ b.diag() @ basis.T, n=40, seed=8)
    expected = float(mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_rows(first, second) == pytest.approx(expected, rel=1e-9)


def test_a_map_of_a_gaussian_costs_what_optimal_transport_says() -> None:
    # x -> S x with S symmetric positive is optimal, so the distance is tr((S - I) A (S - I)).
    cov, stretch = spd(6, 4), spd(6, 5) / 6
    step = stretch - torch.eye(6)
    a = cloud(torch.zeros(6), cov)
    assert frechet_rows(a, a @ stretch) == pytest.approx(float((step @ cov @ step).trace()), rel=1e-9)


def test_a_large_mean_costs_no_digits() -> None:
    a, b = draw(20, 3), 2 * draw(25, 3, seed=1)
    # Centred rows lose offset * eps each, here 1e6 * 2e-16 with some room.
    assert frechet_rows(a + 1e6, b + 1e6) == pytest.approx(frechet_rows(a, b), abs=1e-7)
    assert frechet_rows(a, b + 100) > frechet_rows(a, b)


def test_frechet_laws() -> None:
    a, b = draw(30, 50), draw(25, 50, seed=1) + 0.3
    turn = torch.linalg.qr(draw(50, 50, seed=2)).Q
    value = frechet_rows(a, b)
    assert frechet_rows(a, a) < 1e-10
    assert frechet_rows(b, a) == pytest.approx(value, rel=1e-12)
    assert frechet_rows(a @ turn, b @ turn) == pytest.approx(value, rel=1e-11)
    assert frechet_rows(3 * a, 3 * b) == pytest.approx(9 * value, rel=1e-12)
    assert frechet_rows(a, a + 2) == pytest.approx(200, rel=1e-12)
    one, two = draw(40, 1), 3 * draw(30, 1, seed=1) + 2
    expected = (one.mean() - two.mean()) ** 2 + (one.std() - two.std()) ** 2
    assert frechet_rows(one, two) == pytest.approx(float(expected), rel=1e-10)


def test_constant_columns_and_silence_give_numbers() -> None:
    a = torch.cat([draw(10, 20), torch.ones(10, 3, dtype=torch.float64)], dim=1)
    assert math.isfinite(frechet_rows(a, torch.zeros(10, 23)))
    with pytest.raises(ValueError, match="not finite"):
        frechet_rows(a, a * torch.nan)
    with pytest.raises(ValueError, match="2 or more"):
        frechet_rows(a, a[:1])


def test_infinity_is_unbiased_and_with_replacement_it_would_not_be() -> None:
    a, b = draw(960, 64), draw(960, 64, seed=1)
    found = infinity(a[:, None], b[:, None], generator=rng(2))
    plug_in = frechet_rows(a, b)
    assert plug_in > 1.5
    assert abs(found.value) < 0.1 * plug_in
    assert found.error < 0.1 * plug_in
    assert found.r2 > 0.95
    index = torch.Generator().manual_seed(3)
    distances = []
    for n in found.counts:
        rows = torch.randint(960, (2, n), generator=index)
        distances.append(frechet_rows(a[rows[0]], b[rows[1]]))
    assert line(found.counts, distances).value > 0.5 * plug_in


def test_line_is_least_squares_with_its_error() -> None:
    from scipy.stats import linregress

    counts, distances = [20, 30, 45, 70, 100], [5.1, 4.2, 3.3, 2.9, 2.4]
    found, expected = line(counts, distances), linregress([1 / n for n in counts], distances)
    assert found.value == pytest.approx(expected.intercept, rel=1e-10)
    assert found.error == pytest.approx(expected.intercept_stderr, rel=1e-10)
    assert found.r2 == pytest.approx(expected.rvalue**2, rel=1e-10)


def test_kl_by_hand() -> None:
    p, q = (torch.tensor(values, dtype=torch.float64) for values in ([0.1, 0.4, 0.5], [0.8, 0.15, 0.05]))
    assert float(kl_of_logits(torch.tensor(P).log(), torch.tensor(Q).log())) == pytest.approx(
        0.589885181619163, rel=1e-6
    )
    assert float(kl_of_logits(p.log(), q.log())) == pytest.approx(1.3356800935337299, rel=1e-12)
    assert float(kl_of_logits(q.log(), p.log())) != pytest.approx(1.3356800935337299, rel=1e-2)
    assert float(kl_of_logits(p.log(), p.log())) == 0


def test_kl_of_logits_has_no_epsilon() -> None:
    peaky = torch.tensor([[50.0, 0.0, -50.0]])
    assert float(kl_of_logits(peaky, peaky.flip(1))) == pytest.approx(100, rel=1e-9)
    with pytest.raises(ValueError, match="pairs were due"):
        kl_of_logits(peaky, peaky[:0])


def test_inception_score_from_one_to_the_number_of_classes() -> None:
    assert inception_score(torch.zeros(30, 7), splits=3)[0] == pytest.approx(1, abs=1e-12)
    sure = 1e4 * torch.eye(6).repeat(10, 1)
    assert inception_score(sure, splits=10)[0] == pytest.approx(6, rel=1e-9)
    assert inception_score(sure, splits=20)[0] == pytest.approx(3, rel=1e-9)
    assert inception_score(sure, splits=1, generator=rng())[0] == pytest.approx(6, rel=1e-9)


def test_mmd_is_its_double_sum_and_ignores_order() -> None:
    x, y = draw(9, 4), draw(7, 4, seed=1)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(-float((a - b).square().sum()) / (2 * 1.7**2))

    xx = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    xy = [k(a, b) for a in x for b in y]
    expected = sum(xx) / len(xx) + sum(yy) / len(yy) - 2 * sum(xy) / len(xy)
    assert mmd_squared(x, y, 1.7) == pytest.approx(expected, rel=1e-12)
    assert mmd_squared(x.flip(0), y, 1.7) == pytest.approx(expected, rel=1e-12)
    # An offset of 300 would cost digits if squared norms were subtracted.
    assert mmd_squared(x + 300, y + 300, 1.7) == pytest.approx(expected, rel=1e-9)


def test_unbiased_means_zero_on_average_and_sometimes_below() -> None:
    values = torch.tensor([kad(draw(30, 8, seed=i), draw(30, 8, seed=500 + i)) for i in range(200)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(200)
    assert float(values.min()) < 0


def test_the_bandwidth_is_the_references() -> None:
    near, far = draw(20, 5), 4 * draw(20, 5, seed=1)
    assert median_bandwidth(far) == pytest.approx(float(torch.pdist(far).quantile(0.5)), rel=1e-12)
    assert kad(near, far) == 100 * mmd_squared(near, far, median_bandwidth(far))
    assert kad(near, far) != pytest.approx(kad(far, near), rel=0.05)
    with pytest.raises(ValueError, match="equal rows"):
        kad(near, torch.ones(5, 5))


def test_coverage_tells_fidelity_from_variety() -> None:
    real = draw(200, 4)
    same = coverage(draw(200, 4, seed=1), real)
    narrow = coverage(0.1 * draw(200, 4, seed=1), real)
    wide = coverage(5 * draw(200, 4, seed=1), real)
    assert narrow["precision"] > 0.95 and narrow["recall"] < 0.1 and narrow["coverage"] < 0.5
    assert wide["precision"] < 0.3 and wide["density"] < 0.3
    assert same["coverage"] > 0.9 and 0.8 < same["density"] < 1.25
    # Naeem et al., lemma 2: for equal distributions and large n the expected coverage is 1 - C(...) ~ 1 - 1 / 2^k.
    assert same["coverage"] == pytest.approx(1 - 0.5**5, abs=0.06)


def test_recall_and_tags() -> None:
    scores = torch.eye(4) + 0.1 * torch.rand(4, 4, generator=rng())
    assert recall_at(scores, list("abcd"), 1) == 1
    assert recall_at(scores.flip(0), list("abcd"), 1) == 0
    assert recall_at(scores.flip(0), list("abcd"), 4) == 1
    assert recall_at(scores.flip(0), list("abba"), 1) == 1
    tags = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]])
    assert tag_accuracy(tags, tags) == 1
    assert tag_accuracy(tags.roll(1, 1), tags) == 0
    assert tag_accuracy(tags.roll(1, 1), tags, among=3) == 1
    right, wrong = matched_and_shuffled(scores, list("abcd"))
    assert bool((right > wrong).all())


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        low, high = bootstrap_mean(draw(40, seed=seed) + 1, generator=rng(seed), draws=400)
        hits += low < 1 < high
    assert (
        176 <= hits <= 200
    )  # 95 % of 200 is 190, deviation 3; the percentile interval is a little narrow at n = 40
