from math import log, pi

import pytest
import torch

from audioldm.diffusion import samplers as A
from audioldm.diffusion import score as V
from audioldm.diffusion.prediction import spread
from audioldm.diffusion.samplers import ddim_invert


def grid(high, low, steps):
    return torch.linspace(log(high), log(low), steps + 1, dtype=torch.float64).exp()


def test_score_is_the_gradient_of_the_log_density(gaussian, normal):
    x = normal(2, 3).requires_grad_(True)
    (wanted,) = torch.autograd.grad(gaussian.log_density(x, 0.7).sum(), x)
    got = V.score(gaussian.denoise, x.detach(), torch.full((2,), 0.7).double())
    torch.testing.assert_close(got, wanted)


def test_log_likelihood_of_a_gaussian(gaussian, normal):
    """Its Jacobian is diagonal, so that probes of +-1 give the trace without error; what is left is Heun's."""
    x = gaussian.mean + gaussian.std * normal(5, 3)
    low, high = 0.01, 1e4
    got, _ = V.log_likelihood(gaussian.denoise, x, grid(high, low, 400), noise=lambda: normal(5, 3))
    torch.testing.assert_close(got, gaussian.log_density(x, low), rtol=2e-3, atol=2e-3)


def test_hutchinson_is_unbiased_where_the_jacobian_is_full(normal):
    root = normal(4, 4)
    cov = root @ root.T / 4 + 0.2 * torch.eye(4).double()
    eye = torch.eye(4).double()

    def denoise(x, sigma):
        """x cov (cov + sigma^2)^-1, row by row."""
        return torch.einsum(
            "bi,bij->bj", x, torch.linalg.inv(eye + torch.linalg.inv(cov) * spread(sigma, x[:, :, None]) ** 2)
        )

    x = torch.linalg.cholesky(cov) @ normal(4)
    many = x.expand(1000, 4)
    got, _ = V.log_likelihood(denoise, many, grid(1e3, 0.05, 100), noise=lambda: normal(1000, 4))
    total = cov + 0.05**2 * eye
    wanted = -0.5 * (x @ torch.linalg.solve(total, x) + torch.logdet(2 * pi * total))
    assert got.std() > 0
    # 3 standard errors, and Heun's 2 % at 100 steps
    assert (got.mean() - wanted).abs() < 3 * got.std() / 1000**0.5 + 0.02


def test_the_mixtures_density_integrates_to_one(mixture):
    """exp(log p) over a square, by the trapezoid rule: a likelihood that is off by a constant would show."""
    axis = torch.linspace(-5, 5, 41, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    # in 2-D these two give the trace exactly
    probes = iter([torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])])
    found = torch.stack(
        [
            V.log_likelihood(
                mixture.denoise, x, grid(200.0, 0.05, 120), noise=lambda: next(probes).expand(len(x), 2)
            )[0]
            for _ in range(2)
        ]
    )
    total = found.mean(0).exp().sum() * (10 / 40) ** 2
    assert abs(total - 1) < 0.02  # 120 steps of Heun


@pytest.mark.parametrize("size", [0.05, 0.16])
def test_langevin_keeps_its_level(size, gaussian, normal):
    """The stationary variance of the discrete walk is 1 / (1 - a / 2) of the true, a = 2 size^2 sigma^2 / variance."""
    count, sigma = 20_000, 2.0
    std = (gaussian.std**2 + sigma**2).sqrt()
    x = gaussian.mean + std * normal(count, 3)
    out = V.langevin(gaussian.denoise, x, sigma, noise=lambda: normal(count, 3), rounds=60, size=size)
    rate = 2 * size**2 * sigma**2 / std**2
    wanted = std / (1 - rate / 2).sqrt()
    slack = 3 / (2 * count) ** 0.5 + 0.002
    assert ((out.std(0) / wanted - 1).abs() < slack).all()


@pytest.mark.parametrize("rounds", [0, 1, 30])
def test_inversion_and_back(rounds, gaussian, normal):
    sigmas = torch.cat([grid(30.0, 0.05, 60), torch.zeros(1).double()])
    x = gaussian.mean + gaussian.std * normal(4, 3)
    back = A.ddim(gaussian.denoise, ddim_invert(gaussian.denoise, x, sigmas, rounds=rounds), sigmas)
    error = (back - x).abs().max()
    # first-order steps up and down miss each other by O(step); the fixed point does not
    assert error < {0: 0.5, 1: 0.2, 30: 1e-8}[rounds]


def test_inversion_reaches_the_noise_of_the_flow(gaussian, normal):
    """Up the grid is the probability-flow ODE run backwards, in closed form on a Gaussian."""
    x = normal(4, 3)
    wanted = gaussian.carried(x, 0.05, 30.0)
    errors = [
        (ddim_invert(gaussian.denoise, x, grid(30.0, 0.05, n)) - wanted).abs().max() for n in (200, 400, 800)
    ]
    assert 1.85 < errors[0] / errors[1] < 2.15
    assert 1.85 < errors[1] / errors[2] < 2.15
