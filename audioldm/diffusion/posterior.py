"""q(x_{t-1} | x_t, x0), its variances, fixed or learned, and the bound in bits.   t (B,) whole; x_t, x0 (B, ...)."""

from math import log, pi

import torch
from torch import Tensor

from audioldm.diffusion import objective
from audioldm.diffusion.prediction import NetCall, Prediction, spread, to_x0
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
    return spread(of_x0, x0) * x0 + spread((1 - beta).sqrt() * (1 - before) / (1 - bar), x_t) * x_t


def fixed_small(t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Posterior variance beta tilde (B,): right if the data are one point; at t = 0, where it is 0, that of t = 1."""
    bar, before, beta = bars(t.clamp(min=1), schedule)
    return beta * (1 - before) / (1 - bar)


def fixed_large(t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Variance beta (B,): right if the data are unit Gaussian.   DDPM sec. 3.2."""
    return bars(t, schedule)[2]


def log_variance(share: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """log Sigma = v log beta + (1 - v) log beta tilde, v = (share + 1) / 2 (B, ...).   Nichol & Dhariwal eq. 15."""
    small, large = (spread(of(t, schedule).log(), share) for of in (fixed_small, fixed_large))
    return small + (share + 1) / 2 * (large - small)


def bound_term(
    x0: Tensor, x_t: Tensor, t: Tensor, guess: Tensor, log_var: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """The bound's term of time t in bits per dimension (B,); ``guess`` is the net's x0.   DDPM eq. 5.

    t > 0: KL(q(x_{t-1} | x_t, x0) || N(mean, Sigma)); t = 0: -log N(x0; mean, Sigma), a density, so a sum of all T
    terms may be negative.   The term of x_T, which no net moves, is left out: 0 at zero terminal SNR.
    """
    gap = posterior_mean(x0, x_t, t, schedule) - posterior_mean(guess, x_t, t, schedule)
    true = spread(fixed_small(t, schedule).log(), x0)
    first = spread((t == 0).to(x0), x0)
    # without a true variance at t = 0: what is left is the density's constant
    spreads = (1 - first) * ((true - log_var).exp() - true - 1) + first * log(2 * pi)
    return ((spreads + log_var + gap.square() * (-log_var).exp()) / 2).flatten(1).mean(1) / log(2)


def hybrid(
    net_call: NetCall, z: Tensor, t: Tensor, noise: Tensor, schedule: NoiseSchedule,
    prediction: Prediction = "eps", weighting: objective.Weighting = "uniform",
) -> Tensor:  # fmt: skip
    """L_simple + 0.001 L_vlb per sample (B,) of a net with twice the channels.   Nichol & Dhariwal 2021 eq. 16."""
    x_t = objective.add_noise(z, t, noise, schedule)
    value, share = net_call(x_t, t).chunk(2, dim=1)
    simple = objective.loss(lambda *_: value, z, t, noise, schedule, prediction, weighting)
    alpha, sigma = schedule.coefficients(t)
    guess = to_x0(value.detach(), x_t, alpha=alpha, sigma=sigma, prediction=prediction)
    # the bound moves the variance only; with one uniform t, T times its term is the sum
    term = bound_term(z, x_t, t, guess, log_variance(share, t, schedule), schedule)
    return simple + 0.001 * schedule.length * term
