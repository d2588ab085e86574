"""What a run leaves beside its weights: settings, versions, the code's git state and the hashes of its data."""

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from audioldm import __version__
from audioldm.datasets.shards import expand
from audioldm.errors import AudioLDMError
from audioldm.training.distributed import rank
from audioldm.training.state import last_good

PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "lightning", "hydra-core")
SOURCES = ("manifests", "val_manifest", "folder", "val_folder", "shards")
"""keys of a data source whose values are files or folders"""


def replace_text(path: Path, text: str) -> None:
    """Write in one move."""
    waiting = path.with_name(path.name + ".new")
    waiting.write_text(text)
    os.replace(waiting, path)


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that ``folder`` lies in, and its changed files; None outside a checkout or without git."""

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.rstrip()

    try:
        if ask("ls-files", "--error-unmatch", "__init__.py") == "":
            return None
        return {"commit": ask("rev-parse", "HEAD"), "changed": ask("status", "--porcelain").splitlines()}
    except (OSError, subprocess.SubprocessError):
        return None


def data_hashes(data: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of each manifest, of each cache's index, which names what every shard was made of, or of all files.

    Streamed shards count by their size and their ends: to read terabytes before every start would cost more than it
    finds.
    """
    found = {}
    for key in SOURCES:
        places = data.get(key) or []
        for name in expand([places] if isinstance(places, str) else [str(place) for place in places]):
            folder = Path(name)
            path = folder / "index.json" if folder.is_dir() else folder
            if path.is_file():
                content = ends(path) if key == "shards" else path.read_bytes()
                found[name] = hashlib.sha256(content).hexdigest()
            elif folder.is_dir():  # of sounds
                digest = hashlib.sha256()
                for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                    digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
                found[name] = digest.hexdigest()
    return found


def ends(path: Path, length: int = 2**16) -> bytes:
    """A file's size, its first and its last bytes."""
    with open(path, "rb") as file:
        first, size = file.read(length), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - length))
        return f"{size} bytes".encode() + first + file.read()


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


def open_folder(
    folder: Path, *, config: str, overrides: Sequence[str], about: dict[str, Any], fresh: bool = False
) -> tuple[Path | None, list[str]]:
    """Prepare the run's folder; return the checkpoint to resume from, if there is one, and what was wrong with others.

    The same command resumes; with more batches it goes on, its learning rate that of the longer run from there on.
    Other settings or changed data in the same folder are refused, so that two experiments are never mixed.
    """
    checkpoints = folder / "checkpoints"
    if rank() > 0:  # the first process writes; this one only needs to know where to begin
        return (None, []) if fresh else last_good(checkpoints)
    if fresh:
        for path in [*checkpoints.glob("*.ckpt"), *folder.glob("metrics.jsonl")]:
            path.unlink()
    last, complaints = last_good(checkpoints)
    written = folder / "config.yaml"
    if last is not None:
        if written.exists() and not goes_on(written.read_text(), config):
            raise AudioLDMError(
                f"{folder} holds a run with other settings.",
                "Repeat its command (or with more batches), choose run_dir=..., or pass --fresh.",
            )
        refuse_other_data(folder, about["data"])
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(written, config)
    replace_text(folder / "overrides.txt", "\n".join(overrides))
    begun = folder / "provenance.json"
    if last is not None and begun.exists():
        first = json.loads(begun.read_text())
        again = {key: value for key, value in about.items() if value != first.get(key)}
        about = {**first, "resumed": [*first.get("resumed", []), again]}
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
    return all(found is not None and int(found[1]) < int(found[2]) for found in counts)


def refuse_other_data(folder: Path, data: Mapping[str, str]) -> None:
    """A run goes on with the data that it began with."""
    path = folder / "provenance.json"
    before = json.loads(path.read_text()).get("data", {}) if path.exists() else {}
    changed = sorted(name for name in before if name in data and before[name] != data[name])
    if changed:
        raise AudioLDMError(
            f"{', '.join(changed)} changed since {folder} began.",
            "Choose another run_dir=..., or pass --fresh.",
        )
