"""A Langevin corrector, and the likelihood by the probability-flow ODE.   B batch; sigmas (n + 1,), descending."""

from itertools import pairwise
from math import log, pi

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser, spread


def score(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    """Gradient of log p(x; sigma), (B, ...).   Vincent 2011; Song et al. 2021 (score SDE) eq. 7."""
    return (denoise(x, sigma) - x) / spread(sigma, x) ** 2


def langevin(
    denoise: Denoiser, x: Tensor, sigma: float, *, noise: Noise, rounds: int = 1, size: float = 0.16
) -> Tensor:
    """Take ``rounds`` Langevin steps of 2 (size sigma)^2 at one level.   Song et al. 2021 (score SDE) Alg. 4-5."""
    # they measure sigma by the norms of noise and score over the batch, on average the same
    level = x.new_full((len(x),), sigma)
    for _ in range(rounds):
        x = x + 2 * size**2 * (denoise(x, level) - x) + 2 * size * sigma * noise().to(x)
    return x


def log_likelihood(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise, data_std: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(log p(x; lowest level) in nats (B,), x carried to the highest level).   Song et al. 2021 (score SDE) eq. 39.

    x (B, ...) lies at the last positive level of ``sigmas``, which Heun's method climbs; the prior at the first is N(0,
    sigmas[0]^2 + data_std^2).   ``noise`` gives one probe for the whole path, used by its signs (+1, -1).
    """
    probe = noise().to(x).sign()

    def flow_and_trace(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """dx/dlog sigma = x - x0 (B, ...) and probe . (its Jacobian) probe (B,).   Song et al. 2021 eq. 40."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            slope = x - denoise(x, x.new_full((len(x),), sigma))
            (product,) = torch.autograd.grad((slope * probe).sum(), x)
        return slope.detach(), (product * probe).flatten(1).sum(1)

    levels, gain = sigmas[sigmas > 0].flip(0).tolist(), x.new_zeros(x.shape[0])
    for low, high in pairwise(levels):
        step = log(high / low)
        slope, trace = flow_and_trace(x, low)
        slope_end, trace_end = flow_and_trace(x + step * slope, high)
        x = x + step * (slope + slope_end) / 2
        gain = gain + step * (trace + trace_end) / 2
    variance = levels[-1] ** 2 + data_std**2
    return gain - 0.5 * (x.flatten(1).square() / variance + log(2 * pi * variance)).sum(1), x
