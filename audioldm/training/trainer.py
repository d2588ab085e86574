"""The Lightning trainer that every recipe uses."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from audioldm.training.callbacks import Budget, Checkpoint, Ema, ExportFolder, Preview


def build_trainer(
    *,
    run_dir: str,
    rate: int,
    val_every: int,
    accelerator: str = "cpu",
    precision: str = "32-true",
    devices: int = 1,
    ema: float | None = None,
    **more: Any,
) -> L.Trainer:
    """Curves in TensorBoard and CSV, previews, ``last.ckpt`` every ``val_every`` batches, the export at the end.

    A resumed run adds to the TensorBoard curves and begins a new CSV beside the old one.
    """
    folder = Path(run_dir)
    callbacks: list[L.Callback] = [
        Budget(),
        *([Ema(ema)] if ema is not None else []),
        Checkpoint(
            folder / "checkpoints" / "last.ckpt", val_every
        ),  # after Ema, so that it saves this batch's average
        Preview(rate),
        TQDMProgressBar(refresh_rate=20),
        ExportFolder(folder / "model"),
    ]
    return L.Trainer(
        accelerator=accelerator,
        precision=precision,  # type: ignore[arg-type]
        devices=devices,
        logger=[TensorBoardLogger(folder, name="", version="tensorboard"), CSVLogger(folder, name="csv")],
        callbacks=callbacks,
        max_steps=-1,
        max_epochs=-1,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=20,
        enable_model_summary=False,
        enable_checkpointing=False,
        **more,
    )
