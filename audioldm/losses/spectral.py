"""Distances between sounds and between mels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

QUIET = 0.01
"""RMS, -40 dB: a silent clip would otherwise outweigh all others."""


def _magnitude(wave: Tensor, n_fft: int) -> Tensor:
    window = torch.hann_window(n_fft, dtype=wave.dtype, device=wave.device)
    spectrum = torch.stft(wave[:, 0], n_fft, n_fft // 4, window=window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-10).sqrt()


def multi_resolution_stft(
    output: Tensor, real: Tensor, *, sizes: Sequence[int] = (512, 1024, 2048)
) -> Tensor:
    """Spectral convergence + log-magnitude L1, mean over sizes.   Parallel WaveGAN (arXiv:1910.11480) eq. 3-6.

    Both waves (B, 1, N), N above half of the largest size.   Returns a scalar, 0 for equal waves.   A mean over clips,
    so that parts of a batch average to the whole; one quieter than ``QUIET`` is measured against noise of that level.
    """
    total = output.new_zeros(())
    for size in sizes:
        a, b = _magnitude(output, size), _magnitude(real, size)
        floor = QUIET * (0.375 * size * b[0].numel()) ** 0.5  # a Hann window's mean square is 3/8
        loud = torch.linalg.norm(b, dim=(1, 2)).clamp(min=floor)
        convergence = (torch.linalg.norm(b - a, dim=(1, 2)) / loud).mean()
        total = total + convergence + nnf.l1_loss(a.log(), b.log())
    return total / len(sizes)


def mel_pyramid(output: Tensor, real: Tensor, *, levels: int = 3) -> Tensor:
    """L1 between mels (B, 1, T, F) and between their halved versions: detail first, then envelope.

    The coarse levels keep the energy of a region right where its fine texture cannot be.   The weight of a level is 1.
    """
    total = nnf.l1_loss(output, real)
    for _ in range(levels - 1):
        output, real = nnf.avg_pool2d(output, 2), nnf.avg_pool2d(real, 2)
        total = total + nnf.l1_loss(output, real)
    return total / levels
