"""A run's folder: one training at a time, its state written whole or not at all, and what it was made with."""

import hashlib
import json
import logging
import os
import platform
import re
import struct
import subprocess
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from filelock import BaseFileLock, FileLock, Timeout
from lightning.fabric.plugins import TorchCheckpointIO

from audioldm import __version__
from audioldm.datasets.shards import expand
from audioldm.errors import AudioLDMError
from audioldm.paths import alive, staged, sweep, sync, write_text
from audioldm.tables import read_text
from audioldm.training.distributed import rank

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
NOISE = ".*(LeafSpec|Total length of `|dataloader is not resumable|logging interval|in eval mode|barebones)"
PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "lightning", "hydra-core")
SOURCES = ("manifests", "val_manifest", "folder", "val_folder", "shards")  # keys that name files or folders
DAMAGE = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, zlib.error, struct.error)


class SafeCheckpoints(TorchCheckpointIO):
    """Writes beside, moves the old file to ``previous.ckpt``, then renames.

    At every instant of this one of the two files is whole, so the process may be killed at any of them.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace ``path``, or leave it as it was and raise AudioLDMError where the disk takes no more."""
        path = Path(path)
        with staged(path) as stage:
            try:
                torch.save(checkpoint, stage)
            except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
                last = f"{path} is still the last good state; " if path.exists() else ""
                why = f"{path} could not be written: {' '.join(str(error).split())[:200]}."
                hint = f"{last}free some space and type the same command to resume."
                raise AudioLDMError(why, hint, code=1) from error
            sync(stage)
            if path.name == LAST and path.exists():
                os.replace(path, path.with_name(PREVIOUS))


def last_good(folder: Path, report: Callable[[str], Any] = str) -> Path | None:
    """The newest whole checkpoint in ``folder``, by its records' checksums; ``report`` takes a line about worse ones.

    Raises AudioLDMError where there are checkpoints and none is whole: to begin again is for the user to decide.
    """
    wrong: list[str] = []
    for path in filter(os.path.lexists, (folder / LAST, folder / PREVIOUS)):
        try:
            with zipfile.ZipFile(path) as archive:
                record = archive.testzip()
        except DAMAGE as error:
            wrong.append(f"{path} is truncated or no checkpoint ({error})")
            continue
        if record is None:
            for line in wrong:
                report(f"audioldm: {line}; the state before it is used.")
            return path
        wrong.append(f"{path} is damaged at {record!r}")
    if wrong:
        hint = "No whole checkpoint is left; pass --fresh to begin again."
        raise AudioLDMError(f"{'; '.join(wrong)}.", hint, code=1)
    return None


def locked(folder: Path) -> BaseFileLock:
    """A lock by which this process alone trains in ``folder``; what a killed run left half-written is swept away.

    Raises AudioLDMError where another trains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".pid"
    pid = owner.read_text(encoding="utf-8", errors="replace") if owner.is_file() else ""
    # workers of a dead process hold its lock until they notice
    seconds = 0 if re.fullmatch(r"[0-9]{1,9}", pid) and alive(int(pid)) else 15
    lock = FileLock(folder / ".lock", timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        why = f"Process {pid} is training in {folder}."
        raise AudioLDMError(why, "Wait for it, or choose another run_dir=...") from None
    owner.write_text(str(os.getpid()), encoding="utf-8")
    for place in (folder, folder / "checkpoints", folder / "ema"):
        sweep(place)
    return lock


@dataclass(eq=False)
class RunFolder(L.Callback):
    """Locks the run's folder, and writes what the run is made with: config.yaml, overrides.txt, provenance.json.

    The same command resumes, perhaps with more batches, or of another size; other settings (``config``, resolved
    YAML) or changed data are refused.   ``fresh`` drops the state that is there; ``report`` takes a line for the user.
    """

    folder: Path
    recipe: str
    config: str
    overrides: Sequence[str] = ()
    fresh: bool = False
    report: Callable[[str], Any] = str
    lock: BaseFileLock | None = None

    def __post_init__(self) -> None:
        # Lightning's tips and warnings that no user can act on
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message=NOISE)

    def checkpoint(self) -> Path | None:
        return None if self.fresh else last_good(self.folder / "checkpoints", self.report)

    def setup(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        if stage == "fit" and rank() == 0:
            self.lock = locked(self.folder)
            self.open()

    def open(self) -> None:
        """Refuse what is not this run's, and write its files.   Raises AudioLDMError."""
        for path in self.folder.rglob("*"):  # a logger would wait at a pipe for ever
            if path.exists() and not path.is_file() and not path.is_dir():
                raise AudioLDMError(f"{path} is no file.", "Delete it, or choose another run_dir=...")
        if self.fresh:
            for path in [*self.folder.glob("checkpoints/*.ckpt"), *self.folder.glob("metrics.jsonl")]:
                path.unlink()
        settings, begun = self.folder / "config.yaml", self.folder / "provenance.json"
        about = provenance(self.recipe, yaml.safe_load(self.config)["data"])
        if (last := last_good(self.folder / "checkpoints")) is not None:
            about = self.resumed(settings, begun, about)
            self.report(f"resuming {last}")
        write_text(settings, self.config)
        write_text(self.folder / "overrides.txt", "\n".join(self.overrides))
        write_text(begun, json.dumps(about, indent=1))

    def resumed(self, settings: Path, begun: Path, about: dict[str, Any]) -> dict[str, Any]:
        """The provenance of a run that goes on.   Raises AudioLDMError where its settings or its data changed."""
        before = settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else self.config
        if not goes_on(before, self.config):
            hint = "Repeat its command (or with more batches), choose run_dir=..., or pass --fresh."
            raise AudioLDMError(f"{self.folder} holds a run with other settings.", hint)
        first = read_provenance(begun) if begun.is_file() else {}
        now, before = about["data"], first.get("data", {})
        if changed := sorted(name for name in before if now.get(name, before[name]) != before[name]):
            wrong = f"{', '.join(changed)} changed since {self.folder} began."
            raise AudioLDMError(wrong, "Choose another run_dir=..., or pass --fresh.")
        again = {key: value for key, value in about.items() if value != first.get(key)}
        return {**first, "resumed": [*first.get("resumed", []), again]} if first else about

    def teardown(self, trainer: L.Trainer, module: Any, stage: Any) -> None:
        if self.lock is not None and self.lock.is_locked:
            (self.folder / ".pid").unlink(missing_ok=True)
            self.lock.release()

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        self.teardown(trainer, module, None)


