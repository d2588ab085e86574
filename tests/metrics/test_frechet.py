"""The Fréchet distance against closed forms: clouds of rows whose mean and covariance are exactly what is asked for."""

import pytest
import torch

from audioldm.metrics.frechet import frechet_rows


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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


def test_two_by_two_that_do_not_commute() -> None:
    # For 2 by 2: (tr sqrt(AB))^2 = tr(AB) + 2 sqrt(det(AB)).
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.7], [-0.7, 3.0]], dtype=torch.float64)
    root = torch.sqrt((a @ b).trace() + 2 * torch.sqrt(torch.linalg.det(a) * torch.linalg.det(b)))
    expected = float(a.trace() + b.trace() - 2 * root)
    zero = torch.zeros(2)
    assert frechet_rows(cloud(zero, a), cloud(zero, b, seed=4)) == pytest.approx(expected, rel=1e-10)


def test_a_map_of_a_gaussian_costs_what_optimal_transport_says() -> None:
    # x -> S x with S symmetric positive is optimal, so the distance is tr((S - I) A (S - I)).
    cov, stretch = spd(6, 4), spd(6, 5) / 6
    step = stretch - torch.eye(6)
    a = cloud(torch.zeros(6), cov)
    assert frechet_rows(a, a @ stretch) == pytest.approx(float((step @ cov @ step).trace()), rel=1e-9)


@pytest.mark.parametrize(("n", "width"), [(5, 40), (41, 40), (60, 8)])
def test_a_cloud_is_at_zero_from_itself_even_when_singular(n: int, width: int) -> None:
    rows = draw(n, width)
    assert frechet_rows(rows, rows) < 1e-10


def test_a_large_mean_costs_no_digits() -> None:
    a, b = draw(20, 3), 2 * draw(25, 3, seed=1)
    # Centred rows lose offset * eps each, here 1e6 * 2e-16 with some room.
    assert frechet_rows(a + 1e6, b + 1e6) == pytest.approx(frechet_rows(a, b), abs=1e-7)
    assert frechet_rows(a, b + 100) > frechet_rows(a, b)
