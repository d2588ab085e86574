"""Sounds whose captions are true by construction: the data that tests and tiny recipes use.   N samples."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from audioldm.datasets.audio_text import Item
from audioldm.datasets.draws import draw, generator
from audioldm.spec import AudioSpec

LOW = (110.0, 330.0)
HIGH = (1500.0, 4000.0)  # Hz; a low tone and a high tone are at least two octaves apart


def between(low: float, high: float, rng: Generator) -> float:
    """A frequency between ``low`` and ``high`` Hz, uniform in octaves."""
    return low * float((high / low) ** float(torch.rand((), generator=rng)))


def tone(time: Tensor, band: tuple[float, float], rng: Generator) -> Tensor:
    """A sine of one frequency in ``band`` with a random phase."""
    return torch.sin(2 * pi * (between(*band, rng) * time + float(torch.rand((), generator=rng))))


def chirp(time: Tensor, begin: float, end: float) -> Tensor:
    """A glide from ``begin`` to ``end`` Hz, even in octaves: phase = begin T / ln r (r^(t/T) - 1), r = end / begin."""
    whole = float(time[-1]) + float(time[1] - time[0]) if len(time) > 1 else 1.0
    ratio = torch.tensor(end / begin, dtype=torch.float64)
    phase: Tensor = begin * whole / ratio.log() * (ratio ** (time / whole) - 1)
    return torch.sin(2 * pi * phase)


def white(time: Tensor, rng: Generator) -> Tensor:
    """Gaussian noise, peak 1."""
    noise = torch.randn(len(time), generator=rng, dtype=torch.float64)
    return noise / noise.abs().max()


def rumble(time: Tensor, rng: Generator) -> Tensor:
    """Noise with nothing above 200 Hz, peak 1."""
    step = float(time[1] - time[0]) if len(time) > 1 else 1.0
    spectrum = torch.fft.rfft(torch.randn(len(time), generator=rng, dtype=torch.float64))
    spectrum[torch.fft.rfftfreq(len(time), step) > 200.0] = 0
    noise: Tensor = torch.fft.irfft(spectrum, n=len(time))
    return noise / noise.abs().max()


def clicks(time: Tensor, rng: Generator) -> Tensor:
    """5 ms decaying clicks, 2 to 8 a second."""
    since = torch.remainder(time + 1e-9, 1 / between(2.0, 8.0, rng))
    return torch.exp(-since / 0.001) * torch.cos(2 * pi * 2000.0 * since)


SOUNDS: dict[str, tuple[Callable[[Tensor, Generator], Tensor], tuple[str, ...]]] = {
    "low tone": (lambda time, rng: tone(time, LOW, rng), ("a low tone", "a steady low tone")),
    "high tone": (lambda time, rng: tone(time, HIGH, rng), ("a high tone", "a steady high tone")),
    "rising chirp": (
        lambda time, rng: chirp(time, between(*LOW, rng), between(*HIGH, rng)),
        ("a rising chirp", "a tone gliding upwards"),
    ),
    "falling chirp": (
        lambda time, rng: chirp(time, between(*HIGH, rng), between(*LOW, rng)),
        ("a falling chirp", "a tone gliding downwards"),
    ),
    "white noise": (white, ("white noise", "steady hissing noise")),
    "low rumble": (rumble, ("a low rumble", "low rumbling noise")),
    "clicks": (clicks, ("repeated clicks", "a series of short clicks")),
}
"""kind -> (function of time in seconds (N,) and a generator, its captions)"""


@dataclass(frozen=True)
class Synthetic(Dataset[Item]):
    """``size`` sounds of ``seconds``, kinds in turn, as AudioText gives them; item ``i`` depends on (seed, i) only."""

    spec: AudioSpec
    seconds: float
    size: int
    seed: int = 0

    def kind(self, index: int) -> str:
        return list(SOUNDS)[index % len(SOUNDS)]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        """Item ``index``; a draw number beside it changes nothing."""
        index = index[0] if isinstance(index, tuple) else index
        if not 0 <= index < self.size:
            raise IndexError(index)
        make, captions = SOUNDS[self.kind(index)]
        rng = generator(self.seed, 0, index)
        time = torch.arange(self.spec.samples(self.seconds), dtype=torch.float64) / self.spec.rate
        gain = 0.2 + 0.6 * float(torch.rand((), generator=rng))
        wave = (gain * make(time, rng)).float()
        return wave[None], captions[draw(len(captions), rng)], f"{self.kind(index)}/{index}"


def captions() -> list[str]:
    return [caption for _, texts in SOUNDS.values() for caption in texts]
