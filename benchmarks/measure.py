"""A clock that waits for the GPU, floors of a part, a book of rows that survives being cut off, the machine.

The floor of a part is max(FLOPs / peak, bytes / copy rate): every convolution, matrix product and attention at the
rate of a large matrix product, or each layer's weights, input and output moved once, whichever takes longer.   What
lies between the layers (norms, activations, sums) counts as free, so no implementation of these layers goes below.
"""

import json
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

Row = dict[str, Any]
PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "numpy", "lightning", "audioldm")


def wait(device: torch.device | str) -> None:
    """Until the GPU has finished."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], Any], device: torch.device | str) -> float:
    """Wall time of one run."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def paired(
    runs: dict[str, Callable[[], Any]],
    device: torch.device | str,
    *,
    repeats: int = 5,
    warm: int = 1,
    most: float = 60.0,
) -> dict[str, Row]:
    """Each run's median, least and greatest time, taken in turn (ABAB), after ``warm`` untimed turns (0: none).

    It stops, but never before one turn, where another would end after ``most`` seconds: ``n`` is the turns there were.
    """
    first = {name: seconds_of(run, device) if warm else None for name, run in runs.items()}
    for _ in range(warm - 1):
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for turn in range(repeats):
        if turn and (time.perf_counter() - start) * (turn + 1) / turn > most:
            break
        for name, run in runs.items():
            times[name].append(seconds_of(run, device))
    return {
        name: {"s": median(t), "min_s": min(t), "max_s": max(t), "n": len(t), "first_s": first[name]}
        for name, t in times.items()
    }


def kernels(run: Callable[[], Any], device: torch.device | str, *, repeats: int = 3) -> Row:
    """Milliseconds and number of all kernels of ``run``, and of the ten that take longest; nothing on a CPU."""
    run()
    if torch.device(device).type != "cuda":
        return {}
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(repeats):
            run()
        wait(device)
    rows = sorted(
        (
            (e.self_device_time_total / repeats / 1e3, round(e.count / repeats), e.key[:110])
            for e in profiler.key_averages()
        ),
        reverse=True,
    )
    return {"ms": sum(row[0] for row in rows), "n": sum(row[1] for row in rows), "longest": rows[:10]}


def peak_mib(run: Callable[[], Any], device: torch.device | str, *, before: int = 0) -> float | None:
    """MiB of GPU memory that ``run`` needs at its highest, with ``before`` bytes that were there; None on a CPU."""
    if torch.device(device).type != "cuda":
        return None
    wait(device)
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    wait(device)
    return round((torch.cuda.max_memory_allocated() - start + before) / 2**20, 1)


class Book:
    """Rows of a benchmark, written to disk after each one; a row that fails says why and stops no other."""

    def __init__(self, path: Path, *, seconds: float, about: Row) -> None:
        self.path, self.start, self.limit = path, time.perf_counter(), seconds
        self.about, self.rows = about, list[Row]()

    def remaining(self) -> float:
        """Seconds until the limit."""
        return self.limit - (time.perf_counter() - self.start)

    def add(self, group: str, name: str, run: Callable[[], Row], *, needs: float = 5.0) -> Row | None:
        """Run ``run`` if ``needs`` seconds are left; keep its values, or the reason that there are none."""
        begun = time.perf_counter()
        row: Row = {"group": group, "name": name}
        if self.remaining() < needs:
            row["skipped"] = f"{self.remaining():.0f} s left, needs {needs:.0f}"
        else:
            try:
                row |= run()
            except Exception as error:  # one row that fails must not cost the others
                row["error"] = f"{type(error).__name__}: {error}"[:500]
                row["where"] = traceback.format_exc()[-1500:]
        row["spent_s"] = round(time.perf_counter() - begun, 2)
        self.rows.append(row)
        self.write()
        shown = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items() if k != "where"}
        print(f"[{self.limit - self.remaining():6.1f} s] {json.dumps(shown)}", flush=True)
        return None if "error" in row or "skipped" in row else row

    def write(self) -> None:
        """Replace the file in one move."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {**self.about, "spent_s": round(self.limit - self.remaining(), 1), "rows": self.rows}
        self.path.with_suffix(".tmp").write_text(json.dumps(content, indent=1))
        os.replace(self.path.with_suffix(".tmp"), self.path)


def machine(device: torch.device | str) -> Row:
    """What was measured on: date, processor, card, versions."""
    about: Row = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "held_to": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "versions": {name: metadata.version(name) for name in PACKAGES if installed(name)},
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about |= {
            "card": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return about


def installed(name: str) -> bool:
    """Whether a package has a version to tell."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def processor() -> str:
    """The processor's name, family and model in Linux's words, with the number of cores that this process may use."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    kind = f"family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"
    return f"{facts.get('model name', 'unknown')} ({kind}), {len(os.sched_getaffinity(0))} cores"


def driver() -> str:
    """The card's driver version."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Linear)


def large_product(
    device: str, dtype: torch.dtype, *, size: int = 8192
) -> tuple[Callable[[], Tensor], float, float]:
    """A large square matrix product, on a CPU a large convolution where that is faster: the call, its FLOPs, FLOP/s.

    The rate is the best of 20 runs.   MKL's product in float32 uses AVX2 alone on processors that are not Intel's,
    oneDNN's convolutions all there is.
    """
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    runs: list[tuple[Callable[[], Tensor], float]] = [(partial(torch.mm, a, b), 2.0 * size**3)]
    if device == "cpu":
        channels = size // 8
        picture, weight = (
            torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)
            for shape in ((1, channels, 128, 64), (channels, channels, 3, 3))
        )
        flops = 2.0 * weight.numel() * 128 * 64
        runs.append((partial(nnf.conv2d, picture, weight, padding=1), flops))
    rated = []
    for run, flops in runs:
        run()
        rated.append((run, flops, flops / min(seconds_of(run, device) for _ in range(20))))
    return max(rated, key=lambda one: one[2])


def copy_rate(device: str, *, mib: int = 1024) -> float:
    """Bytes/s read plus written by a copy, the best of several."""
    a = torch.ones(mib * 2**18, device=device)
    b = torch.empty_like(a)
    b.copy_(a)
    return 2 * a.nbytes / min(seconds_of(lambda: b.copy_(a), device) for _ in range(5))


def cost(module: nn.Module, call: Callable[[], Any], *, width: int) -> dict[str, float]:
    """FLOPs and bytes of ``call``, which runs ``module`` (on the meta device: nothing is computed).

    Multiply-adds count two; ``width`` is the bytes of one number.
    """
    moved = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += inputs[0].numel() + output.numel() + sum(p.numel() for p in layer.parameters())

    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, LAYERS)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return {"flops": float(counter.get_total_flops()), "bytes": float(moved * width)}


def floor(part: dict[str, float], *, flops_per_s: float, bytes_per_s: float) -> float:
    """Seconds below which the part cannot come."""
    return max(part["flops"] / flops_per_s, part["bytes"] / bytes_per_s)
