"""Joining two waveforms: in time by cross-fades, in frequency by a crossover, and by gains per band.   N samples."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.signal.invert import inverse
from audioldm.signal.mel import filterbank, spectrum
from audioldm.spec import AudioSpec

TAPS = 511  # of the crossover: with Kaiser's beta 10 it falls by 100 dB within 0.026 of half the rate
BLOCK, CONTEXT = 2000, 32  # STFT frames held at once, and beside them


def splice(
    base: Tensor, edited: Tensor, regions: Sequence[tuple[int, int]], *, fade: int, power: bool = True
) -> Tensor:
    """``edited`` in the regions, ``base`` elsewhere, cross-faded over ``fade`` samples by power or amplitude."""
    place, curve = torch.arange(base.shape[-1]), torch.zeros(base.shape[-1])
    for begin, end in regions:
        if end > begin:  # 1 inside, a straight line over ``fade`` samples outside
            away = torch.maximum(begin - place, place - (end - 1)).clamp(min=0)
            curve = torch.maximum(curve, (1 - away / (fade + 1)).clamp(min=0))
    curve = curve.to(base)
    up, down = ((curve * torch.pi / 2).sin(), (curve * torch.pi / 2).cos()) if power else (curve, 1 - curve)
    return torch.where(curve == 0, base, torch.where(curve == 1, edited, down * base + up * edited))


def lowpass(wave: Tensor, cutoff: float, rate: int) -> Tensor:
    """``wave`` (N,) below ``cutoff`` Hz, by a linear-phase filter of TAPS taps whose delay is taken out."""
    place = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
    window = torch.kaiser_window(TAPS, periodic=False, beta=10.0, dtype=torch.float64)
    kernel = torch.sinc(2 * cutoff / rate * place) * window
    kernel = (kernel / kernel.sum()).to(wave)
    return nnf.conv1d(wave[None, None], kernel[None, None], padding=TAPS // 2)[0, 0]


def crossover(low: Tensor, high: Tensor, cutoff: float, rate: int) -> Tensor:
    """``low`` (N,) below ``cutoff`` Hz and ``high`` (N,) above; twice the same wave is that wave."""
    return high + lowpass(low - high, cutoff, rate)


def bandwidth(wave: Tensor, rate: int) -> float:
    """The frequency in Hz above which the mean spectrum of (N,) stays 60 dB under its peak."""
    size, power = 1024, torch.zeros(513, dtype=torch.float64)
    window = torch.hann_window(size, dtype=torch.float64)
    for block in wave.split(size * 1000):
        frames = nnf.pad(block, (0, max(0, size - len(block)))).double().unfold(0, size, size // 2)
        power += torch.fft.rfft(frames * window).abs().square().sum(0)
    loud = (power > power.max() * 1e-6).nonzero().flatten()
    return float(loud.max() + 1) * rate / size if len(loud) else 0.0


def attenuate(wave: Tensor, quieter: Tensor, mel: Tensor, spec: AudioSpec) -> Tensor:
    """``wave`` (N,) turned down, band by band, where the log-mel ``quieter`` is below ``mel``; both (1, 1, T, F)."""
    bank = filterbank(spec).to(wave)
    reach = bank.sum(0)  # the lowest and the highest bin belong to no band, and stay
    share = torch.where(reach > 0, bank / reach.clamp(min=1e-12), 0)
    # a bin's gain is the mean of its bands' gains; phases stay
    gain = (quieter - mel).exp().clamp(max=1.0)[0, 0] @ share + (reach == 0).to(wave)
    padded, hop, pieces = nnf.pad(wave, (0, len(gain) * spec.hop - len(wave))), spec.hop, list[Tensor]()
    for first in range(0, len(gain), BLOCK):
        begin, end = max(0, first - CONTEXT), min(len(gain), first + BLOCK + CONTEXT)
        values = spectrum(padded[None, begin * hop : end * hop], spec) * gain[begin:end].T
        pieces.append(inverse(values, spec, (end - begin) * hop)[0][(first - begin) * hop :][: BLOCK * hop])
    return torch.cat(pieces)[: len(wave)]
