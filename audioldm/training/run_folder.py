"""A run's folder: one training at a time, its state written whole or not at all, and what it was made with."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.fabric.plugins import TorchCheckpointIO

from audioldm import __version__
from audioldm.datasets.shards import expand
from audioldm.errors import AudioLDMError
from audioldm.training.distributed import rank

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "lightning", "hydra-core")
SOURCES = ("manifests", "val_manifest", "folder", "val_folder", "shards")
"""keys of a data source whose values are files or folders"""


class SafeCheckpoints(TorchCheckpointIO):
    """Writes beside, flushes to the disk, moves the old file to ``previous.ckpt``, then renames.

    At every instant of this one of the two files is whole, so the process may be killed at any of them.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace ``path``, or leave it as it was and raise AudioLDMError where the disk takes no more."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.with_name(PREVIOUS) if path.name == LAST else None
        write_whole(path, lambda file: torch.save(checkpoint, file), previous=before)


def write_whole(path: Path, write: Callable[[Any], Any], *, previous: Path | None = None) -> None:
    """Let ``write`` fill a file beside ``path``, then move it there; ``previous`` receives what stood there before."""
    part = path.with_name(path.name + ".new")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        part.unlink(missing_ok=True)
        last = f"{path} is still the last good state; " if path.exists() else ""
        raise AudioLDMError(
            f"{part} could not be written: {' '.join(str(error).split())[:200]}.",
            f"{last}free some space and type the same command to resume.",
            code=1,
        ) from error
    if previous is not None and path.exists():
        os.replace(path, previous)
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def replace_text(path: Path, text: str) -> None:
    """Write a text in one move."""
    write_whole(path, lambda file: file.write(text.encode()))


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
    complaints: list[str] = []
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, this process alone trains in ``folder``; what a killed run left half-written is swept away.

    The system frees the lock of a process that ends, however it ends.   Raises AudioLDMError where another trains.
    """
    if rank() > 0:  # the first process has locked for all
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    place, owner = folder / ".lock", folder / ".pid"
    try:
        pid = owner.read_text() if owner.exists() else ""
        # workers of a dead process hold its lock until they notice
        with FileLock(place, timeout=0 if alive(pid) else 15):
            owner.write_text(str(os.getpid()))
            sweep(folder)
            yield
            owner.unlink(missing_ok=True)
    except Timeout:
        raise AudioLDMError(
            f"Process {pid} is training in {folder}.", "Wait for it, or choose another run_dir=..."
        ) from None


def alive(pid: str) -> bool:
    """Whether there is a process of this number."""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove what killed runs left: files and folders on their way to a name."""
    for path in [*folder.glob("*.new"), *folder.glob("*.part"), *folder.glob("checkpoints/*.new")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def open_folder(
    folder: Path, *, config: str, overrides: Sequence[str], about: dict[str, Any], fresh: bool = False
) -> tuple[Path | None, list[str]]:
    """Prepare the run's folder; return the checkpoint to resume from, if there is one, and what was wrong with others.

    The same command resumes; with more batches it goes on, its learning rate that of the longer run from there on.
    Other settings or changed data in the same folder are refused, so that two experiments are never mixed.
    """
    checkpoints, settings = folder / "checkpoints", folder / "config.yaml"
    if rank() > 0:  # the first process writes; this one only needs to know where to begin
        return (None, []) if fresh else last_good(checkpoints)
    if fresh:
        for path in [*checkpoints.glob("*.ckpt"), *folder.glob("metrics.jsonl")]:
            path.unlink()
    last, complaints = last_good(checkpoints)
    begun = folder / "provenance.json"
    first = json.loads(begun.read_text()) if last is not None and begun.exists() else None
    if last is not None and settings.exists() and not goes_on(settings.read_text(), config):
        raise AudioLDMError(
            f"{folder} holds a run with other settings.",
            "Repeat its command (or with more batches), choose run_dir=..., or pass --fresh.",
        )
    if first is not None:
        refuse_other_data(folder, first.get("data", {}), about["data"])
        again = {key: value for key, value in about.items() if value != first.get(key)}
        about = {**first, "resumed": [*first.get("resumed", []), again]}
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(settings, config)
    replace_text(folder / "overrides.txt", "\n".join(overrides))
    replace_text(begun, json.dumps(about, indent=1))
    return last, complaints


def goes_on(before: str, now: str) -> bool:
    """Whether two configurations are the same, but for a number of batches that grew.

    >>> goes_on("seed: 0\\nbatches: 4\\n", "seed: 0\\nbatches: 8\\n"), goes_on("batches: 4\\n", "batches: 2\\n")
    (True, False)
    """
    lines, later = before.splitlines(), now.splitlines()
    changed = {(old.strip(), new.strip()) for old, new in zip(lines, later, strict=False) if old != new}
    if len(lines) != len(later) or len(changed) > 1:
        return False
    counts = [re.fullmatch(r"batches: (\d+), batches: (\d+)", ", ".join(pair)) for pair in changed]
    return all(match is not None and int(match[1]) < int(match[2]) for match in counts)


def refuse_other_data(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """A run goes on with the data that it began with."""
    changed = sorted(name for name in before if name in now and before[name] != now[name])
    if changed:
        raise AudioLDMError(
            f"{', '.join(changed)} changed since {folder} began.",
            "Choose another run_dir=..., or pass --fresh.",
        )


def provenance(recipe: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything beside the settings that decides what comes out."""
    return {
        "recipe": recipe,
        "audioldm": __version__,
        "git": git_state(Path(__file__).parent.parent),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
        "data": data_hashes(data),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that ``folder`` lies in, and its changed files; None outside a checkout or without git."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.rstrip()

    with suppress(OSError, subprocess.SubprocessError):
        ask("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": ask("rev-parse", "HEAD"), "changed": ask("status", "--porcelain").splitlines()}
    return None


def data_hashes(data: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of each manifest, of each cache's index, which names what every shard was made of, or of all files.

    Streamed shards count by their size and their ends: to read terabytes before every start would cost more than it
    finds.
    """
    hashes = {}
    for key in SOURCES:
        places = data.get(key) or []
        for name in expand([places] if isinstance(places, str) else [str(place) for place in places]):
            folder = Path(name)
            path = folder / "index.json" if folder.is_dir() else folder
            if path.is_file():
                content = ends(path) if key == "shards" else path.read_bytes()
                hashes[name] = hashlib.sha256(content).hexdigest()
            elif folder.is_dir():  # of sounds
                hashes[name] = folder_hash(folder)
    return hashes


def folder_hash(folder: Path) -> str:
    """sha256 of the names and bytes of all files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def ends(path: Path, length: int = 2**16) -> bytes:
    """A file's size, its first and its last bytes."""
    with open(path, "rb") as file:
        first, size = file.read(length), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - length))
        return f"{size} bytes".encode() + first + file.read()
