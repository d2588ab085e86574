"""What a terminal shows of a training."""

import logging
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar


def quieten() -> None:
    """Hide Lightning's tips, notes at every checkpoint and use of what torch gave up: no user can act on them."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="Total length of `.*` across ranks is zero")


class Bar(TQDMProgressBar):
    """Batches of all, counted across resumes, and the time left; Lightning's own knows neither of an endless epoch."""

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """A run that goes on begins no epoch."""
        super().on_train_start(trainer, module)
        self.place(module)

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Lightning sets the bar to 0."""
        super().on_train_epoch_start(trainer, *args)
        self.place(trainer.lightning_module)

    def place(self, module: Any) -> None:
        """Where the run is."""
        bar = self.train_progress_bar
        bar.total, bar.initial, bar.n = module.batches, module.seen, module.seen
        bar.set_description("training")

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The total moves with a limit in minutes."""
        self.train_progress_bar.total = module.batches
        super().on_train_batch_end(trainer, module, outputs, batch, module.seen - 1)

    def get_metrics(self, trainer: L.Trainer, module: Any) -> dict[str, Any]:
        """Without the logger's version, which is always the same."""
        return {
            name: value for name, value in super().get_metrics(trainer, module).items() if name != "v_num"
        }
