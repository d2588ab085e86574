"""One step of DDPM is a draw from q(x_{t-1} | x_t, x0), in x_t (not x / alpha) coordinates."""

import pytest
import torch

from audioldm.diffusion import samplers, schedule
from audioldm.diffusion.posterior import bars, fixed_large, fixed_small, posterior_mean

SCHEDULE = schedule.audioldm()


def test_mean_and_small_variance_are_bayes_rule(normal):
    """Completing the square of q(x_t | x_{t-1}) q(x_{t-1} | x0)."""
    t = torch.tensor([1, 10, 500, 999])
    x0, x_t = normal(4, 3), normal(4, 3)
    bar, before, beta = bars(t, SCHEDULE)
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta)[:, None] * x_t + (before.sqrt() / (1 - before))[:, None] * x0
    torch.testing.assert_close(fixed_small(t, SCHEDULE), 1 / precision, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        posterior_mean(x0, x_t, t, SCHEDULE), mean / precision[:, None], rtol=1e-10, atol=1e-12
    )
    assert (bar < before).all()


def test_at_time_0_the_posterior_is_x0(normal):
    x0, t = normal(2, 3), torch.tensor([0, 0])
    torch.testing.assert_close(posterior_mean(x0, normal(2, 3), t, SCHEDULE), x0)
    assert fixed_small(t, SCHEDULE).tolist() == fixed_small(t + 1, SCHEDULE).tolist(), "0 has no logarithm"


@pytest.mark.parametrize("large", [0.0, 1.0, 0.65])
def test_the_sampler_steps_with_these_means_and_variances(large, normal):
    """``ddpm`` works in x / alpha coordinates; one trained step of it is the posterior."""
    t = torch.tensor([600])
    alpha, alpha_before = SCHEDULE.alphas_cumprod[600].sqrt(), SCHEDULE.alphas_cumprod[599].sqrt()
    x0, x_t, n = normal(1, 4), normal(1, 4), normal(1, 4)
    variance = fixed_small(t, SCHEDULE) ** (1 - large) * fixed_large(t, SCHEDULE) ** large
    wanted = posterior_mean(x0, x_t, t, SCHEDULE) + n * variance.sqrt()
    sigmas = SCHEDULE.sigmas[[600, 599]]
    got = samplers.ddpm(lambda x, s: x0, x_t / alpha, sigmas, noise=lambda: n, large=large) * alpha_before
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
