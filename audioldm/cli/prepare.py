"""``audioldm data prepare SOURCE``: any source of sounds to a checked manifest."""

import inspect
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.checks import check_free
from audioldm.cli.console import note, show_json, show_text, waiting
from audioldm.cli.options import SHARE, AsJson, Between, Command, Force, Group, argument, option
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.check import Report
    from audioldm.datasets.manifest import Finding, Row

    Reader = Callable[..., list[Row]]

SOURCES = {
    "folder": "folder:folder",
    "table": "folder:listed",
    "parquet": "packed:parquet_rows",
    "webdataset": "packed:tar_rows",
    "datasets": "packed:datasets_rows",
    "esc10": "published:esc10",
    "esc50": "published:esc50",
    "urbansound8k": "published:urbansound8k",
    "fsd50k": "published:fsd50k",
    "audioset": "published:audioset",
    "audiocaps": "published:audiocaps",
    "clotho": "published:clotho",
    "wavcaps": "published:wavcaps",
    "macs": "published:macs",
    "musiccaps": "published:musiccaps",
    "opensounds2": "opensounds2:opensounds2",
}
"""Source -> its reader in audioldm.datasets.prepare; the reader's parameters are the options that the source takes."""
YOUTUBE = ("audiocaps", "musiccaps")
SHOWN = 20
"""findings of one kind that are printed one by one"""
OWN = ("folder", "table", "parquet", "webdataset", "datasets")
"""Sources without a place of their own in data/raw: --out must be named."""


class SourceOptions(Group):
    """What readers may take; None leaves it to the reader."""

    audio: str | None = option(None, "The sounds, if they are elsewhere.", "DIR")
    to: str | None = option(None, "Where unpacked sounds go.", "DIR")
    licence: str | None = option(None, "Licence of sounds whose row gives none.")
    author: str | None = option(None, "Author of sounds whose row gives none.")
    source: str | None = option(None, "Name of the source in each row.", "--source")
    val: float | None = option(None, "Share of recordings to validate on, by hash.", SHARE)
    test: float | None = option(None, "Share of recordings to test on, by hash.", SHARE)
    test_fold: int | None = option(None, "The fold to test on.", Between(1, 10))
    val_fold: int | None = option(None, "The fold to validate on.", Between(1, 10))
    only_esc10: bool | None = option(None, "esc50: ESC-10's classes.", "--only-esc10")
    exclude: list[str] | None = option(None, "wavcaps: a blacklist of other sets' test clips.", "JSON")
    weak: float | None = option(None, "opensounds2: weight of weak captions; 0 drops.", Between(0))
    host: str | None = option(None, "opensounds2: what stands before OWNER/NAME of a repository.", "URL")
    audio_column: str | None = option(None, "Column that holds the sounds.")
    caption_column: str | None = option(None, "Column that holds the captions.")
    config: str | None = option(None, "datasets: the data set's configuration.")


class Prepare(Force, AsJson, Command):
    """Make a manifest from a source; every sound is read and checked, what is left out is named.

    Own sounds: folder, table, parquet, webdataset, datasets.  Published sets, from their authors' files (docs/data.md):
    esc10, esc50, urbansound8k, fsd50k, audioset, audiocaps, clotho, wavcaps, macs, musiccaps, opensounds2.

    \b
    Examples:
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl --licence CC0-1.0 --author me
      audioldm data prepare table clips.csv --audio sounds -o data/raw/clips.jsonl
      audioldm data prepare webdataset shards/*.tar --to data/raw/mine -o data/raw/mine.jsonl
      audioldm data prepare esc10 --from ESC-10
      audioldm data prepare opensounds2
      audioldm data prepare audiocaps --from audiocaps/dataset --audio sounds --youtube
      audioldm data prepare parquet data/raw/audiocaps -o data/raw/audiocaps.jsonl
    """

    name: str = argument("", "Which reader; --list shows them all.", "[SOURCE]")
    places: list[str] = argument([], "Folder, table, tars or name of the data.", "[PLACE]...")
    place: str = option("", "The same as PLACE.", "--from", "PLACE")
    out: Path | None = option(None, "The manifest.  [default: data/raw/SOURCE.jsonl]", "-o", "JSONL")
    youtube: bool = option(False, "Get missing clips by yt-dlp into --audio.")
    workers: int = option(-1, "Processes that read at once.  [default: cores]", Between(-1, 4096))
    dry_run: bool = option(False, "Read the lists; count rows, write nothing.")
    listing: bool = option(False, "Every source, its options.", "--list")
    reading: SourceOptions = SourceOptions()

    def run(self) -> None:
        if self.listing:
            for source in SOURCES:
                reader = reader_of(source)
                print(f"{source:13} {(inspect.getdoc(reader) or '').splitlines()[0]}")
                print(f"{'':13} {' '.join(flags(source, reader).values())}")
            return
        inputs = [*self.places, *filter(None, [self.place])]
        reader, out = self.reader(inputs), self.out or Path(f"data/raw/{self.name}.jsonl")
        self.check(reader, out)
        findings = self.fetch(reader, inputs) if self.youtube and not self.dry_run else []
        rows = reader(*inputs, **self.reading.named(), findings=findings)
        if self.dry_run:
            count(rows, findings)
            return
        workers = (os.cpu_count() or 1) if self.workers < 0 else self.workers
        finish(rows, findings, out, self.as_json, workers=workers)

    def check(self, reader: "Reader", out: Path) -> None:
        if self.dry_run and "to" in options_of(reader):
            what = f"{self.name} is packed: its rows are known when it is unpacked."
            raise AudioLDMError(what, "Leave out --dry-run.")
        if not self.dry_run and self.out is None and self.name in OWN:
            what = f"{self.name} has no manifest of its own."
            raise AudioLDMError(what, "Name one: -o data/raw/mine.jsonl.")
        check_free(out, force=self.force or self.dry_run)

    def fetch(self, reader: "Reader", inputs: list[str]) -> "list[Finding]":
        from audioldm.datasets.prepare import published, youtube

        named = self.reading.named()
        folder = Path(named.get("audio") or inputs[0])
        folder.mkdir(parents=True, exist_ok=True)
        clips = published.clips(reader(*inputs, **named, findings=[]))
        with waiting("fetching"):
            return [*youtube.fetch(clips, folder)]

    def reader(self, inputs: list[str]) -> "Reader":
        if not self.name:
            raise AudioLDMError("There is no source.", f"Use one of {', '.join(SOURCES)}.")
        name, named = self.name, self.reading.named()
        reader = reader_of(name)
        known = flags(name, reader)
        if strange := [key for key in (*named, *["youtube"] * self.youtube) if key not in known]:
            what = f"{name} takes no --{strange[0].replace('_', '-')}."
            raise AudioLDMError(what, f"It takes {', '.join(known.values())}.")
        parameters = list(inspect.signature(reader).parameters.values())
        if not inputs and parameters[0].default is inspect.Parameter.empty:
            raise AudioLDMError(f"{name} needs the place of its data.", "Name it: --from PLACE.")
        if len(inputs) > 1 and all(item.kind != inspect.Parameter.VAR_POSITIONAL for item in parameters):
            raise AudioLDMError(f"{name} reads one place, not {len(inputs)}.", f"Such as {inputs[0]}.")
        for key in ("val", "test"):
            if not 0 <= named.get(key, 0.0) < 1:
                raise AudioLDMError(f"{key}={named[key]} is not a share.", "Use 0 or more, below 1.")
        return reader


