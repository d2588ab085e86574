"""Solvers as rules of one step: how to go on from x at one noise level, where the net sees x0, to the next level.

They solve the probability-flow ODE dx/dsigma = (x - x0) / sigma, or an SDE with the same marginals, in x / alpha
coordinates, where DDPM's posterior, DDIM's step and k-diffusion's ancestral Euler step are one formula,

    x_next = x0 + (down / now) (x - x0) + up n,   up^2 + down^2 = next^2,   up = eta next sqrt(1 - next^2 / now^2).

The exponential ones have, with h = log(now / next) and g = 1 + eta (eta 0 is the ODE, eta 1 the reverse SDE),

    x_next = (next / now) e^(-eta h) x + integral of g e^(-g (h - u)) x0(u) du + next sqrt(1 - e^(-2 eta h)) n.

On the straight path, u = sigma / (1 + sigma) in [0, 1], x_u = x / (1 + sigma) = (1 - u) x0 + u eps and dx_u/du is
(x_u - x0) / u.   B batch.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp, expm1, log, sqrt

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.schedule import HIGHEST
from audioldm.diffusion.score import langevin
from audioldm.diffusion.steps import Net, OnStep, Step, rule, sampler


def ancestral(step: Step, eta: float) -> Tensor:
    """The formula of the first order."""
    nxt, (now, x, x0) = step.nxt, step.at
    up = min(nxt, eta * nxt * sqrt(1 - step.ratio**2))
    x = x0 + (sqrt(nxt**2 - up**2) / now) * (x - x0)
    return x + up * step.noise() if up > 0 else x


@rule
def euler(step: Step) -> Tensor:
    """Euler's method on dx/dsigma: DDIM with eta 0.   Karras et al. 2022 sec. 3."""
    return ancestral(step, 0.0)


@rule
def ddim(step: Step, *, eta: float = 0.0) -> Tensor:
    """DDIM: eta 0 is deterministic, eta 1 is DDPM.   Song et al. 2021 (DDIM) eq. 12 and 16."""
    return ancestral(step, eta)


@rule
def euler_ancestral(step: Step, *, eta: float = 1.0) -> Tensor:
    """An Euler step to below the next level, then noise back up to it: DDIM with eta 1.   k-diffusion."""
    return ancestral(step, eta)


@rule
def ddpm(step: Step, *, large: float = 0.0) -> Tensor:
    """Draw from the posterior q(x_next | x, x0).   Ho et al. 2020 (DDPM) Alg. 2 and eq. 7.

    ``large`` mixes the log variances: 0 is fixed-small (beta tilde), 1 fixed-large (beta).
    """
    nxt, (now, x, x0) = step.nxt, step.at
    x = x0 + step.ratio**2 * (x - x0)
    if nxt == 0:
        return x
    small, times = (now**2 - nxt**2) * step.ratio**2, (1 + nxt**2) / (1 + now**2) * (now / nxt) ** 2
    return x + sqrt(small) * times ** (large / 2) * step.noise()


@rule
def consistency(step: Step) -> Tensor:
    """Jump to x0, add fresh noise, jump again; the net is a consistency function.   Song et al. 2023 Alg. 1."""
    return step.at.x0 + step.nxt * step.noise() if step.nxt > 0 else step.at.x0


def trapezium(step: Step) -> Tensor:
    """The mean of the slopes here and where the slope here leads."""
    guess = step.at.x + (step.nxt - step.at.sigma) * step.at.slope
    return 0.5 * (step.at.slope + (guess - step.denoise(guess, step.nxt)) / step.nxt)


@rule
def heun(step: Step) -> Tensor:
    """Heun's 2nd-order method; two calls per step, one in the step to 0.   Karras et al. 2022 Alg. 1."""
    return step.at.x + (step.nxt - step.at.sigma) * trapezium(step) if step.nxt > 0 else step.at.x0


@rule
def plms(step: Step) -> Tensor:
    """Adams-Bashforth on eps with coefficients for even steps; the first step is Heun's.   Liu et al. 2022 (PNDM).

    Second order on any smooth grid; the higher order of its name needs steps even in sigma.
    """
    weights = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
    slopes = [point.slope for point in (step.at, *step.past)]
    first = not step.past and step.nxt > 0
    slope = trapezium(step) if first else weighted_sum(weights[len(slopes) - 1], slopes)
    return step.at.x + (step.nxt - step.at.sigma) * slope


