"""What a run leaves beside its weights: settings, versions, the code's git state and the hashes of its data."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from audioldm import __version__
from audioldm.errors import AudioLDMError
from audioldm.training.distributed import rank
from audioldm.training.state import last_good

PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "lightning", "hydra-core")
SOURCES = ("manifests", "folder", "val_folder", "shards")
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
    """sha256 of each manifest, and of each cache's index, which names what every shard was made of."""
    places = [data[key] for key in SOURCES if data.get(key)]
    flat = [str(p) for place in places for p in ([place] if isinstance(place, str) else place)]
    found = {}
    for name in flat:
        path = Path(name) / "index.json" if Path(name).is_dir() else Path(name)
        if path.is_file():
            with open(path, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


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

    The same command resumes.   Other settings or changed data in the same folder are refused, so that two experiments
    are never mixed.
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
        if written.exists() and written.read_text() != config:
            raise AudioLDMError(
                f"{folder} holds a run with other settings.",
                "Repeat its command, choose run_dir=..., or pass --fresh.",
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
