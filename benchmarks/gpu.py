"""Ours against diffusers' AudioLDMPipeline on one GPU, and the training step against the public code's.

    python -m benchmarks.gpu --seconds 480 --out benchmarks/results/gpu.json
    python -m benchmarks.gpu --rehearse                    # the same rows at toy sizes, on a CPU
    torchrun --nproc-per-node 2 -m benchmarks.ddp          # two GPUs against one

The rows that matter most come first, the file is written after each, and a row that no longer fits the time is named as
skipped: a run that is cut off loses nothing.   Random weights of the published shapes; both sides have the same.
"""

import argparse
import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.spec import AudioSpec
from benchmarks import floors, training
from benchmarks.measure import Book, Row, machine, paired, peak_mib
from benchmarks.shapes import Nets, aligned, build, ours, run_ours, run_theirs, theirs

BASE = "diffusers fp16"
PEER_COMPILED = "diffusers fp16, U-Net compiled"
GROUPS = (
    "peaks",
    "latency",
    "equality",
    "parts",
    "compiled",
    "training",
    "throughput",
    "sizes",
    "lengths",
    "peer",
)


class Bench:
    """What the groups of rows share."""

    def __init__(self, book: Book, *, device: str, rehearse: bool) -> None:
        self.book, self.device, self.tiny = book, device, rehearse
        self.seconds = 2.56 if rehearse else 10.24
        self.half = torch.float16 if device == "cuda" else torch.bfloat16  # diffusers' own advice for a GPU
        self.peaks: dict[str, float] = {}
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
            "exact bf16": lambda n: ours(n, "exact", torch.bfloat16),
            "fast": lambda n: ours(n, "fast"),
            "fast fp32": lambda n: ours(n, "fast", torch.float32),
            "compiled": lambda n: ours(n, "compiled"),
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
    """Diffusers' own advice for speed: inductor with its CUDA graphs on the U-Net."""
    pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead")
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
            bench.peaks[name] = floors.matmul_rate(bench.device, dtype, size=size)
        bench.peaks["copy"] = floors.copy_rate(bench.device, mib=mib)
        if bench.device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            bench.peaks["tf32"] = floors.matmul_rate(bench.device, torch.float32, size=size)
            torch.backends.cuda.matmul.allow_tf32 = False
        return {
            **{f"{n}_tflops": v / 1e12 for n, v in bench.peaks.items() if n != "copy"},
            "copy_gb_per_s": bench.peaks["copy"] / 1e9,
        }

    bench.book.add("peaks", "matrix products and copies", run)
    for size in sizes:
        bench.book.add("floors", size, partial(floor_rows, bench, size))


def floor_rows(bench: Bench, size: str) -> Row:
    """FLOPs, bytes and floor in bfloat16 of each part for one clip."""
    nets = replace(build(size, "meta", tiny=bench.tiny), text_encoder=bench.nets.text_encoder)
    row: Row = {}
    for name, (module, call) in part_calls(bench, nets, batch=1).items():
        cost = floors.cost(module, call, width=2)
        least = floors.floor(cost, flops_per_s=bench.peaks["bf16"], bytes_per_s=bench.peaks["copy"])
        row[name] = {"gflop": cost["flops"] / 1e9, "mb": cost["bytes"] / 1e6, "floor_ms": least * 1e3}
    return row


def part_inputs(bench: Bench, batch: int, device: str) -> dict[str, Tensor]:
    """Inputs of one guided step (2 a clip), of the decoder and of the vocoder; float32."""
    spec, rng = AudioSpec(), torch.Generator().manual_seed(0)
    shape = spec.latent_shape(bench.seconds, 8)
    made = {
        "x": torch.randn(2 * batch, *shape, generator=rng),
        "film": torch.nn.functional.normalize(torch.randn(2 * batch, 512, generator=rng), dim=-1),
        "latent": torch.randn(batch, *shape, generator=rng),
        "mel": torch.randn(batch, 1, shape[1] * spec.stride, spec.mels, generator=rng) * 2 - 5,
    }
    return {name: value.to(device) for name, value in made.items()}


