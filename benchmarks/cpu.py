"""Ours against diffusers' AudioLDMPipeline on this CPU, and how the embedded model behaves.   `make bench`

    python -m benchmarks.cpu --seconds 540 --out benchmarks/results/cpu.json
    python -m benchmarks.cpu --rehearse                    # the same rows at toy sizes

Published S shape, random weights, the same for both sides; 10 steps of DDIM, guidance 2.5; in turn (ABAB).
A processor is held to what older ones have by variables of its libraries (benchmarks/README.md).
Then the embedded model: start-up, real-time factor, clips per minute against the batch, memory against the length.
Beside every speed stands how far the sound is from the exact one.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch

from audioldm.diffusion.grids import leading
from audioldm.engines import emulated, keep_freed_memory
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import GuidanceConfig
from benchmarks.bench import Bench, call_part, error, floor_rows, peaks, ratios, typed
from benchmarks.measure import Book, Row, machine, paired
from benchmarks.processes import growth, heap, memory, startup
from benchmarks.shapes import aligned, ours, run_ours, run_theirs, theirs

BASE = "diffusers fp32"
HALF, DRAFT = "fast, half its steps guided", "fast, embedded vocoder"
FEW, BOTH = "fast, 4 calls without guidance", "fast, 4 such calls, embedded vocoder"
LESS = (DRAFT, FEW, BOTH, HALF)
"""less work: the embedded ISTFT vocoder in HiFi-GAN's place, a student's calls, guidance at the first steps alone"""
SLOW = emulated(torch.bfloat16)
"""No instructions for bfloat16 here: ``fast`` is float32, and diffusers in bfloat16 would take a quarter of an hour."""
PARTS = ("text", "unet step", "vae", "vocoder")
MODES = ("exact", "fast")
NAMES = (BASE, *(() if SLOW else ("diffusers bf16",)), *MODES)


class CpuBench(Bench):
    """The same rows' helpers, with this processor's pipelines."""

    warm = False
    """whether every part of the pipelines has run"""
    share = 0.6
    """of the time that is left, for whole pipelines"""

    def pipe(self, name: str, nets: Any = None) -> Any:
        """A pipeline by name, built once."""
        makers: dict[str, Callable[[], Any]] = {
            BASE: lambda: theirs(self.nets),
            "diffusers bf16": lambda: theirs(self.nets, torch.bfloat16),
            "exact": lambda: ours(self.nets),
            "fast": lambda: ours(self.nets, "fast"),
            DRAFT: lambda: self.draft(),
        }
        same = {HALF: "fast", FEW: "fast", BOTH: DRAFT}.get(name, name)
        if same not in self.pipes:
            self.pipes[same] = makers[same]()
        return self.pipes[same]

    def draft(self) -> AudioLDM:
        """``fast`` with a vocoder of the embedded one's shape."""
        torch.manual_seed(0)
        return replace(self.pipe("fast"), vocoder=ISTFTVocoder()).to("cpu", mode="fast")

    def beside_products(self, runs: dict[str, Callable[[], Any]], **options: Any) -> tuple[Row, Row]:
        """``runs`` in turn with a large product of each type: their times, and the products' with their FLOP/s."""
        products = {name: self.products[name] for name in ("fp32", "bf16") if name in self.products}
        times = paired({**runs, **{name: call for name, (call, _) in products.items()}}, "cpu", **options)
        rates = {name: {**times.pop(name), "flops": flops} for name, (_, flops) in products.items()}
        for rate in rates.values():
            rate["tflops"] = rate.pop("flops") / rate["s"] / 1e12
        return ratios(times), rates

    def settings(self, name: str, steps: int) -> dict[str, Any]:
        """What the pipelines that do less are called with."""
        if name in (FEW, BOTH):
            return {"steps": min(4, steps), "guidance": 1.0}
        if name == HALF:
            middle = float(leading(self.pipe("fast").schedule, steps)[steps // 2])
            return {"steps": steps, "guidance_config": GuidanceConfig(interval=(1.001 * middle, inf))}
        return {"steps": steps}


def parts(bench: CpuBench, names: tuple[str, ...]) -> None:
    """Each part in turn with a large product of its type, at whose speed its floor is counted."""
    floor = next((row for row in bench.book.rows if row["group"] == "floors"), {})
    for part in PARTS:

        def run(part: str = part) -> Row:
            inputs = {n: typed(bench, bench.pipe(n)) for n in names}
            runs = {n: partial(call_part, bench.pipe(n), part, inputs[n]) for n in names}
            row, rates = bench.beside_products(runs, repeats=1 if bench.tiny else 5, warm=1, most=80)
            for name, value in row.items():
                rate = rates["bf16" if bench.pipe(name).unet.dtype == torch.bfloat16 else "fp32"]["tflops"]
                if part in floor:
                    value["floor_share"] = round(floor[part]["gflop"] / 1e3 / rate / value["s"], 3)
            return row | {f"large product, {name}": rate for name, rate in rates.items()}

        bench.book.add("parts S", part, run, needs=20)
    bench.warm = True


def whole(bench: CpuBench, names: tuple[str, ...]) -> None:
    """Prompt to sound; how far from diffusers' sound each is, and how much faster than diffusers' best."""
    steps = bench.steps(10)[0]
    floor = next((row for row in bench.book.rows if "vocoder" in row), None)
    waves: dict[str, Any] = {}

    def keep(name: str) -> None:
        pipe, settings = bench.pipe(name), bench.settings(name, steps)
        if isinstance(pipe, AudioLDM):
            waves[name] = run_ours(pipe, 1, seconds=bench.seconds, **settings)
        else:
            waves[name] = run_theirs(pipe, 1, seconds=bench.seconds, **settings)

    def run() -> Row:
        for pipe in map(bench.pipe, names):
            _ = isinstance(pipe, AudioLDM) and pipe.engine.functions  # built before they are timed
        runs = {name: partial(keep, name) for name in names}
        repeats, warm = 1 if bench.tiny else 5, 0 if bench.warm else 1
        most = bench.share * bench.book.remaining()
        row, rates = bench.beside_products(runs, repeats=repeats, warm=warm, most=most)
        best = min(value["s"] for name, value in row.items() if "diffusers" in name)
        for value in row.values():
            value["times_best"] = round(best / value["s"], 2)
        for name in names:
            if name in NAMES:
                other = waves[name], waves[BASE]
                row[name] |= error(*(other if "diffusers" in name else aligned(*other, bench.nets.vocoder)))
        for name, rate in rates.items():
            row[f"large product, {name}"] = rate
            if floor is not None:
                flops = sum(floor[part]["gflop"] * (steps if part == "unet step" else 1) for part in PARTS)
                least = flops / 1e3 / rate["tflops"]
                row[f"at its floor, {name}"] = {"s": least, "times_best": round(best / least, 2)}
        return row

    bench.book.add("whole S", f"{bench.seconds} s, {steps} steps", run, needs=5 if bench.tiny else 100)


def embedded(bench: CpuBench) -> None:
    """The embedded model and its student: real-time factor, and clips per minute against the batch."""
    pipes = {mode: AudioLDM.from_pretrained(mode=mode) for mode in MODES}  # type: ignore[arg-type]
    seconds, steps = pipes["exact"].defaults.seconds, pipes["exact"].defaults.steps
    pipes["fast, its student of 4 calls"] = AudioLDM.from_pretrained(mode="fast").adapt("turbo")
    for batch in (1, 2) if bench.tiny else (1, 2, 4, 8):

        def run(batch: int = batch) -> Row:
            runs = {
                mode: partial(pipe, ["rain"] * batch, seeds=range(batch), batch_size=batch)
                for mode, pipe in pipes.items()
            }
            row = ratios(paired(runs, "cpu", repeats=1 if bench.tiny else 5, most=40))
            for value in row.values():
                value["real_time_factor"] = value["s"] / (seconds * batch)
                value["clips_per_minute"] = 60 * batch / value["s"]
            return row

        bench.book.add("embedded", f"batch {batch}, {seconds} s, {steps} steps", run, needs=15)


def main() -> None:
    """Parse, run every group in order, leave the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=540.0, help="stop beginning rows after this time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu.json"))
    parser.add_argument("--length", type=float, default=10.24, help="seconds of sound of the published shape")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    groups = ("parts", "whole", "heap", "startup", "embedded", "memory", "growth")
    parser.add_argument("--only", nargs="*", choices=groups, default=groups, help="these groups only")
    parser.add_argument(
        "--pipelines", nargs="*", help="these only, after the first; for machines of little memory"
    )
    options = parser.parse_args()
    keep_freed_memory()
    about = {"what": "cpu", "rehearsal": options.rehearse, "machine": machine("cpu")}
    book = Book(options.out, seconds=options.seconds, about=about)
    bench = CpuBench(book, device="cpu", rehearse=options.rehearse)
    bench.seconds = bench.seconds if options.rehearse else options.length
    if set(options.only) <= {"parts", "whole"}:
        bench.share = 1.0
    peaks(bench, sizes=())
    book.add("floors", "S", partial(floor_rows, bench, "S"))
    names = (*NAMES, *LESS) if options.pipelines is None else (BASE, *options.pipelines)
    plain = tuple(name for name in names if name in NAMES)
    runs: dict[str, Callable[[], Any]] = {
        "parts": partial(parts, bench, plain),
        "whole": partial(whole, bench, names),
        "heap": partial(heap, bench, tuple(name for name in plain if name in MODES)),
        "startup": partial(startup, bench),
        "embedded": partial(embedded, bench),
        "memory": partial(memory, bench, plain),
        "growth": partial(growth, bench),
    }
    for name, run in runs.items():
        if name in options.only:
            run()
    print(f"{len(book.rows)} rows in {options.out}")


if __name__ == "__main__":
    main()
