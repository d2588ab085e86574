"""AdamW, and the learning rate over a run."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch

from audioldm.errors import AudioLDMError
from audioldm.training.distributed import local


@dataclass(frozen=True)
class Optim:
    """How every optimiser of a run steps: after a linear warm-up ``schedule`` constant, or cosine down to ``floor``."""

    schedule: str = "cosine"
    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "constant"):
            raise AudioLDMError(f"schedule={self.schedule!r} is unknown.", "Use cosine or constant.")

    def factor(self, step: int, *, warmup: int, steps: int) -> float:
        """Of the full rate, at ``step`` of 1 to ``steps``.   SGDR (arXiv:1608.03983) eq. 5.

        >>> [round(Optim().factor(n, warmup=10, steps=110), 2) for n in (1, 10, 60, 110)]
        [0.1, 1.0, 0.55, 0.1]
        """
        if step < warmup or self.schedule == "constant":
            return min(1.0, step / max(1, warmup))
        share = (step - warmup) / max(1, steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * share)) * (1 - self.floor) + self.floor


def adamw(
    parameters: Iterable[torch.nn.Parameter], lr: float, *, betas: tuple[float, float] = (0.9, 0.999),
    decay: float = 0.01, capturable: bool = False,
) -> torch.optim.AdamW:  # fmt: skip
    """AdamW in two groups: vectors (biases, norms) are not decayed.

    ``capturable`` keeps rate and step number on the GPU, where a CUDA graph can read them.
    """
    trained = [*filter(attrgetter("requires_grad"), parameters)]
    device = trained[0].device
    on_gpu = capturable and device.type == "cuda"
    # one pass over each tensor instead of a dozen; a net that is split over CPUs has no such kernel
    fused = device.type == "cuda" or all(local(p) is p for p in trained)
    groups: list[dict[str, Any]] = []
    for is_matrix, each in ((True, decay), (False, 0.0)):
        if params := [p for p in trained if (p.dim() > 1) == is_matrix]:
            rate: Any = torch.tensor(lr, device=device) if on_gpu else lr
            groups.append({"params": params, "weight_decay": each, "initial_lr": lr, "lr": rate})
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused, capturable=on_gpu)
