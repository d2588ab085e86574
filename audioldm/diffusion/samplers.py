"""Samplers by name, with one signature: (denoise, x, sigmas, *, noise=None, on_step=None) -> x.

``x`` (B, ...) starts at level sigmas[0] (sigmas[0] times unit noise) and comes back at level sigmas[-1]; nothing
is kept between calls.   They solve the probability-flow ODE dx/dsigma = (x - x0) / sigma, or an SDE with the same
marginals, most by a rule of one step.   In x / alpha coordinates DDPM's posterior, DDIM's step and k-diffusion's
ancestral Euler step are one formula,

    x_next = x0 + (down / now) (x - x0) + up n,   up^2 + down^2 = next^2,   up = eta next sqrt(1 - next^2 / now^2).

The exponential ones have, with h = log(now / next) and g = 1 + eta (eta 0 is the ODE, eta 1 the reverse SDE),

    x_next = (next / now) e^(-eta h) x + integral of g e^(-g (h - u)) x0(u) du + next sqrt(1 - e^(-2 eta h)) n.

On the straight path u = sigma / (1 + sigma), x_u = x / (1 + sigma) = (1 - u) x0 + u eps and dx_u/du = (x_u - x0) / u.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import pairwise
from math import exp, expm1, factorial, inf, log, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser, spread
from audioldm.diffusion.schedule import HIGHEST
from audioldm.diffusion.score import langevin
from audioldm.diffusion.table import Entry
from audioldm.errors import AudioLDMError

OnStep = Callable[[int, float, Tensor, Tensor], None]  # (step, sigma, x at sigma, x0 as now believed)
Net = Callable[[Tensor, float | Tensor], Tensor]  # a Denoiser that also takes one level for all samples
Sampler = Callable[..., Tensor]  # (denoise, x, sigmas, *, noise, on_step, **options) -> x at sigmas[-1]


def sampler(loop: Callable[..., Tensor]) -> Sampler:
    """The sampler of a bare ``loop`` over floats, without gradients, in float32 or better.   Raises ValueError."""

    @wraps(loop)
    @torch.no_grad()
    def sample(
        denoise: Denoiser, x: Tensor, sigmas: Tensor, *,
        noise: Noise | None = None, on_step: OnStep | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        levels: list[float] = sigmas.double().tolist()
        if sigmas.ndim != 1 or len(levels) < 2 or not all(inf > a > b >= 0 for a, b in pairwise(levels)):
            raise ValueError(f"sigmas must be (n + 1,) finite levels, descending to 0 or more, not {levels}.")
        state = x.to(torch.promote_types(x.dtype, torch.float32))

        def net(x: Tensor, sigma: float | Tensor) -> Tensor:
            level = sigma if isinstance(sigma, Tensor) else x.new_full((len(x),), sigma)
            return denoise(x, level).to(x.dtype)

        def draw() -> Tensor:
            if noise is None:
                raise ValueError("this sampler is stochastic: give noise=, such as PerSample(seeds, shape).")
            return noise().to(state)

        report = on_step or (lambda *_: None)
        return loop(net, state, levels, noise=draw, on_step=report, **options).to(x.dtype)

    return sample


class Step(NamedTuple):
    """What a rule may use to go on from level ``now`` to ``nxt``: x (B, ...), and the x0 that the net saw in it."""

    now: float
    nxt: float
    x: Tensor
    x0: Tensor
    past: Sequence["Step"]  # the three steps before, newest first
    denoise: Net
    noise: Noise

    @property
    def slope(self) -> Tensor:
        """dx/dsigma of the probability flow, which is the noise."""
        return (self.x - self.x0) / self.now

    @property
    def ratio(self) -> float:
        return self.nxt / self.now


def rule(function: Callable[..., Tensor]) -> Sampler:
    """The sampler that asks the net once at each level and lets ``function(step, **options)`` go on to the next."""

    @wraps(function)
    def loop(
        denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, **options: Any
    ) -> Tensor:
        past: list[Step] = []
        for i, (now, nxt) in enumerate(pairwise(sigmas)):
            step = Step(now, nxt, x, denoise(x, now), past, denoise, noise)
            on_step(i, now, x, step.x0)
            x = function(step, **options)
            past = [step._replace(past=()), *past[:2]]
        return x

    return sampler(loop)


@rule
def ddim(step: Step, *, eta: float = 0.0) -> Tensor:
    """Deterministic (eta 0) to ancestral (eta 1, which is DDPM).   Song et al. 2021, arXiv:2010.02502 eq. 12 and 16."""
    up = min(step.nxt, eta * step.nxt * sqrt(1 - step.ratio**2))
    x = step.x0 + (sqrt(step.nxt**2 - up**2) / step.now) * (step.x - step.x0)
    return x + up * step.noise() if up > 0 else x


@rule
def ddpm(step: Step, *, large: float = 0.0) -> Tensor:
    """Draw from the posterior q(x_next | x, x0) of each step.   Ho et al. 2020, arXiv:2006.11239 Alg. 2 and eq. 7."""
    now, nxt = step.now, step.nxt
    x = step.x0 + step.ratio**2 * (step.x - step.x0)
    if nxt == 0:
        return x
    # ``large`` mixes the log variances: 0 is fixed-small (beta tilde), 1 fixed-large (beta)
    small, times = (now**2 - nxt**2) * step.ratio**2, (1 + nxt**2) / (1 + now**2) * (now / nxt) ** 2
    return x + sqrt(small) * times ** (large / 2) * step.noise()


@rule
def consistency(step: Step) -> Tensor:
    """Jump to x0, add noise, jump again; for consistency and LCM nets.   Song et al. 2023, arXiv:2303.01469 Alg. 1."""
    return step.x0 + step.nxt * step.noise() if step.nxt > 0 else step.x0


def trapezium(step: Step) -> Tensor:
    """The mean of the slopes here and where the slope here leads."""
    guess = step.x + (step.nxt - step.now) * step.slope
    return 0.5 * (step.slope + (guess - step.denoise(guess, step.nxt)) / step.nxt)


@rule
def heun(step: Step) -> Tensor:
    """Second order, two calls per step, one in the step to 0.   Karras et al. 2022, arXiv:2206.00364 Alg. 1."""
    return step.x + (step.nxt - step.now) * trapezium(step) if step.nxt > 0 else step.x0


@rule
def plms(step: Step) -> Tensor:
    """Adams-Bashforth on eps (PNDM), of second order where steps are uneven.   Liu et al. 2022, arXiv:2202.09778."""
    weights = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
    slopes = [one.slope for one in (step, *step.past)]
    first = not step.past and step.nxt > 0
    slope = trapezium(step) if first else weighted_sum(weights[len(slopes) - 1], slopes)
    return step.x + (step.nxt - step.now) * slope


def weighted_sum(weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    return sum((w * part for w, part in zip(weights, parts, strict=True)), torch.zeros_like(parts[0]))


def curvature(reach: float) -> float:
    """The integral over a step of H e^-(H - Hu) u^2 du, u from 0 to 1, H = ``reach``."""
    return 1 - 2 / reach * (1 + expm1(-reach) / reach)


@rule
def dpmpp(step: Step, *, eta: float = 0.0, order: int = 2) -> Tensor:
    """Exponential steps, x0 a polynomial through the last answers.   Lu et al. 2022, arXiv:2211.01095 app. B."""
    x0, past = step.x0, step.past[: order - 1]
    if step.nxt == 0:
        return x0
    length = log(step.now / step.nxt)
    reach = (1 + eta) * length
    whole = -expm1(-reach)
    average = whole * x0
    if past:
        ratio = log(past[0].now / step.now) / length
        slope = (x0 - past[0].x0) / ratio
        if len(past) == 1:
            average = average + 0.5 * whole * slope
        else:
            ratio_before = log(past[1].now / past[0].now) / length
            slope_before = (past[0].x0 - past[1].x0) / ratio_before
            # k-diffusion weighs it by half of the integral (second order), diffusers by what does not vanish (first)
            square = (slope - slope_before) / (ratio + ratio_before)
            average = average + (1 - whole / reach) * (slope + ratio * square) + curvature(reach) * square
    x = step.ratio * exp(-eta * length) * step.x + average
    return x + step.nxt * sqrt(-expm1(-2 * eta * length)) * step.noise() if eta > 0 else x


@rule
def flow(step: Step, *, middle: bool = False) -> Tensor:
    """One step in the time u of the straight path, with the slope at its begin or in its ``middle``."""
    u, u_next = (sigma / (1 + sigma) for sigma in (step.now, step.nxt))
    x_u = step.x / (1 + step.now)
    slope = (x_u - step.x0) / u
    if middle:
        half = x_u + (u_next - u) / 2 * slope
        at = (u + u_next) / 2
        sigma = min(at / (1 - at), HIGHEST)
        slope = (half - step.denoise(half * (1 + sigma), sigma)) / at
    return (x_u + (u_next - u) * slope) * (1 + step.nxt)


@rule
def ve_sde(step: Step, *, rounds: int = 1, size: float = 0.16) -> Tensor:
    """Reverse VE-SDE, each step followed by Langevin corrections.   Song et al. 2021, arXiv:2011.13456 Alg. 2."""
    if step.nxt == 0:
        return step.x0
    x = step.x + (1 - step.ratio**2) * (step.x0 - step.x)
    x = x + sqrt(step.now**2 - step.nxt**2) * step.noise()
    return langevin(step.denoise, x, step.nxt, noise=step.noise, rounds=rounds, size=size)


@rule
def vp_sde(step: Step, *, rounds: int = 1, size: float = 0.16) -> Tensor:
    """Reverse VP-SDE, each step followed by Langevin corrections.   Song et al. 2021, arXiv:2011.13456 Alg. 3."""
    now, nxt, x = step.now, step.nxt, step.x
    if nxt == 0:
        return step.x0
    # x_t' = (2 - sqrt(1 - beta)) x_t + beta score + sqrt(beta) n, 1 - beta the ratio of alpha_bar; scale = 1 / alpha
    scale, shrink = sqrt(1 + nxt**2), sqrt((1 + nxt**2) / (1 + now**2))
    beta = 1 - shrink**2
    drift = (2 - shrink) * x + beta * (1 + now**2) * (step.x0 - x) / now**2
    x = shrink * drift + scale * sqrt(beta) * step.noise()
    return langevin(step.denoise, x, nxt, noise=step.noise, rounds=rounds, size=size)


def update(
    now: float, nxt: float, x: Tensor, x0: Tensor, others: list[tuple[float, Tensor]], *, half: bool
) -> Tensor:
    """The exponential step from ``now`` to ``nxt`` with x0 interpolated through ``others``, (level, x0 there)."""
    if nxt == 0:
        return x0
    x_next = x0 + (nxt / now) * (x - x0)
    if not others:
        return x_next
    step = log(now / nxt)
    places = torch.tensor([log(now / sigma) / step for sigma, _ in others], dtype=torch.float64)
    powers = torch.arange(1, len(others) + 1, dtype=torch.float64)
    phi, exact = expm1(-step) / -step - 1, list[float]()
    for k in range(1, len(others) + 1):  # the integral over the step, h long, of e^-(h-u) (u/h)^k du
        exact.append(-phi * factorial(k))
        phi = phi / -step - 1 / factorial(k + 1)
    right = torch.tensor(exact, dtype=torch.float64)
    weights = torch.linalg.solve(places[None] ** powers[:, None], right).tolist()
    if half:  # the paper's B2(h) in the place of the exact weight
        weights = [-expm1(-step) / 2 / places.item()]
    return x_next + weighted_sum(weights, [other - x0 for _, other in others])


@sampler
def unipc(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, order: int = 2
) -> Tensor:
    """Predict, then correct with the next answer, needed anyway: order + 1.   Zhao et al. 2023, arXiv:2302.04867."""
    steps = len(sigmas) - 1
    known: list[tuple[float, Tensor]] = []
    start, rank = x, 0
    for i, (now, nxt) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, now)
        on_step(i, now, x, x0)
        if i:
            x = update(sigmas[i - 1], now, start, known[0][1], [*known[1:rank], (now, x0)], half=rank == 1)
        known = [(now, x0), *known[:2]]
        # it rises over the first steps, and falls over the last ones if the grid ends at 0
        rank = min(order, i + 1, steps - i if sigmas[-1] == 0 else order)
        start = x
        x = update(now, nxt, x, x0, known[1:rank], half=rank == 2)
    return x


STAGES = (
    (1 / 5,), (3 / 40, 9 / 40), (44 / 45, -56 / 15, 32 / 9), (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)  # fmt: skip
PLACES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Dormand & Prince 1980: 5th order, with a 4th-order answer to compare; the last slope is the next step's first."""


