"""Every clip read and judged before anything trains on it: missing, broken, silent, clipped, double or leaking."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import Tensor

from audioldm.datasets.decode import CANCEL, LOUDEST, Mixer, Reader, opened
from audioldm.datasets.loudness import Loudness
from audioldm.datasets.manifest import SILENT_PEAK, Finding, Row, leaks
from audioldm.errors import AudioLDMError
from audioldm.paths import sha256
from audioldm.progress import counted

NOTES = ("clipped", "antiphase", "ending", "column", "weak", "part")  # kinds of findings whose rows stay
CLIPPED_SHARE = 1e-4  # of samples in flat tops at full scale, or beyond it: a clip is called clipped
FULL_SCALE = 0.99
FLAT = 3  # samples in a row at the clip's own extreme: a flat top
SLACK = 0.05  # seconds by which a part may end before it should, and nobody is told
SHORTEST = 0.01  # seconds; shorter clips hold no sound
PART = 16  # rows a process, given out together; after a crash the rest is tried one by one
Result = TypeVar("Result")


@dataclass(frozen=True)
class Report:
    """The rows that may be used, measured, and what was wrong."""

    rows: list[Row]
    findings: list[Finding] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return dict(Counter(finding.kind for finding in self.findings))

    def summary(self) -> dict[str, object]:
        """Clips, hours, splits, sources, licences and findings, ready for JSON."""
        hours = round(sum(row.seconds or 0.0 for row in self.rows) / 3600, 3)
        captions = len({caption for row in self.rows for caption in row.captions})
        names = {"splits": "split", "sources": "source", "licences": "licence"}
        counts = {key: dict(Counter(getattr(row, name) for row in self.rows)) for key, name in names.items()}
        about = {"clips": len(self.rows), "hours": hours, "captions": captions}
        return {**about, **counts, "findings": self.counts()}


class FlatTops:
    """Counts samples beyond full scale, or in flat tops at the clip's extreme, over blocks (n, C)."""

    def __init__(self, channels: int) -> None:
        self.tops, self.flat = torch.zeros(channels), torch.zeros(channels, dtype=torch.int64)
        self.beyond = self.samples = 0

    def add(self, block: Tensor) -> None:
        """Go on by a block; a higher top makes those before it none."""
        level = block.abs()
        tops, beyond = level.amax(0), level > 1.0
        self.flat *= (tops <= self.tops * 1.0001).long()
        self.tops = torch.maximum(self.tops, tops)
        flat = (level >= 0.9999 * self.tops) & (self.tops >= FULL_SCALE)
        if len(block) >= FLAT and flat.any():
            runs, whole = flat.unfold(0, FLAT, 1).all(-1), torch.zeros_like(flat)
            for shift in range(FLAT):  # a run of FLAT begins at each true place of (n - 2, C)
                whole[shift : shift + len(runs)] |= runs
            self.flat += (whole & ~beyond).sum(0)
        self.beyond += int(beyond.sum())
        self.samples += level.numel()

    def share(self) -> float:
        return (int(self.flat.sum()) + self.beyond) / max(1, self.samples)


class UnfitError(Exception):
    """What makes a clip unfit to train on: its kind, and the detail."""


def measure(
    file: Reader, start: float, seconds: float | None, channel: int | None = None
) -> tuple[dict[str, Any], str, int | None]:
    """A part's measured fields, its samples' hash, the channel taken where all cancel.   Raises UnfitError."""
    mixer, tops, meter = Mixer(file.channels), FlatTops(file.channels), Loudness(file.rate)
    digest, samples, low, high = hashlib.sha256(f"{file.rate}".encode()), 0, float("inf"), -float("inf")
    for array in file.blocks(start, seconds):
        block = torch.from_numpy(array)
        wave = mixer.add(block) if channel is None else block[:, channel]
        if not torch.isfinite(block).all():
            raise UnfitError("nan", "samples that are not finite numbers")
        low, high = min(low, float(wave.min())), max(high, float(wave.max()))
        tops.add(block)
        meter.add(wave)
        digest.update((wave.double() * 32767).round().short().numpy().tobytes())
        samples += len(wave)
    if channel is None and (strongest := mixer.strongest()) is not None:
        return measure(file, start, seconds, strongest)
    refuse_unfit(samples, low, high, file.rate)
    fields = {"seconds": round(samples / file.rate, 6), "loudness": round(meter.value(), 2)}
    fields |= {"rate": float(file.rate), "clipping": round(tops.share(), 6)}
    return fields, digest.hexdigest(), channel


def refuse_unfit(samples: int, low: float, high: float, rate: int) -> None:
    """Raise UnfitError by how many samples a clip has, and by the lowest and the highest of them."""
    peak, constant = max(-low, high), samples > 1 and (high - low) / 2 < SILENT_PEAK
    flaws = (
        ("corrupt", "no samples", samples == 0),
        ("level", f"peak {peak:.1e}", peak > LOUDEST),
        ("silent", f"peak {peak:.1e}", peak < SILENT_PEAK),
        ("silent", f"a constant of {low:.2g}", constant),
        ("short", f"{samples} samples", samples < SHORTEST * rate),
    )
    for kind, detail, holds in flaws:
        if holds:
            raise UnfitError(kind, detail)


