"""What the training modules share: a count of batches that survives a resume, and random draws that follow it, so that
training N batches equals training some, stopping, and training the rest.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Generator, Tensor

from audioldm.datasets.draws import generator
from audioldm.diffusion.objective import Draw, draw_t, loss_by_bin
from audioldm.errors import AudioLDMError
from audioldm.training.distributed import local, shard, whole
from audioldm.training.optim import Optim, adamw

Terms = dict[str, Tensor]
"""what a training step returns: "loss" (automatic optimisation descends it), and parts of it for the curves"""


class TrainingModule(L.LightningModule):
    """A LightningModule whose ``training_step`` returns its ``Terms``, and which knows how many batches it has met.

    ``part`` names the attribute that is trained, averaged and exported; it may come as a ``functools.partial`` that
    builds it.   ``batch_count`` lives in the checkpoint (Lightning's ``global_step`` counts optimiser steps); a plain
    number, because reading a buffer would wait for the GPU.   ``accumulate`` batches make a step.   A module of two
    optimisers steps them with ``descend``; ``clip`` is Lightning's gradient_clip_val for it.   ``step`` of a
    ``recordable`` module draws nothing and asks for no value, so that ``speed.record`` can replay it.
    """

    part: ClassVar[str]
    recordable: ClassVar[bool] = False
    batch_count, accumulate = 0, 1
    clip: float | None = None
    recorded = configured = False
    speed: Any = None
    broken: Tensor

    def __init__(
        self, *, batches: int, lr: float = 1e-4, warmup: int = 100, seed: int = 0, optim: Optim | None = None
    ) -> None:
        super().__init__()
        self.batches, self.warmup, self.seed, self.lr = batches, warmup, seed, lr
        self.optim = optim or Optim()
        self.register_buffer("broken", torch.zeros((), dtype=torch.bool), persistent=False)

    @property
    def averaged(self) -> torch.nn.Module:
        net: torch.nn.Module = getattr(self, self.part)
        return net

    def components(self) -> dict[str, torch.nn.Module]:
        """Name -> net, of all that is exported."""
        return {self.part: self.averaged}

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.batch_count)

    def set_extra_state(self, state: Tensor) -> None:
        self.batch_count = int(state)

    def configure_model(self) -> None:
        """Once: build the nets that came as functions, change them as ``speed`` says, split them where that is asked.

        On the CPU: a seed gives the same net on every machine.   Raises AudioLDMError for settings that none can have.
        """
        if self.configured:
            return
        for name in (self.part, "discriminator"):
            if isinstance(build := getattr(self, name, None), partial):
                try:
                    with torch.device("cpu"):
                        setattr(self, name, build())
                except (TypeError, ValueError) as error:
                    wrong = f"task.{name} cannot be built: {error}."
                    raise AudioLDMError(wrong, "Change its numbers, or choose another model/...") from error
        if self.speed is not None:
            self.speed.apply(self)
        if self._trainer is not None and self.device_mesh is not None:
            shard(self, self.device_mesh["data_parallel"])
        self.configured = True

    def on_fit_start(self) -> None:
        if self.recorded and (self.trainer.world_size > 1 or self.accumulate > 1):
            why = "speed.graph=true records steps of one process that are whole."
            raise AudioLDMError(why, "Set speed.graph=false, or one device and accumulate=1.")

    def on_train_start(self) -> None:
        """Set the rates of the next step; a run that goes on, perhaps longer, goes on at its own."""
        each, step = self.accumulate, self.batch_count // self.accumulate + 1
        factor = self.optim.factor(step, warmup=self.warmup // each, steps=-(-self.batches // each))
        for group in (group for optimizer in self.trainer.optimizers for group in optimizer.param_groups):
            if (full := group.get("initial_lr")) is not None:
                held, rate = group["lr"], full * factor
                # a CUDA graph reads a tensor on the device; a checkpoint brings it on the CPU
                group["lr"] = held.to(self.device).fill_(rate) if isinstance(held, Tensor) else rate

    def on_train_batch_end(self, *args: Any) -> None:
        TrainingModule.on_train_start(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.batch_count += 1

    @property
    def steps_now(self) -> bool:
        return self.batch_count % self.accumulate == 0

    def configure_optimizers(self) -> Any:
        return self.optimise(self.parameters())

    def optimise(self, parameters: Iterable[torch.nn.Parameter], **settings: Any) -> torch.optim.AdamW:
        return adamw(parameters, self.lr, capturable=self.recorded, **settings)

    def descend(self, loss: Tensor, optimizer: Any, *, clip: float | None = None) -> Tensor | None:
        """Backward; at the last of ``accumulate`` batches clip, step, and return the gradient's norm."""
        if (self.batch_count - 1) % self.accumulate == 0:
            optimizer.zero_grad()
        self.manual_backward(loss / self.accumulate)
        if not self.steps_now:
            return None
        norm = self.clip_norm(optimizer, self.clip if self.clip is not None else clip)
        optimizer.step()
        return norm

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: Any = None
    ) -> None:
        self.log("train/norm", self.clip_norm(optimizer, gradient_clip_val))

    def clip_norm(self, optimizer: Any, limit: float | None) -> Tensor:
        """Scale the gradients to a norm of at most ``limit``, and return the norm from before.

        On a CPU a broken gradient stops the run before it reaches a weight.   On a GPU asking at every step would make
        the CPU wait, so the answer is collected and read before anything is written (``refuse_broken``).
        """
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        self.broken |= ~norm.isfinite()
        if self.broken.device.type == "cpu":
            self.refuse_broken()
        if limit is not None:
            torch._foreach_mul_([local(g) for g in gradients], (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def refuse_broken(self) -> None:
        """AudioLDMError where a gradient was NaN or infinite; what is on the disk is from before it."""
        if bool(self.broken):
            what = "The loss or its gradient became NaN or infinite"
            hint = "try a lower task.lr, trainer.gradient_clip_val=1, or trainer.precision=32-true."
            why = f"{what} at or shortly before batch {self.batch_count}."
            raise AudioLDMError(why, f"The last good state is kept; {hint}", code=1)

    def batch_generator(self) -> Generator:
        """On the module's device: the one for all draws of this batch."""
        return generator(self.seed, self.batch_count - 1, 0, device=self.device)

    def validation_generator(self, batch_index: int) -> Generator:
        """The same draws at every validation, so that its curve moves only with the model."""
        return generator(self.seed, -1, batch_index, device=self.device)

    def rank_slice(self, draw: Callable[[int], Tensor], rows: int) -> Tensor:
        """``rows`` of this process, out of what a single process would draw for the batch of all of them."""
        rank, world = self.rank_and_world()
        return draw(rows * world)[rank * rows : (rank + 1) * rows].to(self.device)

    def randn(self, like: Tensor, rng: Generator) -> Tensor:
        """Normal numbers shaped as ``like``, drawn on the generator's device."""
        shape = like.shape[1:]
        draw = self.rank_slice(lambda n: torch.randn(n, *shape, generator=rng, device=rng.device), len(like))
        return draw.to(like)

    def uniform(self, rows: int, rng: Generator) -> Tensor:
        """(rows,) in [0, 1), on the module's device."""
        return self.rank_slice(lambda n: torch.rand(n, generator=rng, device=rng.device), rows)

    def bernoulli(self, p: float, rows: int, rng: Generator) -> Tensor:
        """(rows,) true with probability ``p``, on the module's device."""
        return self.uniform(rows, rng) < p

    def timesteps(
        self, schedule: Any, rows: int, rng: Generator, kind: Draw = "low_discrepancy", **levels: Any
    ) -> Tensor:
        """(rows,) by ``objective.draw_t``, on the module's device."""
        return self.rank_slice(lambda n: draw_t(n, schedule, generator=rng, kind=kind, **levels), rows)

    def log_by_quarter(self, name: str, values: Tensor, t: Tensor, schedule: Any) -> None:
        """Log the mean of ``values`` (B,) in each quarter of the times ``t`` (B,) that any fell into."""
        for quarter, value in enumerate(loss_by_bin(values, t, schedule, bins=4)):
            if not value.isnan():
                self.log(f"{name}{quarter}", value, batch_size=len(values))

    def rank_and_world(self) -> tuple[int, int]:
        """(rank, processes); a validation is the same on every process, and so counts as one."""
        trainer = self._trainer
        if trainer is None or not trainer.training:
            return 0, 1
        return trainer.global_rank, trainer.world_size


def detached(terms: Mapping[str, Tensor | None]) -> Terms:
    """Without graphs, and without what is None."""
    return {name: value.detach() for name, value in terms.items() if value is not None}


class AdversarialModule(TrainingModule):
    """A generator against a ``discriminator`` that joins after ``adversarial_start`` batches: two optimisers."""

    recordable = True
    betas: ClassVar[tuple[float, float]]
    decay: ClassVar[float]

    def __init__(self, *, discriminator: Any = None, adversarial_start: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.automatic_optimization = False
        self.discriminator, self.adversarial_start = discriminator, adversarial_start

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator takes part in this batch."""
        return self.discriminator is not None and self.batch_count > self.adversarial_start

    def each_optimizer(self) -> list[Any]:
        """The generator's, then the discriminator's where there is one."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def configure_optimizers(self) -> Any:
        nets = [net for net in (self.averaged, self.discriminator) if net is not None]
        return [self.optimise(net.parameters(), betas=self.betas, decay=self.decay) for net in nets]
