"""Guidance by the gradient of a function: a classifier of noisy latents, or any value of the clean one.

A score that gains g moves x0 by sigma^2 g (Tweedie).   x (B, ...), sigma (B,).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from audioldm.diffusion.prediction import Denoiser, spread


def classifier(
    denoise: Denoiser,
    log_prob: Callable[[Tensor, Tensor], Tensor],
    scale: float = 1.0,
    *,
    limit: float | None = None,
) -> Denoiser:
    """Add scale sigma^2 grad_x log p(y | x; sigma).   Dhariwal & Nichol 2021; Song et al. 2021 eq. 14.

    ``log_prob`` (x (B, ...), sigma (B,)) -> (B,) must have been trained on noisy x; scale 1 is Bayes' rule. ``limit``
    cuts the root mean square of each sample's move.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            free = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(log_prob(free, sigma).sum(), free)
        return denoise(x, sigma) + cut(scale * spread(sigma, x) ** 2 * slope, limit)

    return guided


def reward(
    denoise: Denoiser, value: Callable[[Tensor], Tensor], scale: float = 1.0, *, limit: float | None = None
) -> Denoiser:
    """Add scale sigma^2 grad_x value(x0(x)): a CLAP score of the decoded x0, say.   Chung et al. 2023 (DPS).

    ``value`` (x0 (B, ...)) -> (B,) needs no noisy training, since the gradient runs back through the net. ``limit``
    cuts the root mean square of each sample's move.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            free = x.detach().requires_grad_(True)
            x0 = denoise(free, sigma)
            (slope,) = torch.autograd.grad(value(x0).sum(), free)
        return x0.detach() + cut(scale * spread(sigma, x) ** 2 * slope, limit)

    return guided


def cut(move: Tensor, limit: float | None) -> Tensor:
    """``move`` (B, ...) with the root mean square of each sample at most ``limit``."""
    if limit is None:
        return move
    size = move.flatten(1).square().mean(1).sqrt()
    return move * spread((limit / size.clamp(min=1e-30)).clamp(max=1), move)
