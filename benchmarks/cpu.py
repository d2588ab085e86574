"""Ours against diffusers' AudioLDMPipeline on this CPU, and how the embedded model behaves.   `make bench`

    python -m benchmarks.cpu --seconds 540 --out benchmarks/results/cpu.json
    python -m benchmarks.cpu --rehearse                    # the same rows at toy sizes

Published S shape, random weights, the same for both sides; 10.24 s, 10 steps of DDIM, guidance 2.5; in turn (ABAB).
Then the embedded model: start-up, real-time factor, clips per minute against the batch, time and memory against the
length.   Beside every speed stands how far the sound is from the exact one.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from audioldm.diffusion.windows import blend, starts
from audioldm.nets.hifigan import vocode
from audioldm.nets.split import reason_against
from audioldm.pipeline import longform
from audioldm.pipeline.audioldm import AudioLDM
from benchmarks.gpu import Bench, call_part, drift, error, floor_rows, peaks, ratios, typed
from benchmarks.measure import Book, Row, machine, paired, seconds_of
from benchmarks.original import Original, found
from benchmarks.shapes import aligned, ours, theirs, unet_of

BASE = "diffusers fp32"
NAMES = (BASE, "diffusers bf16", "exact", *(() if reason_against() else ("split",)), "fast")


class CpuBench(Bench):
    """The same rows' helpers, with this processor's pipelines."""

    most = 130.0
    """seconds after which whole pipelines are not run again"""

    def pipe(self, name: str, nets: Any = None) -> Any:
        """A pipeline by name, built once."""
        makers: dict[str, Callable[[], Any]] = {
            BASE: lambda: theirs(self.nets),
            "diffusers bf16": lambda: theirs(self.nets, torch.bfloat16),
            "exact": lambda: ours(self.nets),
            "split": lambda: ours(self.nets, "split"),
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
                rate = bench.peaks["fp32" if name.endswith("fp32") or name in ("exact", "split") else "bf16"]
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

    ours_and_theirs = [name for name in names if name != "original audioldm"]

    def run() -> Row:
        runs: dict[str, Callable[[], Any]] = {n: partial(keep, n) for n in ours_and_theirs}
        with ExitStack() as stack:
            if "original audioldm" in names and not bench.tiny:
                original = stack.enter_context(Original(seconds=bench.seconds, steps=steps))
                runs["original audioldm"] = original
            row = ratios(paired(runs, "cpu", repeats=3, warm=1, most=bench.most))
            if "original audioldm" in row:
                row["original audioldm"]["peak_mib"] = original.peak_mib()
        for name in ours_and_theirs:
            theirs_too = "diffusers" in name
            other = (
                (made[name], made[BASE])
                if theirs_too
                else aligned(made[name], made[BASE], bench.nets.vocoder)
            )
            row[name] |= error(*other)
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
from audioldm.nets.split import reason_against
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
folder, kind, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
if kind.startswith("diffusers"):
    dtype = torch.bfloat16 if "bf16" in kind else torch.float32
    pipe = shapes.AudioLDMPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipe.tokenizer.model_max_length = min(512, pipe.text_encoder.config.max_position_embeddings - 2)
    pipe.set_progress_bar_config(disable=True)
    shapes.run_theirs(pipe, 1, seconds=seconds, steps=1)
else:
    shapes.run_ours(shapes.AudioLDM.from_pretrained(folder, mode=kind), 1, seconds=seconds, steps=1)
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


def second(bench: CpuBench) -> None:
    """What a second process saves in mode compiled: wall time of two commands that share an empty cache folder."""
    words = ["generate", "rain", "--seconds", "5", "--mode", "compiled", "--no-figure", "--force"]
    if bench.tiny:
        words[3:4] = ["1.28", "--steps", "2"]
    with TemporaryDirectory() as folder:
        command = partial(
            subprocess.run, [sys.executable, "-m", "audioldm", *words, "-o", f"{folder}/sound"],
            capture_output=True, check=True, env={**os.environ, "XDG_CACHE_HOME": folder},
        )  # fmt: skip
        for name in ("first process", "second process"):
            bench.book.add(
                "compiled, 5 s, embedded", name, lambda: {"s": seconds_of(command, "cpu")}, needs=60
            )


def embedded(bench: CpuBench) -> None:
    """The embedded model at its default steps: real-time factor, and clips per minute against the batch."""
    pipes = {
        mode: AudioLDM.from_pretrained(mode=mode)
        for mode in ("exact", *(() if reason_against() else ("split",)), "fast")
    }  # type: ignore[arg-type]
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


def sizes(bench: CpuBench) -> None:
    """One guided step of the published sizes against the parameters, 2.56 s of latent."""

    def run() -> Row:
        row: Row = {}
        for size in ("S", "M", "L"):
            unet = unet_of(size, tiny=bench.tiny)
            given = torch.randn(2, 8, 64, 16), torch.full((2,), 500.0), torch.randn(2, 512)
            with torch.no_grad():
                call = partial(unet, given[0], given[1], None, class_labels=given[2])
                time = paired({"": call}, "cpu", repeats=5, most=15)[""]
            row[size] = {**time, "parameters_m": sum(p.numel() for p in unet.parameters()) / 1e6}
        return row

    bench.book.add("growth, sizes", "U-Net step, exact", run, needs=60)


def long(bench: CpuBench) -> None:
    """What it costs in exactness to decode in pieces: the vocoder's are exact, the VAE's windows are not."""

    def run() -> Row:
        pipe = AudioLDM.from_pretrained()
        made = pipe.sample(
            pipe.encode_text(["rain falling"]), pipe.encode_text([""]), seeds=[0],
            **{**{k: v for k, v in pipe.defaults.items() if k != "polish"}, "seconds": 15.36, "steps": 10},
        )  # fmt: skip
        with torch.no_grad():
            whole = pipe.engine.decode(made)
            frames = longform.window_frames(pipe)
            weights, stride = longform.tile_weights(frames, pipe.spec.stride)
            begins = starts(made.shape[2], frames, stride)
            tiled = blend(
                made.shape[2], begins, weights, lambda b: pipe.engine.decode(made[:, :, b : b + frames]),
                dim=2, scale=pipe.spec.stride,
            )  # fmt: skip
            one, pieces = vocode(pipe.vocoder, whole, chunk=10**6), vocode(pipe.vocoder, whole, chunk=128)
        gap = (tiled - whole).abs()
        return {
            "vae tiled": {
                "mean_log_mel": float(gap.mean()),
                "max_log_mel": float(gap.max()),
                "windows": len(begins),
            },
            "vocoder in pieces": error(pieces, one),
        }

    bench.book.add("long", "15.36 s, embedded", run, needs=30)


def memory(bench: CpuBench, names: tuple[str, ...]) -> None:
    """Peak memory of a process that loads one float32 model folder, the same for both sides, and makes one clip."""
    with TemporaryDirectory() as folder:
        ours(bench.nets).save_pretrained(folder)
        for name in names:
            bench.book.add("memory S", name, partial(child, PEAK, folder, name, str(bench.seconds)), needs=30)


def main() -> None:
    """Parse, run every group in order, leave the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=540.0, help="stop beginning rows after this time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu.json"))
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    parser.add_argument(
        "--compiled", action="store_true", help="the compiled modes too: minutes of compiling"
    )
    groups = ("parts", "whole", "startup", "embedded", "drift", "memory", "growth", "sizes", "long")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=(*groups, "second"),
        default=groups,
        help="these groups only; second is how compiled starts in a second process",
    )
    parser.add_argument(
        "--pipelines", nargs="*", help="these only, after the first; for machines of little memory"
    )
    options = parser.parse_args()
    about = {"what": "cpu", "rehearsal": options.rehearse, "machine": machine("cpu")}
    book = Book(options.out, seconds=options.seconds, about=about)
    bench = CpuBench(book, device="cpu", rehearse=options.rehearse)
    peaks(bench, sizes=())
    book.add("floors", "S", partial(floor_rows, bench, "S"))
    names = (*NAMES, *(("compiled fp32", "compiled") if options.compiled else ()))
    names = (*names, *(("original audioldm",) if found() else ()))
    names = names if options.pipelines is None else (BASE, *options.pipelines)
    runs: dict[str, Callable[[], Any]] = {
        "parts": partial(parts, bench, tuple(n for n in names if n != "original audioldm")),
        "whole": partial(whole, bench, names),
        "startup": partial(startup, bench),
        "second": partial(second, bench),
        "embedded": partial(embedded, bench),
        "drift": lambda: book.add("drift S by part", "fast against exact", partial(drift, bench, "fast")),
        "memory": partial(memory, bench, tuple(n for n in names if n != "original audioldm")),
        "growth": partial(growth, bench),
        "sizes": partial(sizes, bench),
        "long": partial(long, bench),
    }
    for name, run in runs.items():
        if name in options.only:
            run()
    print(f"{len(book.rows)} rows in {options.out}")


if __name__ == "__main__":
    main()
