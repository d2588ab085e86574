"""How much noise at which time: alpha_bar, sigma and signal-to-noise, all in float64.

A net sees ``x_t = alpha x0 + sigma eps`` (variance preserving: alpha^2 + sigma^2 = 1), samplers ``x = x_t / alpha``.
Wherever ``sigma`` comes without ``alpha``, it is the ratio of both, the noise level.   T trained times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, pi

import torch
from torch import Tensor

HIGHEST = 2.0**20  # stands for an infinite noise level: what zero terminal SNR ends at (alpha_bar = 2^-40)
WITHOUT_DOUBLES = ("mps",)  # kinds of devices that have no float64: what needs it is computed on the CPU


def double(x: Tensor) -> Tensor:
    """``x`` in float64, where its device has that, else on the CPU."""
    return (x.cpu() if x.device.type in WITHOUT_DOUBLES else x).double()


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A variance-preserving schedule, given by its cumulated alphas (T,), float64, descending.   DDPM sec. 2."""

    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        bar = self.alphas_cumprod
        descends = bar.ndim == 1 and bar.dtype == torch.float64 and bool((bar.diff() < 0).all())
        if not (descends and bar[0] < 1 and bar[-1] >= 0 and bar[-2] > HIGHEST**-2):
            raise ValueError("alphas_cumprod: (T,) float64, falling in [0, 1), its last alone below 2^-40")

    @property
    def length(self) -> int:
        return len(self.alphas_cumprod)

    @lru_cache(16)  # noqa: B019 - a table is small, and its check would wait for the GPU at every call
    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """The same schedule with its table on ``device``: there, levels become times without waiting for the CPU."""
        bar, place = self.alphas_cumprod, torch.device(device)
        return self if place.type in WITHOUT_DOUBLES or place == bar.device else NoiseSchedule(bar.to(place))

    @property
    def betas(self) -> Tensor:
        """(T,) variance added by each forward step: 1 - alpha_bar[t] / alpha_bar[t-1].   DDPM eq. 2."""
        bar = self.alphas_cumprod
        return 1 - bar / torch.cat([bar.new_ones(1), bar[:-1]])

    @property
    def sigmas(self) -> Tensor:
        """(T,) noise levels sqrt((1 - alpha_bar) / alpha_bar), ascending; at most HIGHEST."""
        bar = self.alphas_cumprod
        return ((1 - bar) / bar).sqrt().clamp(max=HIGHEST)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) of ``x_t = alpha x0 + sigma eps``, float64, of t's shape; real t is interpolated."""
        if not t.is_floating_point():
            bar = self.alphas_cumprod.to(t.device)[t]
            return bar.sqrt(), (1 - bar).sqrt()
        sigma = self.sigma_at(t)
        alpha = self.alpha_of(sigma)
        return alpha, sigma * alpha

    def snr(self, t: Tensor) -> Tensor:
        alpha, sigma = self.coefficients(t)
        return (alpha / sigma) ** 2

    def sigma_at(self, t: Tensor) -> Tensor:
        """Noise level at t in [0, T-1], float64; between whole times log sigma is linear in t."""
        logs = self.sigmas.log().to(t.device)
        t = t.double().clamp(0, self.length - 1)
        low = t.floor().long().clamp(max=self.length - 2)
        return torch.lerp(logs[low], logs[low + 1], t - low).exp()

    def t_at(self, sigma: Tensor) -> Tensor:
        """Time in [0, T-1] of a noise level, the inverse of ``sigma_at``; outside levels go to the ends."""
        logs = self.sigmas.log().to(sigma.device)
        log = sigma.double().clamp(min=1e-30).log().clamp(logs[0], logs[-1])
        low = (torch.searchsorted(logs, log.contiguous(), right=True) - 1).clamp(0, self.length - 2)
        t = low + (log - logs[low]) / (logs[low + 1] - logs[low])
        # a net fed from float32 sigmas sees the integers of its training
        return torch.where((t - t.round()).abs() < 1e-3, t.round(), t)

    def alpha_of(self, sigma: Tensor) -> Tensor:
        """Factor 1 / sqrt(1 + sigma^2) that turns ``x`` into ``x_t``."""
        return (1 + sigma**2).rsqrt()


