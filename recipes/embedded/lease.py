"""Training by the minute, for a machine that is rented by the minute."""

from time import monotonic
from typing import Any

import lightning as L


class Lease(L.Callback):
    """Sets ``module.batches``, which the learning rate follows, to what ``minutes`` from the start of training allow.

    The speed is measured from batch ``first`` on (the first ones warm up), and again every ``every`` batches.   How
    many batches come out depends on the machine, so such a run repeats only roughly; its number is in the curves.
    """

    def __init__(self, minutes: float, *, first: int = 20, every: int = 100) -> None:
        self.seconds, self.first, self.every = 60 * minutes, first, every
        self.begin = 0.0
        self.mark: tuple[int, float] | None = None

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """The clock starts."""
        self.begin, self.mark = monotonic(), None

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Measure, and set the number of batches."""
        now, done = monotonic(), trainer.fit_loop.batch_idx + 1
        if self.mark is None and done >= self.first:
            self.mark = module.seen, now
        elif self.mark is not None and module.seen > self.mark[0] and done % self.every == 0:
            rate = (module.seen - self.mark[0]) / (now - self.mark[1])
            module.batches = module.seen + max(0, int(rate * (self.begin + self.seconds - now)))
        elif now > self.begin + self.seconds:
            module.batches = module.seen
