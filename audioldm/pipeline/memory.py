"""How much memory this process has needed at most."""

import resource
import sys
from pathlib import Path

import torch


def peak_mib(device: torch.device) -> float:
    """MiB at the highest so far: of the GPU where the model is on one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin with what the process that started this one had used
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
