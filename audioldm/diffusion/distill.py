"""Losses that make of a net of many steps one of few, its student.   x, x0 (B, ...), sigma (B,); losses (B,).

A trained Denoiser says the mean of all clean samples that x may come from; a student says the one that the teacher's
own way from x ends at.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.diffusion.prediction import Denoiser, spread
from audioldm.diffusion.samplers import Sampler

Critic = Callable[[Tensor], Tensor]
"""noised latents (B, ...) -> logits (B, P): how real each of P places is"""


def trajectory(sampler: Sampler, denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """(n + 1, B, ...): x at each of ``sigmas`` (n + 1,), by a sampler that reports once a step; the last is the end."""
    states: list[Tensor] = []
    end = sampler(denoise, x, sigmas, on_step=lambda step, sigma, x, x0: states.append(x))
    return torch.stack([*states, end])


def pseudo_huber(a: Tensor, b: Tensor, scale: float = 0.03) -> Tensor:
    """sqrt(mean (a - b)^2 + c^2) - c: square near 0, then linear.   Song & Dhariwal 2024 (iCT) eq. 8, over D."""
    return ((a - b).square().flatten(1).mean(1) + scale**2).sqrt() - scale


def jump(student: Denoiser, x: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
    """ODE warm-up: mean |f(x, sigma) - end|^2, x any state of the teacher's trajectory that ends at ``end``.

    Luhman & Luhman 2021 (knowledge distillation) eq. 3 from its start alone; Evans et al. 2026 (Stable Audio 3).
    """
    return (student(x, sigma) - end).square().flatten(1).mean(1)


def consistency(
    student: Denoiser, target: Denoiser, x: Tensor, sigma: Tensor, x_next: Tensor, sigma_next: Tensor
) -> Tensor:
    """d(f(x, sigma), f'(x_next, sigma_next)) of neighbours on a trajectory; f' has averaged weights, f'(x, 0) = x.

    Song et al. 2023 (consistency models) eq. 7, with the pseudo-Huber distance.
    """
    with torch.no_grad():
        clean = spread(sigma_next == 0, x).bool()
        # a level of 0 is answered by x itself, so any positive one may be asked
        goal = torch.where(clean, x_next, target(x_next, torch.where(sigma_next == 0, sigma, sigma_next)))
    return pseudo_huber(student(x, sigma), goal)


def relativistic(critic: Critic, better: Tensor, worse: Tensor) -> Tensor:
    """softplus(D(worse) - D(better)).   Jolicoeur-Martineau 2019 (arXiv:1807.00734) eq. 5; ARC 2025 eq. 5.

    The critic's with (real, fake), the student's with (fake, real).   At the critic's optimum D(a) - D(b) is the
    logarithm of p(a) q(b) / (q(a) p(b)), p real and q fake.
    """
    return nnf.softplus(critic(worse) - critic(better)).mean(1)


def rolled_prompts(critic: Critic, rolled: Critic, real: Tensor) -> Tensor:
    """softplus(D(real, another row's prompt) - D(real, its own)): the critic reads the prompt.   ARC eq. 7."""
    return nnf.softplus(rolled(real) - critic(real)).mean(1)


def roughness(critic: Critic, x: Tensor, noise: Tensor, *, width: float = 0.05) -> Tensor:
    """|D(x + width noise) - D(x)|^2 / width^2: R1 without second derivatives.   Lin et al. 2025 (APT) eq. 3."""
    return ((critic(x + width * noise) - critic(x)) / width).square().mean(1)
