"""What the training shells share: a count of batches that survives a resume, the learning rate that follows it, and
random draws that follow it too, so that training N batches equals training some, stopping, and training the rest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal

import lightning as L
import torch
from torch import Generator, Tensor

from audioldm.datasets.draws import generator
from audioldm.errors import AudioLDMError
from audioldm.training.distributed import local, shard, whole

Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Optim:
    """How every optimiser of a run steps.

    ``schedule`` follows the linear warm-up and falls to ``floor`` times the full rate at the last batch.   ``clip`` is
    the largest gradient norm (None: the module's own).   ``accumulate`` batches make one step.   ``fused`` updates each
    tensor in one pass (None: wherever there is such a kernel).
    """

    schedule: Schedule = "cosine"
    floor: float = 0.1
    clip: float | None = None
    accumulate: int = 1
    fused: bool | None = None

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise AudioLDMError(f"accumulate={self.accumulate} is not a number of batches.", "Use 1 or more.")
        if self.schedule not in ("cosine", "linear", "constant"):
            raise AudioLDMError(
                f"schedule={self.schedule!r} is unknown.",
                "Use cosine, linear or constant (after the warm-up).",
            )


class TrainingModule(L.LightningModule):
    """A LightningModule that knows how many batches it has seen.

    ``seen`` lives in the checkpoint; a plain number, because reading a buffer would wait for the GPU at every batch.
    Lightning's own ``global_step`` counts optimiser steps, so it runs twice as fast
    where a generator and a discriminator are trained; recipes count batches.   Subclasses call ``start_batch`` first
    and step their optimisers with ``descend``.   ``graph`` records their steps as CUDA graphs (one GPU, batches of one
    shape, see ``RecordedStep``).
    """

    def __init__(
        self, *, batches: int, warmup: int, seed: int, optim: Optim | None = None, graph: bool = False
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.batches, self.warmup, self.seed = batches, warmup, seed
        self.optim = optim or Optim()
        self.seen = 0
        self.split = False
        self.graph = graph
        self.register_buffer("broken", torch.zeros((), dtype=torch.bool), persistent=False)

    def get_extra_state(self) -> Tensor:
        """The count, into ``state_dict``."""
        return torch.tensor(self.seen)

    def set_extra_state(self, state: Tensor) -> None:
        """The count, out of ``state_dict``."""
        self.seen = int(state)

    def on_fit_start(self) -> None:
        """A recorded step neither waits for other GPUs nor leaves half an accumulated one."""
        if self.graph and (self.trainer.world_size > 1 or self.optim.accumulate > 1):
            raise AudioLDMError(
                "task.graph=true records steps of one process that are whole.",
                "Set task.graph=false, or one device and accumulate=1.",
            )

    def configure_model(self) -> None:
        """Split the nets where the strategy asks for it."""
        if self._trainer is not None and self.device_mesh is not None and not self.split:
            shard(self, self.device_mesh["data_parallel"])
            self.split = True

    def start_batch(self) -> Generator:
        """Set this batch's learning rates and return the generator, on the module's device, of all its random draws."""
        seen = self.seen
        for optimizer in self.each_optimizer():
            for group in optimizer.param_groups:
                rate = group["initial_lr"] * rate_factor(
                    seen,
                    warmup=self.warmup,
                    total=self.batches,
                    floor=self.optim.floor,
                    schedule=self.optim.schedule,
                )
                set_rate(group, rate, self.device)
        self.seen += 1
        return generator(self.seed, seen, 0, device=self.device)

    def each_optimizer(self) -> list:  # type: ignore[type-arg]
        """All of them as a list."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    @property
    def full(self) -> bool:
        """Whether this batch completes an accumulated step."""
        return self.seen % self.optim.accumulate == 0

    def descend(  # type: ignore[no-untyped-def]
        self, loss: Tensor | Iterable[Tensor], optimizer, *, clip: float | None = None
    ) -> Tensor | None:
        """Backward; at the last of ``accumulate`` batches clip, look for NaN and infinity, step, and return the norm.

        A sum may come as its parts: each is backpropagated, and its memory let go, before the next is made.
        On a CPU a broken gradient stops the run before it reaches a weight.   On a GPU asking at every step would make
        the CPU wait, so the answer is collected and read before anything is written (``refuse_broken``).
        """
        if (self.seen - 1) % self.optim.accumulate == 0:
            optimizer.zero_grad()
        for part in [loss] if isinstance(loss, Tensor) else loss:
            self.manual_backward(part / self.optim.accumulate)
            self.broken |= ~part.detach().isfinite()
        norm = None
        if self.full:
            gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            norm = whole(torch.nn.utils.get_total_norm(gradients))
            self.broken |= ~norm.isfinite()
            if self.broken.device.type == "cpu":
                self.refuse_broken()
            limit = self.optim.clip if self.optim.clip is not None else clip
            if limit is not None:
                torch._foreach_mul_([local(g) for g in gradients], (limit / (norm + 1e-6)).clamp(max=1.0))
            optimizer.step()
        return norm

    def log_terms(self, terms: dict[str, Tensor | None], *norms: str) -> None:
        """Into the curves: ``train/NAME`` of each; those named in ``norms`` not on the progress bar."""
        told = {f"train/{k}": v.detach() for k, v in terms.items() if v is not None and k not in norms}
        self.log_dict(told, prog_bar=True)
        self.log_dict({f"train/{k}": v for k in norms if (v := terms.get(k)) is not None})

    def refuse_broken(self) -> None:
        """Stop where a loss or a gradient was NaN or infinite; whatever is on the disk is from before it."""
        if bool(self.broken):
            raise AudioLDMError(
                f"The loss or its gradient became NaN or infinite at or shortly before batch {self.seen}.",
                "The last good state is kept; try a lower task.lr, task.optim.clip=1, or trainer.precision=32-true.",
                code=1,
            )

    def own(self, draw: Callable[[int], Tensor], rows: int) -> Tensor:
        """``rows`` of this process, out of what a single process would draw for the batch of all of them."""
        rank, world = self.place()
        return draw(rows * world)[rank * rows : (rank + 1) * rows]

    def normal(self, like: Tensor, rng: Generator) -> Tensor:
        """Normal numbers shaped as ``like``, drawn on the generator's device."""
        return self.own(
            lambda n: torch.randn(n, *like.shape[1:], generator=rng, device=rng.device), len(like)
        ).to(like)

    def chance(self, p: float, rows: int, rng: Generator) -> Tensor:
        """(rows,) true with probability ``p``, on the module's device."""
        return self.own(lambda n: torch.rand(n, generator=rng, device=rng.device), rows).to(self.device) < p

    def place(self) -> tuple[int, int]:
        """(rank, processes); a validation is the same on every process, and so counts as one."""
        trainer = self._trainer
        if trainer is None or not trainer.training:
            return 0, 1
        return trainer.global_rank, trainer.world_size

    def validation_generator(self, batch_index: int) -> Generator:
        """The same draws at every validation, so that its curve moves only with the model."""
        return generator(self.seed, -1, batch_index, device=self.device)


def set_rate(group: dict[str, Any], rate: float, device: torch.device) -> None:
    """Put ``rate`` into an optimiser's group; one that is a tensor stays that tensor, since a CUDA graph reads it."""
    held = group["lr"]
    if not isinstance(held, Tensor):
        group["lr"] = rate
        return
    if held.device != device:  # a checkpoint brings it on the CPU
        group["lr"] = held.to(device)
    group["lr"].fill_(rate)


def rate_factor(
    seen: int, *, warmup: int, total: int, floor: float = 0.1, schedule: Schedule = "cosine"
) -> float:
    """Linear warm-up to 1, then down to ``floor`` at ``total`` batches.   cosine: SGDR (arXiv:1608.03983) eq. 5.

    >>> [round(rate_factor(n, warmup=10, total=110), 2) for n in (0, 9, 10, 60, 110)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    >>> [round(rate_factor(n, warmup=10, total=110, floor=0, schedule="linear"), 2) for n in (10, 60, 110)]
    [1.0, 0.5, 0.0]
    """
    if seen < warmup:
        return (seen + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (seen - warmup) / max(1, total - warmup))
    left = 1 - progress if schedule == "linear" else 0.5 * (1 + cos(pi * progress))
    return floor + (1 - floor) * left


def adamw(
    parameters: Iterable[torch.nn.Parameter],
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    decay: float = 0.01,
    fused: bool | None = None,
    graph: bool = False,
) -> torch.optim.AdamW:
    """AdamW whose groups remember their full rate; vectors (biases, norms) are not decayed.

    ``graph`` keeps rate and step number on the GPU, where a CUDA graph can read them.
    """
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": decay, "initial_lr": lr},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0, "initial_lr": lr},
    ]
    if (
        fused is None
    ):  # one pass over each tensor instead of a dozen; a net split over CPUs has no such kernel
        fused = all(p.device.type == "cuda" or (p.device.type == "cpu" and local(p) is p) for p in trained)
    device = trained[0].device
    on_gpu = graph and device.type == "cuda"
    for group in groups if on_gpu else ():
        group["lr"] = torch.tensor(lr, device=device)
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=lr, betas=betas, fused=fused, capturable=on_gpu
    )
