"""A model as four ONNX graphs of one length, which onnxruntime runs without torch, also in a browser.

B batch, L tokens, D width of CLAP's space, C channels, T frames, F bins, K frequency bins, N samples.
"""

import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.onnx.utils import register_custom_op_symbolic

from audioldm.batch import Condition
from audioldm.components import Components, Sampling
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.prediction import parts
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import TwoTowers
from audioldm.nets.hifigan import vocode
from audioldm.nets.istft_vocoder import ISTFTVocoder, gains, tones
from audioldm.nets.unet import kind_of, multiple_of, net_call
from audioldm.nets.vae import decode
from audioldm.paths import write_text
from audioldm.signal.invert import energies

OPSET = 18
SMALLEST = 4096  # numbers of a weight from which it is made smaller
INT8 = {"text": ("word_embeddings",), "vocoder": ("blocks",)}  # Graphs and the layers in them of 8 bits
PAGE = Path(__file__).with_name("page")
WEB = "onnxruntime-web@1.30.0"
RUNTIME = json.loads((PAGE / "runtime.json").read_text(encoding="utf-8"))  # what the browser checks


class Call(nn.Module):
    """A function of tensors as a net, with the nets that it calls."""

    def __init__(self, function: Callable[..., Tensor], net: nn.Module) -> None:
        super().__init__()
        self.forward, self.net = function, net


class RealVocoder(nn.Module):
    """``ISTFTVocoder`` in real numbers: Fourier transforms are convolutions, for ONNX has no complex ones."""

    window: Tensor
    time: Tensor

    def __init__(self, model: Components, frames: int) -> None:
        super().__init__()
        assert isinstance(model.vocoder, ISTFTVocoder)
        self.vocoder, self.spec, self.frames = model.vocoder, model.spec, frames
        # this also fills the tables that a trace must not make
        _, self.noise = self.vocoder.sources(torch.zeros(1, frames, self.spec.mels), None)
        # what the basis is computed from when a graph is loaded; a trace would keep it, 4 MB, but for buffers
        self.register_buffer("window", torch.hann_window(self.spec.win))
        self.register_buffer("time", torch.arange(self.spec.n_fft))

    def forward(self, mel: Tensor) -> Tensor:
        mel, spec = mel[:, 0], self.spec
        real, imag = self.vocoder.bins(mel, tones(mel, spec), self.noise)
        bins = spec.n_fft // 2 + 1
        twice = torch.ones(bins).index_fill(0, torch.arange(1, bins - 1), 2.0) / spec.n_fft
        angle = (self.time[:bins, None] * self.time % spec.n_fft).float() * (2 * torch.pi / spec.n_fft)
        basis = (torch.cat([angle.cos(), -angle.sin()]) * self.window)[:, None]
        ones, square = torch.ones(1, 1, self.frames), self.window.square()[None, None]
        weight = nnf.conv_transpose1d(ones, square, stride=spec.hop)

        def inverse(real: Tensor, imag: Tensor) -> Tensor:
            both = torch.cat([real * twice, imag * twice], dim=-1).transpose(1, 2)
            whole = nnf.conv_transpose1d(both, basis, stride=spec.hop) / weight.clamp(min=1e-8)
            return whole[..., spec.pad : spec.pad + self.frames * spec.hop]

        wave = inverse(real, imag)
        for _ in range(self.vocoder.config.corrections):
            padded = nnf.pad(wave, (spec.pad, spec.pad), mode="reflect")
            real, imag = nnf.conv1d(padded, basis, stride=spec.hop).transpose(1, 2).chunk(2, dim=-1)
            factor = gains((real.square() + imag.square()).sqrt(), energies(mel, spec), spec)
            wave = inverse(real * factor, imag * factor)
        return wave


class Graph(NamedTuple):
    """A net to write, inputs to try it on, and whether it may be run on more rows."""

    net: nn.Module
    example: dict[str, Tensor]
    rows: bool = False


