"""PANNs' Cnn14, the embedder of FD and the classifier of KL and IS in AudioLDM's tables.   N samples, T frames, F bins.

Kong et al. (arXiv:1912.10211).   The weights are the published files (CC-BY-4.0), for 16 and for 32 kHz.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torchaudio.functional as taf
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.evaluation.embedders.weights import Network, WeightFile

RECORD = "https://zenodo.org/records/3987831/files"
CLASSES = 527


@dataclass(frozen=True)
class Variant:
    """One of the published networks: 32 ms windows every 10 ms."""

    name: str
    rate: int
    fmax: float
    file: WeightFile

    @property
    def hop(self) -> int:
        """Samples between two windows."""
        return self.rate // 100

    @property
    def n_fft(self) -> int:
        """Samples of a window."""
        return self.rate // 1000 * 32


def published(name: str, sha256: str) -> WeightFile:
    """A file of the authors' record."""
    return WeightFile(name, sha256, f"{RECORD}/{name}")


VARIANTS = {
    each.name: each
    for each in (
        Variant("panns-cnn14-16k", 16000, 8000.0, published("Cnn14_16k_mAP=0.438.pth",
                "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6")),
        Variant("panns-cnn14-32k", 32000, 14000.0, published("Cnn14_mAP=0.431.pth",
                "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31")),
    )
}  # fmt: skip


class LogMel(nn.Module):
    """10 log10 of the power mel, 64 slaney bands from 50 Hz; the matrix is replaced by the file's."""

    melW: Tensor  # noqa: N815 - the file's name

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        bank = taf.melscale_fbanks(
            variant.n_fft // 2 + 1, 50.0, variant.fmax, 64, variant.rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("melW", bank)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, N) to (B, 1, T, 64), frames centred on multiples of the hop, edges reflected."""
        n_fft = self.variant.n_fft
        window = torch.hann_window(n_fft, device=wave.device)
        spectrum = torch.stft(
            wave, n_fft, self.variant.hop, window=window, center=True, pad_mode="reflect", return_complex=True
        )
        power = spectrum.abs().square().transpose(1, 2) @ self.melW
        return 10 * power.clamp(min=1e-10).log10()[:, None]


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
        x = nnf.relu(self.bn2(self.conv2(x)))
        return nnf.avg_pool2d(x, self.pool)


class Net(nn.Module):
    """Cnn14 under its published names; ``width`` is the first block's."""

    def __init__(self, variant: Variant, *, width: int = 64) -> None:
        super().__init__()
        self.logmel_extractor = LogMel(variant)
        self.bn0 = nn.BatchNorm2d(64)
        inside = 1
        for i in range(6):
            outside = width * 2**i
            setattr(self, f"conv_block{i + 1}", ConvBlock(inside, outside, 2 if i < 5 else 1))
            inside = outside
        self.fc1 = nn.Linear(inside, inside)
        self.fc_audioset = nn.Linear(inside, CLASSES)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) to embeddings (B, 2048) and logits (B, 527)."""
        x = self.bn0(self.logmel_extractor(wave).transpose(1, 3)).transpose(1, 3)
        for i in range(6):
            x = getattr(self, f"conv_block{i + 1}")(x)
        x = x.mean(dim=3)
        embedding = nnf.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return embedding, self.fc_audioset(embedding)


class Panns(Network):
    """The embedder, one vector a clip."""

    # the file writes its Fourier transform as two convolutions; ours is torch's
    unused = ("spectrogram_extractor.",)

    def __init__(
        self,
        name: str = "panns-cnn14-16k",
        path: str | Path | None = None,
        *,
        width: int = 64,
        file: WeightFile | None = None,
    ) -> None:
        variant = VARIANTS[name]
        self.name, self.rate, self.dim = name, variant.rate, 32 * width
        self.front = f"cnn14/1: one vector a clip, n_fft {variant.n_fft}, hop {variant.hop}"
        super().__init__(Net(variant, width=width), file or variant.file, path)

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        """Embedding and logits; zeros make a clip below 1 s that long."""
        return tuple(self.net(nnf.pad(wave, (0, max(0, self.rate - len(wave))))[None]))
