"""q(x_{t-1} | x_t, x0), the Gaussian that DDPM steps with, and its two fixed variances.

In x_t (not x / alpha) coordinates, one trained time back.   t (B,) whole numbers; x (B, ...).
"""

import torch
from torch import Tensor

from audioldm.diffusion.prediction import spread
from audioldm.diffusion.schedule import NoiseSchedule


def bars(t: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor, Tensor]:
    """(alpha_bar[t], alpha_bar[t-1], beta[t]), alpha_bar[-1] = 1; float64 (B,)."""
    bar = schedule.alphas_cumprod.to(t.device)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    return bar[t], before[t], 1 - bar[t] / before[t]


def posterior_mean(x0: Tensor, x_t: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Mean of q(x_{t-1} | x_t, x0); x0 itself at t = 0.   Ho et al. 2020 (DDPM) eq. 7."""
    bar, before, beta = bars(t, schedule)
    of_x0 = before.sqrt() * beta / (1 - bar)
    of_x_t = (1 - beta).sqrt() * (1 - before) / (1 - bar)
    return spread(of_x0, x0) * x0 + spread(of_x_t, x_t) * x_t


def fixed_small(t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Posterior variance beta tilde (B,): right if the data are one point; 0 at t = 0.   DDPM eq. 7."""
    bar, before, beta = bars(t, schedule)
    return beta * (1 - before) / (1 - bar)


def fixed_large(t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Variance beta (B,): right if the data are unit Gaussian.   DDPM sec. 3.2."""
    return bars(t, schedule)[2]
