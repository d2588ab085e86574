"""Distances between sounds and between mels."""

from functools import lru_cache

import torch
import torchaudio.functional as taf
from torch import Tensor
from torch.nn import functional as nnf

QUIET = 0.01  # RMS, -40 dB: a silent clip would otherwise outweigh all others
SIZES = (512, 1024, 2048)
MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""Window sizes and bands of ``multi_scale_mel``: DAC's."""


def multi_resolution_stft(output: Tensor, real: Tensor) -> Tensor:
    """Spectral convergence + log-magnitude L1, mean over sizes; (B, 1, N), N > 1024.   arXiv:1910.11480 eq. 3-6."""

    def magnitude(wave: Tensor, size: int) -> Tensor:
        window = torch.hann_window(size, dtype=wave.dtype, device=wave.device)
        spectrum = torch.stft(wave[:, 0], size, size // 4, window=window, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-10).sqrt()

    total = output.new_zeros(())
    for size in SIZES:
        a, b = magnitude(output, size), magnitude(real, size)
        floor = QUIET * (0.375 * size * b[0].numel()) ** 0.5  # a Hann window's mean square is 3/8
        loud = torch.linalg.norm(b, dim=(1, 2)).clamp(min=floor)
        convergence = (torch.linalg.norm(b - a, dim=(1, 2)) / loud).mean()
        total = total + convergence + nnf.l1_loss(a.log(), b.log())
    return total / len(SIZES)


def mel_pyramid(output: Tensor, real: Tensor, *, levels: int = 3) -> Tensor:
    """L1 between mels (B, 1, T, F), and between their halved versions, where the fine texture cannot be right."""
    total = nnf.l1_loss(output, real)
    for _ in range(levels - 1):
        output, real = nnf.avg_pool2d(output, 2), nnf.avg_pool2d(real, 2)
        total = total + nnf.l1_loss(output, real)
    return total / levels


@lru_cache(maxsize=32)
def _scale(size: int, bands: int, rate: int, device: torch.device) -> tuple[Tensor, Tensor]:
    bank = taf.melscale_fbanks(size // 2 + 1, 0.0, rate / 2, bands, rate, norm="slaney", mel_scale="slaney")
    return torch.hann_window(size).to(device), bank.to(device)


def multi_scale_mel(output: Tensor, real: Tensor, rate: int) -> Tensor:
    """Sum over windows of the L1 of log10 mels; (B, 1, N) float32, N > 1024.   DAC (arXiv:2306.06546) sec. 3.4."""
    waves, total = torch.cat([output, real])[:, 0], output.new_zeros(())
    for size, count in MEL_SCALES:
        window, bank = _scale(size, count, rate, output.device)
        spectra = torch.stft(waves, size, size // 4, window=window, return_complex=True)
        power = spectra.real.square() + spectra.imag.square()
        mels = power.clamp(min=1e-12).sqrt().transpose(1, 2) @ bank
        a, b = mels.clamp(min=1e-5).log10().chunk(2)
        total = total + nnf.l1_loss(a, b)
    return total
