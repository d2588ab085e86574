"""OpenL3 (mel256, environmental, 512), the embedder of Stable Audio's FD.   N samples at 48 kHz.

Cramer et al. 2019 (doi:10.1109/ICASSP.2019.8682475); weights by torchopenl3 (Apache-2.0).
"""

import torch
from torch import Tensor
from torch.nn import functional as nnf
from torchaudio.transforms import MelSpectrogram

from audioldm.evaluation.embedders import Network

RATE, N_FFT, HOP = 48000, 2048, 242
STEP = RATE // 2  # samples between the begins of two windows of 1 s: Stable Audio's
PAD = (N_FFT - RATE % HOP) // 2  # zeros at each end of a window, so that it has ceil(48000 / 242) frames
AT_ONCE = 8  # windows at once: one has 13 MB in its first layer
MEL = MelSpectrogram(RATE, N_FFT, hop_length=HOP, n_mels=256, center=False, norm="slaney", mel_scale="htk")


def windows(wave: Tensor) -> Tensor:
    """Windows (P, 48000) of a wave (N,), one every 0.5 s; the first is centred on the begin, zeros fill the last."""
    wave = nnf.pad(wave, (RATE // 2, 0))
    return nnf.pad(wave, (0, max(RATE - len(wave), -(len(wave) - RATE) % STEP))).unfold(0, RATE, STEP)


def log_mel(windows: Tensor) -> Tensor:
    """dB of the magnitude mel (P, 1, 256, 199): HTK bands, each window's loudest at 0 and the floor 80 below it."""
    decibels = 10 * MEL(nnf.pad(windows, (PAD, PAD))).sqrt().clamp(min=1e-10).log10()
    return (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-80.0)[:, None]


class OpenL3(Network):
    """The audio half of L3-Net, one row a window.   Mono: a second channel would be a copy."""

    name, rate, dim, by_patch = "openl3", RATE, 512, True
    front = "openl3/1: mel256, env, 1 s windows every 0.5 s, the first centred on 0"
    url = "https://github.com/torchopenl3/torchopenl3-models/raw/master/torchopenl3_mel256_env_512.pth.tar"
    digest = "git blob a37a08222ebf9d8a88a84beeae76ad909dac0bc6"

    def vectors(self, windows: Tensor) -> Tensor:
        """(P, 48000) to (P, 512): the most over all of frequency and time."""
        x = self.norm(log_mel(windows), "batch_normalization_1")
        for i in range(1, 8):
            x = self.norm(self.conv(x, f"conv2d_{i}"), f"batch_normalization_{i + 1}").relu()
            x = nnf.max_pool2d(x, 2) if i % 2 == 0 else x
        return self.conv(x, "audio_embedding_layer").amax(dim=(2, 3))

    def forward(self, wave: Tensor) -> tuple[Tensor]:
        """(N,) to (P, 512)."""
        return (torch.cat([self.vectors(part) for part in torch.split(windows(wave), AT_ONCE)]),)