def part_calls(bench: Bench, nets: Nets, *, batch: int) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Each part's module with a plain call of it: what floors are counted on."""
    device = str(nets.unet.device)
    given = part_inputs(bench, batch, device)
    t = torch.full((2 * batch,), 500.0, device=device)
    ids = torch.ones(2 * batch, 16, dtype=torch.long, device=nets.text_encoder.device)
    return {
        "text": (nets.text_encoder, lambda: nets.text_encoder.text_model(ids)),
        "unet step": (nets.unet, lambda: nets.unet(given["x"], t, None, class_labels=given["film"])),
        "vae": (nets.vae, lambda: nets.vae.decode(given["latent"])),
        "vocoder": (nets.vocoder, lambda: nets.vocoder(given["mel"][:, 0])),
    }


def latency(bench: Bench) -> None:
    """One prompt to sound, batch 1."""
    names = (BASE, "diffusers fp32", "exact", "fast")
    for steps in bench.steps(10, 25, 200):
        run = partial(bench.whole, steps=steps)
        few = steps > 100
        chosen = (BASE, "fast") if few else names
        bench.book.add(
            "latency S batch 1",
            f"{steps} steps",
            partial(bench.compare, chosen, run, repeats=2 if few else 5, warm=1 if few else 2),
            needs=40,
        )
    steps = bench.steps(10)[0]
    for name in names:
        bench.book.add("memory S batch 1", name, partial(memory, bench, name, steps), needs=10)


def memory(bench: Bench, name: str, steps: int) -> Row:
    """Peak of a fresh pipeline, from its first call on (recording included), with its own weights."""
    bench.drop(name)
    pipe = bench.pipe(name)
    parts = (
        (pipe.unet, pipe.vae, pipe.vocoder, pipe.clap.text_encoder)
        if isinstance(pipe, AudioLDM)
        else (pipe.unet, pipe.vae, pipe.vocoder, pipe.text_encoder)
    )
    own = sum(p.nbytes for part in parts for p in part.parameters())
    return {
        "peak_mib": peak_mib(lambda: bench.whole(pipe, steps=steps), bench.device, own=own),
        "weights_mib": own / 2**20,
    }


def error(got: Tensor, wanted: Tensor) -> Row:
    """Greatest difference over the greatest value, and noise-to-signal in dB."""
    got, wanted = got.double().cpu(), wanted.double().cpu()
    gap = (got - wanted).abs().max() / wanted.abs().max()
    noise = 10 * ((got - wanted).square().mean() / wanted.square().mean()).log10()
    return {"max_relative_error": float(gap), "noise_db": float(noise)}


def equality(bench: Bench) -> None:
    """Exact against diffusers, fast against exact by part, and the same seed on CPU and GPU."""
    steps = bench.steps(10)[0]

    def exact() -> Row:
        pipe = bench.pipe("exact")
        mine = bench.whole(pipe, steps=steps)
        other = bench.whole(bench.pipe("diffusers fp32"), steps=steps)
        return error(*aligned(mine, other, pipe.vocoder))

    bench.book.add("equality S", "exact against diffusers fp32, whole, TF32 as torch sets it", exact)
    bench.book.add("equality S", "the same without TF32", partial(without_tf32, exact))
    for name in ("exact bf16", "fast"):
        bench.book.add("drift S by part", f"{name} against exact fp32", partial(drift, bench, name), needs=10)
    bench.book.add("drift S whole", f"fast against exact, {steps} steps", lambda: error(
        bench.whole(bench.pipe("fast"), steps=steps), bench.whole(bench.pipe("exact"), steps=steps)
    ))  # fmt: skip
    if bench.device == "cuda":
        bench.book.add(
            "same seed",
            "CPU against GPU, exact, 4 steps, 2.56 s, no TF32",
            partial(without_tf32, partial(both_devices, bench)),
            needs=30,
        )


