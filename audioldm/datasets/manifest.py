"""The list of clips: one JSON object per line, checked before anything trains on it."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite, log10
from pathlib import Path

import torch
import torchaudio.functional as audio
from torch import Tensor

from audioldm.datasets.decode import read_mono
from audioldm.errors import AudioLDMError

SPLITS = ("train", "val", "test")
KINDS = ("missing", "corrupt", "nan", "silent", "duplicate", "changed", "caption")
SILENT_PEAK = 1e-3
"""A clip whose largest sample is below -60 dB of full scale holds nothing to learn."""
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
    """Something wrong with one row; ``kind`` is one of KINDS."""

    kind: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Report:
    """The rows that may be used, measured, and what was wrong with the others."""

    rows: list[Row]
    findings: list[Finding] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many findings of each kind."""
        return dict(Counter(finding.kind for finding in self.findings))

    def summary(self) -> dict[str, object]:
        """Clips, hours, splits, sources, licences and findings, ready for JSON."""
        return {
            "clips": len(self.rows),
            "hours": round(sum(row.seconds or 0.0 for row in self.rows) / 3600, 3),
            "captions": len({caption for row in self.rows for caption in row.captions}),
            "splits": dict(Counter(row.split for row in self.rows)),
            "sources": dict(Counter(row.source for row in self.rows)),
            "licences": dict(Counter(row.licence for row in self.rows)),
            "findings": self.counts(),
        }


def read(path: str | Path, *, split: str | None = None) -> list[Row]:
    """The rows of a manifest (of one ``split`` if given); relative paths are taken from the manifest's own folder."""
    path = Path(path)
    if not path.is_file():
        raise AudioLDMError(f"There is no manifest at {path}.", "Make one with `audioldm data prepare`.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            rows.append(parse(line, where=f"{path}:{number}", folder=path.parent))
    if split is not None and split not in SPLITS:
        raise AudioLDMError(f"split={split!r} is not a split.", f"Use one of {', '.join(SPLITS)}.")
    return [row for row in rows if split is None or row.split == split]


def parse(line: str, *, where: str, folder: Path) -> Row:
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
    return replace(row, path=str((folder / row.path).absolute()))


def write(rows: Iterable[Row], path: str | Path) -> Path:
    """Write a manifest in one step; files below its folder get relative paths, so that the folder can move."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.absolute()
    lines = [
        json.dumps(asdict(replace(row, path=_portable(row.path, folder))), ensure_ascii=False) for row in rows
    ]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    os.replace(partial, path)
    return path


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
        value = float(audio.loudness(wave[None], rate))
        if isfinite(value):
            return value
    power = float(wave.double().square().mean()) if len(wave) else 0.0
    return 10 * log10(power) if power > 0 else float("-inf")


def inspect(row: Row) -> Row | Finding:
    """The row with sha256, seconds and loudness measured, or what is wrong with its file."""
    if not row.captions or not all(caption.strip() for caption in row.captions):
        return Finding("caption", row.path, "no caption")
    if not Path(row.path).is_file():
        return Finding("missing", row.path)
    digest = sha256(row.path)
    if row.sha256 and row.sha256 != digest:
        return Finding("changed", row.path, f"sha256 {digest[:12]} instead of {row.sha256[:12]}")
    try:
        wave, rate = read_mono(row.path, start=row.start, seconds=row.seconds)
    except AudioLDMError as error:
        return Finding("corrupt", row.path, error.message)
    if len(wave) == 0:
        return Finding("corrupt", row.path, "no samples")
    if not torch.isfinite(wave).all():
        return Finding("nan", row.path, "samples that are not finite numbers")
    if float(wave.abs().max()) < SILENT_PEAK:
        return Finding("silent", row.path, f"peak {float(wave.abs().max()):.1e}")
    level = round(loudness(wave, rate), 2)
    return replace(row, sha256=digest, seconds=round(len(wave) / rate, 6), loudness=level)


def check(rows: Sequence[Row], *, on_row: Callable[[], None] | None = None) -> Report:
    """Read every clip; keep the sound ones, name the rest.   ``on_row`` is called once per row, for progress.

    A duplicate is the same bytes and the same part as an earlier row's; the first one stays.
    """
    kept: list[Row] = []
    findings: list[Finding] = []
    seen: dict[tuple[str, float, float | None], str] = {}
    for row in rows:
        result = inspect(row)
        if isinstance(result, Row):
            key = (result.sha256, result.start, result.seconds)
            if key in seen:
                findings.append(Finding("duplicate", result.path, f"same as {seen[key]}"))
            else:
                seen[key] = result.path
                kept.append(result)
        else:
            findings.append(result)
        if on_row is not None:
            on_row()
    return Report(kept, findings)
