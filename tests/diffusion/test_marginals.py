"""Samplers carry the noisy mixture to the mixture: mean and covariance within 3 standard errors."""

from functools import partial

import pytest
import torch

from audioldm.diffusion import samplers as A

COUNT, HIGH = 2000, 20.0


def grid(steps, low=0.02):
    rho = 1 / 7
    return torch.cat(
        [torch.linspace(HIGH**rho, low**rho, steps, dtype=torch.float64) ** 7, torch.zeros(1).double()]
    )


def assert_marginal(x, mixture):
    """Each of 2 means and 3 covariances within 3 of its standard errors, estimated from the sample."""
    centred = x - mixture.mean()
    assert ((centred.mean(0)).abs() < 3 * x.std(0) / COUNT**0.5).all()
    products = centred[:, :, None] * centred[:, None, :]
    off = (products.mean(0) - mixture.covariance()).abs()
    assert (off < 3 * products.std(0) / COUNT**0.5).all(), (off, products.std(0) / COUNT**0.5)


# first-order methods need more steps until their own bias is below the standard error (about 3 %)
SAMPLERS = {
    "ddpm": (A.ddpm, 300),
    "ddpm, large variance": (partial(A.ddpm, large=1.0), 500),
    "ddim, eta 0.5": (partial(A.ddim, eta=0.5), 200),
    "euler_ancestral": (A.SAMPLERS["euler_ancestral"], 300),
    "dpmpp_2m_sde": (A.SAMPLERS["dpmpp_2m_sde"], 100),
    "dpmpp_2m_sde, eta 0.5": (partial(A.SAMPLERS["dpmpp_2m_sde"], eta=0.5), 100),
    "dpmpp_3m_sde": (A.SAMPLERS["dpmpp_3m_sde"], 120),
    "ve_sde": (A.ve_sde, 250),
    "ve_sde, no corrector": (partial(A.ve_sde, rounds=0), 500),
    "vp_sde": (A.vp_sde, 250),
    "heun": (A.heun, 60),
    "dpmpp_2m": (A.SAMPLERS["dpmpp_2m"], 60),
    "unipc": (A.unipc, 40),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_mixture_comes_out(name, mixture, generator, normal):
    run, steps = SAMPLERS[name]
    x = mixture.draw(COUNT, generator) + HIGH * normal(COUNT, 2)
    assert_marginal(run(mixture.denoise, x, grid(steps), noise=lambda: normal(COUNT, 2)), mixture)


def test_consistency_sampling_with_an_exact_consistency_function(mixture, generator, normal):
    def jump(x, sigma):
        """The end of the probability-flow ODE, by UniPC."""
        high = float(sigma[0])
        levels = torch.linspace(high ** (1 / 7), 0.02 ** (1 / 7), 40, dtype=torch.float64) ** 7
        return A.unipc(mixture.denoise, x, torch.cat([levels, torch.zeros(1).double()]))

    x = mixture.draw(COUNT, generator) + HIGH * normal(COUNT, 2)
    out = A.consistency(jump, x, torch.tensor([HIGH, 2.0, 0.5, 0.0]).double(), noise=lambda: normal(COUNT, 2))
    assert_marginal(out, mixture)


def test_the_check_notices_a_wrong_spread(mixture, generator):
    with pytest.raises(AssertionError):
        assert_marginal(1.1 * mixture.draw(COUNT, generator), mixture)


def test_ddim_with_eta_1_is_ddpm_at_full_steps(mixture, normal):
    from audioldm.diffusion.grids import linspace
    from audioldm.diffusion.schedule import audioldm

    sigmas = linspace(audioldm(), 1000)
    x, draws = sigmas[0] * normal(5, 2), normal(999, 5, 2)
    first, second = (
        run(mixture.denoise, x, sigmas, noise=iter(draws).__next__)
        for run in (A.ddpm, partial(A.ddim, eta=1.0))
    )
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)  # 1000 steps of float64 rounding