def without_tf32(run: Callable[[], Row]) -> Row:
    """``run`` with true float32 convolutions; matrix products have it already."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        return run()
    finally:
        torch.backends.cudnn.allow_tf32 = before


def both_devices(bench: Bench) -> Row:
    """One seed on the GPU and on the CPU."""
    here = bench.whole(bench.pipe("exact"), steps=4, seconds=2.56)
    nets = Nets(
        *(
            net.cpu()
            for net in (lambda c: (c.unet, c.vae, c.vocoder, c.text_encoder))(bench.nets.copy(torch.float32))
        ),  # type: ignore[arg-type]
        bench.nets.tokenizer,
    )
    return error(here, bench.whole(ours(nets), steps=4, seconds=2.56))


def call_part(pipe: Any, part: str, given: dict[str, Tensor]) -> Tensor:
    """One part of either pipeline on inputs that are already of its type."""
    t = torch.full((len(given["x"]),), 500.0, device=given["x"].device)
    mine = isinstance(pipe, AudioLDM)
    with torch.no_grad():
        if part == "text":
            words = ["rain on a tin roof"]
            if mine:
                return pipe.encode_text([*words, ""]).film
            return pipe._encode_prompt(words, given["x"].device, 1, True, None)
        if part == "unet step":
            if mine:
                return pipe.engine.unet(given["x"], t, Condition(film=given["film"]))
            return pipe.unet(given["x"], t, None, class_labels=given["film"]).sample
        if part == "vae":
            return pipe.engine.decode(given["latent"]) if mine else pipe.decode_latents(given["latent"])
        return pipe.engine.vocode(given["mel"]) if mine else pipe.vocoder(given["mel"][:, 0])


def typed(bench: Bench, pipe: Any, batch: int = 1) -> dict[str, Tensor]:
    """Part inputs in the pipeline's type."""
    return {n: v.to(pipe.unet.dtype) for n, v in part_inputs(bench, batch, bench.device).items()}


def drift(bench: Bench, name: str) -> Row:
    """Error of each part by itself, on the inputs that the exact part gets."""
    row: Row = {}
    exact, other = bench.pipe("exact"), bench.pipe(name)
    for part in ("unet step", "vae", "vocoder"):
        row[part] = error(
            call_part(other, part, typed(bench, other)).float(), call_part(exact, part, typed(bench, exact))
        )
    return row


def parts(bench: Bench, names: tuple[str, ...] | None = None) -> None:
    """Each part alone at batch 1, with its share of the floor."""
    names = names or (BASE, "diffusers fp32", "exact", "exact bf16", "fast", "fast fp32")
    floor = next((row for row in bench.book.rows if row["group"] == "floors" and row["name"] == "S"), {})
    for part in ("unet step", "vae", "vocoder", "text"):

        def run(part: str = part) -> Row:
            inputs = {n: typed(bench, bench.pipe(n)) for n in names}
            times = paired(
                {n: partial(call_part, bench.pipe(n), part, inputs[n]) for n in names},
                bench.device,
                repeats=3 if bench.tiny else 20,
                warm=2,
                most=15,
            )
            row = ratios(times)
            if part in floor:
                for value in row.values():
                    value["floor_share"] = round(floor[part]["floor_ms"] / 1e3 / value["s"], 3)
            return row

        bench.book.add(
            "parts S batch 1", part + (" (compiled)" if "compiled" in names else ""), run, needs=20
        )


def compiled(bench: Bench) -> None:
    """Inductor on top of graphs: what it takes to compile and what it gives."""
    for steps in bench.steps(10, 25):
        run = partial(bench.whole, steps=steps)
        bench.book.add(
            "latency S batch 1, compiled",
            f"{steps} steps",
            partial(bench.compare, (BASE, "fast", "compiled"), run, warm=2),
            needs=130 if steps == 10 else 20,
        )
    parts(bench, (BASE, "fast", "compiled"))
    bench.book.add("drift S by part", "compiled against exact fp32", partial(drift, bench, "compiled"))
    bench.book.add(
        "memory S batch 1", "compiled", partial(memory, bench, "compiled", bench.steps(10)[0]), needs=60
    )


def train_rows(bench: Bench, size: str, nets: Nets, batches: tuple[int, ...]) -> None:
    """Clips per second: cached and recorded, cached, cached in float32, naive; at each batch."""
    seconds = bench.seconds
    for batch in batches:
        makers: dict[str, Callable[[], training.Step]] = {
            "naive fp32": partial(training.naive_step, nets, batch, seconds=seconds),
            "cached bf16 recorded": partial(training.cached_step, nets, batch, seconds=seconds, graph=True),
            "cached bf16": partial(training.cached_step, nets, batch, seconds=seconds, graph=False),
        }

        def run(makers: dict[str, Callable[[], training.Step]] = makers, batch: int = batch) -> Row:
            row: Row = {}
            for name, make in makers.items():
                try:
                    step = make()
                    most = peak_mib(step, bench.device)
                    times = paired(
                        {name: step}, bench.device, repeats=3 if bench.tiny else 10, warm=3, most=6
                    )
                    row[name] = {
                        "clips_per_s": batch / times[name]["s"],
                        "step_peak_mib": most,
                        **times[name],
                    }
                except Exception as problem:  # one way that fails must not hide the other
                    row[name] = {"error": f"{type(problem).__name__}: {problem}"[:400]}
                step = None  # type: ignore[assignment]
                release()
            base = row["naive fp32"].get("clips_per_s")
            for value in row.values():
                if base and "clips_per_s" in value:
                    value["times_faster"] = round(value["clips_per_s"] / base, 2)
            return row

        bench.book.add(f"training {size}", f"batch {batch}, {seconds} s", run, needs=30)


