"""Where the time of one generation goes: wall time and floating-point operations of each part."""

import math
import sys
import time
import timeit
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:  # a process that tells its memory need not import the nets
    from audioldm.components import Components

# the parts of a model, and which of ``engines.Functions`` each is
CALLS = {"text": "embed_text", "unet": "unet", "vae": "decode", "vocoder": "vocode"}
PARTS = (*CALLS, "rest")  # what lies between: the sampler, the noise, the phase refinement


@dataclass
class Usage:
    """What the calls of a part took, in all: seconds, and operations (a multiply-add counts two)."""

    seconds: float = 0.0
    calls: int = 0
    flops: int = 0


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trace(parts: "Components", run: Callable[[], Any], *, count: bool = False) -> dict[str, Usage]:
    """What each of ``PARTS`` took in ``run()``, and "all"; ``count`` also counts operations, which is slower."""
    usage, plain = {part: Usage() for part in (*PARTS, "all")}, parts.engine.functions

    def watched(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            wait(parts.device)
            start = time.perf_counter()
            with FlopCounterMode(display=False) if count else nullcontext() as counter:
                answer = function(*args, **named)
            wait(parts.device)
            usage[part].seconds += time.perf_counter() - start
            usage[part].calls += 1
            usage[part].flops += 0 if counter is None else counter.get_total_flops()
            return answer

        return call

    calls = {name: watched(part, getattr(plain, name)) for part, name in CALLS.items()}
    parts.engine.functions, begin = replace(plain, **calls), time.perf_counter()
    try:
        run()
    finally:
        parts.engine.functions = plain
    wait(parts.device)
    usage["all"].seconds = time.perf_counter() - begin
    usage["rest"].seconds = round(usage["all"].seconds - sum(usage[part].seconds for part in CALLS), 9)
    return usage


def matmul_rate(device: torch.device, dtype: torch.dtype, *, size: int = 1024) -> float:
    """Operations a second of a large matrix product here, the best of ten."""
    size = size * (8 if device.type == "cuda" else 1)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        a @ b
        wait(device)

    return 2 * size**3 / min(timeit.repeat(product, number=1, repeat=10))


def peak_mib(device: torch.device) -> float:
    """MiB at the highest so far: of the GPU where the model is on one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if (status := Path("/proc/self/status")).exists():
        # getrusage would begin with what the process that started this one had used
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 2**10
    if sys.platform == "win32":
        return math.nan
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
