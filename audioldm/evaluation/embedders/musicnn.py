"""musicnn: 50 tags of music and what leads to them.   N samples at 16 kHz, T frames of 16 ms, P patches of 3 s.

Pons and Serra (arXiv:1909.06654).   The weights come inside the package ``musicnn`` (ISC), as TensorFlow 1 wrote them;
TensorFlow is not needed: the network is written here.
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torchaudio.transforms import MelSpectrogram

from audioldm.evaluation.embedders.weights import Network, WeightFile, package_folder

RATE, HOP, FRAMES = 16000, 256, 187
MEL = MelSpectrogram(
    RATE, 512, hop_length=HOP, n_mels=96, pad_mode="constant", norm="slaney", mel_scale="slaney"
)
INSTALL = (
    "pip install --no-deps musicnn==0.1.0 (it asks for TensorFlow, which is not needed), or name its folder: "
    "--embedder musicnn=FOLDER."
)
MODELS = {
    "musicnn": ("MTT_musicnn", "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab"),
    "musicnn-msd": ("MSD_musicnn", "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6"),
}
"""by the songs they were trained on: MagnaTagATune, or the Million Song Dataset"""


def patches(wave: Tensor) -> Tensor:
    """Log-mel patches (P, 187, 96) of a wave (N,), zeros up to one patch; the rest of a last patch is left out.

    log10(1 + 10000 mel) of the power mel (slaney), rounded to float16 before the logarithm, as it was in training.
    """
    wave = nnf.pad(wave, (0, max(0, (FRAMES - 1) * HOP - len(wave))))
    return (1 + 10000 * MEL(wave).T.half().float()).log10().unfold(0, FRAMES, FRAMES).transpose(1, 2)


class Musicnn(Network):
    """Filters that are high (timbre) or long (time), then what joins them; rows are the penultimate layer."""

    rate, dim = RATE, 200
    front = "musicnn/1: 3 s patches, no overlap, penultimate layer"

    def __init__(self, name: str = "musicnn") -> None:
        super().__init__()
        model, sha256 = MODELS[name]
        self.name, self.file = (
            name,
            WeightFile(f"{model}/.data-00000-of-00001", sha256, "the package musicnn==0.1.0"),
        )
        front = [(1, 204, (7, 38)), (1, 204, (7, 67)), (1, 51, (128, 1)), (1, 51, (64, 1)), (1, 51, (32, 1))]
        middle = [(1, 64, (7, 561)), (1, 64, (7, 64)), (1, 64, (7, 64))]
        self.batch_normalization = nn.BatchNorm2d(1, eps=1e-3)
        for i, (inside, outside, size) in enumerate(front + middle):
            setattr(self, f"conv2d_{i}" if i else "conv2d", nn.Conv2d(inside, outside, size))
            setattr(self, f"batch_normalization_{i + 1}", nn.BatchNorm2d(outside, eps=1e-3))
        self.batch_normalization_9 = nn.BatchNorm1d(1506, eps=1e-3)
        self.dense = nn.Linear(1506, 200)
        self.batch_normalization_10 = nn.BatchNorm1d(200, eps=1e-3)
        self.dense_1 = nn.Linear(200, 50)

    def layer(self, i: int, x: Tensor) -> Tensor:
        """Convolution i over zeros that keep the frames, ReLU, batch norm, the most over frequency: (B, C, T)."""
        conv: nn.Conv2d = getattr(self, f"conv2d_{i}" if i else "conv2d")
        extra = conv.kernel_size[0] - 1
        x = nnf.pad(x, (0, 0, extra // 2, extra - extra // 2))
        return getattr(self, f"batch_normalization_{i + 1}")(nnf.relu(conv(x))).amax(dim=3)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) to the penultimate layer (P, 200) and logits (P, 50)."""
        x = self.batch_normalization(patches(wave)[:, None])
        layers = [torch.cat([self.layer(i, x) for i in range(5)], dim=1)]
        for i in (5, 6, 7):
            output = self.layer(i, layers[-1].transpose(1, 2)[:, None])
            layers.append(output if i == 5 else output + layers[-1])
        features = torch.cat(layers, dim=1)
        pooled = torch.stack([features.amax(dim=2), features.mean(dim=2)], dim=2).flatten(1)
        x = self.batch_normalization_10(nnf.relu(self.dense(self.batch_normalization_9(pooled))))
        return x, self.dense_1(x)

    def load(self, path: str | Path | None = None) -> Self:
        """With the weights of the installed package, or of a folder that holds its MTT_musicnn and MSD_musicnn."""
        return super().load(path or package_folder("musicnn", INSTALL))

    def read(self, path: Path) -> dict[str, Tensor]:
        """The weights out of TensorFlow's data file, whose hash is known, and so its layout: float32, layers by name.

        A layer's parts come in the order of TensorFlow's names; each trained one is followed by Adam's two moments, and
        Adam's two powers stand before the convolutions.
        """
        values, at = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32), 0
        state = self.state_dict()
        for layer in sorted({key.rpartition(".")[0] for key in state}):
            at += 2 if layer == "conv2d" else 0
            for part in ("bias", "weight", "running_mean", "running_var"):
                if (key := f"{layer}.{part}") not in state:
                    continue
                shape = state[key].shape
                value = values[at : at + shape.numel()]
                at += shape.numel() * (1 if part.startswith("running") else 3)
                if len(shape) == 4:
                    value = value.view(*shape[2:], shape[1], shape[0]).permute(3, 2, 0, 1)
                state[key] = value.view(shape[1], shape[0]).T if len(shape) == 2 else value
        return state