def inspect(row: Row) -> tuple[Row | None, list[Finding], str]:
    """(the row measured, or None if it is unfit; what was found; the hash of its samples)."""
    try:
        if not row.captions or not all(map(str.strip, row.captions)):
            raise UnfitError("caption", "no caption")
        if not os.path.isfile(row.path):
            raise UnfitError("missing", "")
        digest = sha256(row.path)
        if row.sha256 not in ("", digest):
            raise UnfitError("changed", f"sha256 {digest[:12]} instead of {row.sha256[:12]}")
        with opened(row.path) as file:
            fields, samples, channel = measure(file, row.start, row.seconds)
    except UnfitError as error:
        return None, [Finding(error.args[0], row.path, error.args[1])], ""
    except AudioLDMError as error:
        why = error.message.rpartition(f"{row.path}: ")[2].removeprefix(f"{row.path} is ")
        return None, [Finding("corrupt", row.path, why)], ""
    return replace(row, sha256=digest, **fields), [*oddities(row, fields, channel)], samples


def oddities(row: Row, fields: dict[str, Any], channel: int | None) -> Iterator[Finding]:
    """What is strange about a clip that is fit, by its measured ``fields``."""
    if channel is not None:
        yield Finding("antiphase", row.path, CANCEL.format(channel + 1))
    if fields["clipping"] >= CLIPPED_SHARE:
        yield Finding("clipped", row.path, f"{100 * fields['clipping']:.2g} % of its samples")
    if row.seconds is not None and fields["seconds"] < row.seconds - SLACK:
        yield Finding("part", row.path, f"{fields['seconds']:.3f} of {row.seconds:g} s are there")


def check(rows: Sequence[Row], *, workers: int = 0) -> Report:
    """Read every clip; keep the sound ones, name the rest.

    A duplicate has the same bytes and part as an earlier row of its split, or the same samples in another file.  A
    leak shares a file, a recording or its samples with a split that ranks higher (test, val, train): the row of the
    lower split goes.  ``workers`` processes read at once; 0 reads here.
    """
    findings, sound, marks = list[Finding](), list[Row](), list[tuple[str]]()
    for _, result in zip(counted(rows, "sounds"), each(inspect, rows, processes=workers), strict=True):
        row, notes, samples = (None, [result], "") if isinstance(result, Finding) else result
        findings += notes
        if row:
            sound.append(row)
            marks.append((samples,))
    fit, known = list[Row](), dict[tuple[str, ...], Row]()
    for row, mark, why in zip(sound, marks, leaks(sound, marks), strict=True):
        key = (row.sha256, str(row.start), str(row.seconds))
        twin = known.get(key, known.get(mark, row))
        if why:
            findings.append(Finding("leak", row.path, why))
        # other parts of one hum may be alike
        elif key in known or twin.sha256 != row.sha256:
            findings.append(Finding("duplicate", row.path, f"same as {twin.path}"))
        else:
            known |= {key: row, mark: row}
            fit.append(row)
    return Report(fit, findings)


def each(
    work: Callable[[Row], Result], rows: Sequence[Row], *, processes: int = 0
) -> Iterator[Result | Finding]:
    """``work`` on every row, in order, here or in ``processes``; a Finding for a row where it raises or ends one."""
    guarded = partial(attempt, work)
    if processes < 1:
        yield from map(guarded, rows)
        return
    pool = spawned(processes)
    try:
        for begin in range(0, len(rows), PART * processes):
            part, done = rows[begin : begin + PART * processes], 0
            try:
                for result in pool.map(guarded, part):
                    yield result
                    done += 1
            except BrokenProcessPool:
                pool = spawned(1)
                for row in part[done:]:
                    try:
                        yield pool.submit(guarded, row).result()
                    except BrokenProcessPool:
                        yield Finding("failed", row.path, "it ended the process that read it: out of memory?")
                        pool = spawned(1)
                pool.shutdown(wait=False)
                pool = spawned(processes)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def attempt(work: Callable[[Row], Result], row: Row) -> Result | Finding:
    try:
        return work(row)
    except Exception as error:  # whatever a damaged file makes a library raise
        return Finding("failed", row.path, f"{type(error).__name__}: {error}" if str(error) else repr(error))


def spawned(processes: int) -> ProcessPoolExecutor:
    """A pool of new processes (forked, torch may wait for threads it lost), which end with this one however it ends."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=end_with_parent)


def end_with_parent() -> None:
    """In a process of a pool: a parent that was killed says nothing, and its workers would wait for ever."""
    Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()  # type: ignore[union-attr]
