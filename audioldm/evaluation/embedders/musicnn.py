"""musicnn: 50 tags of music and what leads to them.   N samples at 16 kHz, T frames of 16 ms, P patches of 3 s.

Pons and Serra (arXiv:1909.06654); weights inside the package ``musicnn`` (ISC), which is not imported.
"""

from math import prod
from pathlib import Path

import torch
from torch import Tensor
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


FILTERS = (
    (7, 38, 204), (7, 67, 204), (128, 1, 51), (64, 1, 51), (32, 1, 51), (7, 561, 64), (7, 64, 64), (7, 64, 64)
)  # fmt: skip
"""frames, bands and number of each convolution's filters"""


def numbered(name: str, i: int) -> str:
    """A layer's name as TensorFlow counts."""
    return f"{name}_{i}" if i else name


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

    def __init__(self, path: str | Path | None = None, name: str = "musicnn") -> None:
        model, sha256 = MODELS[name]
        self.name, self.file = (
            name,
            WeightFile(f"{model}/.data-00000-of-00001", sha256, "the package musicnn==0.1.0"),
        )
        super().__init__(path or package_folder("musicnn", INSTALL))

    def layer(self, i: int, x: Tensor) -> Tensor:
        """Convolution i over zeros that keep the frames, ReLU, batch norm, the most over frequency: (B, C, T)."""
        weight, bias = (self.tensors[f"{numbered('conv2d', i)}.{part}"] for part in ("weight", "bias"))
        extra = weight.shape[2] - 1
        x = nnf.conv2d(nnf.pad(x, (0, 0, extra // 2, extra - extra // 2)), weight, bias).relu()
        return self.norm(x, f"batch_normalization_{i + 1}").amax(dim=3)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) to the penultimate layer (P, 200) and logits (P, 50)."""
        x = self.norm(patches(wave)[:, None], "batch_normalization")
        layers = [torch.cat([self.layer(i, x) for i in range(5)], dim=1)]
        for i in (5, 6, 7):
            output = self.layer(i, layers[-1].transpose(1, 2)[:, None])
            layers.append(output if i == 5 else output + layers[-1])
        features = torch.cat(layers, dim=1)
        pooled = torch.stack([features.amax(dim=2), features.mean(dim=2)], dim=2).flatten(1)
        x = self.linear(self.norm(pooled, "batch_normalization_9"), "dense").relu()
        x = self.norm(x, "batch_normalization_10")
        return x, self.linear(x, "dense_1")

    def read(self, path: Path) -> dict[str, Tensor]:
        """The weights out of TensorFlow's data file, whose hash is known, and so its layout: float32, layers by name.

        A layer's parts come in the order of TensorFlow's names; each trained one is followed by Adam's two moments, and
        Adam's two powers stand before the convolutions.
        """
        values, at, tensors = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32), 0, {}
        shapes: dict[str, list[tuple[int, ...]]] = {
            "dense": [(200,), (1506, 200)],
            "dense_1": [(50,), (200, 50)],
        }
        for i, (high, wide, width) in enumerate(FILTERS):
            shapes[numbered("conv2d", i)] = [(width,), (high, wide, 1, width)]
        for i, width in enumerate((1, *(width for *_, width in FILTERS), 1506, 200)):
            shapes[numbered("batch_normalization", i)] = [(width,)] * 4
        for layer, parts in sorted(shapes.items()):
            at += 2 if layer == "conv2d" else 0
            for part, shape in zip(("bias", "weight", "running_mean", "running_var"), parts, strict=False):
                value = values[at : at + prod(shape)].view(shape)
                at += value.numel() * (1 if part.startswith("running") else 3)
                # TensorFlow's channels come last
                tensors[f"{layer}.{part}"] = value.permute(3, 2, 0, 1) if len(shape) == 4 else value.t()
        return tensors