def graphs(model: Components) -> dict[str, Graph]:
    """The four nets of a model at its own length.   Raises AudioLDMError for a model that is not of that kind."""
    clap, vae, vocoder = model.clap, model.vae, model.vocoder
    if kind_of(model.unet) != "film" or not isinstance(clap, TwoTowers):
        raise AudioLDMError(f"{model.name} attends to tokens.", "ONNX is for models of CLAP's vector.")
    tower, call = clap.text_encoder, net_call(model.unet)
    shape = model.spec.latent_shape(model.defaults.seconds, multiple_of(model.unet))
    latent = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    how = {"padding": "max_length", "max_length": clap.max_tokens, "return_tensors": "pt"}
    words = clap.tokenizer("a dog barking", **how)
    film, mel = clap.embed_text(["a dog barking", ""]), decode(vae, latent)
    pair = {"x": torch.cat([latent, latent]), "t": torch.tensor([500.0, 500.0]), "film": film}

    def embed(tokens: Tensor, mask: Tensor) -> Tensor:
        return nnf.normalize(tower(tokens, attention_mask=mask).text_embeds, dim=-1)

    def step(x: Tensor, t: Tensor, film: Tensor) -> Tensor:
        return call(x, t, Condition(film=film))

    real = isinstance(vocoder, ISTFTVocoder)
    sound = RealVocoder(model, mel.shape[2]) if real else Call(partial(vocode, vocoder), vocoder)
    return {
        "text": Graph(Call(embed, tower), {"tokens": words.input_ids, "mask": words.attention_mask}),
        "unet": Graph(Call(step, model.unet), pair, rows=True),
        "decoder": Graph(Call(partial(decode, vae), vae), {"latent": latent}),
        "vocoder": Graph(sound, {"mel": mel}),
    }


class Row(NamedTuple):
    """What came of one graph: its file's size, and its largest error against torch, of the largest value."""

    graph: str
    megabytes: float
    error: float


@torch.no_grad()
def export_onnx(model: Components, folder: Path, *, web: Path | None = None) -> list[Row]:
    """Write graphs, their page and what it needs (``web``: onnxruntime-web's files); compare each graph with torch."""
    places = {kind: {k: copied(v, folder, web) for k, v in files.items()} for kind, files in RUNTIME.items()}
    rows = []
    for name, graph in graphs(model).items():
        path = folder / f"{name}.onnx"
        write(graph, path)
        shrink(path, INT8.get(name, ()))
        rows.append(compare(name, graph, path))
    clap, settings, spec = cast(TwoTowers, model.clap), model.defaults, model.spec
    write_text(folder / "tokenizer.json", clap.tokenizer.backend_tokenizer.to_str())
    about = {
        "name": model.name, "rate": spec.rate, "tokens": clap.max_tokens, "runtime": places,
        "shape": spec.latent_shape(settings.seconds, multiple_of(model.unet)), "plan": plan(model, settings),
        "graphs": [row._asdict() for row in rows],
        **{name: getattr(settings, name) for name in ("seconds", "guidance", "retry_silent")},
    }  # fmt: skip
    write_text(folder / "model.json", json.dumps(about))
    shutil.copytree(PAGE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runtime.json"))
    return rows


def copied(file: dict[str, str], folder: Path, web: Path | None) -> dict[str, str]:
    """Where the page gets a file of onnxruntime-web: its own copy, or the CDN's."""
    if web is None:
        return {**file, "url": f"https://cdn.jsdelivr.net/npm/{WEB}/dist/{file['url']}"}
    if not (web / file["url"]).is_file():
        raise AudioLDMError(f"{web / file['url']} is not there.", f"Run: npm pack {WEB}")
    shutil.copy(web / file["url"], folder)
    return file


def write(graph: Graph, path: Path) -> None:
    frac = lambda g, x: g.op("Sub", x, g.op("Floor", x))  # noqa: E731
    symbols: dict[str, Callable[..., Any]] = {
        "frac": frac, "sinc": sinc, "sin": partial(periodic, 1), "cos": partial(periodic, 0),
    }  # fmt: skip
    for name, symbol in symbols.items():
        register_custom_op_symbolic(f"aten::{name}", symbol, OPSET)
    axes = {name: {0: "rows"} for name in (*graph.example, "out")} if graph.rows else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that are fixed, as they shall be
        torch.onnx.export(
            graph.net.eval(), tuple(graph.example.values()), str(path), input_names=list(graph.example),
            output_names=["out"], dynamic_axes=axes, opset_version=OPSET, dynamo=False, do_constant_folding=False,
        )  # fmt: skip


def sinc(g: Any, x: Any) -> Any:
    """sin(pi x) / (pi x), and 1 at 0."""
    pi, nought, one = (g.op("Constant", value_t=torch.tensor(value)) for value in (torch.pi, 0.0, 1.0))
    angle, zero = g.op("Mul", x, pi), g.op("Equal", x, nought)
    return g.op("Where", zero, one, g.op("Div", g.op("Sin", angle), g.op("Where", zero, one, angle)))


def periodic(first: int, g: Any, x: Any) -> Any:
    """Sine (``first`` 1) or cosine (0) by its series, whole turns off first (Cody & Waite): WGSL's own err by 2^-11."""

    def constant(value: float) -> Any:
        return g.op("Constant", value_t=torch.tensor(value))

    turns = g.op("Round", g.op("Mul", x, constant(0.5 / math.pi)))
    for part in (6.28125, 2 * math.pi - 6.28125):
        x = g.op("Sub", x, g.op("Mul", turns, constant(part)))
    square, total = g.op("Mul", x, x), constant(0.0)
    for power in range(18 + first, -1, -2):
        term = constant((-1) ** (power // 2) / math.factorial(power))
        total = g.op("Add", g.op("Mul", total, square), term)
    return g.op("Mul", total, x) if first else total


def shrink(path: Path, int8: Sequence[str]) -> None:
    """Write weights as float16, or as 8 bits with a scale a row where a name has a part of ``int8``."""
    model = onnx.load(str(path))
    weights, nodes = [], []

    def widened(name: str, value: Any, to: str) -> None:
        weights.append(numpy_helper.from_array(value, name))
        nodes.append(helper.make_node("Cast", [name], [to], to=TensorProto.FLOAT))

    for weight in model.graph.initializer:
        value, name = numpy_helper.to_array(weight), weight.name
        if weight.data_type != TensorProto.FLOAT or value.size < SMALLEST:
            weights.append(weight)
        elif value.ndim == 2 and any(part in name for part in int8):
            scale = np.abs(value).max(axis=1, keepdims=True) / 127 + np.float32(1e-12)
            weights.append(numpy_helper.from_array(scale, f"{name}.scale"))
            widened(f"{name}.int8", np.rint(value / scale).astype(np.int8), f"{name}.whole")
            nodes.append(helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name]))
        else:
            widened(f"{name}.half", value.astype(np.float16), name)
    kept, names = dict[bytes, str](), dict[str, str]()
    for node in model.graph.node:
        value = np.zeros(0)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            value = numpy_helper.to_array(node.attribute[0].t)
            if value.dtype == np.float64:  # WebGPU's runtime has no kernel for them
                node.attribute[0].t.CopyFrom(numpy_helper.from_array(value.astype(np.float32)))
        if value.size < SMALLEST:
            nodes.append(node)
            continue
        key, name = value.tobytes() + str(value.shape).encode(), node.output[0]
        if key not in kept:
            weights.append(numpy_helper.from_array(value, name))
        names[name] = kept.setdefault(key, name)
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    whole = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, weights)
    versions = {"opset_imports": model.opset_import, "ir_version": model.ir_version}
    onnx.save(helper.make_model(whole, **versions), str(path))


