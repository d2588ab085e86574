"""Every clip read and judged before anything trains on it: missing, broken, silent, clipped, double or leaking."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from audioldm.datasets.decode import read_channels
from audioldm.datasets.manifest import SILENT_PEAK, Finding, Row, leaks, loudness, sha256
from audioldm.errors import AudioLDMError

KINDS = ("missing", "corrupt", "nan", "silent", "duplicate", "changed", "caption", "leak", "clipped")
NOTES = ("clipped",)
"""kinds that are told, while their rows stay: much of the world's sound is a little clipped"""
CLIPPED_SHARE = 1e-4
"""A clip is called clipped if so many of its samples lie in flat tops at full scale, or beyond it."""
FULL_SCALE = 0.99
FLAT = 3
"""samples in a row at the clip's own extreme: a flat top"""
CHUNK = 16


@dataclass(frozen=True)
class Report:
    """The rows that may be used, measured, and what was wrong."""

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


def flat_share(channels: Tensor) -> float:
    """The share of the samples of (N, C) that lie beyond full scale, or in flat tops at it.

    >>> wave = torch.sin(torch.arange(1000) / 5)
    >>> flat_share(wave[:, None]), round(flat_share((2 * wave).clamp(-1, 1)[:, None]), 1)
    (0.0, 0.7)
    """
    level = channels.abs()
    beyond = level > 1.0
    top = level.amax(0)
    flat = (level >= 0.9999 * top) & (top >= FULL_SCALE)
    runs = flat.T.float()[:, None]  # (C, 1, N): a run of FLAT ones survives the minimum over a window of FLAT
    if len(channels) >= FLAT:
        kept = -torch.nn.functional.max_pool1d(-runs, FLAT, 1)
        runs = torch.nn.functional.max_pool1d(kept, FLAT, 1, padding=FLAT // 2)[..., : len(channels)]
        flat = torch.nn.functional.pad(runs, (1, 1))[:, 0, : len(channels)].T > 0
    else:
        flat = torch.zeros_like(beyond)
    return float((flat | beyond).float().mean())


def inspect(row: Row) -> tuple[Row | None, Finding | None, str]:
    """(the row measured, or None if it is unfit; what was found; the hash of its samples)."""

    def unfit(kind: str, detail: str = "") -> tuple[None, Finding, str]:
        return None, Finding(kind, row.path, detail), ""

    if not row.captions or not all(caption.strip() for caption in row.captions):
        return unfit("caption", "no caption")
    if not Path(row.path).is_file():
        return unfit("missing")
    digest = sha256(row.path)
    if row.sha256 and row.sha256 != digest:
        return unfit("changed", f"sha256 {digest[:12]} instead of {row.sha256[:12]}")
    try:
        channels, rate = read_channels(row.path, start=row.start, seconds=row.seconds)
    except AudioLDMError as error:
        return unfit("corrupt", error.message.rpartition(f"{row.path}: ")[2].removeprefix(f"{row.path} is "))
    if len(channels) == 0:
        return unfit("corrupt", "no samples")
    if not torch.isfinite(channels).all():
        return unfit("nan", "samples that are not finite numbers")
    wave = channels.mean(1)
    if float(wave.abs().max()) < SILENT_PEAK:
        return unfit("silent", f"peak {float(wave.abs().max()):.1e}")
    level = round(loudness(wave, rate), 2)
    row = replace(row, sha256=digest, seconds=round(len(wave) / rate, 6), loudness=level)
    share = flat_share(channels)
    note = (
        Finding("clipped", row.path, f"{100 * share:.2g} % of its samples")
        if share >= CLIPPED_SHARE
        else None
    )
    samples = hashlib.sha256((wave.double() * 32767).round().short().numpy().tobytes()).hexdigest()
    return row, note, f"{rate}/{samples}"


def check(rows: Sequence[Row], *, workers: int = 0, on_row: Callable[[], None] | None = None) -> Report:
    """Read every clip; keep the sound ones, name the rest.   ``on_row`` is called once per row, for progress.

    A duplicate has the same bytes and part as an earlier row of its split, or the same samples in another file.   A
    leak shares a file, a recording or its samples with a split that ranks higher (test, val, train): the row of the
    lower split goes.
    ``workers`` processes read at once; 0 reads here.
    """
    findings: list[Finding] = []
    sound: list[tuple[Row, str]] = []
    for row, finding, samples in _inspected(rows, workers):
        findings += [finding] if finding else []
        sound += [(row, samples)] if row else []
        if on_row is not None:
            on_row()
    lost = leaks([row for row, _ in sound], [(samples,) for _, samples in sound])
    kept: list[Row] = []
    seen: dict[tuple[str, ...], Row] = {}
    for (row, samples), why in zip(sound, lost, strict=True):
        if why:
            findings.append(Finding("leak", row.path, why))
            continue
        keys = ((row.sha256, str(row.start), str(row.seconds)), (samples,))
        twin = seen.get(keys[0]) or seen.get(keys[1])
        if twin is not None and (keys[0] in seen or twin.sha256 != row.sha256):  # parts of a hum may be alike
            findings.append(Finding("duplicate", row.path, f"same as {twin.path}"))
            continue
        seen.update(dict.fromkeys(keys, row))
        kept.append(row)
    return Report(kept, findings)


def _inspected(rows: Sequence[Row], workers: int) -> Iterator[tuple[Row | None, Finding | None, str]]:
    """``inspect`` of every row, in order."""
    if workers < 1:
        yield from map(inspect, rows)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(inspect, rows, chunksize=CHUNK)