def reader_of(source: str) -> "Reader":
    if source not in SOURCES:
        raise AudioLDMError(f"{source!r} is not a source.", f"Use one of {', '.join(SOURCES)}.")
    module, name = SOURCES[source].split(":")
    reader: Reader = getattr(import_module(f"audioldm.datasets.prepare.{module}"), name)
    return reader


def options_of(reader: Callable[..., Any]) -> set[str]:
    from audioldm.datasets.prepare import packed

    kinds = inspect.Parameter
    parameters = inspect.signature(reader).parameters.values()
    names = {item.name for item in parameters if item.kind == kinds.KEYWORD_ONLY}
    if any(item.kind == kinds.VAR_KEYWORD for item in parameters):
        names |= options_of(packed.unpack)
    return names - {"findings"}


def flags(source: str, reader: Callable[..., Any]) -> dict[str, str]:
    names = sorted(options_of(reader) | ({"youtube"} if source in YOUTUBE else set()))
    return {name: f"--{name.replace('_', '-')}" for name in names}


def count(rows: "Sequence[Row]", findings: "Sequence[Finding]") -> None:
    """Say how many rows each split has, and how many sounds are missing; no sound is read."""
    from audioldm.datasets.manifest import SPLITS

    note(*findings)
    missing = sum(not os.path.isfile(row.path) for row in rows)
    splits = Counter(row.split for row in rows)
    counts = ", ".join(f"{split} {splits[split]}" for split in SPLITS)
    left = f"{missing} sounds missing; {len(findings)} left out; nothing written"
    show_text(f"{len(rows)} rows ({counts}); {left}")


def finish(
    rows: "Sequence[Row]", findings: "Sequence[Finding]", out: Path, as_json: bool, *, workers: int = 0
) -> None:
    """Check the rows, report findings, and write the sound ones; many findings go to a file beside ``out``."""
    from audioldm.datasets import manifest

    report = examine(rows, findings, workers)
    show(report, as_json, out.with_suffix(".findings.jsonl"))
    if not report.rows:
        raise AudioLDMError(f"No sound is left; {out} was not written.", "See the findings above.", code=1)
    manifest.write(report.rows, out)
    if empty := [split for split in manifest.SPLITS if not any(row.split == split for row in report.rows)]:
        note(f"note: no clip is in {' or '.join(empty)}")


def examine(rows: "Sequence[Row]", findings: "Sequence[Finding]", workers: int = 0) -> "Report":
    """Check with a bar; ``findings`` made earlier come first.  Few sounds are not worth the start of processes."""
    from audioldm.datasets import check

    with waiting("checking"):
        report = check.check(rows, workers=workers if len(rows) > 200 else 0)
    return check.Report(report.rows, [*findings, *report.findings])


def show(report: "Report", as_json: bool, rest: Path | None = None) -> None:
    """Findings to stderr, at most SHOWN of a kind where ``rest`` can take all of them; the summary to stdout."""
    counts = Counter[str]()
    for finding in report.findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= SHOWN or rest is None:
            note(finding)
    if rest is not None and max(counts.values(), default=0) > SHOWN:
        record(report, rest)
        note(f"... and more; all {len(report.findings)} are in {rest}")
    if counts:
        note(f"found: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}")
    summary = report.summary()
    if as_json:
        show_json(summary)
        return
    for key, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name or '(none)'} {count}" for name, count in value.items())
        show_text(f"{key:9} {value or 'none'}")


def record(report: "Report", path: Path) -> None:
    from audioldm.datasets.manifest import json_line
    from audioldm.paths import write_text

    write_text(path, "".join(json_line(asdict(finding)) for finding in report.findings))
