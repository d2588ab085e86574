"""Training by the minute, for a machine that is rented by the minute."""

import os
from time import monotonic
from typing import Any

import lightning as L

MINUTES = "AUDIOLDM_LEASE_MINUTES"
"""the environment's variable: no setting of the run, which may go on for other minutes than it began with"""


class Lease(L.Callback):
    """Sets ``module.batches``, which the learning rate follows, to what the minutes from the start of training allow.

    The speed is measured from batch ``first`` on (the first ones warm up), and again every ``every`` batches.   How
    many batches come out depends on the machine, so such a run repeats only roughly; its number is in the curves.
    """

    def __init__(self, *, first: int = 20, every: int = 100) -> None:
        self.seconds, self.first, self.every = 60 * float(os.environ[MINUTES]), first, every
        self.begin, self.count = 0.0, 0
        self.mark: tuple[int, float] | None = None

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """The clock starts."""
        self.begin, self.count, self.mark = monotonic(), 0, None

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Measure, and set the number of batches."""
        now = monotonic()
        self.count += 1
        if self.mark is None and self.count >= self.first:
            self.mark = module.batch_count, now
        elif self.mark is not None and module.batch_count > self.mark[0] and self.count % self.every == 0:
            rate = (module.batch_count - self.mark[0]) / (now - self.mark[1])
            self.plan(trainer, module, max(0, int(rate * (self.begin + self.seconds - now))))
        elif now > self.begin + self.seconds:
            self.plan(trainer, module, 0)

    @staticmethod
    def plan(trainer: L.Trainer, module: Any, more: int) -> None:
        """``more`` batches from here; the schedules follow."""
        module.batches = module.batch_count + more
        for config in trainer.lr_scheduler_configs:
            for factor in config.scheduler.lr_lambdas:  # type: ignore[union-attr]
                factor.keywords["num_training_steps"] = module.batches
