"""Ours against diffusers' AudioLDMPipeline on this CPU, and how the embedded model behaves.   `make bench`

    python -m benchmarks.cpu --seconds 540 --out benchmarks/results/cpu.json
    python -m benchmarks.cpu --rehearse                    # the same rows at toy sizes

Published S shape, random weights, the same for both sides; 10.24 s, 10 steps of DDIM, guidance 2.5; in turn (ABAB).
Then the embedded model: start-up, real-time factor, clips per minute against the batch, time and memory against the
length.   Beside every speed stands how far the sound is from the exact one.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from audioldm.pipeline.audioldm import AudioLDM
from benchmarks.gpu import Bench, call_part, drift, error, floor_rows, peaks, ratios, typed
from benchmarks.measure import Book, Row, machine, paired
from benchmarks.shapes import aligned, ours, theirs

BASE = "diffusers fp32"
NAMES = (BASE, "diffusers bf16", "exact", "fast")


class CpuBench(Bench):
    """The same rows' helpers, with this processor's pipelines."""

    def pipe(self, name: str, nets: Any = None) -> Any:
        """A pipeline by name, built once."""
        makers: dict[str, Callable[[], Any]] = {
            BASE: lambda: theirs(self.nets),
            "diffusers bf16": lambda: theirs(self.nets, torch.bfloat16),
            "exact": lambda: ours(self.nets),
            "fast": lambda: ours(self.nets, "fast"),
            "compiled": lambda: ours(self.nets, "compiled"),
            "compiled fp32": lambda: ours(self.nets, "compiled", torch.float32),
        }
        if name not in self.pipes:
            self.pipes[name] = makers[name]()
        return self.pipes[name]


def parts(bench: CpuBench, names: tuple[str, ...]) -> None:
    """Each part in turn; its share of the floor in float32."""
    floor = next((row for row in bench.book.rows if row["group"] == "floors"), {})
    for part in ("text", "unet step", "vae", "vocoder"):

        def run(part: str = part) -> Row:
            inputs = {n: typed(bench, bench.pipe(n)) for n in names}
            runs = {n: partial(call_part, bench.pipe(n), part, inputs[n]) for n in names}
            row = ratios(paired(runs, "cpu", repeats=5, warm=1, most=25))
            for name, value in row.items():
                rate = bench.peaks["fp32" if name.endswith("fp32") or name == "exact" else "bf16"]
                if part in floor:
                    value["floor_share"] = round(floor[part]["gflop"] * 1e9 / rate / value["s"], 3)
            return row

        bench.book.add("parts S", part, run, needs=20)


def whole(bench: CpuBench, names: tuple[str, ...]) -> None:
    """Prompt to sound; and how far from diffusers' sound each is."""
    steps = bench.steps(10)[0]
    made: dict[str, Any] = {}

    def keep(name: str) -> None:
        made[name] = bench.whole(bench.pipe(name), steps=steps)

    def run() -> Row:
        row = ratios(
            paired({n: partial(keep, n) for n in names}, "cpu", repeats=3, warm=int(bench.tiny), most=150)
        )
        for name in names:
            mine = made[name] if "diffusers" in name else None
            pair = (
                (mine, made[BASE])
                if mine is not None
                else aligned(made[name], made[BASE], bench.nets.vocoder)
            )
            row[name] |= error(*pair)
        return row

    bench.book.add("whole S", f"{bench.seconds} s, {steps} steps", run, needs=100)


