"""Samplers that add noise on the way: multistep SDE solvers and consistency sampling.

A family of SDEs shares the marginals: eta 0 is the ODE, eta 1 the reverse SDE.  With h = log(now / next), g = 1 + eta,

    x_next = (next / now) e^(-eta h) x + integral of g e^(-g (h - u)) x0(u) du + next sqrt(1 - e^(-2 eta h)) n.

B batch; sigmas (n + 1,), descending.
"""

from collections.abc import Callable
from itertools import pairwise
from math import exp, expm1, log, sqrt

from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.steps import Net, OnStep, sampler


def renoise(now: float, nxt: float, x: Tensor, average: Tensor, *, eta: float, noise: Noise) -> Tensor:
    """Decay x towards nothing, add ``average`` (the weighted x0) and the noise that the SDE brings."""
    step = log(now / nxt)
    x = (nxt / now) * exp(-eta * step) * x + average
    return x + nxt * sqrt(-expm1(-2 * eta * step)) * noise() if eta > 0 else x


@sampler
def dpmpp_2m_sde(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, eta: float = 1.0
) -> Tensor:
    """SDE-DPM-Solver++(2M), midpoint form; eta 0 is DPM-Solver++(2M).   Lu et al. 2022 app. B; k-diffusion."""
    before, step_before = x, 0.0
    for i, (now, nxt) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, now)
        on_step(i, now, x, x0)
        if nxt == 0:
            return x0
        step = log(now / nxt)
        middle = x0 + (step / step_before / 2) * (x0 - before) if i else x0
        x = renoise(now, nxt, x, -expm1(-(1 + eta) * step) * middle, eta=eta, noise=noise)
        before, step_before = x0, step
    return x


def curvature(reach: float) -> float:
    """The integral over a step of H e^-(H - Hu) u^2 du, u from 0 to 1, H = ``reach``."""
    return 1 - 2 / reach * (1 + expm1(-reach) / reach)


@sampler
def dpmpp_3m_sde(
    denoise: Net,
    x: Tensor,
    sigmas: list[float],
    *,
    noise: Noise,
    on_step: OnStep,
    eta: float = 1.0,
    quadratic: Callable[[float], float] = curvature,
) -> Tensor:
    """SDE-DPM-Solver++(3M): x0 as a parabola through three answers.   Lu et al. 2022 app. B; k-diffusion.

    Third order where the first two steps, which know less, are short; second order otherwise.   ``quadratic`` weighs
    the parabola's square term: k-diffusion has half of the integral (second order), diffusers 0.42 another number that
    does not vanish with the step (first order); either can be passed in.
    """
    past: list[tuple[float, Tensor]] = []
    for i, (now, nxt) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, now)
        on_step(i, now, x, x0)
        if nxt == 0:
            return x0
        step = log(now / nxt)
        reach = (1 + eta) * step
        average = -expm1(-reach) * x0
        if len(past) == 1:
            average = average - 0.5 * expm1(-reach) * parabola(step, x0, past)[0]
        elif past:
            linear, square = parabola(step, x0, past)
            average = average + (1 + expm1(-reach) / reach) * linear + quadratic(reach) * square
        x = renoise(now, nxt, x, average, eta=eta, noise=noise)
        past = [(step, x0), *past[:1]]
    return x


def parabola(step: float, x0: Tensor, past: list[tuple[float, Tensor]]) -> tuple[Tensor, Tensor]:
    """Linear and square coefficients of x0 over the coming step; ``past`` holds (step, x0) one and two steps back."""
    ratio = past[0][0] / step
    slope = (x0 - past[0][1]) / ratio
    if len(past) == 1:
        return slope, slope * 0
    ratio_before = past[1][0] / step
    slope_before = (past[0][1] - past[1][1]) / ratio_before
    square = (slope - slope_before) / (ratio + ratio_before)
    return slope + ratio * square, square


@sampler
def consistency(denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep) -> Tensor:
    """Jump to x0, add fresh noise, jump again; ``denoise`` is a consistency function.   Song et al. 2023 Alg. 1."""
    for i, (now, nxt) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, now)
        on_step(i, now, x, x0)
        x = x0 + nxt * noise() if nxt > 0 else x0
    return x
