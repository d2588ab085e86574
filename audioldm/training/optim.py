"""AdamW, and the learning rate over a run: transformers' schedules after a linear warm-up."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import optimization

from audioldm.errors import AudioLDMError
from audioldm.training.distributed import local

SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Optim:
    """How every optimiser of a run steps.

    ``schedule``, one of SCHEDULES, follows the linear warm-up and falls to ``floor`` times the full rate at the last
    step.   cosine: SGDR (arXiv:1608.03983) eq. 5.
    """

    schedule: str = "cosine"
    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise AudioLDMError(f"schedule={self.schedule!r} is unknown.", f"Known: {', '.join(SCHEDULES)}.")

    def rates(self, optimizer: torch.optim.Optimizer, *, warmup: int, steps: int) -> Any:
        """The learning rate by step, from 1/``warmup`` of the full one at the first to ``floor`` at the last.

        >>> net = torch.nn.Linear(2, 2)
        >>> rates = Optim().rates(adamw(net.parameters(), 1.0), warmup=10, steps=110)
        >>> [round(rates.lr_lambdas[0](n), 2) for n in (1, 10, 60, 110)]
        [0.1, 1.0, 0.55, 0.1]
        """
        # last_epoch 0: the first step counts as number 1, else its rate would be 0
        start: Any = {"num_warmup_steps": warmup, "last_epoch": 0}
        if self.schedule == "constant":
            return optimization.get_constant_schedule_with_warmup(optimizer, **start)
        start["num_training_steps"] = max(steps, warmup + 1)
        if self.schedule == "cosine":
            cosine = optimization.get_cosine_with_min_lr_schedule_with_warmup
            return cosine(optimizer, min_lr_rate=self.floor, **start)
        last = self.floor * float(optimizer.defaults["lr"])
        return optimization.get_polynomial_decay_schedule_with_warmup(optimizer, lr_end=last, **start)


def adamw(
    parameters: Iterable[torch.nn.Parameter], lr: float, *, betas: tuple[float, float] = (0.9, 0.999),
    decay: float = 0.01, capturable: bool = False,
) -> torch.optim.AdamW:  # fmt: skip
    """AdamW in two groups: vectors (biases, norms) are not decayed.

    ``capturable`` keeps rate and step number on the GPU, where a CUDA graph can read them.
    """
    trained = [p for p in parameters if p.requires_grad]
    device = trained[0].device
    on_gpu = capturable and device.type == "cuda"
    # one pass over each tensor instead of a dozen; a net that is split over CPUs has no such kernel
    fused = device.type == "cuda" or (device.type == "cpu" and all(local(p) is p for p in trained))
    groups: list[dict[str, Any]] = []
    for is_matrix, each in ((True, decay), (False, 0.0)):
        if params := [p for p in trained if (p.dim() > 1) == is_matrix]:
            rate: Any = torch.tensor(lr, device=device) if on_gpu else lr
            groups.append({"params": params, "weight_decay": each, "initial_lr": lr, "lr": rate})
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused, capturable=on_gpu)


def restore_rates(rates: LambdaLR, device: torch.device) -> None:
    """Set the rates that belong to the schedule's step: a checkpoint brings those of a shorter run, on the CPU.

    A rate that is a tensor stays one on ``device``, since a CUDA graph reads it.
    """
    groups = zip(rates.optimizer.param_groups, rates.base_lrs, rates.lr_lambdas, strict=True)
    for group, base, factor in groups:
        rate = float(base) * factor(rates.last_epoch)
        held = group["lr"]
        group["lr"] = held.to(device).fill_(rate) if isinstance(held, Tensor) else rate
