"""What happens beside the steps: the curves, the state on the disk, stopping, the export."""

import json
import signal
import sys
import warnings
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
from lightning.pytorch.callbacks.progress.tqdm_progress import TQDMProgressBar
from torch import Tensor

from audioldm.batch import Batch
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.clap import TwoTowers
from audioldm.nets.folder import save_component
from audioldm.paths import staged, write_text
from audioldm.pipeline.timing import peak_mib
from audioldm.training.distributed import joined
from audioldm.training.ema import averaged
from audioldm.training.run_folder import LAST
from audioldm.training.signals import Stopped, handled, stop

GRACE = 6.0  # seconds that a step may take to its end after a signal


@dataclass(eq=False)
class StopAfter(L.Callback):
    """Stops after ``limit`` batches, or the module's own number of them; counted across resumes."""

    limit: int | None = None

    def on_train_start(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Stop at the last batch; a finished run that is started again has nothing to do."""
        over = module.batch_count >= (module.batches if self.limit is None else self.limit)
        trainer.should_stop = trainer.should_stop or over

    on_train_batch_end = on_train_start  # type: ignore[assignment]


@dataclass(eq=False)
class Throughput(L.Callback):
    """``speed/samples_per_s``, ``speed/data_wait`` (share of the time) and ``speed/peak_gb`` (10^9 bytes of the GPU's
    allocator or the process) every ``every`` batches; validations and the like are not counted.
    """

    every: int = 20
    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    last: float = 0.0

    def lap(self, *args: Any) -> float:
        """Seconds since the last time."""
        before, self.last = self.last, perf_counter()
        return self.last - before

    on_train_start = on_validation_end = lap  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.seconds += self.lap()
        self.samples += len(batch.wave if isinstance(batch, Batch) else batch.mean) * trainer.world_size
        if module.batch_count % self.every == 0:
            waited, seconds = getattr(trainer.train_dataloader, "waited", 0.0), max(self.seconds, 1e-9)
            values = {"samples_per_s": self.samples / seconds, "data_wait": (waited - self.waited) / seconds}
            values["peak_gb"] = peak_mib(module.device) * 2**20 / 1e9
            module.log_dict({f"speed/{k}": v for k, v in values.items()}, prog_bar=True)
            self.samples, self.seconds, self.waited = 0, 0.0, waited
            self.lap()


def read_metrics(path: Path | str) -> list[dict[str, float]]:
    """Every whole line of ``metrics.jsonl``, if there is one; what a kill cut off or no training wrote is left out."""
    rows, path = [], Path(path)
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            values = [row.get("batch"), *row.values()] if isinstance(row, dict) else [None]
            if all(type(value) in (int, float) for value in values):
                rows.append(row)
    return rows


@dataclass(eq=False)
class Curves(L.Callback):
    """Logs the terms of each step as ``train/NAME``; appends {"batch": n, name: value, ...} to ``path`` every ``every``
    batches and at each validation.

    Lightning's CSVLogger begins a new file at each start; here a resumed run drops the lines after the batch that it
    begins at, so that the file is the same however often a run was interrupted.
    """

    path: str | Path
    every: int

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Cut the file back to the state that was loaded."""
        if trainer.is_global_zero:
            rows = [row for row in read_metrics(self.path) if row["batch"] <= module.batch_count]
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *args: Any) -> None:
        for name, value in outputs.items() if isinstance(outputs, dict) else ():
            if isinstance(value, Tensor) and value.dim() == 0:
                module.log(f"train/{name}", value, prog_bar=not name.startswith("norm"))
        if module.batch_count % self.every == 0:
            self.write(trainer, module, "train/", "speed/")

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        if not trainer.sanity_checking:
            self.write(trainer, module, "val/")

    def write(self, trainer: L.Trainer, module: Any, *prefixes: str) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefixes)}
        if values and trainer.is_global_zero:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"batch": module.batch_count, **values}) + "\n")