def child(code: str, *arguments: str) -> Row:
    """Run ``code`` in a fresh process; it prints one JSON object, and its peak memory is added."""
    ending = (
        "\nimport json, torch; from audioldm.pipeline.memory import peak_mib; "
        "print(json.dumps({**row, 'peak_mib': peak_mib(torch.device('cpu'))}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + ending, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


GROW = """
import sys, time
from audioldm.pipeline.audioldm import AudioLDM
mode, seconds, steps, batch = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
pipe = AudioLDM.from_pretrained(mode=mode)
run = lambda s: pipe(["rain"] * batch, seeds=range(batch), batch_size=batch, seconds=s, steps=steps)
run(1.28)
start = time.perf_counter()
run(seconds)
row = {"s": time.perf_counter() - start}
"""
PEAK = """
import sys
from benchmarks import shapes
import torch
nets = shapes.build("S", "cpu", tiny=sys.argv[2] == "tiny")
kind = sys.argv[1]
if kind.startswith("diffusers"):
    pipe = shapes.theirs(nets, torch.bfloat16 if "bf16" in kind else torch.float32)
    nets = None
    shapes.run_theirs(pipe, 1, seconds=float(sys.argv[3]), steps=1)
else:
    pipe = shapes.ours(nets, kind)
    nets = None
    shapes.run_ours(pipe, 1, seconds=float(sys.argv[3]), steps=1)
row = {}
"""


def startup(bench: CpuBench) -> None:
    """Wall time of whole commands, warm; the sound of the second is 5 s."""
    out = bench.book.path.parent / "bench_sound"
    commands = {
        "audioldm --help": ["--help"],
        "audioldm generate, 5 s": ["generate", "rain", "--seconds", "5", "--force", "-o", str(out)],
        "audioldm generate, 5 s, no figure": [
            "generate", "rain", "--seconds", "5", "--force", "--no-figure", "-o", str(out),
        ],
    }  # fmt: skip
    for name, words in commands.items():

        def run(words: list[str] = words) -> Row:
            command = partial(
                subprocess.run, [sys.executable, "-m", "audioldm", *words], capture_output=True, check=True
            )
            return paired({"": command}, "cpu", repeats=1 if bench.tiny else 3, most=40)[""]

        bench.book.add("start-up", name, run, needs=15)


def embedded(bench: CpuBench) -> None:
    """The embedded model at its default steps: real-time factor, and clips per minute against the batch."""
    pipes = {mode: AudioLDM.from_pretrained(mode=mode) for mode in ("exact", "fast")}  # type: ignore[arg-type]
    seconds = pipes["exact"].defaults["seconds"]
    steps = 2 if bench.tiny else pipes["exact"].defaults["steps"]
    for batch in (1, 2) if bench.tiny else (1, 2, 4, 8):

        def run(batch: int = batch) -> Row:
            runs = {
                mode: partial(
                    pipe, ["rain"] * batch, seeds=range(batch), batch_size=batch, seconds=seconds, steps=steps
                )
                for mode, pipe in pipes.items()
            }
            row = ratios(paired(runs, "cpu", repeats=3, most=20))
            for value in row.values():
                value["real_time_factor"] = value["s"] / (seconds * batch)
                value["clips_per_minute"] = 60 * batch / value["s"]
            return row

        bench.book.add("embedded", f"batch {batch}, {seconds} s, {steps} steps", run, needs=15)


def growth(bench: CpuBench) -> None:
    """Time and the process's peak memory against length, batch and steps, each in a process of its own."""
    lengths = (1.28, 2.56) if bench.tiny else (5.0, 10.0, 30.0, 60.0, 120.0)
    few = 1 if bench.tiny else 5
    points = [(s, few, 1) for s in lengths]
    points += [] if bench.tiny else [(5.0, few, b) for b in (2, 4, 8)] + [(5.0, n, 1) for n in (10, 20, 40)]
    for seconds, steps, batch in points:
        run = partial(child, GROW, "exact", str(seconds), str(steps), str(batch))
        bench.book.add(
            "growth, embedded", f"{seconds:g} s, {steps} steps, batch {batch}",
            lambda run=run, s=seconds, n=steps, b=batch: {**run(), "seconds": s, "steps": n, "batch": b}, needs=15,
        )  # fmt: skip


def memory(bench: CpuBench, names: tuple[str, ...]) -> None:
    """Peak memory of a process that builds one pipeline and makes one clip (its random weights included)."""
    for name in names:
        size = "tiny" if bench.tiny else "full"
        bench.book.add("memory S", name, partial(child, PEAK, name, size, str(bench.seconds)), needs=30)


def main() -> None:
    """Parse, run every group in order, leave the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=540.0, help="stop beginning rows after this time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu.json"))
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    parser.add_argument(
        "--compiled", action="store_true", help="the compiled modes too: minutes of compiling"
    )
    groups = ("parts", "whole", "startup", "embedded", "drift", "memory", "growth")
    parser.add_argument("--only", nargs="*", choices=groups, default=groups, help="these groups only")
    options = parser.parse_args()
    about = {"what": "cpu", "rehearsal": options.rehearse, "machine": machine("cpu")}
    book = Book(options.out, seconds=options.seconds, about=about)
    bench = CpuBench(book, device="cpu", rehearse=options.rehearse)
    peaks(bench, sizes=())
    book.add("floors", "S", partial(floor_rows, bench, "S"))
    names = (*NAMES, *(("compiled fp32", "compiled") if options.compiled else ()))
    runs: dict[str, Callable[[], Any]] = {
        "parts": partial(parts, bench, names),
        "whole": partial(whole, bench, names),
        "startup": partial(startup, bench),
        "embedded": partial(embedded, bench),
        "drift": lambda: book.add("drift S by part", "fast against exact", partial(drift, bench, "fast")),
        "memory": partial(memory, bench, NAMES),
        "growth": partial(growth, bench),
    }
    for name, run in runs.items():
        if name in options.only:
            run()
    print(f"{len(book.rows)} rows in {options.out}")


if __name__ == "__main__":
    main()
