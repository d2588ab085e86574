"""The Lightning trainer that every recipe uses."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from audioldm.training import distributed
from audioldm.training.callbacks import Budget, Checkpoint, Clip, ExportFolder, Profile
from audioldm.training.console import Bar
from audioldm.training.ema import Ema, PowerEma
from audioldm.training.lease import Lease
from audioldm.training.metrics import Metrics
from audioldm.training.previews import Listen, Preview
from audioldm.training.state import LAST, SafeCheckpoints


def build_trainer(
    *,
    run_dir: str,
    rate: int,
    val_every: int,
    accelerator: str = "cpu",
    precision: str = "32-true",
    devices: int | str = 1,
    nodes: int = 1,
    strategy: str = "auto",
    ema: float | None = None,
    power_ema_every: int | None = None,
    log_every: int = 20,
    checkpoint_every: int | None = None,
    listen: Listen | None = None,
    profile: bool = False,
    minutes: float | None = None,
    gradient_clip_val: float | None = None,
    **more: Any,
) -> L.Trainer:
    """Curves in TensorBoard and ``metrics.jsonl``, previews, checkpoints, averages, and the export at the end.

    ``checkpoint_every`` None means at every validation.   ``power_ema_every`` stores the averages that `audioldm ema`
    combines.   ``listen`` makes sound of fixed prompts.   ``minutes`` fits the number of batches to that time.
    ``gradient_clip_val`` is another name of task.optim.clip.
    """
    if accelerator != "cpu":
        torch.set_float32_matmul_precision("high")  # float32 products on tensor cores, 10 bits of mantissa
    folder = Path(run_dir)
    if listen is not None:
        listen.folder = folder / "previews"
    optional: list[L.Callback | None] = [
        Ema(ema) if ema is not None else None,
        PowerEma(folder / "ema", power_ema_every) if power_ema_every else None,
    ]
    callbacks: list[L.Callback | None] = [
        Lease(minutes) if minutes is not None else None,
        Clip(gradient_clip_val) if gradient_clip_val is not None else None,
        Budget(),
        *optional,
        Metrics(folder / "metrics.jsonl", log_every),
        Preview(folder / "previews", rate),
        listen,
        Checkpoint(folder / "checkpoints" / LAST, checkpoint_every or val_every),  # after what it saves
        Bar(refresh_rate=20),
        Profile(folder) if profile else None,
        ExportFolder(folder / "model"),
    ]
    return L.Trainer(
        accelerator=accelerator,
        precision=precision,  # type: ignore[arg-type]
        devices=devices,
        num_nodes=nodes,
        strategy=distributed.strategy(strategy, accelerator),
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        callbacks=[callback for callback in callbacks if callback is not None],
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
