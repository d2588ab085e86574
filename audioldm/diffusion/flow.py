"""Samplers that step evenly in the time of the straight path, u = sigma / (1 + sigma) in [0, 1].

There x_u = x / (1 + sigma) = (1 - u) x0 + u eps and dx_u/du = (x_u - x0) / u.   B batch; sigmas (n + 1,), descending.
"""

from itertools import pairwise

from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.schedule import HIGHEST
from audioldm.diffusion.steps import OnStep, level, sampler


def velocity(denoise: Denoiser, x_u: Tensor, u: float) -> tuple[Tensor, Tensor]:
    """(dx_u/du, x0) at time u in (0, 1].   Lipman et al. 2023."""
    sigma = min(u / (1 - u), HIGHEST) if u < 1 else HIGHEST
    x0 = denoise(x_u * (1 + sigma), level(sigma, x_u))
    return (x_u - x0) / u, x0


@sampler
def flow_euler(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep | None = None
) -> Tensor:
    """Euler on the velocity of the straight path; the same steps as Euler in sigma.   Liu et al. 2023."""
    times = (sigmas / (1 + sigmas)).tolist()
    x_u = x / (1 + float(sigmas[0]))
    for i, (now, nxt) in enumerate(pairwise(times)):
        slope, x0 = velocity(denoise, x_u, now)
        if on_step:
            on_step(i, float(sigmas[i]), x_u * (1 + float(sigmas[i])), x0)
        x_u = x_u + (nxt - now) * slope
    return x_u * (1 + float(sigmas[-1]))


@sampler
def flow_midpoint(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise | None = None, on_step: OnStep | None = None
) -> Tensor:
    """The midpoint rule on the velocity of the straight path, two calls per step.   Lipman et al. 2023."""
    times = (sigmas / (1 + sigmas)).tolist()
    x_u = x / (1 + float(sigmas[0]))
    for i, (now, nxt) in enumerate(pairwise(times)):
        slope, x0 = velocity(denoise, x_u, now)
        if on_step:
            on_step(i, float(sigmas[i]), x_u * (1 + float(sigmas[i])), x0)
        middle = x_u + (nxt - now) / 2 * slope
        x_u = x_u + (nxt - now) * velocity(denoise, middle, (now + nxt) / 2)[0]
    return x_u * (1 + float(sigmas[-1]))
