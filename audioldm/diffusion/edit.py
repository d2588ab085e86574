"""Editing as sampling from a known latent.   x, known (B, C, T, F); masks are 1 where sound is made anew."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.schedule import Path, double


def start_level(schedule: Path, strength: float) -> float:
    """Noise level at ``strength`` in [0, 1] of the schedule's time.   Meng et al. 2022 (SDEdit)."""
    return float(schedule.sigma_at(torch.tensor(strength * schedule.length))) if strength else 0.0


def tail(sigmas: Tensor, start: float) -> Tensor:
    """The grid (n + 1,) from ``start`` down: ``start`` itself, then the levels below it; (1,) for start 0."""
    if start >= sigmas[0]:
        return sigmas
    below = sigmas[sigmas < start * (1 - 1e-6)]
    return torch.cat([sigmas.new_full((1,), start), below]) if start > 0 else sigmas[-1:]


def time_mask(regions: Sequence[tuple[float, float]], frames: int, seconds_per_frame: float) -> Tensor:
    """(frames, 1), 1 in every frame that a region (from, to) in seconds touches."""
    mask = torch.zeros(frames, 1)
    for begin, end in regions:
        # a region that ends on a frame's edge, to a millionth of a frame, does not touch the next one
        first, last = floor(begin / seconds_per_frame + 1e-6), ceil(end / seconds_per_frame - 1e-6)
        mask[max(0, first) : max(0, last)] = 1
    return mask


def inpaint(denoise: Denoiser, known: Tensor, mask: Tensor | float) -> Denoiser:
    """A denoiser that knows the answer outside the mask.   Lugmayr et al. 2022 (RePaint) eq. 8, said on x0."""
    return lambda x, sigma: mask * denoise(x, sigma) + (1 - mask) * known


def repaint(
    sample: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigmas: Tensor, *, noise: Noise, rounds: int
) -> Tensor:
    """Take every step of ``sample(x, sigmas)`` so often, noise between.   Lugmayr et al. 2022 (RePaint) Alg. 1."""
    for high, low in pairwise(sigmas):
        step = torch.stack([high, low])
        for _ in range(rounds - 1):
            x = sample(x, step) + (high**2 - low**2).sqrt().to(x) * noise().to(x)
        x = sample(x, step)
    return x


def slerp(a: Tensor, b: Tensor, fraction: float | Tensor) -> Tensor:
    """The point at ``fraction`` (for a path a tensor) of the great arc from a to b, a vector a row.   Shoemake 1985."""
    flat_a, flat_b = double(a).flatten(1), double(b).flatten(1)
    cosine = (flat_a * flat_b).sum(1) / (flat_a.norm(dim=1) * flat_b.norm(dim=1)).clamp(min=1e-12)
    angle = cosine.clamp(-1, 1).arccos().reshape(-1, *[1] * (a.ndim - 1))
    share = double(fraction).to(flat_a.device) if isinstance(fraction, Tensor) else fraction
    sine = angle.sin()
    # parallel vectors are mixed straight
    bent, safe = sine > 1e-4, torch.where(sine > 1e-4, sine, 1)
    of_a = torch.where(bent, ((1 - share) * angle).sin() / safe, 1 - share)
    return (of_a * double(a) + torch.where(bent, (share * angle).sin() / safe, share) * double(b)).to(a)
