"""The run's numbers as lines of JSON: one file for the whole run, however often it was interrupted."""

import json
import os
from pathlib import Path
from typing import Any

import lightning as L


def read_metrics(path: Path | str) -> list[dict[str, float]]:
    """Every whole line; one that a kill cut off is left out."""
    rows = []
    for line in Path(path).read_text().splitlines():
        if line.startswith("{") and line.endswith("}"):
            rows.append(json.loads(line))
    return rows


class Metrics(L.Callback):
    """Appends {"batch": n, name: value, ...} to ``path``: training every ``every`` batches, validation when it ends.

    A resumed run drops the lines after the batch that it begins at and writes them again.
    """

    def __init__(self, path: str | Path, every: int) -> None:
        self.path, self.every = Path(path), every

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Cut the file back to the state that was loaded."""
        if not trainer.is_global_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_metrics(self.path) if self.path.exists() else []
        waiting = self.path.with_suffix(".new")
        kept = [row for row in rows if row["batch"] <= module.seen]
        waiting.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(waiting, self.path)

    def write(self, trainer: L.Trainer, module: Any, prefix: str) -> None:
        """One line of what was logged under ``prefix``."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
        if values and trainer.is_global_zero:
            with open(self.path, "a") as file:
                file.write(json.dumps({"batch": module.seen, **values}) + "\n")

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Every so often."""
        if module.seen % self.every == 0:
            self.write(trainer, module, "train/")

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Once a validation."""
        if not trainer.sanity_checking:
            self.write(trainer, module, "val/")