def compare(name: str, graph: Graph, path: Path) -> Row:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {key: value.numpy() for key, value in graph.example.items()}
    right, answer = graph.net(*graph.example.values()).numpy(), session.run(None, inputs)[0]
    return Row(name, path.stat().st_size / 1e6, float(np.abs(answer - right).max() / np.abs(right).max()))


def plan(model: Components, settings: Sampling) -> dict[str, Any]:
    """A sampler without its code: run on unit vectors in place of sounds, whose sums it then gives.

    The vectors are the answers x0 of each call, then the noises.   A call has the time t, their factors in x_t (``x``),
    and x0 = a x_t + b out.   Raises AudioLDMError for a sampler that looks at what it is given.
    """
    sigmas = choose(GRIDS, settings.grid, "grid")(model.schedule, settings.steps)
    most = 8 * settings.steps + 8
    calls: list[dict[str, Any]] = []
    drawn = count(most)

    def unit(place: int) -> Tensor:
        return nnf.one_hot(torch.tensor([place]), 2 * most).double()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.double()
        alpha = model.schedule.alpha_of(level)
        p, q = (torch.as_tensor(part) for part in parts(model.prediction, alpha, alpha * level))
        below = q * alpha - p * alpha * level
        a, b = (0.0, 1.0) if model.prediction == "x0" else (float(q / below), float(-alpha * level / below))
        calls.append({"t": float(model.schedule.t_at(level)), "x": sparse(x * alpha, most), "a": a, "b": b})
        if len(calls) > most:
            raise AudioLDMError(f"sampler={settings.sampler} takes too many steps.", "Use dpmpp_2m.")
        return unit(len(calls) - 1)

    start = unit(next(drawn)) * sigmas[0]
    sampler = choose(SAMPLERS, settings.sampler, "sampler")
    end = sampler(denoise, start, sigmas, noise=lambda: unit(next(drawn)))
    result = sparse(end * model.schedule.alpha_of(sigmas[-1]), most)
    return {"calls": calls, "result": result, "noises": next(drawn) - most}


def sparse(x: Tensor, most: int) -> list[tuple[str, int, float]]:
    """The factors of a sum that are not 0: of an answer ("x0") or of a noise, its number and its factor."""
    places = x[0].nonzero()[:, 0].tolist()
    return [("noise" if place >= most else "x0", place % most, float(x[0, place])) for place in places]