@sampler
def adaptive(
    denoise: Net, x: Tensor, sigmas: list[float], *,
    on_step: OnStep, rtol: float = 1e-3, atol: float = 1e-3, most: int = 1000, **_: Noise,
) -> Tensor:  # fmt: skip
    """Dormand-Prince 5(4) on dx/dlog sigma, its steps chosen by error.   Song 2021, arXiv:2011.13456 app. D.4."""
    # each sample has its own level and step, so its result does not depend on its batch
    ends = torch.tensor([sigma for sigma in sigmas if sigma > 0], dtype=torch.float64).log().to(x)
    now, end = ends[0].expand(len(x)).clone(), ends[-1]
    step, first = (end - now) / 10, x - denoise(x, now.exp())
    for i in range(most):
        if bool((now <= end).all()):
            return denoise(x, now.exp()) if sigmas[-1] == 0 else x
        on_step(i, float(now.max().exp()), x, x - first)
        last_one = now + step <= end
        step = torch.where(last_one, end - now, step)
        slopes, h = [first], spread(step, x)
        for weights, place in zip(STAGES, PLACES, strict=True):
            new = x + h * weighted_sum(weights, slopes)
            slopes.append(new - denoise(new, (now + place * step).exp()))
        scale = atol + rtol * torch.maximum(x.abs(), new.abs())
        error = (h * weighted_sum(ERROR, slopes) / scale).flatten(1).square().mean(1).sqrt()
        good = error <= 1
        keep = good.reshape(-1, *[1] * (x.ndim - 1))
        x, first = torch.where(keep, new, x), torch.where(keep, slopes[-1], first)
        now = torch.where(good, torch.where(last_one, end, now + step), now)
        step = step * (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
    raise AudioLDMError(f"the adaptive solver is not done in {most} steps.", "Raise rtol or atol.", code=1)


@sampler
def ddim_invert(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, rounds: int = 0
) -> Tensor:
    """DDIM run upwards, from sigmas[-1] to sigmas[0].   Song et al. 2021 (DDIM) sec. 4.3; Pan et al. 2023 (AIDI)."""
    for i, (low, high) in enumerate(pairwise(sigmas[::-1])):
        x0 = denoise(x, low if low > 0 else high)
        guess = x + (high - low) * (x - x0) / (low or high)
        for _ in range(rounds):  # with the slope where the step ends, until the way down undoes it
            x0 = denoise(guess, high)
            guess = x + (high - low) * (guess - x0) / high
        on_step(i, high, guess, x0)
        x = guess
    return x


SDE = partial(Entry, stochastic=True)
SAMPLERS: dict[str, Entry] = {
    "ddpm": SDE(ddpm),
    "ddim": Entry(ddim),
    "euler": Entry(ddim, "DDIM by its other name.   Karras et al. 2022, arXiv:2206.00364 sec. 3."),
    "euler_ancestral": SDE(partial(ddim, eta=1.0), "DDIM with eta 1.   Song 2021, arXiv:2010.02502."),
    "heun": Entry(heun, calls="2"),
    "dpmpp_2m": Entry(dpmpp, "From the last two answers.   Lu et al. 2022, arXiv:2211.01095 Alg. 2."),
    "dpmpp_2m_sde": SDE(partial(dpmpp, eta=1.0), "2M on the reverse SDE.   Lu 2022, arXiv:2211.01095."),
    "dpmpp_3m_sde": SDE(partial(dpmpp, eta=1.0, order=3), "From three answers.   Lu 2022, arXiv:2211.01095."),
    "unipc": Entry(unipc),
    "plms": Entry(plms, calls="1, first step 2"),
    "adaptive": Entry(adaptive, calls="6 per try"),
    "consistency": SDE(consistency),
    "flow_euler": Entry(flow, "Euler in the time of the straight path.   Liu et al. 2023, arXiv:2209.03003."),
    "flow_midpoint": Entry(partial(flow, middle=True), "Midpoint.   arXiv:2210.02747 (Lipman).", calls="2"),
    "ve_sde": SDE(ve_sde, calls="1 + rounds"),
    "vp_sde": SDE(vp_sde, calls="1 + rounds"),
}
