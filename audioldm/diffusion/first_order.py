"""One denoiser call per step and no memory: the ancestral family, and its way back.

In x / alpha coordinates DDPM's posterior, DDIM's step and k-diffusion's ancestral Euler step are one formula,

    x_next = x0 + (down / now) (x - x0) + up n,   up^2 + down^2 = next^2,   up = eta next sqrt(1 - next^2 / now^2).

B batch; sigmas (n + 1,), descending.
"""

from itertools import pairwise
from math import sqrt

from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.steps import Net, OnStep, sampler


@sampler
def euler(denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep) -> Tensor:
    """Euler's method on dx/dsigma = (x - x0) / sigma: DDIM with eta 0.   Karras et al. 2022 sec. 3."""
    return ancestral(denoise, x, sigmas, noise=noise, on_step=on_step, eta=0.0)


@sampler
def ddim(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, eta: float = 0.0
) -> Tensor:
    """DDIM: eta 0 is deterministic, eta 1 is DDPM.   Song et al. 2021 (DDIM) eq. 12 and 16."""
    return ancestral(denoise, x, sigmas, noise=noise, on_step=on_step, eta=eta)


@sampler
def euler_ancestral(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, eta: float = 1.0
) -> Tensor:
    """An Euler step to below the next level, then noise back up to it: DDIM with eta 1.   k-diffusion."""
    return ancestral(denoise, x, sigmas, noise=noise, on_step=on_step, eta=eta)


def ancestral(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, eta: float
) -> Tensor:
    """The loop of all three, by the formula above."""
    for i, (now, nxt) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, now)
        on_step(i, now, x, x0)
        up = min(nxt, eta * nxt * sqrt(1 - (nxt / now) ** 2))
        x = x0 + (sqrt(nxt**2 - up**2) / now) * (x - x0)
        if up > 0:
            x = x + up * noise()
    return x


@sampler
def ddpm(
    denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, large: float = 0.0
) -> Tensor:
    """Draw from the posterior q(x_next | x, x0).   Ho et al. 2020 (DDPM) Alg. 2 and eq. 7.

    ``large`` mixes the log variances: 0 is fixed-small (beta tilde), 1 fixed-large (beta).
    """
    for i, (now, nxt) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, now)
        on_step(i, now, x, x0)
        x = x0 + (nxt / now) ** 2 * (x - x0)
        if nxt > 0:
            x = x + deviation(now, nxt, large) * noise()
    return x


def deviation(now: float, nxt: float, large: float) -> float:
    """Standard deviation of DDPM's step from ``now`` to ``nxt`` > 0, in x / alpha coordinates."""
    gap = now**2 - nxt**2
    small, ratio = gap * (nxt / now) ** 2, (1 + nxt**2) / (1 + now**2) * (now / nxt) ** 2
    return float(sqrt(small) * ratio ** (large / 2))


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
