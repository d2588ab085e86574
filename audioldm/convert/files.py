"""Weight files that others wrote: safetensors, and torch's pickles read as data only."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from audioldm.errors import AudioLDMError

SUFFIXES = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")


class Named:
    """Stands for a class that a training left in its checkpoint as a name; it does nothing."""


HARMLESS = [
    (Named, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (Named, "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"),
    (Named, "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor"),
]
"""Old Lightnings used these classes as keys of a table; the unpickler is given ``Named`` for them, so nothing runs."""


def read_weights(path: Path) -> dict[str, Any]:
    """Everything in a weight file, on the CPU.   A pickle is opened with ``weights_only=True`` or not at all.

    Raises AudioLDMError for a missing, truncated or foreign file, and for one that would run code when opened.
    """
    if not path.is_file():
        raise AudioLDMError(f"{path} is missing.", "Check the path.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise AudioLDMError(*_refusal(path, error)) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0][:120] if str(error) else type(error).__name__
        raise AudioLDMError(
            f"{path} cannot be read ({reason}): truncated or corrupt.", "Download it again."
        ) from None
    if not isinstance(content, dict):
        raise AudioLDMError(
            f"{path} holds a {type(content).__name__}, not a table of weights.", "Name a checkpoint."
        )
    return content


def _refusal(path: Path, error: pickle.UnpicklingError) -> tuple[str, str]:
    """What is wrong with a pickle that torch refused, and what to do."""
    text = str(error)
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class ", "Trying to load unsupported GLOBAL "):
        if mark in text:
            what = text.split(mark, 1)[1].split()[0].rstrip(".,")
            return (
                f"{path} is refused: it is a pickle that would run {what!r} when opened, not weights only.",
                "Ask its author for safetensors, or load it where you trust it and save the tensors again.",
            )
    return (
        f"{path} is refused: it is neither torch's archive of tensors nor a pickle of weights.",
        "Name a .ckpt, .pth, .pt, .bin or .safetensors file of weights, or download it again.",
    )
