"""Rows of a CPU's benchmark that need processes of their own: start-up, growth, peak memory, the original package."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from benchmarks.bench import Bench
from benchmarks.measure import Row, paired
from benchmarks.shapes import ours

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


WORKER = Path(__file__).with_name("original_worker.py")
TARGET = os.environ.get("AUDIOLDM_ORIGINAL", ".parity")


def original_is_here() -> bool:
    """Whether the folder that AUDIOLDM_ORIGINAL names holds the original (``make parity`` puts it into .parity)."""
    return Path(TARGET, "audioldm", "ldm.py").is_file()


class Original:
    """The original ``audioldm`` package in a process of its own, since our names collide; each call is one run."""

    def __init__(self, *, seconds: float, steps: int) -> None:
        self.folder = TemporaryDirectory()
        words = vocabulary(Path(self.folder.name))
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(words), str(seconds), str(steps)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(TARGET).resolve()), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.answer()

    def answer(self) -> dict[str, float]:
        """Its next line.   Raises RuntimeError where it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the original package's process ended with {self.process.wait()}")
        return json.loads(line)

    def __call__(self) -> None:
        """One whole generation."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.answer()

    def peak_mib(self) -> float:
        """The most memory its process has held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10

    def __enter__(self) -> "Original":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def vocabulary(folder: Path) -> Path:
    """A RoBERTa tokenizer of single bytes: the text is padded to the same 512 tokens whatever its words are."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
