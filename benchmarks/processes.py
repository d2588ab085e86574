"""Rows of a CPU's benchmark that need processes of their own: start-up, growth, the heap, peak memory."""

import json
import subprocess
import sys
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.bench import Bench
from benchmarks.measure import Row, paired
from benchmarks.shapes import ours

GROW = """
import sys, time
from audioldm.pipeline.audioldm import AudioLDM
seconds, steps = float(sys.argv[1]), int(sys.argv[2])
pipe = AudioLDM.from_pretrained()
pipe(["rain"], seeds=[0], seconds=1.28, steps=steps)
start = time.perf_counter()
pipe(["rain"], seeds=[0], seconds=seconds, steps=steps)
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
HEAP = """
import sys
from functools import partial
from benchmarks.bench import call_part, typed
from benchmarks.cpu import CpuBench
from benchmarks.measure import paired
from audioldm.engines import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
bench = CpuBench(None, device="cpu", rehearse=bool(sys.argv[4:]))
bench.seconds = float(sys.argv[3])
pipe, row = bench.pipe(sys.argv[2]), {}
for part in ("unet step", "vae", "vocoder"):
    run = partial(call_part, pipe, part, typed(bench, pipe))
    row[part] = paired({"": run}, "cpu", repeats=5, most=60)[""]
"""


def child(code: str, *arguments: str) -> Row:
    """Run ``code`` in a fresh process; it prints one JSON object, and its peak memory is added."""
    ending = (
        "\nimport json, torch; from audioldm.pipeline.timing import peak_mib; "
        "print(json.dumps({**row, 'peak_mib': peak_mib(torch.device('cpu'))}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + ending, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def startup(bench: Bench) -> None:
    """Wall time of whole commands, warm; the sound of the second is 5 s."""
    out = bench.book.path.parent / "bench_sound"
    commands = {
        "audioldm --help": ["--help"],
        "audioldm generate, 5 s": ["generate", "rain", "--seconds", "5", "--force", "-o", str(out)],
        "audioldm generate, 5 s, no figure": [
            "generate", "rain", "--seconds", "5", "--force", "--set", "figure=false", "-o", str(out),
        ],
    }  # fmt: skip
    for name, words in commands.items():

        def run(words: list[str] = words) -> Row:
            command = partial(
                subprocess.run, [sys.executable, "-m", "audioldm", *words], capture_output=True, check=True
            )
            return paired({"": command}, "cpu", repeats=1 if bench.tiny else 5, most=40)[""]

        bench.book.add("start-up", name, run, needs=15)


def growth(bench: Bench) -> None:
    """Time and the process's peak memory against the length, each in a process of its own."""
    for seconds in (1.28, 2.56) if bench.tiny else (5.0, 10.0, 30.0, 60.0, 120.0):
        run = partial(child, GROW, str(seconds), "1" if bench.tiny else "5")
        bench.book.add("growth, embedded", f"{seconds:g} s, 5 steps", run, needs=15)


def heap(bench: Bench, modes: tuple[str, ...]) -> None:
    """Each part with and without ``keep_freed_memory``, a process each."""
    for mode in modes:
        for kept in ("given back", "kept"):
            words = (kept, mode, str(bench.seconds), *(["tiny"] if bench.tiny else []))
            bench.book.add("heap S", f"{mode}, freed memory {kept}", partial(child, HEAP, *words), needs=40)


def memory(bench: Bench, names: tuple[str, ...]) -> None:
    """Peak memory of a process that loads one float32 model folder, the same for both sides, and makes one clip."""
    with TemporaryDirectory() as folder:
        ours(bench.nets).save_pretrained(folder)
        for name in names:
            bench.book.add("memory S", name, partial(child, PEAK, folder, name, str(bench.seconds)), needs=30)
