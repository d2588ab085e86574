"""How near two waveforms are in their spectra and their loudness over time.   waves (N,), real numbers."""

import torch
from torch import Tensor
from torch.nn import functional as nnf

SILENT = 1e-10
"""Power that stands for silence in logarithms: -100 dB of a full-scale bin."""


def power_spectrum(wave: Tensor, size: int, hop: int) -> Tensor:
    """|STFT|^2 with a Hann window, (T, size / 2 + 1), float64; a sinusoid of amplitude 1 has power 1 at its bin."""
    window = torch.hann_window(size, dtype=torch.float64)
    padded = nnf.pad(wave.double(), (0, max(0, size - wave.shape[-1])))
    frames = padded.unfold(0, size, hop) * (window * 2 / window.sum())
    power: Tensor = torch.fft.rfft(frames).abs().square()
    return power


def check_lengths(first: Tensor, second: Tensor) -> None:
    """ValueError unless both waves have the same number of samples, one or more."""
    if first.shape != second.shape or not first.numel():
        raise ValueError(
            f"one wave has {first.shape[-1]} samples, the other {second.shape[-1]}; give equal lengths."
        )


def log_spectral_distance(
    truth: Tensor,
    other: Tensor,
    *,
    rate: int,
    low: float = 0.0,
    high: float | None = None,
    size: int = 2048,
    hop: int = 512,
) -> float:
    """Mean over frames of the root mean square over bins of log10(power ratio): LSD, the lower the better.

    The measure of AudioLDM's super-resolution (arXiv:2301.12503).   ``low`` and ``high`` (Hz) choose the bins; frames
    where ``truth`` is silent do not count.   Raises ValueError for other lengths.

    >>> noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    >>> round(log_spectral_distance(noise, 0.1 * noise, rate=16000), 2)
    2.0
    """
    check_lengths(truth, other)
    wanted, other_power = (power_spectrum(wave, size, hop) for wave in (truth, other))
    hertz = torch.arange(wanted.shape[1]) * rate / size
    bins = (hertz >= low) & (hertz <= (rate / 2 if high is None else high))
    sounding = wanted.sum(1) > SILENT * wanted.shape[1]
    if not bool(sounding.any()):
        return float("nan")
    ratio = (
        wanted[sounding][:, bins].clamp(min=SILENT).log10()
        - other_power[sounding][:, bins].clamp(min=SILENT).log10()
    )
    return float(ratio.square().mean(1).sqrt().mean())


def envelope(wave: Tensor, *, rate: int, step: float = 0.02) -> Tensor:
    """Root mean square of every ``step`` seconds, in dB no lower than 60 below the loudest."""
    size = round(rate * step)
    padded = nnf.pad(wave.double(), (0, -wave.shape[-1] % size))
    power = padded.reshape(-1, size).square().mean(1)
    return 10 * power.clamp(min=max(float(power.max()) * 1e-6, 1e-20)).log10()


def envelope_correlation(a: Tensor, b: Tensor, *, rate: int) -> float:
    """Pearson correlation of two sounds' loudness over time; nan where one of them never changes.

    >>> noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    >>> fade = torch.linspace(1, 0, 16000)
    >>> round(envelope_correlation(noise * fade, 0.1 * noise * fade, rate=16000), 3)
    1.0
    """
    check_lengths(a, b)
    first, second = envelope(a, rate=rate), envelope(b, rate=rate)
    if float(first.std()) < 1e-6 or float(second.std()) < 1e-6:
        return float("nan")
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def signal_to_distortion(truth: Tensor, other: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB.   Le Roux et al. 2019 (arXiv:1811.02508) eq. 3."""
    check_lengths(truth, other)
    truth, other = truth.double(), other.double()
    target = (other @ truth) / (truth @ truth).clamp(min=1e-20) * truth
    return float(10 * (target.square().sum() / (other - target).square().sum().clamp(min=1e-20)).log10())
