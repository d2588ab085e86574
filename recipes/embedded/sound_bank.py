"""Sounds in the card's memory, and crops of them drawn there, so that no training step waits for a file.

B batch, N samples, C clips.
"""

from math import log, log10, pi

import torch
from torch import Tensor

PEAK = 0.5
"""Largest sample of a whole clip at gain 0, as in AudioLDM's training."""
TAPS = 16


class SoundBank:
    """Clips of one rate as 16-bit samples in one tensor; clips may be added while crops are drawn.

    Every draw is of fixed shape and reads nothing back, so that it can be recorded as a CUDA graph.
    """

    def __init__(self, samples: int, clips: int, device: torch.device | str) -> None:
        self.sound = torch.zeros(samples, dtype=torch.int16, device=device)
        self.begin = torch.zeros(clips, dtype=torch.long, device=device)
        self.length = torch.ones(clips, dtype=torch.long, device=device)
        self.scale = torch.zeros(clips, device=device)
        self.mean = torch.zeros(clips, device=device)
        self.chance = torch.zeros(clips, dtype=torch.float64, device=device)
        self.filled, self.count = 0, 0
        self.weights: list[float] = []
        self.device = torch.device(device)

    def add(self, clips: list[Tensor], weights: list[float]) -> None:
        """Add int16 waves (N,); each is drawn in proportion to its weight."""
        if not clips:
            return
        lengths = torch.tensor([len(clip) for clip in clips])
        begins = self.filled + lengths.cumsum(0) - lengths
        whole = torch.cat(clips)
        means = torch.stack([clip.float().mean() for clip in clips])
        peaks = torch.stack(
            [(clip.float() - mean).abs().max() for clip, mean in zip(clips, means, strict=True)]
        )
        place = slice(self.count, self.count + len(clips))
        self.sound[self.filled : self.filled + len(whole)] = whole.to(self.device)
        self.begin[place], self.length[place] = begins.to(self.device), lengths.to(self.device)
        self.mean[place] = means.to(self.device)
        self.scale[place] = (PEAK / peaks.clamp(min=32)).to(self.device)
        self.filled, self.count = self.filled + len(whole), self.count + len(clips)
        self.weights += weights
        shares = torch.tensor(self.weights, dtype=torch.float64).cumsum(0)
        self.chance.fill_(2.0)
        self.chance[: self.count] = (shares / shares[-1]).to(self.device)

    def crops(self, rows: int, samples: int, *, speeds: bool) -> Tensor:
        """(B, N) crops at their clips' own levels; what lies outside of a clip is silence.

        A crop begins up to a quarter before its clip and ends up to a quarter behind it; one in seven begins with it.
        With ``speeds`` three of ten are played at 0.75 to 1.33 times the speed.
        """
        device = self.device
        choice = torch.searchsorted(self.chance, torch.rand(rows, dtype=torch.float64, device=device))
        choice = choice.clamp(max=len(self.begin) - 1)
        length = self.length[choice].double()
        speed = torch.ones(rows, dtype=torch.float64, device=device)
        if speeds:
            other = ((torch.rand(rows, dtype=torch.float64, device=device) - 0.5) * 2 * log(4 / 3)).exp()
            speed = torch.where(torch.rand(rows, device=device) < 0.3, other, speed)
        span = samples * speed
        low, high = -0.25 * span, (length - 0.75 * span).clamp(min=0)
        start = low + torch.rand(rows, dtype=torch.float64, device=device) * (high - low)
        start = torch.where(torch.rand(rows, device=device) < 0.15, 0.0, start).round()
        place = start[:, None] + speed[:, None] * torch.arange(samples, device=device, dtype=torch.float64)
        wave = self.sinc(choice, place, speed) if speeds else self.read(choice, place.long())
        return wave * self.scale[choice][:, None]

    def read(self, choice: Tensor, index: Tensor) -> Tensor:
        """Samples ``index`` (B, ...) of clips, without the clips' means; 0 outside."""
        shape = (-1, *[1] * (index.dim() - 1))
        length, begin, mean = (table[choice].view(shape) for table in (self.length, self.begin, self.mean))
        inside = (index >= 0) & (index < length)
        value = self.sound[begin + torch.minimum(index.clamp(min=0), length - 1)].float() - mean
        return value * inside

    def sinc(self, choice: Tensor, place: Tensor, speed: Tensor) -> Tensor:
        """Clips at ``place`` (B, N) between samples, by a windowed sinc up to the lower of both Nyquist rates."""
        whole = place.floor()
        part = (place - whole).float()
        total = torch.zeros_like(part)
        cut = (1 / speed).clamp(max=1.0).float()[:, None]
        for tap in range(1 - TAPS // 2, TAPS // 2 + 1):
            away = part - tap
            weight = cut * torch.sinc(cut * away) * (0.5 + 0.5 * (away * (2 * pi / TAPS)).cos())
            weight = torch.where(speed[:, None] == 1, float(tap == 0), weight)
            total = total + weight * self.read(choice, whole.long() + tap)
        return total


def mixed(wave: Tensor, chance: float = 0.25) -> Tensor:
    """Rows (B, N), some with the next row added up to 20 dB softer."""
    rows = len(wave)
    level = 10 ** (-torch.rand(rows, 1, device=wave.device))
    return wave + wave.roll(1, 0) * level * (torch.rand(rows, 1, device=wave.device) < chance)


def gained(wave: Tensor, *, quiet: float = 0.5, silent: float = 0.02) -> Tensor:
    """Rows (B, N) 5 dB louder to 8 dB softer, a share ``quiet`` down to 40 dB softer, and some silent."""
    rows = len(wave)
    draw = torch.rand(rows, 1, device=wave.device)
    decibels = torch.where(torch.rand_like(draw) < quiet, -40 * draw, 5 - 13 * draw)
    return wave * 10 ** (decibels / 20) * (torch.rand_like(draw) >= silent)


def notes(rows: int, samples: int, rate: int, device: torch.device | str) -> Tensor:
    """(B, N) decaying notes with harmonics or bell-like partials, a little vibrato, and an onset somewhere."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(rows, *shape, device=device)

    time = torch.arange(samples, device=device) / rate - uniform(-0.3, 0.5, 1)
    pitch = 10 ** uniform(log10(60), log10(2500), 1)
    number = torch.arange(1, 13, device=device).float()
    stretched = torch.where(torch.rand(rows, 1, device=device) < 0.4, number ** uniform(1.0, 1.6, 1), number)
    hertz = (pitch * stretched)[..., None]
    strength = number ** -uniform(0.3, 2.5, 1) * uniform(0.1, 1.0, 12)
    strength = (strength[..., None] * (hertz < rate / 2 - 200)).float()
    decay = (
        (uniform(0.3, 8.0, 1, 1) * (hertz / pitch[..., None]).sqrt() * time[:, None].clamp(min=0)).neg().exp()
    )
    bend = uniform(0, 0.004, 1, 1) * (2 * pi * uniform(3, 7, 1, 1) * time[:, None]).sin()
    turns = hertz * (time[:, None] + bend / 30) + uniform(0, 1, 12, 1)
    wave = (strength * decay * (2 * pi * turns).sin()).sum(1) * (time >= 0)
    return wave * (PEAK / wave.abs().amax(1, keepdim=True).clamp(min=1e-3))
