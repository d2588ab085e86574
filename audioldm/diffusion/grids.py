"""Which noise levels a sampler visits: (schedule, steps) -> (steps + 1,), float64, falling to 0 (but ``published``)."""

from collections.abc import Callable

import torch
from torch import Tensor

from audioldm.diffusion.schedule import HIGHEST, Path
from audioldm.diffusion.table import Entry
from audioldm.errors import AudioLDMError

ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
"""Noise levels of Sabour et al. 2024 (Align Your Steps) for Stable Diffusion 1.5, ten steps."""


def check_steps(steps: int, most: int | None = None) -> None:
    if steps < 1:
        raise AudioLDMError(f"steps={steps} is not a number of steps.", "Use 1 or more.")
    if most is not None and steps > most:
        raise AudioLDMError(f"steps={steps} is above the schedule's {most} times.", "Use the grid karras.")


def at_times(schedule: Path, t: Tensor) -> Tensor:
    """The grid through whole times ``t``, descending, and 0."""
    sigmas = schedule.sigmas
    return torch.cat([sigmas[t.long()], sigmas.new_zeros(1)])


def on_curve(schedule: Path, steps: int, curve: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The grid along ``curve(u, high, low)``, u even in [0, 1]; an infinite level gets one node before the curve."""
    check_steps(steps)
    sigmas = schedule.sigmas
    ahead = sigmas[-1:] if sigmas[-1] >= HIGHEST else sigmas[:0]
    finite = sigmas[: len(sigmas) - len(ahead)]
    u = torch.linspace(0, 1, steps - len(ahead), dtype=torch.float64)
    return torch.cat([ahead, curve(u, finite[-1], finite[0]), sigmas.new_zeros(1)])


def leading(schedule: Path, steps: int, *, offset: int = 1) -> Tensor:
    """Even times from the clean end, floor(i T / steps) + offset, not the last.   Song 2021, arXiv:2010.02502."""
    length = schedule.length
    check_steps(steps, length)
    # diffusers rounds T / steps down, and leaves out the noisiest times where steps does not divide T
    shift = 0 if steps == length else offset
    return at_times(schedule, (torch.arange(steps) * length // steps + shift).clamp(max=length - 1).flip(0))


def published(schedule: Path, steps: int) -> Tensor:
    """``leading`` down to the lowest trained level, not 0; AudioLDM's own.   Liu et al. 2023, arXiv:2301.12503."""
    # the latent keeps the noise of that level, 4 % of its amplitude
    sigmas = leading(schedule, steps)
    return sigmas if steps == schedule.length else torch.cat([sigmas[:-1], schedule.sigmas[:1]])


def trailing(schedule: Path, steps: int) -> Tensor:
    """Even times from the noisy end, T - 1, T - 1 - T/steps, ...   Lin et al. 2024, arXiv:2305.08891 sec. 3.3."""
    check_steps(steps, schedule.length)
    back = torch.arange(steps, dtype=torch.float64) * (schedule.length / steps)
    return at_times(schedule, (schedule.length - back).round() - 1)


def linspace(schedule: Path, steps: int) -> Tensor:
    """Even times with both ends.   Nichol & Dhariwal 2021, arXiv:2102.09672 sec. 4."""
    check_steps(steps, schedule.length)
    return at_times(schedule, torch.linspace(schedule.length - 1, 0, steps, dtype=torch.float64).round())


def karras(schedule: Path, steps: int, *, rho: float = 7.0) -> Tensor:
    """Even steps of sigma^(1/rho): short ones at low noise.   Karras et al. 2022 (EDM), arXiv:2206.00364 eq. 5."""
    p = 1 / rho
    return on_curve(schedule, steps, lambda u, high, low: torch.lerp(high**p, low**p, u) ** rho)


def exponential(schedule: Path, steps: int) -> Tensor:
    """Even steps of log sigma (so of log SNR) at real times.   Lu et al. 2022 (DPM-Solver), arXiv:2206.00927."""
    return on_curve(schedule, steps, lambda u, high, low: torch.lerp(high.log(), low.log(), u).exp())


def snr(schedule: Path, steps: int) -> Tensor:
    """Even steps of log SNR at whole, different times.   Lu et al. 2022 (DPM-Solver), arXiv:2206.00927."""
    length = schedule.length
    check_steps(steps, length)
    nearest = (schedule.sigmas.log()[None] - exponential(schedule, steps)[:-1, None].log()).abs().argmin(1)
    # where a time would be visited twice, neighbours are taken
    below = torch.arange(steps - 1, -1, -1)
    slack = (nearest - below).clamp(0, length - steps).flip(0).cummax(0).values.flip(0)
    return at_times(schedule, slack + below)


def aligned(schedule: Path, steps: int) -> Tensor:
    """The shape of a table that is optimal for another model, stretched.   Sabour et al. 2024, arXiv:2404.14507."""
    table = torch.tensor(ALIGNED, dtype=torch.float64).log()

    def curve(u: Tensor, high: Tensor, low: Tensor) -> Tensor:
        place = u * (len(u) - 1) / len(u) * (len(table) - 1) if len(u) else u
        below = place.long().clamp(max=len(table) - 2)
        level = torch.lerp(table[below], table[below + 1], place - below)
        return torch.lerp(low.log(), high.log(), (level - table[-1]) / (table[0] - table[-1])).exp()

    return on_curve(schedule, steps, curve)


KINDS = (leading, published, trailing, linspace, karras, exponential, snr, aligned)
GRIDS = {grid.__name__: Entry(grid) for grid in KINDS}
