"""What happens beside the steps: stopping, averaging, listening, exporting."""

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from audioldm.nets.clap import SmallClap
from audioldm.nets.folder import save_component


class Budget(L.Callback):
    """Stops after ``limit`` batches, or the module's own number of them; counted across resumes."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit

    def used(self, module: Any) -> bool:
        """Whether the module has seen its batches."""
        return int(module.seen) >= (module.batches if self.limit is None else self.limit)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """A finished run that is started again has nothing to do."""
        trainer.should_stop = self.used(module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Stop when the budget is used."""
        trainer.should_stop = trainer.should_stop or self.used(module)


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
        if int(module.seen) != self.saved:
            self.saved = int(module.seen)
            trainer.save_checkpoint(self.path)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """What was just loaded is on the disk already."""
        self.saved = int(module.seen)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Every so often."""
        validates = sum(trainer.num_val_batches) > 0 and int(module.seen) % trainer.val_check_batch == 0
        if int(module.seen) % self.every == 0 and not validates:
            self.save(trainer, module)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """The one that was waited for."""
        if int(module.seen) % self.every == 0:
            self.save(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """The last batch."""
        self.save(trainer, module)


class Ema(L.Callback):
    """Exponential moving average of ``module.averaged``; decay min(d, (1+n)/(10+n)).   Validation and export use it.

    Lightning's own averaging copies the whole module, frozen parts too, and has no warm-up of the decay, without which
    a short training is still half its random start.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay, self.updates = decay, 0
        self.shadow: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Begin at the weights, unless a checkpoint has brought an average."""
        state = module.averaged.state_dict()
        self.shadow = {k: self.shadow.get(k, v).detach().clone().to(v.device) for k, v in state.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """shadow += (1 - decay) * (weights - shadow)."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = module.averaged.state_dict()
        reals = [key for key, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.shadow[k] for k in reals], [state[k] for k in reals], 1 - decay)
        for key in state.keys() - set(reals):
            self.shadow[key].copy_(state[key])

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Validate the average."""
        if self.shadow:
            self.kept = {k: v.detach().clone() for k, v in module.averaged.state_dict().items()}
            module.averaged.load_state_dict(self.shadow)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Train on with the weights."""
        if self.kept is not None:
            module.averaged.load_state_dict(self.kept)
            self.kept = None

    def state_dict(self) -> dict[str, Any]:
        """Into the checkpoint."""
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Out of the checkpoint."""
        self.updates, self.shadow = state_dict["updates"], state_dict["shadow"]


class Preview(L.Callback):
    """Every validation, sound and spectrograms of the first held-out batch go to TensorBoard."""

    def __init__(self, rate: int, count: int = 2) -> None:
        self.rate, self.count = rate, count

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        """Log what the module's ``preview`` gives: keys begin with "wave/" or "mel/"."""
        if index or trainer.sanity_checking or trainer.logger is None or not hasattr(module, "preview"):
            return
        board = trainer.logger.experiment
        for name, value in module.preview(batch).items():
            for i, item in enumerate(value[: self.count].float().cpu()):
                if name.startswith("wave/"):
                    board.add_audio(f"{name}/{i}", item[0].clamp(-1, 1), int(module.seen), self.rate)
                else:
                    board.add_image(f"{name}/{i}", mel_picture(item[0]), int(module.seen))


def mel_picture(mel: Tensor) -> Tensor:
    """Log-mel (T, F) to a grey picture (1, F, T): time to the right, frequency upwards, -11.5 black, 2 white."""
    return ((mel.T.flip(0) + 11.5) / 13.5).clamp(0, 1)[None]


class ExportFolder(L.Callback):
    """Writes the trained components, averaged where there is an average, to ``folder`` when training ends."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Export into a new folder first, then swap, so that a half-written one never stands there."""
        if not trainer.is_global_zero:
            return
        ema = next((c for c in trainer.callbacks if isinstance(c, Ema)), None)
        new = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        if ema is not None and ema.shadow:
            ema.on_validation_start(trainer, module)
        for name, part in module.components().items():
            save_parts(name, part, new)
        if ema is not None:
            ema.on_validation_end(trainer, module)
        shutil.rmtree(self.folder, ignore_errors=True)
        new.rename(self.folder)


def save_parts(name: str, part: torch.nn.Module, folder: Path) -> None:
    """One component, or the three folders of a small CLAP."""
    if isinstance(part, SmallClap):
        part.save(folder)
    else:
        save_component(part, folder / name)
