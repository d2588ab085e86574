"""What each process of test_distributed.py runs."""

import dataclasses
import functools
import os
from pathlib import Path

import lightning as L
import torch

from audioldm import recipes


class Note(L.Callback):
    """What this process saw and computed in each batch."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.rows += [float(v) for v in batch.mean.sum((1, 2, 3))] if hasattr(batch, "mean") else batch.ids
        whole = {}
        for name, p in module.named_parameters():
            if p.grad is not None:
                whole[name] = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad.clone()
        torch.save({"rows": self.rows, "gradients": whole}, f"{self.path}.{trainer.global_rank}")


def double(experiment) -> None:
    """Float64 throughout: an L1 loss turns the rounding of float32 into flipped signs."""
    module = experiment.module
    for name in (module.part, "discriminator"):
        if isinstance(build := getattr(module, name, None), functools.partial):
            setattr(module, name, build())
    module.double()
    collate = experiment.data.collate

    def wide(items):
        batch = collate(items)
        parts = {k: v.double() for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
        return dataclasses.replace(batch, **parts)

    experiment.data.collate = wide


def train(name: str, settings: list[str], path: Path, place: tuple[int, int, int] | None) -> None:
    """One process; ``place`` is (rank, world, port) as torchrun would set it."""
    if place is not None:
        rank, world, port = place
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
    cfg = recipes.load(name, settings)
    experiment = recipes.build(cfg)
    experiment.trainer.callbacks.insert(0, Note(path))
    double(experiment)
    experiment.fit()
