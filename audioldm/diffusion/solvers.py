"""Deterministic solvers above first order, on the probability-flow ODE dx/dsigma = (x - x0) / sigma.

With h = log(now / next) the exact step is  x_next = (next / now) x + (1 - next / now) <x0>, where <x0> is an average of
the denoised path.   B batch; sigmas (n + 1,), descending.
"""

from itertools import pairwise
from math import expm1, factorial, log

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.steps import OnStep, level, sampler


@sampler
def heun(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep | None = None
) -> Tensor:
    """Heun's 2nd-order method; two calls per step, one in the step to 0.   Karras et al. 2022 Alg. 1."""
    for i, (now, nxt) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, level(now, x))
        if on_step:
            on_step(i, now, x, x0)
        slope = (x - x0) / now
        if nxt > 0:
            guess = x + (nxt - now) * slope
            slope = 0.5 * (slope + (guess - denoise(guess, level(nxt, x))) / nxt)
            x = x + (nxt - now) * slope
        else:
            x = x0
    return x


@sampler
def dpmpp_2m(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(2M): second order from the last two answers, one call per step.   Lu et al. 2022 Alg. 2."""
    before, step_before = x, 0.0
    for i, (now, nxt) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, level(now, x))
        if on_step:
            on_step(i, now, x, x0)
        step = log(now / nxt) if nxt > 0 else 0.0
        middle = x0 + (step / step_before / 2) * (x0 - before) if i and nxt > 0 else x0
        x = middle + (nxt / now) * (x - middle)
        before, step_before = x0, step
    return x


@sampler
def plms(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep | None = None
) -> Tensor:
    """Adams-Bashforth on eps with coefficients for even steps; the first step is Heun's.   Liu et al. 2022 (PNDM).

    Second order on any smooth grid; the higher order of its name needs steps even in sigma.
    """
    weights = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
    slopes: list[Tensor] = []
    for i, (now, nxt) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, level(now, x))
        if on_step:
            on_step(i, now, x, x0)
        slopes = [(x - x0) / now, *slopes[:3]]
        slope = sum(
            (w * s for w, s in zip(weights[len(slopes) - 1], slopes, strict=True)), torch.zeros_like(x)
        )
        if i == 0 and nxt > 0:
            guess = x + (nxt - now) * slope
            slope = 0.5 * (slope + (guess - denoise(guess, level(nxt, x))) / nxt)
        x = x + (nxt - now) * slope
    return x


def integrals(step: float, count: int) -> list[float]:
    """The ``count`` integrals over a step of e^-(h-u) (u/h)^k du, k = 1 .. count, h = ``step``."""
    phi, found = expm1(-step) / -step - 1, []
    for k in range(1, count + 1):
        found.append(-phi * factorial(k))
        phi = phi / -step - 1 / factorial(k + 1)
    return found


def update(
    now: float, nxt: float, x: Tensor, x0: Tensor, others: list[tuple[float, Tensor]], *, half: bool
) -> Tensor:
    """The exponential step from ``now`` to ``nxt`` with x0 interpolated through ``others``.   Zhao et al. 2023.

    ``others`` are (level, x0 there); ``half`` replaces one other's exact weight by (1 - e^-h) / 2, the paper's B2(h).
    """
    if nxt == 0:
        return x0
    x_next = x0 + (nxt / now) * (x - x0)
    if not others:
        return x_next
    step = log(now / nxt)
    places = torch.tensor([log(now / sigma) / step for sigma, _ in others], dtype=torch.float64)
    powers = torch.arange(1, len(others) + 1, dtype=torch.float64)
    exact = torch.tensor(integrals(step, len(others)), dtype=torch.float64)
    weights = torch.linalg.solve(places[None] ** powers[:, None], exact).tolist()
    if half:
        weights = [-expm1(-step) / 2 / places.item()]
    return x_next + sum(
        (w * (other - x0) for w, (_, other) in zip(weights, others, strict=True)), torch.zeros_like(x)
    )


@sampler
def unipc(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    order: int = 2,
) -> Tensor:
    """UniPC: predict, then correct with the next answer, which is needed anyway: order + 1.   Zhao et al. 2023.

    The order rises from 1 over the first steps, and falls to 1 over the last ones if the grid ends at 0.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order={order} is none of 1, 2, 3.")
    levels, steps = sigmas.tolist(), len(sigmas) - 1
    known: list[tuple[float, Tensor]] = []
    start, rank = x, 0
    for i, (now, nxt) in enumerate(pairwise(levels)):
        x0 = denoise(x, level(now, x))
        if on_step:
            on_step(i, now, x, x0)
        if i:
            others = [*known[1:rank], (now, x0)]
            x = update(levels[i - 1], now, start, known[0][1], others, half=rank == 1)
        known = [(now, x0), *known[:2]]
        rank = min(order, i + 1, steps - i if levels[-1] == 0 else order)
        start = x
        x = update(now, nxt, x, x0, known[1:rank], half=rank == 2)
    return x
