"""The run's state on disk: written whole or not at all, the one before it kept, the newest whole one found again."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from audioldm.errors import AudioLDMError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class SafeCheckpoints(TorchCheckpointIO):
    """Writes beside, flushes to the disk, keeps the old file as ``previous.ckpt``, then renames.

    At every instant of this one of the two files is whole, so the process may be killed at any of them.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace ``path``, or leave it as it was and raise AudioLDMError where the disk takes no more."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save(checkpoint, file), keep=path.with_name(PREVIOUS))


def write_whole(path: Path, write: Callable[[Any], None], *, keep: Path | None = None) -> None:
    """Let ``write`` fill a file beside ``path``, then move it there; ``keep`` receives what stood there before."""
    waiting = path.with_name(path.name + ".new")
    try:
        with open(waiting, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        waiting.unlink(missing_ok=True)
        kept = f"{path} is still the last good state; " if path.exists() else ""
        raise AudioLDMError(
            f"{waiting} could not be written: {' '.join(str(error).split())[:200]}.",
            f"{kept}free some space and type the same command to resume.",
            code=1,
        ) from error
    if keep is not None and path.exists():
        os.replace(path, keep)
    os.replace(waiting, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None: each record's checksum is compared."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f"truncated or no checkpoint ({error})"
    return None if record is None else f"damaged at {record!r}"


def last_good(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint in ``folder``, and a line about each newer one that is not.

    Raises AudioLDMError where there are checkpoints and none is whole: to begin again is for the user to decide.
    """
    complaints = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            wrong = fault(path)
            if wrong is None:
                return path, complaints
            complaints.append(f"{path} is {wrong}")
    if complaints:
        raise AudioLDMError(
            f"{'; '.join(complaints)}.", "No whole checkpoint is left; pass --fresh to begin again.", code=1
        )
    return None, complaints
