"""One step of DDPM is a draw from q(x_{t-1} | x_t, x0), in x_t (not x / alpha) coordinates."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from audioldm.diffusion import samplers, schedule
from audioldm.diffusion.objective import add_noise
from audioldm.diffusion.posterior import (
    bars,
    bound_term,
    fixed_large,
    fixed_small,
    log_variance,
    posterior_mean,
)

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


def test_a_term_of_the_bound_is_a_divergence_of_gaussians():
    g, t = torch.Generator().manual_seed(0), torch.tensor([0, 1, 300, 999])
    x0, noise, guess, share = (torch.randn(4, 6, generator=g).double() for _ in range(4))
    x_t, log_var = add_noise(x0, t, noise, SCHEDULE), log_variance(share, t, SCHEDULE)
    terms = bound_term(x0, x_t, t, guess, log_var, SCHEDULE) * math.log(2)
    true = Normal(posterior_mean(x0, x_t, t, SCHEDULE), fixed_small(t, SCHEDULE).sqrt()[:, None])
    model = Normal(posterior_mean(guess, x_t, t, SCHEDULE), (log_var / 2).exp())
    torch.testing.assert_close(terms[1:], kl_divergence(true, model).mean(1)[1:])
    torch.testing.assert_close(terms[0], -model.log_prob(x0).mean(1)[0])
