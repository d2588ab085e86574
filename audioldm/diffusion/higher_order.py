"""Solvers whose orders need more than one step's rule: UniPC's corrector, and steps chosen by their error.

With h = log(now / next) the exact step is  x_next = (next / now) x + (1 - next / now) <x0>, where <x0> is an average of
the denoised path.   B batch; sigmas (n + 1,), descending.
"""

from itertools import pairwise
from math import expm1, factorial, log

import torch
from torch import Tensor

from audioldm.diffusion.prediction import spread
from audioldm.diffusion.solvers import weighted_sum
from audioldm.diffusion.steps import Net, OnStep, sampler
from audioldm.errors import AudioLDMError


def integrals(step: float, count: int) -> list[float]:
    """The ``count`` integrals over a step of e^-(h-u) (u/h)^k du, k = 1 .. count, h = ``step``."""
    phi, values = expm1(-step) / -step - 1, []
    for k in range(1, count + 1):
        values.append(-phi * factorial(k))
        phi = phi / -step - 1 / factorial(k + 1)
    return values


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
    return x_next + weighted_sum(weights, [other - x0 for _, other in others])


@sampler
def unipc(denoise: Net, x: Tensor, sigmas: list[float], *, on_step: OnStep, order: int = 2) -> Tensor:
    """UniPC: predict, then correct with the next answer, which is needed anyway: order + 1.   Zhao et al. 2023.

    The order rises from 1 over the first steps, and falls to 1 over the last ones if the grid ends at 0.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order={order} is none of 1, 2, 3.")
    steps = len(sigmas) - 1
    known: list[tuple[float, Tensor]] = []
    start, rank = x, 0
    for i, (now, nxt) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, now)
        on_step(i, now, x, x0)
        if i:
            others = [*known[1:rank], (now, x0)]
            x = update(sigmas[i - 1], now, start, known[0][1], others, half=rank == 1)
        known = [(now, x0), *known[:2]]
        rank = min(order, i + 1, steps - i if sigmas[-1] == 0 else order)
        start = x
        x = update(now, nxt, x, x0, known[1:rank], half=rank == 2)
    return x


STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
PLACES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Dormand & Prince 1980: 5th order, with a 4th-order answer to compare; the last slope is the next step's first."""


@sampler
def adaptive(
    denoise: Net,
    x: Tensor,
    sigmas: list[float],
    *,
    on_step: OnStep,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    most: int = 1000,
) -> Tensor:
    """Dormand-Prince 5(4) on dx/dlog sigma = x - x0, six calls per try.   Song et al. 2021 (score SDE) app. D.4.

    Of ``sigmas`` only the ends count: it runs from the first to the last positive one, then takes x0 if the last is 0.
    Each sample has its own level and step, so a sample's result does not depend on its batch.
    """
    ends = torch.tensor([sigma for sigma in sigmas if sigma > 0], dtype=torch.float64).log().to(x)
    now, end = ends[0].expand(len(x)).clone(), ends[-1]
    step = (end - now) / 10

    def slope_at(x: Tensor, logs: Tensor) -> Tensor:
        return x - denoise(x, logs.exp())

    first = slope_at(x, now)
    for i in range(most):
        if bool((now <= end).all()):
            return denoise(x, now.exp()) if sigmas[-1] == 0 else x
        on_step(i, float(now.max().exp()), x, x - first)
        last_one = now + step <= end
        step = torch.where(last_one, end - now, step)
        slopes, h = [first], spread(step, x)
        for weights, place in zip(STAGES, PLACES, strict=True):
            new = x + h * weighted_sum(weights, slopes)
            slopes.append(slope_at(new, now + place * step))
        scale = atol + rtol * torch.maximum(x.abs(), new.abs())
        error = (h * weighted_sum(ERROR, slopes) / scale).flatten(1).square().mean(1).sqrt()
        good = error <= 1
        keep = good.reshape(-1, *[1] * (x.ndim - 1))
        x, first = torch.where(keep, new, x), torch.where(keep, slopes[-1], first)
        now = torch.where(good, torch.where(last_one, end, now + step), now)
        step = step * (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
    raise AudioLDMError(
        f"the adaptive solver took {most} steps and is not done.", "Raise rtol or atol.", code=1
    )
