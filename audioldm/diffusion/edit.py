"""Editing as sampling from a known latent: where to start, what to keep, what to mix.   x, known (B, C, T, F).

Masks are 1 where sound is made anew and 0 where ``known`` stays; they broadcast to x.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.schedule import Path, double


def start_level(schedule: Path, strength: float) -> float:
    """The noise level at ``strength`` of the schedule's time: 0 none, 1 its noisiest.   Meng et al. 2022 (SDEdit).

    Raises ValueError for a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} is not in [0, 1].")
    return float(schedule.sigma_at(torch.tensor(strength * schedule.length))) if strength else 0.0


def tail(sigmas: Tensor, start: float) -> Tensor:
    """The grid (n + 1,) from ``start`` down: ``start`` itself, then the levels below it; (1,) for start 0.

    A start above the grid's first level gives the grid.

    >>> tail(torch.tensor([8.0, 4.0, 2.0, 0.0]), 3.0).tolist()
    [3.0, 2.0, 0.0]
    """
    if start >= sigmas[0]:
        return sigmas
    below = sigmas[sigmas < start * (1 - 1e-6)]
    return torch.cat([sigmas.new_full((1,), start), below]) if start > 0 else sigmas[-1:]


def time_mask(regions: Sequence[tuple[float, float]], frames: int, seconds_per_frame: float) -> Tensor:
    """(frames, 1), 1 in every frame that a region (from, to) in seconds touches.

    >>> time_mask([(0.9, 2.0), (3.5, 9.0)], 5, 1.0).flatten().tolist()
    [1.0, 1.0, 0.0, 1.0, 1.0]
    """
    mask = torch.zeros(frames, 1)
    for begin, end in regions:
        # a region that ends on a frame's edge, to a millionth of a frame, does not touch the next one
        first, last = floor(begin / seconds_per_frame + 1e-6), ceil(end / seconds_per_frame - 1e-6)
        mask[max(0, first) : max(0, last)] = 1
    return mask


def inpaint(denoise: Denoiser, known: Tensor, mask: Tensor) -> Denoiser:
    """A denoiser that knows the answer outside the mask.   Lugmayr et al. 2022 (RePaint) eq. 8, said on x0.

    A mask of all ones is ``denoise``, bit by bit.
    """
    return lambda x, sigma: mask * denoise(x, sigma) + (1 - mask) * known


def repaint(
    sample: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigmas: Tensor, *, noise: Noise, rounds: int
) -> Tensor:
    """Take every step ``rounds`` times, noise put back in between, so that new and kept parts agree.

    ``sample(x, sigmas)`` is a sampler on its denoiser.   Lugmayr et al. 2022 (RePaint) Alg. 1; one round is the plain
    sampler, if that remembers nothing between steps.
    """
    for high, low in pairwise(sigmas):
        step = torch.stack([high, low])
        for _ in range(rounds - 1):
            x = sample(x, step) + (high**2 - low**2).sqrt().to(x) * noise().to(x)
        x = sample(x, step)
    return x


def slerp(a: Tensor, b: Tensor, fraction: float | Tensor) -> Tensor:
    """The point at ``fraction`` of the great arc from a to b, each sample (B, ...) one vector.   Shoemake 1985.

    ``fraction`` may be a tensor that broadcasts to a, for a path in time.   Parallel vectors are mixed straight.

    >>> [round(x, 4) for x in slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)[0].tolist()]
    [0.7071, 0.7071]
    """
    shape = (-1, *[1] * (a.ndim - 1))
    flat_a, flat_b = double(a).flatten(1), double(b).flatten(1)
    cosine = (flat_a * flat_b).sum(1) / (flat_a.norm(dim=1) * flat_b.norm(dim=1)).clamp(min=1e-12)
    angle = cosine.clamp(-1, 1).arccos().reshape(shape)
    share = double(fraction).to(flat_a.device) if isinstance(fraction, Tensor) else fraction
    sine = angle.sin()
    bent = sine > 1e-4
    safe = torch.where(bent, sine, 1)
    of_a = torch.where(bent, ((1 - share) * angle).sin() / safe, 1 - share)
    of_b = torch.where(bent, (share * angle).sin() / safe, share)
    return (of_a * double(a) + of_b * double(b)).to(a)
