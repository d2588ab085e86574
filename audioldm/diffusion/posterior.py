"""q(x_{t-1} | x_t, x0), the Gaussian that DDPM steps with, and the three ways to choose the net's variance.

In x_t (not x / alpha) coordinates, one trained time back.   t (B,) whole numbers; x (B, ...).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from audioldm.diffusion.prediction import NetCall, spread
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


def learned_range(raw: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Variance (B, ...) between small (raw = -1) and large (raw = 1), mixed in logs.   Nichol & Dhariwal 2021 eq. 15.

    At t = 0, where the small one is 0, that of t = 1 stands in (as in their code).
    """
    low = spread(fixed_small(t.clamp(min=1), schedule).log(), raw)
    high = spread(fixed_large(t, schedule).log(), raw)
    return torch.lerp(low, high, (raw + 1) / 2).exp()


def split_learned(net_call: NetCall) -> tuple[NetCall, NetCall]:
    """The two halves of a net with (B, 2C, ...) answers: the prediction, and the raw variance in [-1, 1]."""
    return (lambda x, t: net_call(x, t).chunk(2, dim=1)[0]), (lambda x, t: net_call(x, t).chunk(2, dim=1)[1])


def as_large(raw_call: NetCall, schedule: NoiseSchedule) -> Callable[[Tensor, Tensor], Tensor]:
    """A net's raw variance as the ``large`` of ``samplers.ddpm``: (x, sigma (B,)) -> (B, ...), 0 small, 1 large."""

    def large(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.double()
        return (raw_call(x * spread(schedule.alpha_of(level), x), schedule.t_at(level).to(x.dtype)) + 1) / 2

    return large
