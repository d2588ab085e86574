"""OpenL3: trained on pictures with their sound, the embedder of Stable Audio's FD.   N samples at 48 kHz.

Cramer et al. 2019 (doi:10.1109/ICASSP.2019.8682475): mel256, environmental sounds, 512 channels.   The weights are
torchopenl3's conversion (Apache-2.0) of the published ones.
"""

from pathlib import Path

import torch
import torchaudio.functional as taf
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.evaluation.embedders.weights import Network, WeightFile

FILE = WeightFile(
    "torchopenl3_mel256_env_512.pth.tar",
    "",
    "https://github.com/torchopenl3/torchopenl3-models/raw/master/torchopenl3_mel256_env_512.pth.tar",
    blob="a37a08222ebf9d8a88a84beeae76ad909dac0bc6",
)
RATE, N_FFT, HOP, MELS = 48000, 2048, 242, 256
STEP = RATE // 2
"""samples between the begins of two windows of 1 s: Stable Audio's"""
PAD = (N_FFT - RATE % HOP) // 2
"""zeros at each end of a window, so that it has ceil(48000 / 242) frames"""
RANGE = 80.0
"""dB below a window's loudest band, where it is cut"""
AT_ONCE = 8
"""windows at once: one has 13 MB in its first layer"""
WIDTHS = (64, 64, 128, 128, 256, 256, 512)
POOLED = (2, 4, 6)
"""convolutions after which both axes are halved"""


def windows(wave: Tensor) -> Tensor:
    """Windows (P, 48000) of a wave (N,), one every 0.5 s; the first is centred on the begin, zeros fill the last.

    >>> windows(torch.zeros(480000)).shape
    torch.Size([20, 48000])
    """
    wave = nnf.pad(wave, (RATE // 2, 0))
    return nnf.pad(wave, (0, max(RATE - len(wave), -(len(wave) - RATE) % STEP))).unfold(0, RATE, STEP)


class LogMel(nn.Module):
    """dB of the magnitude mel, 256 HTK bands, each window's loudest at 0; the matrix is replaced by the file's."""

    mel_basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        bank = taf.melscale_fbanks(N_FFT // 2 + 1, 0.0, RATE / 2, MELS, RATE, norm="slaney", mel_scale="htk")
        self.register_buffer("mel_basis", bank.T)

    def forward(self, windows: Tensor) -> Tensor:
        """(P, 48000) to (P, 1, 256, 199)."""
        spectrum = torch.stft(
            nnf.pad(windows, (PAD, PAD)), N_FFT, HOP, window=torch.hann_window(N_FFT, device=windows.device),
            center=False, return_complex=True,
        )  # fmt: skip
        magnitude = (self.mel_basis @ spectrum.abs().square()).sqrt()
        decibels = 10 * magnitude.clamp(min=1e-10).log10()
        return (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-RANGE)[:, None]


class Net(nn.Module):
    """The audio half of L3-Net under its published names."""

    def __init__(self) -> None:
        super().__init__()
        self.speclayer = LogMel()
        self.batch_normalization_1 = nn.BatchNorm2d(1, eps=1e-3)
        inside = 1
        for i, width in enumerate(WIDTHS, 1):
            setattr(self, f"conv2d_{i}", nn.Conv2d(inside, width, 3, padding=1))
            setattr(self, f"batch_normalization_{i + 1}", nn.BatchNorm2d(width, eps=1e-3))
            inside = width
        self.audio_embedding_layer = nn.Conv2d(512, 512, 3, padding=1)

    def forward(self, windows: Tensor) -> Tensor:
        """(P, 48000) to (P, 512): the most over all of frequency and time."""
        x = self.batch_normalization_1(self.speclayer(windows))
        for i in range(1, len(WIDTHS) + 1):
            x = nnf.relu(getattr(self, f"batch_normalization_{i + 1}")(getattr(self, f"conv2d_{i}")(x)))
            x = nnf.max_pool2d(x, 2) if i in POOLED else x
        x = self.audio_embedding_layer(x)
        return x.amax(dim=(2, 3))


class OpenL3(Network):
    """The embedder.   Mono: a second channel would be a copy."""

    name, rate, dim, by_patch = "openl3", RATE, 512, True
    front = "openl3/1: mel256, env, 1 s windows every 0.5 s, the first centred on 0"
    # the file writes its Fourier transform as two convolutions; ours is torch's
    unused = ("speclayer.dft_",)

    def __init__(self, path: str | Path | None = None, *, file: WeightFile = FILE) -> None:
        super().__init__(Net(), file, path)

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        """One row a window."""
        return (torch.cat([self.net(part) for part in torch.split(windows(wave), AT_ONCE)]),)
