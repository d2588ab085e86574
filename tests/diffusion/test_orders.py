"""Order of convergence by step doubling: the error of a method of order p falls by 2^p."""

from functools import partial
from itertools import pairwise
from math import exp, log

import pytest
import torch

from audioldm.diffusion import samplers as A

HIGH, LOW = 10.0, 0.1
CURVATURE = A.curvature

# name: (sampler, order); DPM++ 3M has its own test below
METHODS = {
    "euler": (A.SAMPLERS["euler"], 1),
    "ddim": (A.ddim, 1),
    "flow_euler": (A.SAMPLERS["flow_euler"], 1),
    "heun": (A.heun, 2),
    "dpmpp_2m": (A.SAMPLERS["dpmpp_2m"], 2),
    "dpmpp_2m_sde, eta 0": (partial(A.SAMPLERS["dpmpp_2m_sde"], eta=0.0), 2),
    "plms": (A.plms, 2),
    "unipc, order 1": (partial(A.unipc, order=1), 2),
    "unipc, order 2": (A.unipc, 3),
    "unipc, order 3": (partial(A.unipc, order=3), 3),
    "flow_midpoint": (A.SAMPLERS["flow_midpoint"], 2),
}


def even(steps):
    """Even in log sigma."""
    return torch.linspace(log(HIGH), log(LOW), steps + 1, dtype=torch.float64).exp()


def even_power(steps):
    """Karras' grid."""
    return torch.linspace(HIGH ** (1 / 7), LOW ** (1 / 7), steps + 1, dtype=torch.float64) ** 7


def short_start(steps):
    """Even in log sigma, after two steps of the square of its length."""
    step = log(HIGH / LOW) / steps
    first = torch.tensor([log(HIGH), log(HIGH) - step**2], dtype=torch.float64)
    rest = torch.linspace(log(HIGH) - 2 * step**2, log(LOW), steps + 1, dtype=torch.float64)
    return torch.cat([first, rest]).exp()


def ratios(run, denoise, x, answer, grid, counts=(60, 120, 240)):
    errors = [(run(denoise, x, grid(count)) - answer).abs().max().item() for count in counts]
    return [before / after for before, after in pairwise(errors)]


@pytest.mark.parametrize("grid", [even, even_power])
@pytest.mark.parametrize("name", METHODS)
def test_order_on_a_gaussian_with_a_known_answer(name, grid, gaussian, normal):
    run, order = METHODS[name]
    x = HIGH * normal(8, 3)
    for ratio in ratios(run, gaussian.denoise, x, gaussian.carried(x, HIGH, LOW), grid):
        # 6 % for the next term of the error at these steps; a method may be better than its order on a linear problem
        assert ratio > 0.94 * 2**order
        assert ratio < 1.15 * 2**order or name in ("unipc, order 3", "flow_midpoint")


@pytest.mark.parametrize("name", METHODS)
def test_order_on_a_mixture_whose_denoiser_is_not_linear(name, mixture, normal):
    run, order = METHODS[name]
    x = HIGH * normal(4, 2)
    answer = A.adaptive(mixture.denoise, x, torch.tensor([HIGH, LOW]), rtol=1e-10, atol=1e-10)
    for ratio in ratios(run, mixture.denoise, x, answer, even, counts=(120, 240)):
        assert ratio > 0.9 * 2**order


@pytest.mark.parametrize(
    ("square", "order"),
    [
        (CURVATURE, 3),
        (lambda reach: CURVATURE(reach) / 2, 2),  # k-diffusion's
        (lambda reach: (1 - exp(-reach) - reach) / reach**2 - 0.5, 1),  # diffusers 0.42's
    ],
)
def test_dpmpp_3m_is_of_third_order_with_its_own_integral_only(square, order, gaussian, normal, monkeypatch):
    monkeypatch.setattr(A, "curvature", square)
    run = partial(A.SAMPLERS["dpmpp_3m_sde"], eta=0.0)
    x = HIGH * normal(8, 3)
    for ratio in ratios(run, gaussian.denoise, x, gaussian.carried(x, HIGH, LOW), short_start):
        assert 0.94 * 2**order < ratio < 1.15 * 2**order


def test_dpmpp_3m_from_a_plain_grid_keeps_the_second_order_of_its_start(gaussian, normal):
    x = HIGH * normal(8, 3)
    run = partial(A.SAMPLERS["dpmpp_3m_sde"], eta=0.0)
    assert all(
        3.7 < ratio < 4.7 for ratio in ratios(run, gaussian.denoise, x, gaussian.carried(x, HIGH, LOW), even)
    )


def test_the_curvature_is_its_integral():
    for reach in (0.3, 2.0):
        u = torch.linspace(0, 1, 200_001, dtype=torch.float64)
        numeric = torch.trapezoid(reach * torch.exp(-reach * (1 - u)) * u**2, u).item()
        assert A.curvature(reach) == pytest.approx(numeric, rel=1e-8)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_the_adaptive_solver_meets_its_tolerance(tolerance, gaussian, mixture, normal):
    x = HIGH * normal(8, 3)
    got = A.adaptive(gaussian.denoise, x, torch.tensor([HIGH, LOW]), rtol=tolerance, atol=tolerance)
    # the tolerance is per step; 8 to 60 steps add up
    assert (got - gaussian.carried(x, HIGH, LOW)).abs().max() < 10 * tolerance


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", A.SAMPLERS)
def test_calls_per_step_are_those_of_the_table(name, steps, gaussian, normal):
    calls = []
    sigmas = torch.cat([even(steps)[:-1], torch.zeros(1)])
    A.SAMPLERS[name](
        lambda x, s: calls.append(1) or gaussian.denoise(x, s),
        HIGH * normal(2, 3),
        sigmas,
        noise=lambda: normal(2, 3),
    )
    last_is_single = {"heun", "ve_sde", "vp_sde"}
    twice = 2 * steps - (name in last_is_single)
    wanted = {"1": steps, "2": twice, "1 + rounds": twice, "1, first step 2": steps + (steps > 1)}
    text = A.SAMPLERS[name].calls
    if name == "adaptive":
        assert len(calls) == 2 if steps == 1 else (len(calls) - 2) % 6 == 0
    else:
        assert len(calls) == wanted[text]