def goes_on(before: str, now: str) -> bool:
    """Whether two configurations are the same, but for the clips of a batch, and a number of batches that grew.

    >>> goes_on("seed: 0\\nbatches: 4\\n", "seed: 0\\nbatches: 8\\n"), goes_on("batches: 4\\n", "batches: 2\\n")
    (True, False)
    """
    before, now = (re.sub(r"(?m)^( *batch_size: )\d+$", r"\1", text) for text in (before, now))
    first, last = (re.search(r"^batches: (\d+)$", text, re.M) for text in (before, now))
    if before == now or first is None or last is None or int(last[1]) < int(first[1]):
        return before == now
    return re.sub(rf"(?<=\bbatches: ){first[1]}$", last[1], before, flags=re.M) == now


def read_provenance(path: Path) -> dict[str, Any]:
    """What a run was begun with.   Raises AudioLDMError for a file that no training wrote."""
    with suppress(ValueError, RecursionError, AttributeError):
        content = json.loads(read_text(path))
        if isinstance(content.get("data", {}), dict) and isinstance(content.get("resumed", []), list):
            return dict(content)
    raise AudioLDMError(f"{path} was not written by a training.", "Restore it, or remove it.")


def provenance(recipe: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything beside the settings that decides what comes out.

    The data by sha256: of manifests, of a cache's index, of all files of a folder; streamed shards by their sizes.
    """
    hashes = {}
    for key in SOURCES:
        for name in expand([*map(str, np.ravel(data.get(key) or []))]):  # one or several
            index, digest = Path(name) / "index.json", hashlib.sha256()
            inside = [index] if index.is_file() else sorted([Path(name), *Path(name).rglob("*")])
            for file in filter(Path.is_file, inside):
                content = str(file.stat().st_size).encode() if key == "shards" else file.read_bytes()
                digest.update(f"{file.name}\n".encode() + content)
                hashes[name] = digest.hexdigest()
    return {
        "recipe": recipe, "audioldm": __version__, "git": git_state(Path(__file__).parent.parent),
        "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES}, "data": hashes,
    }  # fmt: skip


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that ``folder`` lies in, and its changed files; None outside a checkout or without git."""
    about: Any = {"capture_output": True, "text": True, "check": True, "timeout": 30}
    with suppress(OSError, subprocess.SubprocessError):
        words = ("ls-files --error-unmatch __init__.py", "rev-parse HEAD", "status --porcelain")
        answers = [subprocess.run(["git", "-C", str(folder), *one.split()], **about).stdout for one in words]
        return {"commit": answers[1].rstrip(), "changed": answers[2].rstrip().splitlines()}
    return None
