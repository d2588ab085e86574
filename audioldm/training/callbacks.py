"""What happens beside the steps: stopping, averaging, listening, exporting."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import TwoTowers
from audioldm.nets.folder import save_component
from audioldm.training.distributed import joined
from audioldm.training.ema import Ema


class Budget(L.Callback):
    """Stops after ``limit`` batches, or the module's own number of them; counted across resumes."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit

    def used(self, module: Any) -> bool:
        """Whether the module has seen its batches."""
        return module.seen >= (module.batches if self.limit is None else self.limit)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """A finished run that is started again has nothing to do."""
        trainer.should_stop = self.used(module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Stop when the budget is used."""
        trainer.should_stop = trainer.should_stop or self.used(module)


class Clip(L.Callback):
    """Sets ``module.optim.clip``: Lightning's own clipping does not reach optimisers that are stepped by hand."""

    def __init__(self, norm: float) -> None:
        self.norm = norm

    def on_fit_start(self, trainer: L.Trainer, module: Any) -> None:
        """Before the first step."""
        module.optim = replace(module.optim, clip=self.norm)


class Checkpoint(L.Callback):
    """Writes the whole state to ``path`` every ``every`` batches and at the end.

    In place of Lightning's ModelCheckpoint, which counts optimiser steps instead of batches.   Before a validation
    it waits until that is over, so that its numbers are on the disk before the state that will not make them again.
    """

    def __init__(self, path: str | Path, every: int) -> None:
        self.path, self.every = Path(path), every
        self.saved = -1

    def save(self, trainer: L.Trainer, module: Any) -> None:
        """Once for each batch."""
        if module.seen != self.saved:
            module.refuse_broken()
            self.saved = module.seen
            trainer.save_checkpoint(self.path)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """What was just loaded is on the disk already; half an accumulated step is never written."""
        if self.every % module.optim.accumulate:
            raise AudioLDMError(
                f"checkpoint_every={self.every} is not a multiple of accumulate={module.optim.accumulate}.",
                "Change one of them.",
            )
        self.saved = module.seen

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Every so often."""
        validates = sum(trainer.num_val_batches) > 0 and module.seen % trainer.val_check_batch == 0
        if module.seen % self.every == 0 and not validates:
            self.save(trainer, module)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """The one that was waited for."""
        if module.seen % self.every == 0:
            self.save(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """The last batch."""
        self.save(trainer, module)


class Profile(L.Callback):
    """Where the time of batches 3 to 10 goes: ``profile.txt`` and, for chrome://tracing, ``trace.json``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Wait for caches and allocators to settle."""
        from torch.profiler import profile, schedule

        self.profiler = profile(schedule=schedule(wait=1, warmup=1, active=8, repeat=1))
        self.profiler.start()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """The next batch; the tenth ends the recording."""
        if module.seen < 10:
            self.profiler.step()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write both files."""
        self.profiler.stop()
        key = "self_cuda_time_total" if module.device.type == "cuda" else "self_cpu_time_total"
        table = self.profiler.key_averages().table(sort_by=key, row_limit=25)
        (self.folder / "profile.txt").write_text(table)
        self.profiler.export_chrome_trace(str(self.folder / "trace.json"))


class ExportFolder(L.Callback):
    """Writes the trained components, averaged where there is an average, to ``folder`` when training ends."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Export into a new folder first, then swap, so that a half-written one never stands there."""
        ema = next((c for c in trainer.callbacks if isinstance(c, Ema)), None)
        if ema is not None and ema.shadow:
            ema.on_validation_start(trainer, module)
        parts = {name: joined(part) for name, part in module.components().items()}
        if trainer.is_global_zero:
            new = self.folder.with_name(self.folder.name + ".new")
            shutil.rmtree(new, ignore_errors=True)
            if hasattr(module, "write"):  # not components but an adapter or a whole model
                module.write(new)
            else:
                for name, part in parts.items():
                    save_parts(name, part, new)
            shutil.rmtree(self.folder, ignore_errors=True)
            new.rename(self.folder)
        if ema is not None:
            ema.on_validation_end(trainer, module)


def save_parts(name: str, part: torch.nn.Module, folder: Path) -> None:
    """One component, or the three folders of a small CLAP."""
    if isinstance(part, TwoTowers):
        part.save(folder)
    else:
        save_component(part, folder / name)
