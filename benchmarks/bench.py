"""What the benchmarks of a CPU and of a GPU share: pipelines by name, the parts, their floors and errors."""

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.engines import emulated
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.spec import AudioSpec
from benchmarks.measure import Book, Row, copy_rate, cost, floor, large_product, paired
from benchmarks.shapes import Nets, build, ours, run_ours, run_theirs, theirs

BASE = "diffusers fp16"
PEER_COMPILED = "diffusers fp16, U-Net compiled"


class Bench:
    """What the groups of rows share."""

    def __init__(self, book: Book, *, device: str, rehearse: bool) -> None:
        self.book, self.device, self.tiny = book, device, rehearse
        self.seconds = 2.56 if rehearse else 10.24
        self.half = torch.float16 if device == "cuda" else torch.bfloat16  # diffusers' own advice for a GPU
        self.peaks: dict[str, float] = {}
        self.products: dict[str, tuple[Callable[[], Tensor], float]] = {}
        """by type: a large product and its FLOPs"""
        self.nets = build("S", device, tiny=rehearse)
        self.pipes: dict[str, Any] = {}

    def steps(self, *wanted: int) -> tuple[int, ...]:
        """The numbers of steps; a rehearsal takes two each."""
        return (2,) if self.tiny else wanted

    def pipe(self, name: str, nets: Nets | None = None) -> Any:
        """A pipeline of size S by name, built once; with ``nets`` a new one of theirs."""
        makers: dict[str, Callable[[Nets], Any]] = {
            BASE: lambda n: theirs(n, self.half),
            "diffusers fp32": theirs,
            "exact": ours,
            "fast": lambda n: ours(n, "fast"),
            PEER_COMPILED: lambda n: with_compiled_unet(theirs(n, self.half)),
        }
        if nets is not None:
            return makers[name](nets)
        if name not in self.pipes:
            self.pipes[name] = makers[name](self.nets)
        return self.pipes[name]

    def whole(self, pipe: Any, *, steps: int, batch: int = 1, seconds: float | None = None) -> Tensor:
        """Prompt to waves on the CPU."""
        run = run_ours if isinstance(pipe, AudioLDM) else run_theirs
        return run(pipe, batch, seconds=seconds or self.seconds, steps=steps)

    def compare(self, names: tuple[str, ...], run: Callable[[Any], Any], **options: Any) -> Row:
        """The pipelines ``names`` in turn: their times, and each one's ratio to the first."""
        times = paired({n: partial(run, self.pipe(n)) for n in names}, self.device, **options)
        return ratios(times)

    def drop(self, *names: str) -> None:
        """Give back what pipelines hold."""
        for name in names:
            self.pipes.pop(name, None)
        release()


def ratios(times: dict[str, Row]) -> Row:
    """Times with how many times faster than the first each is."""
    base = next(iter(times.values()))["s"]
    return {name: {"times_faster": round(base / t["s"], 2), **t} for name, t in times.items()}


def with_compiled_unet(pipe: Any) -> Any:
    """Diffusers' own advice for speed: inductor with its CUDA graphs on the U-Net, each batch compiled for itself."""
    pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", dynamic=False)
    return pipe