def throughput(bench: Bench) -> None:
    """Clips per minute against the batch."""
    steps = bench.steps(25)[0]
    for batch in (2,) if bench.tiny else (4, 16, 64):
        row = bench.book.add(
            "throughput S",
            f"batch {batch}, {steps} steps",
            partial(
                bench.compare,
                (BASE, "fast"),
                partial(bench.whole, steps=steps, batch=batch),
                repeats=2,
                most=15,
            ),
            needs=30,
        )
        for value in (row or {}).values():
            if isinstance(value, dict):
                value["clips_per_minute"] = 60 * batch / value["s"]
    bench.book.write()


def sizes(bench: Bench) -> None:
    """M and L: latency and training."""
    bench.drop(*list(bench.pipes))
    for size in ("M", "L"):
        nets = build(size, bench.device, tiny=bench.tiny)
        for steps in bench.steps(10, 25):

            def run(nets: Nets = nets, steps: int = steps) -> Row:
                pipes = {n: bench.pipe(n, nets) for n in (BASE, "fast")}
                runs = {n: partial(bench.whole, p, steps=steps) for n, p in pipes.items()}
                return ratios(paired(runs, bench.device, repeats=3, warm=2))

            bench.book.add(f"latency {size} batch 1", f"{steps} steps", run, needs=25)
        release()
        train_rows(bench, size, nets, (2,))
        del nets
        release()


def lengths(bench: Bench) -> None:
    """Time and memory of one clip against its length."""
    steps = bench.steps(10)[0]
    for seconds in (1.28, 2.56) if bench.tiny else (5.12, 10.24, 30.72, 61.44, 122.88):

        def run(seconds: float = seconds) -> Row:
            pipe = bench.pipe("fast")
            whole = partial(bench.whole, pipe, steps=steps, seconds=seconds)
            most = peak_mib(whole, bench.device)
            return {
                **paired({"fast": whole}, bench.device, repeats=3)["fast"],
                "peak_above_weights_mib": most,
            }

        bench.book.add("lengths S, fast", f"{seconds} s, {steps} steps", run, needs=20)


def peer_compiled(bench: Bench) -> None:
    """What a user of diffusers gets who compiles the U-Net as its documentation says."""
    bench.drop(*list(bench.pipes))
    for steps in bench.steps(10, 25):
        run = partial(bench.whole, steps=steps)
        bench.book.add(
            "latency S batch 1, diffusers compiled",
            f"{steps} steps",
            partial(bench.compare, (BASE, PEER_COMPILED, "fast"), run, warm=2),
            needs=130 if steps == 10 else 20,
        )


def main() -> None:
    """Parse, run every group in order, leave the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=480.0, help="stop beginning rows after this time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--rehearse", action="store_true", help="toy sizes, on the CPU")
    parser.add_argument("--only", nargs="*", choices=GROUPS, default=GROUPS, help="these groups only")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("no CUDA device; --rehearse runs the same rows at toy sizes on the CPU")
    device = "cpu" if options.rehearse else "cuda"
    about = {"what": "gpu", "rehearsal": options.rehearse, "machine": machine(device)}
    book = Book(options.out, seconds=options.seconds, about=about)
    bench = Bench(book, device=device, rehearse=options.rehearse)
    batches = (2,) if options.rehearse else (2, 16, 64)
    groups: dict[str, Callable[[], None]] = {
        "peaks": partial(peaks, bench),
        "latency": partial(latency, bench),
        "equality": partial(equality, bench),
        "parts": partial(parts, bench),
        "training": partial(train_rows, bench, "S", bench.nets, batches),
        "compiled": partial(compiled, bench),
        "throughput": partial(throughput, bench),
        "sizes": partial(sizes, bench),
        "lengths": partial(lengths, bench),
        "peer": partial(peer_compiled, bench),
    }
    for name, run in groups.items():
        if name in options.only:
            run()
    print(f"{len(book.rows)} rows in {options.out}")


if __name__ == "__main__":
    main()