def weighted_sum(weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    """The sum of ``parts`` (B, ...), each times its weight."""
    return sum((w * part for w, part in zip(weights, parts, strict=True)), torch.zeros_like(parts[0]))


def curvature(reach: float) -> float:
    """The integral over a step of H e^-(H - Hu) u^2 du, u from 0 to 1, H = ``reach``."""
    return 1 - 2 / reach * (1 + expm1(-reach) / reach)


def exponential(
    step: Step, eta: float, order: int, quadratic: Callable[[float], float] = curvature
) -> Tensor:
    """The exponential step with x0 as a polynomial through the last ``order`` answers, as many as there are."""
    x, x0, past = step.at.x, step.at.x0, step.past[: order - 1]
    if step.nxt == 0:
        return x0
    reach = (1 + eta) * step.length
    whole = -expm1(-reach)
    average = whole * x0
    if past:
        ratio = log(past[0].sigma / step.at.sigma) / step.length
        slope = (x0 - past[0].x0) / ratio
        if len(past) == 1:
            average = average + 0.5 * whole * slope
        else:
            ratio_before = log(past[1].sigma / past[0].sigma) / step.length
            slope_before = (past[0].x0 - past[1].x0) / ratio_before
            square = (slope - slope_before) / (ratio + ratio_before)
            average = average + (1 - whole / reach) * (slope + ratio * square) + quadratic(reach) * square
    x = step.ratio * exp(-eta * step.length) * x + average
    return x + step.nxt * sqrt(-expm1(-2 * eta * step.length)) * step.noise() if eta > 0 else x


@rule
def dpmpp_2m(step: Step) -> Tensor:
    """DPM-Solver++(2M): second order from the last two answers, one call per step.   Lu et al. 2022 Alg. 2."""
    return exponential(step, 0.0, 2)


@rule
def dpmpp_2m_sde(step: Step, *, eta: float = 1.0) -> Tensor:
    """SDE-DPM-Solver++(2M), midpoint form; eta 0 is DPM-Solver++(2M).   Lu et al. 2022 app. B; k-diffusion."""
    return exponential(step, eta, 2)


@rule
def dpmpp_3m_sde(step: Step, *, eta: float = 1.0, quadratic: Callable[[float], float] = curvature) -> Tensor:
    """SDE-DPM-Solver++(3M): x0 as a parabola through three answers.   Lu et al. 2022 app. B; k-diffusion.

    Third order where the first two steps, which know less, are short; second order otherwise.   ``quadratic`` weighs
    the parabola's square term: k-diffusion has half of the integral (second order), diffusers 0.42 another number that
    does not vanish with the step (first order); either can be passed in.
    """
    return exponential(step, eta, 3, quadratic)


def flow(step: Step, middle: bool) -> Tensor:
    """One step in the time u of the straight path, with the slope at its begin or in its ``middle``."""
    nxt, (now, x, x0) = step.nxt, step.at
    u, u_next = now / (1 + now), nxt / (1 + nxt)
    x_u = x / (1 + now)
    slope = (x_u - x0) / u
    if middle:
        half = x_u + (u_next - u) / 2 * slope
        at = (u + u_next) / 2
        sigma = min(at / (1 - at), HIGHEST)
        slope = (half - step.denoise(half * (1 + sigma), sigma)) / at
    return (x_u + (u_next - u) * slope) * (1 + nxt)


@rule
def flow_euler(step: Step) -> Tensor:
    """Euler on the velocity of the straight path; the same steps as Euler in sigma.   Liu et al. 2023."""
    return flow(step, middle=False)


@rule
def flow_midpoint(step: Step) -> Tensor:
    """The midpoint rule on the velocity of the straight path, two calls per step.   Lipman et al. 2023."""
    return flow(step, middle=True)


@rule
def ve_sde(step: Step, *, rounds: int = 1, size: float = 0.16) -> Tensor:
    """Reverse variance-exploding SDE, each step followed by ``rounds`` corrections.   Song et al. 2021 Alg. 2."""
    nxt, (now, x, x0) = step.nxt, step.at
    if nxt == 0:
        return x0
    x = x + (1 - step.ratio**2) * (x0 - x) + sqrt(now**2 - nxt**2) * step.noise()
    return langevin(step.denoise, x, nxt, noise=step.noise, rounds=rounds, size=size)


@rule
def vp_sde(step: Step, *, rounds: int = 1, size: float = 0.16) -> Tensor:
    """Reverse variance-preserving SDE, each step followed by ``rounds`` corrections.   Song et al. 2021 Alg. 3.

    x_t' = (2 - sqrt(1 - beta)) x_t + beta score + sqrt(beta) n, with 1 - beta the ratio of alpha_bar.
    """
    nxt, (now, x, x0) = step.nxt, step.at
    if nxt == 0:
        return x0
    # 1 / alpha at nxt; sqrt(1 - beta)
    scale, shrink = sqrt(1 + nxt**2), sqrt((1 + nxt**2) / (1 + now**2))
    beta = 1 - shrink**2
    drift = (2 - shrink) * x + beta * (1 + now**2) * (x0 - x) / now**2
    x = shrink * drift + scale * sqrt(beta) * step.noise()
    return langevin(step.denoise, x, nxt, noise=step.noise, rounds=rounds, size=size)


@sampler
def ddim_invert(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, rounds: int = 0
) -> Tensor:
    """DDIM run upwards: x (B, ...) at sigmas[-1] to x at sigmas[0], on the grid that ``ddim`` will come down by.

    Song et al. 2021 (DDIM) sec. 4.3.   Each step takes its slope where it starts; ``rounds`` repeats it with the slope
    where it ends, which is DDIM's own, until the way down undoes it (Pan et al. 2023, AIDI).
    """
    for i, (low, high) in enumerate(pairwise(sigmas[::-1])):
        x0 = denoise(x, low if low > 0 else high)
        guess = x + (high - low) * (x - x0) / (low or high)
        for _ in range(rounds):
            x0 = denoise(guess, high)
            guess = x + (high - low) * (guess - x0) / high
        on_step(i, high, guess, x0)
        x = guess
    return x
