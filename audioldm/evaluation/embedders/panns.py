"""PANNs' Cnn14, the embedder of FD and the classifier of KL and IS in AudioLDM's tables.   N samples, T frames.

Kong et al. (arXiv:1912.10211).   The weights are the published files (CC-BY-4.0), for 16 and for 32 kHz.
"""

from functools import cache

from torch import Tensor, nn
from torch.nn import functional as nnf
from torchaudio.transforms import MelSpectrogram

from audioldm.evaluation.embedders.weights import Network, WeightFile

RECORD = "https://zenodo.org/records/3987831/files"
VARIANTS = {
    "panns-cnn14-16k": (16000, 8000.0, "Cnn14_16k_mAP=0.438.pth",
                        "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6"),
    "panns-cnn14-32k": (32000, 14000.0, "Cnn14_mAP=0.431.pth",
                        "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31"),
}  # fmt: skip
"""name -> rate and highest frequency (Hz), file, sha256"""


@cache
def power_mel(rate: int, fmax: float) -> MelSpectrogram:
    """Windows of 32 ms every 10 ms, edges reflected, 64 slaney bands from 50 Hz: (N,) to (64, T)."""
    return MelSpectrogram(
        rate, rate // 1000 * 32, hop_length=rate // 100, f_min=50.0, f_max=fmax, n_mels=64, norm="slaney",
        mel_scale="slaney",
    )  # fmt: skip


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, then an average over ``pool`` x ``pool``."""

    def __init__(self, inside: int, outside: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Halve both axes, or keep them where ``pool`` is 1."""
        x = nnf.relu(self.bn1(self.conv1(x)))
        return nnf.avg_pool2d(nnf.relu(self.bn2(self.conv2(x))), self.pool)


class Panns(Network):
    """The embedder, one vector a clip; ``width`` is the first block's."""

    # the file writes its Fourier transform and its mel bank as layers; ours are torchaudio's
    unused = ("spectrogram_extractor.", "logmel_extractor.")

    def __init__(self, name: str = "panns-cnn14-16k", *, width: int = 64) -> None:
        super().__init__()
        self.rate, self.fmax, file, sha256 = VARIANTS[name]
        self.name, self.dim, self.file = name, 32 * width, WeightFile(file, sha256, f"{RECORD}/{file}")
        self.front = f"cnn14/1: one vector a clip, n_fft {self.rate // 1000 * 32}, hop {self.rate // 100}"
        self.bn0 = nn.BatchNorm2d(64)
        widths = [1, *(width * 2**i for i in range(6))]
        for i in range(6):
            setattr(self, f"conv_block{i + 1}", ConvBlock(widths[i], widths[i + 1], 2 if i < 5 else 1))
        self.fc1, self.fc_audioset = nn.Linear(self.dim, self.dim), nn.Linear(self.dim, 527)

    def log_mel(self, wave: Tensor) -> Tensor:
        """dB of a wave (N,) as (T, 64)."""
        return 10 * power_mel(self.rate, self.fmax)(wave).clamp(min=1e-10).log10().T

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) to an embedding (1, 2048) and logits (1, 527); zeros make a clip below 1 s that long."""
        mel = self.log_mel(nnf.pad(wave, (0, max(0, self.rate - len(wave)))))
        x = self.bn0(mel[None, None].transpose(1, 3)).transpose(1, 3)
        for i in range(6):
            x = getattr(self, f"conv_block{i + 1}")(x)
        x = x.mean(dim=3)
        embedding = nnf.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return embedding, self.fc_audioset(embedding)
