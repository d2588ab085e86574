"""The Lightning trainer that every recipe uses."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from audioldm.training.callbacks import Budget, Checkpoint, Ema, ExportFolder, Preview
from audioldm.training.lease import Lease
from audioldm.training.metrics import Metrics
from audioldm.training.state import LAST, SafeCheckpoints


def build_trainer(
    *,
    run_dir: str,
    rate: int,
    val_every: int,
    accelerator: str = "cpu",
    precision: str = "32-true",
    devices: int = 1,
    ema: float | None = None,
    log_every: int = 20,
    checkpoint_every: int | None = None,
    minutes: float | None = None,
    **more: Any,
) -> L.Trainer:
    """Curves in TensorBoard and ``metrics.jsonl``, previews, ``last.ckpt`` every ``checkpoint_every`` batches (None: at
    every validation), the export at the end.   ``minutes`` fits the number of batches to that time.
    """
    if accelerator != "cpu":
        torch.set_float32_matmul_precision("high")  # float32 products on tensor cores, 10 bits of mantissa
    folder = Path(run_dir)
    callbacks: list[L.Callback] = [
        *([Lease(minutes)] if minutes is not None else []),
        Budget(),
        *([Ema(ema)] if ema is not None else []),
        Metrics(folder / "metrics.jsonl", log_every),
        Checkpoint(folder / "checkpoints" / LAST, checkpoint_every or val_every),
        Preview(rate),
        TQDMProgressBar(refresh_rate=20),
        ExportFolder(folder / "model"),
    ]
    return L.Trainer(
        accelerator=accelerator,
        precision=precision,  # type: ignore[arg-type]
        devices=devices,
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        callbacks=callbacks,
        plugins=[SafeCheckpoints()],
        max_steps=-1,
        max_epochs=-1,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=log_every,
        use_distributed_sampler=False,  # our batches are the process's own already
        enable_model_summary=False,
        enable_checkpointing=False,
        **more,
    )
