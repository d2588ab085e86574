"""From a mel back to a waveform without a network, and a polish for a network's waveform.   Griffin & Lim 1984.

B batch, N samples, T frames, F mel bins, K = n_fft/2+1 frequency bins.
"""

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.signal.mel import filterbank
from audioldm.spec import AudioSpec


def linear_magnitude(mel: Tensor, spec: AudioSpec) -> Tensor:
    """Log-mel (B, 1, T, F) to non-negative magnitudes (B, K, T) with about these bands, by the pseudo-inverse."""
    bank = filterbank(spec).to(mel)
    return (torch.linalg.pinv(bank) @ mel[:, 0].exp().transpose(1, 2)).clamp(min=0)


def griffin_lim(
    mel: Tensor,
    spec: AudioSpec,
    *,
    iterations: int = 32,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A waveform (B, 1, T * hop) whose magnitudes come close to the mel's.   Griffin & Lim 1984 (ASSP 32), eq. 16.

    It begins at the phase of ``start`` (B, 1, T * hop) where there is one, as a polish of a vocoder's output: the
    vocoder's timing stays, the loudness of every band becomes the mel's.   Else at random phases from ``generator``.
    """
    magnitude = linear_magnitude(mel, spec)
    window = torch.hann_window(spec.win, dtype=mel.dtype, device=mel.device)
    samples = mel.shape[-2] * spec.hop

    def spectrum(wave: Tensor) -> Tensor:
        padded = nnf.pad(wave, (spec.pad, spec.pad))
        return torch.stft(
            padded, spec.n_fft, spec.hop, spec.win, window=window, center=False, return_complex=True
        )

    def invert(values: Tensor) -> Tensor:
        frames = torch.fft.irfft(values.transpose(1, 2), n=spec.n_fft) * window
        weight = window.square().expand(1, frames.shape[1], -1)
        size = (1, (frames.shape[1] - 1) * spec.hop + spec.n_fft)

        def overlap(parts: Tensor) -> Tensor:
            return nnf.fold(parts.transpose(1, 2), size, (1, spec.n_fft), stride=(1, spec.hop))[:, 0, 0]

        return (overlap(frames) / overlap(weight).clamp(min=1e-8))[:, spec.pad : spec.pad + samples]

    if start is None:
        turns = torch.rand(magnitude.shape, generator=generator).to(mel)
        values = torch.polar(magnitude, 2 * torch.pi * turns)
    else:
        values = torch.polar(magnitude, spectrum(start[:, 0]).angle())
    for _ in range(iterations):
        values = torch.polar(magnitude, spectrum(invert(values)).angle())
    return invert(values)[:, None]
