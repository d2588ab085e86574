"""``audioldm data prepare SOURCE``: any source of sounds to a checked manifest."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import Any, TypeAlias

from audioldm.cli.checks import check_free
from audioldm.cli.console import note, show_json, show_text, waiting
from audioldm.cli.options import SHARE, AsJson, Between, Command, Force, Group, argument, option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import shipped, write_text

with later():
    from audioldm.datasets import check, manifest
    from audioldm.datasets.prepare import packed, youtube

Reader: TypeAlias = "Callable[..., list[manifest.Row]]"
SOURCES = {
    "folder": "folder:folder",
    "table": "folder:listed",
    "parquet": "packed:datasets_rows",
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
    "opensounds2": "embedded/opensounds2.py:opensounds2",
}
"""Source -> its reader, in audioldm.datasets.prepare or a recipe; its parameters are the options that it takes."""
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
    exclude: list[str] | None = option(None, "wavcaps: a blacklist of other sets' test clips.", "JSON")
    weak: float | None = option(None, "opensounds2: weight of weak captions; 0 drops.", Between(0))
    host: str | None = option(None, "opensounds2: what stands before OWNER/NAME of a repository.", "URL")
    audio_column: str | None = option(None, "Column that holds the sounds.")
    caption_column: str | None = option(None, "Column that holds the captions.")


class Prepare(Force, AsJson, Command):
    """Make a manifest from a source; every sound is read and checked, what is left out is named.

    Own sounds: folder, table, parquet, webdataset, datasets.  Published sets, from their authors' files (docs/data.md):
    esc10, esc50, urbansound8k, fsd50k, audioset, audiocaps, clotho, wavcaps, macs, musiccaps, opensounds2.

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
                print(f"{source:13} {(inspect.getdoc(reader_of(source)) or '').splitlines()[0]}")
                print(f"{'':13} {' '.join(map(flag, options_of(source)))}")
            return
        inputs, named = [*self.places, *filter(None, [self.place])], self.reading.named()
        reader, out = self.checked(inputs, named), self.out or Path(f"data/raw/{self.name}.jsonl")
        check_free(out, force=self.force or self.dry_run)
        findings = list[Any]()
        if self.youtube and not self.dry_run:
            folder = Path(named.get("audio") or inputs[0])
            folder.mkdir(parents=True, exist_ok=True)
            with waiting("fetching"):
                findings += youtube.fetch(reader(*inputs, **named, findings=[]), folder)
        rows = reader(*inputs, **named, findings=findings)
        if not self.dry_run:
            workers = (os.cpu_count() or 1) if self.workers < 0 else self.workers
            finish(rows, findings, out, self.as_json, workers=workers)
            return
        note(*findings)
        missing, splits = (
            sum(not os.path.isfile(row.path) for row in rows),
            Counter(row.split for row in rows),
        )
        left = f"{missing} sounds missing; {len(findings)} left out; nothing written"
        show_text(
            f"{len(rows)} rows ({', '.join(f'{split} {splits[split]}' for split in manifest.SPLITS)}); {left}"
        )

    def checked(self, inputs: list[str], named: dict[str, Any]) -> Reader:
        """The reader.   Raises AudioLDMError for what it does not take or needs."""
        reader, known, name = reader_of(self.name), options_of(self.name), self.name
        if strange := [key for key in (*named, *["youtube"] * self.youtube) if key not in known]:
            takes = f"It takes {', '.join(map(flag, known))}."
            raise AudioLDMError(f"{name} takes no {flag(strange[0])}.", takes)
        first, *_ = parameters = list(inspect.signature(reader).parameters.values())
        if not inputs and first.default is inspect.Parameter.empty:
            raise AudioLDMError(f"{name} needs the place of its data.", "Name it: --from PLACE.")
        if len(inputs) > 1 and all(item.kind != inspect.Parameter.VAR_POSITIONAL for item in parameters):
            raise AudioLDMError(f"{name} reads one place, not {len(inputs)}.", f"Such as {inputs[0]}.")
        if self.dry_run and "to" in known:
            what = f"{name} is packed: its rows are known when it is unpacked."
            raise AudioLDMError(what, "Leave out --dry-run.")
        if not self.dry_run and self.out is None and name in OWN:
            raise AudioLDMError(f"{name} has no manifest of its own.", "Name one: -o data/raw/mine.jsonl.")
        return reader


def reader_of(source: str) -> Reader:
    if source not in SOURCES:
        raise AudioLDMError(f"{source!r} is not a source.", f"Use one of {', '.join(SOURCES)}.")
    module, name = SOURCES[source].split(":")
    if module.endswith(".py"):
        return run_path(str(shipped("recipes") / module))[name]
    return getattr(import_module(f"audioldm.datasets.prepare.{module}"), name)


def options_of(source: str) -> list[str]:
    kinds = inspect.Parameter
    parameters = {**inspect.signature(reader_of(source)).parameters}
    if any(item.kind == kinds.VAR_KEYWORD for item in parameters.values()):
        parameters |= inspect.signature(packed.unpack).parameters
    names = {item.name for item in parameters.values() if item.kind == kinds.KEYWORD_ONLY} - {"findings"}
    return sorted(names | ({"youtube"} if source in YOUTUBE else set()))


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def finish(
    rows: Sequence[manifest.Row],
    findings: Sequence[manifest.Finding],
    out: Path,
    as_json: bool,
    *,
    workers: int = 0,
) -> None:
    """Check the rows, report findings, and write the sound ones; many findings go to a file beside ``out``."""
    report = examine(rows, findings, as_json, workers=workers, rest=out.with_suffix(".findings.jsonl"))
    if not report.rows:
        raise AudioLDMError(f"No sound is left; {out} was not written.", "See the findings above.", code=1)
    manifest.write(report.rows, out)
    if empty := [split for split in manifest.SPLITS if not any(row.split == split for row in report.rows)]:
        note(f"note: no clip is in {' or '.join(empty)}")


def examine(
    rows: Sequence[manifest.Row], findings: Sequence[manifest.Finding], as_json: bool, *, workers: int,
    rest: Path | None = None,
) -> check.Report:  # fmt: skip
    """Check with a bar; ``findings`` made earlier come first.  Few sounds are not worth the start of processes.

    Findings go to stderr, at most SHOWN of a kind where ``rest`` can take all of them; the summary to stdout.
    """
    with waiting("checking"):
        report = check.check(rows, workers=workers if len(rows) > 200 else 0)
    report = check.Report(report.rows, [*findings, *report.findings])
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
    if as_json:
        show_json(report.summary())
        return report
    for key, value in report.summary().items():
        if isinstance(value, dict):
            value = ", ".join(f"{name or '(none)'} {count}" for name, count in value.items())
        show_text(f"{key:9} {value or 'none'}")
    return report


def record(report: check.Report, path: Path) -> None:
    write_text(path, "".join(manifest.json_line(asdict(finding)) for finding in report.findings))
