"""The Frechet distance against closed forms, and the accumulator against one pass."""

import pytest
import torch

from audioldm.metrics.frechet import Moments, frechet_between, frechet_distance


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def spd(width: int, seed: int) -> torch.Tensor:
    rows = draw(width + 4, width, seed=seed)
    return rows.T @ rows


def test_commuting_covariances_have_a_closed_form() -> None:
    basis = torch.linalg.qr(draw(7, 7)).Q
    a, b = draw(7, seed=1).abs(), draw(7, seed=2).abs()
    mean = draw(7, seed=3)
    found = frechet_distance(
        mean, basis @ a.diag() @ basis.T, mean_b=torch.zeros(7), cov_b=basis @ b.diag() @ basis.T
    )
    expected = float(mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert found == pytest.approx(expected, rel=1e-11)  # float64 eigendecomposition of a 7 by 7


def test_two_by_two_that_do_not_commute() -> None:
    # For 2 by 2: (tr sqrt(AB))^2 = tr(AB) + 2 sqrt(det(AB)).
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.7], [-0.7, 3.0]], dtype=torch.float64)
    root = torch.sqrt((a @ b).trace() + 2 * torch.sqrt(torch.linalg.det(a) * torch.linalg.det(b)))
    expected = float(a.trace() + b.trace() - 2 * root)
    zero = torch.zeros(2)
    assert frechet_distance(zero, a, mean_b=zero, cov_b=b) == pytest.approx(expected, rel=1e-12)


def test_a_map_of_a_gaussian_costs_what_optimal_transport_says() -> None:
    # x -> S x with S symmetric positive is optimal, so the distance is tr((S - I) A (S - I)).
    cov, stretch = spd(6, 4), spd(6, 5) / 6
    step = stretch - torch.eye(6)
    found = frechet_distance(torch.zeros(6), cov, mean_b=torch.zeros(6), cov_b=stretch @ cov @ stretch)
    assert found == pytest.approx(
        float((step @ cov @ step).trace()), rel=1e-9
    )  # condition number of about 1e3


def test_a_cloud_is_at_zero_from_itself_even_when_singular() -> None:
    moments = Moments.of(draw(5, 40))
    assert moments.cov.shape == (40, 40)
    # Square roots of eigenvalues that should be 0 and are 1e-15 leave about 40 * sqrt(1e-15).
    assert frechet_between(moments, moments) < 1e-5


def test_symmetric_and_unbounded_in_the_shift() -> None:
    a, b = Moments.of(draw(50, 8)), Moments.of(3 * draw(60, 8, seed=1) + 2)
    assert frechet_between(a, b) == pytest.approx(
        frechet_between(b, a), rel=1e-9
    )  # two orders of the same sum
    far = Moments(b.count, b.mean + 100, b.scatter)
    assert frechet_between(a, far) > frechet_between(a, b)


def test_a_large_mean_costs_no_digits() -> None:
    rows = draw(20, 3)
    near, far = Moments.of(rows), Moments.of(rows.double() + 1e6)
    # Centred sums lose offset * eps per row, here 1e6 * 2e-16 with some room.
    torch.testing.assert_close(far.mean - 1e6, near.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(far.scatter, near.scatter, rtol=1e-7, atol=1e-7)


def test_covariance_is_the_unbiased_one() -> None:
    rows = draw(12, 5)
    torch.testing.assert_close(Moments.of(rows).cov, torch.cov(rows.T))


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 3, 4)])
def test_rows_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rows has shape"):
        Moments.of(torch.zeros(shape))


def test_wrong_use_names_what_was_given() -> None:
    with pytest.raises(ValueError, match="2 rows or more; there is 1"):
        _ = Moments.of(torch.zeros(1, 4)).cov
    with pytest.raises(ValueError, match=r"cov_b has shape \(3, 3\)"):
        frechet_distance(torch.zeros(2), torch.eye(2), mean_b=torch.zeros(2), cov_b=torch.eye(3))
    with pytest.raises(ValueError, match="cov_a holds values"):
        frechet_distance(
            torch.zeros(1), torch.tensor([[torch.nan]]), mean_b=torch.zeros(1), cov_b=torch.eye(1)
        )
