"""A clock that waits for the GPU, a book of rows that survives being cut off, and what machine it was."""

import json
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch

Row = dict[str, Any]
PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "numpy", "lightning", "audioldm")


def wait(device: torch.device | str) -> None:
    """Until the GPU has done what it was told."""
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

    It stops early, but never before one turn, when ``most`` seconds have passed: ``n`` says how many turns there were.
    """
    first = {name: seconds_of(run, device) if warm else None for name, run in runs.items()}
    for _ in range(warm - 1):
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for turn in range(repeats):
        if turn and time.perf_counter() - start > most:
            break
        for name, run in runs.items():
            times[name].append(seconds_of(run, device))
    return {
        name: {"s": median(t), "min_s": min(t), "max_s": max(t), "n": len(t), "first_s": first[name]}
        for name, t in times.items()
    }


def peak_mib(run: Callable[[], Any], device: torch.device | str, *, own: int = 0) -> float | None:
    """MiB of GPU memory that ``run`` needs at its highest, with ``own`` bytes that were there before; None on a CPU."""
    if torch.device(device).type != "cuda":
        return None
    wait(device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    wait(device)
    return round((torch.cuda.max_memory_allocated() - before + own) / 2**20, 1)


class Book:
    """Rows of a benchmark, written to disk after each one; a row that fails says why and stops no other."""

    def __init__(self, path: Path, *, seconds: float, about: Row) -> None:
        self.path, self.start, self.limit = path, time.perf_counter(), seconds
        self.about, self.rows = about, list[Row]()

    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - (time.perf_counter() - self.start)

    def add(self, group: str, name: str, run: Callable[[], Row], *, needs: float = 5.0) -> Row | None:
        """Run ``run`` if ``needs`` seconds are left; keep its values, or the reason that there are none."""
        begun = time.perf_counter()
        row: Row = {"group": group, "name": name}
        if self.left() < needs:
            row["skipped"] = f"{self.left():.0f} s left, needs {needs:.0f}"
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
        print(f"[{self.limit - self.left():6.1f} s] {json.dumps(shown)}", flush=True)
        return None if "error" in row or "skipped" in row else row

    def write(self) -> None:
        """Replace the file in one move."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {**self.about, "spent_s": round(self.limit - self.left(), 1), "rows": self.rows}
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
    """The processor's name as Linux tells it, with the number of cores that this process may use."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    return f"{named}, {len(os.sched_getaffinity(0))} cores"


def driver() -> str:
    """The card's driver version."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