def release() -> None:
    """Return freed memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peaks(bench: Bench, sizes: tuple[str, ...] = ("S", "M", "L")) -> None:
    """What the machine does at best, and the floor of each part at ``sizes``."""

    def run() -> Row:
        size, mib = (256, 16) if bench.tiny else (8192, 2048) if bench.device == "cuda" else (2048, 256)
        types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        for name, dtype in types.items():
            if bench.device == "cpu" and emulated(dtype):
                continue
            call, flops, bench.peaks[name] = large_product(bench.device, dtype, size=size)
            if bench.device == "cpu":
                bench.products[name] = call, flops
        bench.peaks["copy"] = copy_rate(bench.device, mib=mib)
        if bench.device == "cuda":
            matmul = torch.backends.cuda.matmul
            before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
            bench.peaks["tf32"] = large_product(bench.device, torch.float32, size=size)[2]
            matmul.fp32_precision = before  # as it was to the letter: inductor's cache on disk goes by it
        return {
            **{f"{n}_tflops": v / 1e12 for n, v in bench.peaks.items() if n != "copy"},
            "copy_gb_per_s": bench.peaks["copy"] / 1e9,
        }

    bench.book.add("peaks", "matrix products and copies", run)
    for size in sizes:
        bench.book.add("floors", size, partial(floor_rows, bench, size))


def floor_rows(bench: Bench, size: str) -> Row:
    """FLOPs, bytes and floor of each part for one clip: in bfloat16, or in float32 on a processor without it."""
    nets = replace(build(size, "meta", tiny=bench.tiny), text_encoder=bench.nets.text_encoder)
    row: Row = {}
    for name, (module, call) in part_calls(bench, nets, batch=1).items():
        costs = cost(module, call, width=2 if "bf16" in bench.peaks else 4)
        rate = bench.peaks.get("bf16", bench.peaks["fp32"])
        least = floor(costs, flops_per_s=rate, bytes_per_s=bench.peaks["copy"])
        row[name] = {"gflop": costs["flops"] / 1e9, "mb": costs["bytes"] / 1e6, "floor_ms": least * 1e3}
    return row


def part_inputs(bench: Bench, batch: int, device: str) -> dict[str, Tensor]:
    """Inputs of one guided step (2 a clip), of the decoder and of the vocoder; float32."""
    spec, rng = AudioSpec(), torch.Generator().manual_seed(0)
    shape = spec.latent_shape(bench.seconds, 8)
    inputs = {
        "x": torch.randn(2 * batch, *shape, generator=rng),
        "film": torch.nn.functional.normalize(torch.randn(2 * batch, 512, generator=rng), dim=-1),
        "latent": torch.randn(batch, *shape, generator=rng),
        "mel": torch.randn(batch, 1, shape[1] * spec.stride, spec.mels, generator=rng) * 2 - 5,
    }
    return {name: value.to(device) for name, value in inputs.items()}


def part_calls(bench: Bench, nets: Nets, *, batch: int) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Each part's module with a plain call of it: what floors are counted on."""
    device = str(nets.unet.device)
    inputs = part_inputs(bench, batch, device)
    t = torch.full((2 * batch,), 500.0, device=device)
    ids = torch.ones(2 * batch, 16, dtype=torch.long, device=nets.text_encoder.device)
    return {
        "text": (nets.text_encoder, lambda: nets.text_encoder.text_model(ids)),
        "unet step": (nets.unet, lambda: nets.unet(inputs["x"], t, None, class_labels=inputs["film"])),
        "vae": (nets.vae, lambda: nets.vae.decode(inputs["latent"])),
        "vocoder": (nets.vocoder, lambda: nets.vocoder(inputs["mel"][:, 0])),
    }


def call_part(pipe: Any, part: str, inputs: dict[str, Tensor]) -> Tensor:
    """One part of either pipeline on inputs that are already of its type."""
    t = torch.full((len(inputs["x"]),), 500.0, device=inputs["x"].device)
    mine = isinstance(pipe, AudioLDM)
    with torch.no_grad():
        if part == "text":
            words = ["rain on a tin roof"]
            if mine:
                return pipe.encode_text([*words, ""]).film
            return pipe._encode_prompt(words, inputs["x"].device, 1, True, None)
        if part == "unet step":
            if mine:
                return pipe.engine.functions.unet(inputs["x"], t, Condition(film=inputs["film"]))
            return pipe.unet(inputs["x"], t, None, class_labels=inputs["film"]).sample
        if part == "vae":
            return (
                pipe.engine.functions.decode(inputs["latent"])
                if mine
                else pipe.decode_latents(inputs["latent"])
            )
        return pipe.engine.functions.vocode(inputs["mel"]) if mine else pipe.vocoder(inputs["mel"][:, 0])


def typed(bench: Bench, pipe: Any, batch: int = 1) -> dict[str, Tensor]:
    """Part inputs in the pipeline's type."""
    return {n: v.to(pipe.unet.dtype) for n, v in part_inputs(bench, batch, bench.device).items()}


def error(got: Tensor, wanted: Tensor) -> Row:
    """Greatest difference over the greatest value, and noise-to-signal in dB."""
    got, wanted = got.double().cpu(), wanted.double().cpu()
    gap = (got - wanted).abs().max() / wanted.abs().max()
    noise = 10 * ((got - wanted).square().mean() / wanted.square().mean()).log10()
    return {"max_relative_error": float(gap), "noise_db": float(noise)}


def drift(bench: Bench) -> Row:
    """Error of each part of ``fast`` by itself, on the inputs that the exact part gets."""
    row: Row = {}
    exact, other = bench.pipe("exact"), bench.pipe("fast")
    for part in ("unet step", "vae", "vocoder"):
        row[part] = error(
            call_part(other, part, typed(bench, other)).float(), call_part(exact, part, typed(bench, exact))
        )
    return row
