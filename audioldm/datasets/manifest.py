"""The list of clips: one JSON object per line, checked before anything trains on it."""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite, log10
from pathlib import Path

import torchaudio.functional as audio
from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.paths import inside, write_text

SPLITS = ("train", "val", "test")
RANK = {"test": 0, "val": 1, "train": 2}
"""Whose clips are kept if two splits share one: the lower number's."""
SILENT_PEAK = 1e-3
"""A clip whose largest sample is below -60 dB of full scale holds nothing to learn."""
LOUDEST_MEASURED = 0.25
GATE_SECONDS = 0.4
"""BS.1770 measures blocks of 0.4 s; a shorter clip's loudness is its plain RMS in dB instead."""


@dataclass(frozen=True)
class Row:
    """One clip.   start and seconds choose a part of the file (seconds None is the rest); loudness is in LUFS."""

    path: str
    captions: tuple[str, ...]
    labels: tuple[str, ...] = ()
    start: float = 0.0
    seconds: float | None = None
    split: str = "train"
    licence: str = ""
    source: str = ""
    sha256: str = ""
    loudness: float | None = None
    author: str = ""
    fold: int = 0
    group: str = ""
    """clips that share a group share a split: they come from one recording"""
    parts: tuple[str, ...] = ()
    """sha256 of the clips that a made scene is put together from"""


@dataclass(frozen=True)
class Finding:
    """Something wrong with one row; ``kind`` is one word."""

    kind: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


def read(path: str | Path, *, split: str | None = None, absolute: bool = True) -> list[Row]:
    """The rows of a manifest (of one ``split`` if given); relative paths lie in the manifest's own folder.

    ``absolute`` allows the paths that ``write`` gives to sounds elsewhere on this machine; nothing but a sound is read
    there, and nothing is written or removed.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioLDMError(f"There is no manifest at {path}.", "Make one with `audioldm data prepare`.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            rows.append(parse(line, where=f"{path}:{number}", folder=path.parent, absolute=absolute))
    if split is not None and split not in SPLITS:
        raise AudioLDMError(f"split={split!r} is not a split.", f"Use one of {', '.join(SPLITS)}.")
    return [row for row in rows if split is None or row.split == split]


def parse(line: str, *, where: str, folder: Path, absolute: bool = True) -> Row:
    """One manifest line as a Row; every mistake names the line."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise AudioLDMError(f"{where} is not JSON: {error}.", "Write one object per line.") from error
    known = {item.name for item in fields(Row)}
    if not isinstance(values, dict) or not isinstance(values.get("path"), str):
        raise AudioLDMError(f"{where} has no text field 'path'.", "Each line needs 'path' and 'captions'.")
    if unknown := sorted(set(values) - known):
        raise AudioLDMError(f"{where} has unknown fields {unknown}.", f"Known: {sorted(known)}.")
    for name in ("captions", "labels", "parts"):
        value = values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise AudioLDMError(f"{where}: {name} must be a list of texts, got {value!r}.", 'Write ["..."].')
        values[name] = tuple(value)
    for name in ("start", "seconds"):
        value = values.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value < float("inf")):
            raise AudioLDMError(f"{where}: {name}={value!r} is no length in seconds.", "Use 0 or more.")
    row = Row(**values)
    if row.split not in SPLITS:
        raise AudioLDMError(
            f"{where}: split={row.split!r} is not a split.", f"Use one of {', '.join(SPLITS)}."
        )
    if absolute and Path(row.path).is_absolute():
        return row
    return replace(row, path=str(inside(folder, row.path, where=where)))


def write(rows: Iterable[Row], path: str | Path) -> Path:
    """Write a manifest in one step; files below its folder get relative paths, so that the folder can move."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.absolute()
    lines = [
        json.dumps(asdict(replace(row, path=_portable(row.path, folder))), ensure_ascii=False) for row in rows
    ]
    return write_text(path, "".join(line + "\n" for line in lines))


def _portable(path: str, folder: Path) -> str:
    """``path`` relative to ``folder`` if it lies below it, else absolute."""
    full = Path(path).absolute()
    return str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split_of(group: str, *, val: float = 0.1, test: float = 0.1) -> str:
    """The split of a recording, decided by the hash of its name alone, so that adding files moves none.

    >>> split_of("a"), split_of("a", val=0.0, test=0.0)
    ('train', 'train')
    """
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
    return "test" if place < test else "val" if place < test + val else "train"


def loudness(wave: Tensor, rate: int) -> float:
    """Loudness of (N,) in LUFS by ITU-R BS.1770-4 (torchaudio); clips below 0.4 s, and clips that the gate empties, get
    their RMS level in dB of full scale instead.   Silence is -inf.
    """
    if len(wave) >= GATE_SECONDS * rate:
        # torchaudio's filters clip at full scale, so a loud wave is measured 12 dB or more below it
        scale = min(1.0, LOUDEST_MEASURED / max(float(wave.abs().max()), 1e-12))
        value = float(audio.loudness(wave[None] * scale, rate)) - 20 * log10(scale)
        if isfinite(value):
            return value
    power = float(wave.double().square().mean()) if len(wave) else 0.0
    return 10 * log10(power) if power > 0 else float("-inf")


def leaks(rows: Sequence[Row], more: Sequence[Collection[str]] = ()) -> list[str | None]:
    """For each row, what it shares with a row of a split that ranks higher (test, val, train); None if nothing.

    Shared is a file (``sha256``), a recording (``group``), a clip of a composed scene (``parts``), or one of the row's
    ``more`` marks.   No sound is read.

    >>> leaks([Row("a", ("x",), group="g"), Row("b", ("x",), group="g", split="test")])
    ['b is in test and of the same recording', None]
    """
    owners: dict[str, Row] = {}
    out: list[str | None] = [None] * len(rows)
    for place in sorted(range(len(rows)), key=lambda index: RANK[rows[index].split]):
        row = rows[place]
        marks = [("recording", row.group), ("file", row.sha256), *(("file", part) for part in row.parts)]
        marks += [("sound", mark) for mark in (more[place] if more else ())]
        for what, mark in marks:
            owner = owners.setdefault(mark, row) if mark else row
            if owner.split != row.split:
                out[place] = out[place] or f"{owner.path} is in {owner.split} and of the same {what}"
    return out


def refuse_leaks(rows: Sequence[Row]) -> None:
    """Refuse rows of which one split holds what a higher one holds."""
    if found := [(row.path, why) for row, why in zip(rows, leaks(rows), strict=True) if why]:
        raise AudioLDMError(
            f"{len(found)} rows leak between splits; {found[0][0]}: {found[0][1]}.",
            "Clean the manifests together: `audioldm data check A.jsonl B.jsonl -o CLEAN.jsonl`.",
        )
