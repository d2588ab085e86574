"""Losses that make of a net of many steps one of few, its student.   x, x0 (B, ...), sigma (B,); losses (B,).

A trained Denoiser says the mean of all clean samples that x may come from; a student where the teacher's way ends.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.diffusion.prediction import Denoiser, spread
from audioldm.diffusion.samplers import Sampler

Critic = Callable[[Tensor], Tensor]  # noised latents (B, ...) -> logits (B, P): how real each of P places is


def trajectory(sampler: Sampler, denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """(n + 1, B, ...): x at each of ``sigmas`` (n + 1,), by a sampler that reports once a step; the last is the end."""
    states: list[Tensor] = []
    end = sampler(denoise, x, sigmas, on_step=lambda step, sigma, x, x0: states.append(x))
    return torch.stack([*states, end])


def pseudo_huber(a: Tensor, b: Tensor, scale: float = 0.03) -> Tensor:
    """sqrt(mean (a - b)^2 + c^2) - c: square near 0, then linear.   Song & Dhariwal 2024 (iCT) eq. 8, over D."""
    return ((a - b).square().flatten(1).mean(1) + scale**2).sqrt() - scale


def step_to(end: Tensor, student: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    """Where one DDIM step of ``student`` from level ``sigma`` to ``end`` (B,) lands: x0 + end / sigma (x - x0)."""
    x0 = student(x, sigma)
    return x0 + spread(end / sigma, x) * (x - x0)


def segment(student: Denoiser, x: Tensor, sigma: Tensor, x_end: Tensor, end: Tensor) -> Tensor:
    """alpha mean |step_to(end) - x_end|^2: one step does what all of the teacher's do.   Salimans & Ho 2022 app. G."""
    # alpha = 1 / sqrt(1 + end^2) is between the error of x_end at variance 1 (alpha^2) and of the clean sound (1)
    error = (step_to(end, student, x, sigma) - x_end).square().flatten(1).mean(1)
    return error * (1 + end.to(error) ** 2).rsqrt()


def consistency(
    student: Denoiser, target: Denoiser, now: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], end: Tensor
) -> Tensor:
    """d(step_to(end) from ``now``, step_to(end) of f' from ``after``), neighbours (x, sigma) on a trajectory.

    f' has averaged weights; where ``after`` is at ``end``, it is the goal.   Song et al. 2023 (consistency models) eq.
    7 at ``end`` 0, Wang et al. 2024 (phased consistency models) above it, with the pseudo-Huber distance.
    """
    x_next, sigma_next = after
    with torch.no_grad():
        # a level of 0 is answered by x itself, so any positive one may be asked
        level = torch.where(sigma_next <= end, now[1], sigma_next)
        there = spread(sigma_next <= end, x_next).bool()
        goal = torch.where(there, x_next, step_to(end, target, x_next, level))
    alpha = spread((1 + end.double() ** 2).rsqrt(), x_next)
    return pseudo_huber(alpha * step_to(end, student, *now), alpha * goal)


def relativistic(critic: Critic, better: Tensor, worse: Tensor) -> Tensor:
    """softplus(D(worse) - D(better)): the critic's with (real, fake), the student's with (fake, real).   ARC eq. 5."""
    return nnf.softplus(critic(worse) - critic(better)).mean(1)


def rolled_prompts(critic: Critic, rolled: Critic, real: Tensor) -> Tensor:
    """softplus(D(real, another row's prompt) - D(real, its own)): the critic reads the prompt.   ARC eq. 7."""
    return nnf.softplus(rolled(real) - critic(real)).mean(1)


def roughness(critic: Critic, x: Tensor, noise: Tensor, *, width: float = 0.05) -> Tensor:
    """|D(x + width noise) - D(x)|^2 / width^2: R1 without second derivatives.   Lin et al. 2025 (APT) eq. 3."""
    return ((critic(x + width * noise) - critic(x)) / width).square().mean(1)