@dataclass(eq=False)
class State(L.Callback):
    """Writes the whole state to ``folder``/last.ckpt every ``every`` batches, at the end, and when a signal comes.

    Lightning's ModelCheckpoint counts optimiser steps, two a batch in a GAN.   Stands after averages and curves, and
    waits for a validation: their numbers belong to the state.   A signal ends the training at the next whole step, a
    second one at once; a step that takes more than ``GRACE`` seconds is given up, and the last state stays.
    """

    folder: str | Path
    every: int
    received: int | None = None
    saved: int = -1
    handlers: ExitStack = field(default_factory=ExitStack)

    def receive(self, number: int, frame: Any = None) -> None:
        if self.received is not None:
            stop(number)
        self.received = number
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: stop(number))
            # again and again, because Python loses what is raised in a destructor
            signal.setitimer(signal.ITIMER_REAL, GRACE, 0.5)
            self.handlers.callback(signal.setitimer, signal.ITIMER_REAL, 0)

    def save(self, trainer: L.Trainer, module: Any) -> None:
        """Once for each batch."""
        if module.batch_count != self.saved:
            module.refuse_broken()
            trainer.save_checkpoint(Path(self.folder) / LAST)
            self.saved = module.batch_count

    on_train_end = save  # type: ignore[assignment]

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """What was just loaded is on the disk already; half an accumulated step is never written."""
        if self.every % module.accumulate:
            why = f"callbacks.state.every={self.every} is not a multiple of accumulate={module.accumulate}."
            raise AudioLDMError(why, "Change one of them.")
        self.saved = module.batch_count
        # over Lightning's own for SIGTERM, which ends with code 0
        self.handlers.enter_context(handled(self.receive))

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        if not (sum(trainer.num_val_batches) and module.batch_count % trainer.val_check_batch == 0):
            self.on_validation_end(trainer, module)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """At a whole step save, or stop; all processes stop at the same one."""
        signalled = self.received is not None
        if trainer.world_size > 1:
            signalled = trainer.strategy.reduce_boolean_decision(signalled, all=False)
        stops = signalled and module.steps_now
        if stops or module.batch_count % self.every == 0:
            self.save(trainer, module)
        if stops:
            stop(self.received or signal.SIGTERM)

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        self.handlers.close()
        if isinstance(exception, Stopped):
            # between batches, as in a validation
            batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            if batches.started == batches.completed and module.steps_now and self.saved >= 0:
                self.save(trainer, module)
            exception.batch = self.saved if self.saved > 0 else None

    def teardown(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        self.handlers.close()


class Bar(TQDMProgressBar):
    """Lightning's bar over all batches of a run instead of an epoch's; none where stderr is no terminal."""

    def setup(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        super().setup(trainer, module, stage)
        if not sys.stderr.isatty():
            self.disable()

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        super().on_train_start(trainer, *args)
        bar, module = self.train_progress_bar, trainer.lightning_module
        bar.total, bar.initial, bar.n = module.batches, module.batch_count, module.batch_count

    def on_train_epoch_start(self, *args: Any) -> None:
        """An epoch is no part of the bar."""

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, _: int) -> None:
        super().on_train_batch_end(trainer, module, outputs, batch, module.batch_count - 1)


@dataclass(eq=False)
class Overfitting(L.Callback):
    """Warns when ``monitor`` has lain above its lowest value for ``patience`` validations, by ``Curves``' ``path``."""

    path: str | Path
    monitor: str = "val/loss"
    patience: int = 3

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        rows = [(row[self.monitor], row["batch"]) for row in read_metrics(self.path) if self.monitor in row]
        lowest, batch = min(rows, default=(0.0, 0))
        due = len(rows) > self.patience and rows[-1 - self.patience] == (lowest, batch)
        if due and trainer.is_global_zero:
            now = f"{self.monitor} of the held-out clips is {rows[-1][0]:.4g} at batch {rows[-1][1]}"
            then = f"and was lowest ({lowest:.4g}) at batch {batch}: the model overfits"
            use = f"Stop earlier (batches={batch}), or train on more sounds."
            warnings.warn(f"{now}, {then}. {use}", AudioLDMWarning, stacklevel=2)


@dataclass(eq=False)
class ExportFolder(L.Callback):
    """Writes the trained components, averaged where there is an average, to ``folder`` when training ends."""

    folder: str | Path

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Export into a new folder first, then swap, so that a half-written one never stands there."""
        with averaged(trainer, module):
            parts = {name: joined(part) for name, part in module.components().items()}
            if not trainer.is_global_zero:
                return
            with staged(self.folder, folder=True, replace=True) as new:
                if hasattr(module, "write"):  # an adapter, a whole model
                    module.write(new)
                    return
                for name, part in parts.items():
                    if isinstance(part, TwoTowers):
                        part.save(new)
                    else:
                        save_component(part, new / name)
