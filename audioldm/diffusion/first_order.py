"""One denoiser call per step and no memory: the ancestral family.

In x / alpha coordinates DDPM's posterior, DDIM's step and k-diffusion's ancestral Euler step are one formula,

    x_next = x0 + (down / now) (x - x0) + up n,   up^2 + down^2 = next^2,   up = eta next sqrt(1 - next^2 / now^2).

B batch; sigmas (n + 1,), descending.
"""

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.steps import OnStep, fresh, level, sampler


@sampler
def euler(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep | None = None
) -> Tensor:
    """Euler's method on dx/dsigma = (x - x0) / sigma: DDIM with eta 0.   Karras et al. 2022 sec. 3."""
    for i, (now, nxt) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, level(now, x))
        if on_step:
            on_step(i, now, x, x0)
        x = x0 + (nxt / now) * (x - x0)
    return x


@sampler
def ddim(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM: eta 0 is deterministic, eta 1 is DDPM.   Song et al. 2021 (DDIM) eq. 12 and 16."""
    for i, (now, nxt) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, level(now, x))
        if on_step:
            on_step(i, now, x, x0)
        up = min(nxt, eta * nxt * sqrt(1 - (nxt / now) ** 2))
        x = x0 + (sqrt(nxt**2 - up**2) / now) * (x - x0)
        if up > 0:
            x = x + up * fresh(noise, x)
    return x


@sampler
def euler_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    eta: float = 1.0,
) -> Tensor:
    """An Euler step to below the next level, then noise back up to it: DDIM with eta 1.   k-diffusion."""
    return ddim(denoise, x, sigmas, noise=noise, on_step=on_step, eta=eta)


@sampler
def ddpm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    large: float | Callable[[Tensor, Tensor], Tensor] = 0.0,
) -> Tensor:
    """Draw from the posterior q(x_next | x, x0).   Ho et al. 2020 (DDPM) Alg. 2 and eq. 7.

    ``large`` mixes the log variances: 0 is fixed-small (beta tilde), 1 fixed-large (beta), a function (x, sigma) -> (B,
    ...) a learned range.   Nichol & Dhariwal 2021 eq. 15.
    """
    for i, (now, nxt) in enumerate(pairwise(sigmas.tolist())):
        x0 = denoise(x, level(now, x))
        if on_step:
            on_step(i, now, x, x0)
        mean = x0 + (nxt / now) ** 2 * (x - x0)
        if nxt > 0:
            mix = large(x, level(now, x)) if callable(large) else large
            mean = mean + spread_of(now, nxt, mix) * fresh(noise, x)
        x = mean
    return x


def spread_of(now: float, nxt: float, mix: float | Tensor) -> float | Tensor:
    """Standard deviation of DDPM's step from ``now`` to ``nxt`` > 0, in x / alpha coordinates."""
    gap = now**2 - nxt**2
    small, ratio = gap * (nxt / now) ** 2, (1 + nxt**2) / (1 + now**2) * (now / nxt) ** 2
    return sqrt(small) * ratio ** (mix / 2)


@sampler
def ddim_invert(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    rounds: int = 0,
) -> Tensor:
    """DDIM run upwards: x (B, ...) at sigmas[-1] to x at sigmas[0], on the grid that ``ddim`` will come down by.

    Song et al. 2021 (DDIM) sec. 4.3.   Each step takes its slope where it starts; ``rounds`` repeats it with the slope
    where it ends, which is DDIM's own, until the way down undoes it (Pan et al. 2023, AIDI).
    """
    for i, (low, high) in enumerate(pairwise(sigmas.flip(0).tolist())):
        above = level(high, x)
        x0 = denoise(x, level(low, x)) if low > 0 else denoise(x, above)
        guess = x + (high - low) * (x - x0) / (low or high)
        for _ in range(rounds):
            x0 = denoise(guess, above)
            guess = x + (high - low) * (guess - x0) / high
        if on_step:
            on_step(i, high, guess, x0)
        x = guess
    return x
