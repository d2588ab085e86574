"""The clips of each system, matched by name, and the caption of each."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from audioldm.datasets import manifest
from audioldm.errors import AudioLDMError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Sources:
    """prompt id -> system -> file, and prompt id -> caption ("" where none is known)."""

    files: dict[str, dict[str, Path]]
    captions: dict[str, str]


def gather(systems: dict[str, Path], captions: Path | None = None, *, common: bool = False) -> Sources:
    """Match the systems' clips by their path without suffix; ``common`` leaves out what some system lacks.

    Captions come from ``captions`` (CSV with id and caption, or a manifest), else from the JSON beside each clip.
    """
    found = {name: clips_of(folder) for name, folder in systems.items()}
    every = {prompt for clips in found.values() for prompt in clips}
    shared = {prompt for prompt in every if all(prompt in clips for clips in found.values())}
    if every != shared and not common:
        prompt = min(every - shared)
        lacking = next(name for name, clips in found.items() if prompt not in clips)
        raise AudioLDMError(
            f"{len(every - shared)} of {len(every)} clips are not in every folder: {lacking} lacks {prompt!r}.",
            "Add what is missing, or use --common to compare only what all have.",
        )
    if not shared:
        raise AudioLDMError("No clip has the same name in every folder.", "Name clips of one prompt alike.")
    files = {prompt: {name: found[name][prompt] for name in systems} for prompt in sorted(shared)}
    if captions is None:
        return Sources(files, {prompt: sidecar_caption(paths) for prompt, paths in files.items()})
    told = read_captions(captions)
    if missing := [prompt for prompt in files if prompt not in told]:
        raise AudioLDMError(
            f"{captions} has no caption for {missing[0]!r} ({len(missing)} missing).",
            "Add a line for each clip.",
        )
    return Sources(files, {prompt: told[prompt] for prompt in files})


def clips_of(folder: Path) -> dict[str, Path]:
    """Path below ``folder`` without suffix -> file; two files of one name are an error."""
    if not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Give one folder of clips a system.")
    clips: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in clips:
                raise AudioLDMError(f"{path} and {clips[name].name} have one name.", "Keep one of them.")
            clips[name] = path
    if not clips:
        raise AudioLDMError(f"{folder} holds no clips.", f"Known kinds: {', '.join(SUFFIXES)}.")
    return clips


def sidecar_caption(paths: dict[str, Path]) -> str:
    """The prompt in the JSON files beside the clips of one prompt; they must agree."""
    told: dict[str, Path] = {}
    for path in paths.values():
        side = path.with_suffix(".json")
        if side.is_file():
            try:
                content = json.loads(side.read_text(encoding="utf-8"))
            except ValueError as error:
                raise AudioLDMError(
                    f"{side} is not JSON: {error}.", "Remove it, or make the clip again."
                ) from error
            prompt = content.get("prompt") if isinstance(content, dict) else None
            if isinstance(prompt, str):
                told.setdefault(prompt, side)
    if len(told) > 1:
        (one, first), (other, second) = list(told.items())[:2]
        raise AudioLDMError(
            f"{first} says {one!r}, {second} says {other!r}.", "Clips of one name must have one prompt."
        )
    return next(iter(told), "")


def read_captions(path: Path) -> dict[str, str]:
    """Captions by clip name, from a CSV with the columns id and caption, or from a manifest (name = file's stem)."""
    if not path.is_file():
        raise AudioLDMError(f"There is no file {path}.", "Give a CSV with id,caption or a manifest.")
    if path.suffix.lower() == ".jsonl":
        return {Path(row.path).stem: row.captions[0] for row in manifest.read(path) if row.captions}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"id", "caption"} <= set(rows.fieldnames or ()):
            raise AudioLDMError(f"{path} has the columns {rows.fieldnames}.", "It needs id and caption.")
        return {row["id"]: (row["caption"] or "").strip() for row in rows}
