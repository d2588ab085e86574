"""musicnn: 50 tags of music and what leads to them.   N samples at 16 kHz, T frames of 16 ms, P patches of 3 s.

Pons and Serra (arXiv:1909.06654).   The weights come inside the package ``musicnn`` (ISC), as TensorFlow 1 wrote them;
TensorFlow is not needed: the file is read and the network written here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchaudio.functional as taf
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embeddings, checked
from audioldm.evaluation.embedders.weights import WeightFile, load_strict, package_folder

RATE, N_FFT, HOP, MELS, FRAMES = 16000, 512, 256, 96, 187
DATA = ".data-00000-of-00001"
SOURCE = "the package: pip install --no-deps musicnn==0.1.0"
MODELS = {
    "musicnn": ("MTT_musicnn", "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab"),
    "musicnn-msd": ("MSD_musicnn", "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6"),
}
"""by the songs they were trained on: MagnaTagATune, or the Million Song Dataset"""


def patches(wave: Tensor) -> Tensor:
    """Log-mel patches (P, 187, 96) of a wave (N,), zeros up to one patch; the rest of a last patch is left out.

    log10(1 + 10000 mel) of the power mel (slaney), rounded to float16 before the logarithm, as it was in training.

    >>> patches(torch.zeros(160000)).shape
    torch.Size([3, 187, 96])
    """
    wave = checked(wave)
    wave = nnf.pad(wave, (0, max(0, (FRAMES - 1) * HOP - len(wave))))
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(wave, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    bank = taf.melscale_fbanks(N_FFT // 2 + 1, 0.0, RATE / 2, MELS, RATE, norm="slaney", mel_scale="slaney")
    mel = (spectrum.abs().square().T @ bank).half().float()
    return (1 + 10000 * mel).log10().unfold(0, FRAMES, FRAMES).transpose(1, 2)


class Net(nn.Module):
    """The layers under the checkpoint's names: filters that are high (timbre) or long (time), then what joins them."""

    def __init__(self) -> None:
        super().__init__()
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

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(P, T, 96) to the penultimate layer (P, 200) and logits (P, 50)."""
        x = self.batch_normalization(patches[:, None])
        layers = [torch.cat([self.layer(i, x) for i in range(5)], dim=1)]
        for i in (5, 6, 7):
            output = self.layer(i, layers[-1].transpose(1, 2)[:, None])
            layers.append(output if i == 5 else output + layers[-1])
        features = torch.cat(layers, dim=1)
        pooled = torch.stack([features.amax(dim=2), features.mean(dim=2)], dim=2).flatten(1)
        x = self.batch_normalization_10(nnf.relu(self.dense(self.batch_normalization_9(pooled))))
        return x, self.dense_1(x)


def converted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors under torch's names and layouts, without those of its optimiser."""
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
             "kernel": "weight", "bias": "bias"}  # fmt: skip
    state = {}
    for key, value in tensors.items():
        layer, _, part = key.partition("/")
        if part in names:
            state[f"{layer}.{names[part]}"] = (
                value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value
            )
            if part == "gamma":
                state[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    return state


class Musicnn:
    """The embedder; ``path`` is a folder that holds the package's MTT_musicnn and MSD_musicnn."""

    rate, dim, by_patch = RATE, 200, False
    front = "musicnn/1: 3 s patches, no overlap, penultimate layer"

    def __init__(self, name: str = "musicnn", path: str | Path | None = None) -> None:
        model, self.sha256 = MODELS[name]
        self.name = name
        folder = Path(path) if path else packaged()
        WeightFile(f"{model}/{DATA}", self.sha256, SOURCE).find(folder)
        self.net = Net().eval()
        state = converted(read_checkpoint(f"{folder / model}/"))
        load_strict(self.net, state, folder / model)

    @torch.no_grad()
    def embed(self, wave: Tensor) -> Embeddings:
        """A 16 kHz wave (N,)."""
        return Embeddings(*self.net(patches(wave)))


def packaged() -> Path:
    """The folder of the installed package, which is not imported: that would need TensorFlow."""
    folder = package_folder("musicnn")
    if folder is None:
        listed = ", ".join(f"{model}/{DATA} (sha256 {digest})" for model, digest in MODELS.values())
        raise AudioLDMError(
            f"musicnn needs {listed} from the package musicnn, which is not installed.",
            "Run: pip install --no-deps musicnn==0.1.0 (it asks for TensorFlow, which is not needed), or name the "
            "folder: --embedder musicnn=FOLDER.",
        )
    return folder


MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
FLOAT32 = 1
DTYPE, SHAPE, OFFSET, SIZE = 1, 2, 4, 5
"""fields of BundleEntryProto"""


def read_checkpoint(prefix: str) -> dict[str, Tensor]:
    """The float32 tensors of ``prefix``.index and ``prefix``.data-00000-of-00001 by name, without TensorFlow.

    The index is a table of sorted keys in LevelDB's format (blocks with shared prefixes); its values are the protocol
    buffers of ``tensor_bundle.proto``.   One data file, no compression: what TensorFlow 1 wrote.
    AudioLDMError where the index is no such table or points outside the data.
    """
    index, data = Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()
    tensors = {}
    try:
        for key, value in table(index):
            entry: dict[int, Any] = dict(fields(value))
            if not key or entry.get(DTYPE) != FLOAT32:
                continue
            sizes: list[Any] = [part for number, part in fields(entry.get(SHAPE, b"")) if number == 2]
            shape: list[Any] = [dict(fields(part)).get(1, 0) for part in sizes]
            begin, size = entry.get(OFFSET, 0), entry[SIZE]
            if size != 4 * torch.Size(shape).numel() or begin + size > len(data):
                raise ValueError(f"{key!r} lies outside the data")
            values = torch.frombuffer(bytearray(data[begin : begin + size]), dtype=torch.float32)
            tensors[key.decode()] = values.reshape(shape)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise AudioLDMError(f"{prefix}.index cannot be read: {error}.", "Get the package again.") from error
    return tensors


def table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a LevelDB table."""
    if content[-8:] != MAGIC:
        raise ValueError("it is no table of TensorFlow's")
    footer, at = content[-FOOTER:], 0
    for _ in range(2):  # the meta index, which is empty
        _, at = varint(footer, at)
    for _, handle in block(content, *handle_of(footer[at:])):
        yield from block(content, *handle_of(handle))


def handle_of(content: bytes) -> tuple[int, int]:
    """Offset and size of a block."""
    offset, at = varint(content, 0)
    return offset, varint(content, at)[0]


def block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block; a key begins with as much of the one before as it says."""
    if content[offset + size] != 0:
        raise ValueError("a block is compressed")
    part = content[offset : offset + size]
    end = size - 4 - 4 * int.from_bytes(part[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = varint(part, at)
        rest, at = varint(part, at)
        length, at = varint(part, at)
        key = key[:shared] + part[at : at + rest]
        at += rest + length
        yield key, part[at - length : at]


def varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the least first, and the place after it.

    >>> varint(bytes([0xAC, 0x02]), 0)
    (300, 2)
    """
    value = shift = 0
    while True:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: numbers as int, everything else as bytes."""
    at = 0
    while at < len(content):
        tag, at = varint(content, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(content, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = varint(content, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field has the wire type {kind}")
        yield tag >> 3, content[at : at + size]
        at += size
