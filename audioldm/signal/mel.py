"""Waveform to log-mel.   B batch, N samples, T frames, F mel bins, K = n_fft/2+1 frequency bins."""

import torch
import torchaudio.functional as taf
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.spec import AudioSpec

MEAN, STD = -4.63, 2.74  # of natural-log mels of everyday sound at 16 kHz, 64 bins: AudioLDM's own


def filterbank(spec: AudioSpec) -> Tensor:
    """Slaney-scale, area-normalised triangles, (F, K): the ones of ``librosa.filters.mel``."""
    sizes = (spec.n_fft // 2 + 1, spec.fmin, spec.fmax, spec.mels, spec.rate)
    return taf.melscale_fbanks(*sizes, norm="slaney", mel_scale="slaney").T.contiguous()


def spectrum(wave: Tensor, spec: AudioSpec, window: Tensor | None = None, mode: str = "constant") -> Tensor:
    """Complex spectrum (B, K, N // hop) of (B, N), no centring: as HiFi-GAN is trained on, with ``mode`` "reflect"."""
    window = torch.hann_window(spec.win, dtype=wave.dtype, device=wave.device) if window is None else window
    # only a picture of one row can be mirrored
    padded = nnf.pad(wave[:, None], (spec.pad, spec.pad), mode=mode)[:, 0]
    sizes = (spec.n_fft, spec.hop, spec.win)
    return torch.stft(padded, *sizes, window=window, center=False, return_complex=True)


def log_mel(wave: Tensor, spec: AudioSpec) -> Tensor:
    """Natural log of the magnitude mel, clamped at ``spec.floor``: (B, 1, N) to (B, 1, N // hop, F)."""
    return LogMel(spec).to(wave)(wave)


class LogMel(nn.Module):
    """``log_mel`` with its window and filterbank kept as buffers, for use inside training loops."""

    window: Tensor
    bank: Tensor

    def __init__(self, spec: AudioSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("window", torch.hann_window(spec.win), persistent=False)
        self.register_buffer("bank", filterbank(spec), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, 1, N) to (B, 1, T, F), the ends mirrored; ValueError for ``spec.pad`` samples or fewer."""
        if wave.dim() != 3 or wave.shape[1] != 1:
            raise ValueError(f"wave must be (B, 1, N), got {tuple(wave.shape)}")
        if wave.shape[-1] <= self.spec.pad:
            raise ValueError(f"wave has {wave.shape[-1]} samples; reflecting needs more than {self.spec.pad}")
        magnitude = spectrum(wave[:, 0], self.spec, window=self.window, mode="reflect").abs()[:, None]
        return (self.bank @ magnitude).clamp(min=self.spec.floor).log().transpose(-1, -2)