@dataclass(frozen=True)
class FlowPath:
    """The straight path x_t = (1 - u) x0 + u eps, time t = u T in [0, T].   Lipman et al. 2023; Liu et al. 2023."""

    length: int = 1000
    shift: float = 1.0  # of times towards noise.   Esser et al. 2024 (SD3) eq. 23

    @property
    def sigmas(self) -> Tensor:
        """(T,) noise levels at the (shifted) times 1/T .. 1, ascending; the last one is HIGHEST."""
        return self.sigma_at(self.shifted(torch.arange(1, self.length + 1, dtype=torch.float64)))

    def shifted(self, t: Tensor) -> Tensor:
        u = t.double() / self.length
        return self.length * self.shift * u / (1 + (self.shift - 1) * u)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        u = t.double() / self.length
        return 1 - u, u

    def snr(self, t: Tensor) -> Tensor:
        alpha, sigma = self.coefficients(t)
        return (alpha / sigma) ** 2

    def sigma_at(self, t: Tensor) -> Tensor:
        alpha, sigma = self.coefficients(t)
        return (sigma / alpha).clamp(max=HIGHEST)

    def t_at(self, sigma: Tensor) -> Tensor:
        """Time of a noise level: T sigma / (1 + sigma); T itself for HIGHEST and above."""
        sigma = sigma.double()
        return torch.where(sigma >= HIGHEST, self.length, self.length * sigma / (1 + sigma))

    def alpha_of(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)


Path = NoiseSchedule | FlowPath


def from_betas(betas: Tensor) -> NoiseSchedule:
    """The schedule whose forward chain adds variance ``betas`` (T,), each in (0, 1].   DDPM eq. 4."""
    return NoiseSchedule((1 - betas.double()).cumprod(0))


def linear(low: float = 1e-4, high: float = 0.02, *, length: int = 1000) -> NoiseSchedule:
    """Betas from ``low`` to ``high`` in equal steps.   Ho et al. 2020 (DDPM) sec. 4."""
    return from_betas(torch.linspace(low, high, length, dtype=torch.float64))


def scaled_linear(low: float = 0.0015, high: float = 0.0195, *, length: int = 1000) -> NoiseSchedule:
    """Square roots of the betas in equal steps.   Rombach et al. 2022 (latent diffusion), its configurations."""
    return from_betas(torch.linspace(low**0.5, high**0.5, length, dtype=torch.float64) ** 2)


audioldm = scaled_linear
"""The schedule of every released AudioLDM: from 0.0015 to 0.0195 over 1000 times."""


def cosine(offset: float = 0.008, *, length: int = 1000) -> NoiseSchedule:
    """Cumulated alphas as cos^2 of a line, betas cut at 0.999.   Nichol & Dhariwal 2021 eq. 17."""
    bar = [cos((i / length + offset) / (1 + offset) * pi / 2) ** 2 for i in range(length + 1)]
    betas = [min(1 - after / before, 0.999) for before, after in pairwise(bar)]
    return from_betas(torch.tensor(betas).double())


def sigmoid(start: float = -3.0, end: float = 3.0, *, tau: float = 1.0, length: int = 1000) -> NoiseSchedule:
    """Cumulated alphas on a sigmoid at temperature ``tau``, betas cut at 0.999.   Chen 2023 Alg. 1."""
    low, high = (torch.tensor(edge / tau, dtype=torch.float64).sigmoid() for edge in (start, end))
    u = torch.linspace(0, 1, length + 1, dtype=torch.float64)
    bar = (high - ((u * (end - start) + start) / tau).sigmoid()) / (high - low)
    return from_betas((1 - bar[1:] / bar[:-1]).clamp(max=0.999))


def zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """Stretch sqrt(alpha_bar) to make the last time pure noise and keep the first.   Lin et al. 2024 Alg. 1."""
    root = schedule.alphas_cumprod.sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return NoiseSchedule(root**2)


def audioldm_zero_snr() -> NoiseSchedule:
    """AudioLDM's schedule with zero terminal SNR: a sample's mean, and so its loudness, is learned too."""
    return zero_terminal_snr(audioldm())


KINDS = (audioldm_zero_snr, linear, scaled_linear, cosine, sigmoid)
SCHEDULES: dict[str, Callable[[], Path]] = {kind.__name__: kind for kind in KINDS}
SCHEDULES |= {"audioldm": audioldm, "flow": FlowPath}
