"""``audioldm data prepare SOURCE``: any source of sounds to a checked manifest."""

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.console import progress
from audioldm.cli.manifests import AsJson, Force, finish, refuse_overwrite
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.manifest import Finding, Row

SOURCES = {
    "folder": "folder:folder",
    "table": "folder:listed",
    "parquet": "packed:parquet_rows",
    "webdataset": "packed:tar_rows",
    "datasets": "packed:datasets_rows",
    "esc10": "labelled:esc10",
    "esc50": "labelled:esc50",
    "urbansound8k": "labelled:urbansound8k",
    "fsd50k": "labelled:fsd50k",
    "audioset": "labelled:audioset",
    "audiocaps": "captioned:audiocaps",
    "clotho": "captioned:clotho",
    "wavcaps": "captioned:wavcaps",
    "macs": "captioned:macs",
    "musiccaps": "captioned:musiccaps",
    "opensounds2": "opensounds2:opensounds2",
}
"""Source -> its reader in audioldm.datasets.prepare; the reader's parameters are the options that the source takes."""
YOUTUBE = ("audiocaps", "musiccaps")
OWN = ("folder", "table", "parquet", "webdataset", "datasets")
"""Sources without a place of their own in data/raw: --out must be named."""


def reader_of(source: str) -> Callable[..., "list[Row]"]:
    """The function that reads a source."""
    if source not in SOURCES:
        raise AudioLDMError(f"{source!r} is not a source.", f"Use one of {', '.join(SOURCES)}.")
    module, name = SOURCES[source].split(":")
    reader: Callable[..., list[Row]] = getattr(import_module(f"audioldm.datasets.prepare.{module}"), name)
    return reader


def options_of(reader: Callable[..., Any]) -> set[str]:
    """The names of the options that a reader takes."""
    from audioldm.datasets.prepare import packed

    kinds = inspect.Parameter
    parameters = inspect.signature(reader).parameters.values()
    names = {item.name for item in parameters if item.kind == kinds.KEYWORD_ONLY}
    if any(item.kind == kinds.VAR_KEYWORD for item in parameters):
        names |= options_of(packed.unpack)
    return names - {"findings"}


def show_sources(wanted: bool) -> None:
    """Print every source with what it reads and its options, and leave."""
    if not wanted:
        return
    for source in SOURCES:
        reader = reader_of(source)
        typer.echo(f"{source:13} {(inspect.getdoc(reader) or '').splitlines()[0]}")
        names = sorted(options_of(reader) | ({"youtube"} if source in YOUTUBE else set()))
        typer.echo(f"{'':13} {' '.join('--' + name.replace('_', '-') for name in names)}")
    raise typer.Exit


def prepare(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Which reader; --list shows them all.")],
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLACE]...", help="Folder, table, tars or name of the data."),
    ] = None,
    place: Annotated[str, typer.Option("--from", metavar="PLACE", help="The same as PLACE.")] = "",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="JSONL", help="The manifest.  [default: data/raw/SOURCE.jsonl]"),
    ] = None,
    audio: Annotated[
        str | None, typer.Option(metavar="DIR", help="The sounds, if they are elsewhere.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="DIR", help="Where unpacked sounds go.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of sounds whose row gives none.")] = None,
    author: Annotated[str | None, typer.Option(help="Author of sounds whose row gives none.")] = None,
    name: Annotated[str | None, typer.Option("--source", help="Name of the source in each row.")] = None,
    val: Annotated[float | None, typer.Option(help="Share of recordings to validate on, by hash.")] = None,
    test: Annotated[float | None, typer.Option(help="Share of recordings to test on, by hash.")] = None,
    test_fold: Annotated[int | None, typer.Option(help="The fold to test on.")] = None,
    val_fold: Annotated[int | None, typer.Option(help="The fold to validate on.")] = None,
    only_esc10: Annotated[bool | None, typer.Option("--only-esc10", help="esc50: ESC-10's classes.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="JSON", help="wavcaps: a blacklist of other sets' test clips.")
    ] = None,
    weak: Annotated[float | None, typer.Option(help="opensounds2: weight of weak captions; 0 drops.")] = None,
    audio_column: Annotated[str | None, typer.Option(help="Column that holds the sound.")] = None,
    caption_column: Annotated[str | None, typer.Option(help="Column that holds the captions.")] = None,
    config: Annotated[str | None, typer.Option(help="datasets: the data set's configuration.")] = None,
    hub: Annotated[str | None, typer.Option(metavar="REPO", help="parquet: fetch this hub data set.")] = None,
    youtube: Annotated[
        bool, typer.Option("--youtube", help="Get missing clips by yt-dlp into --audio.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that read at once.  [default: cores]")] = -1,
    force: Force = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the lists; count rows, write nothing.")
    ] = False,
    as_json: AsJson = False,
    listing: Annotated[
        bool, typer.Option("--list", callback=show_sources, is_eager=True, help="Every source, its options.")
    ] = False,
) -> None:
    """Make a manifest from a source; every sound is read and checked, what is left out is named.

    Own sounds: folder, table, parquet, webdataset, datasets.  Published sets, from their authors' files (docs/data.md):
    esc10, esc50, urbansound8k, fsd50k, audioset, audiocaps, clotho, wavcaps, macs, musiccaps, opensounds2.

    \b
    Examples:
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl --licence CC0-1.0 --author me
      audioldm data prepare table clips.csv --audio sounds -o data/raw/clips.jsonl
      audioldm data prepare webdataset shards/*.tar --to data/raw/mine -o data/raw/mine.jsonl
      audioldm data prepare esc10 --from ESC-10
      audioldm data prepare audiocaps --from audiocaps/dataset --audio sounds --youtube
      audioldm data prepare parquet data/raw/audiocaps --hub OpenSound/AudioCaps -o data/raw/audiocaps.jsonl
    """
    options_named = {
        "audio": audio, "to": to, "licence": licence, "author": author, "source": name, "val": val, "test": test,
        "test_fold": test_fold, "val_fold": val_fold, "only_esc10": only_esc10, "exclude": exclude, "weak": weak,
        "audio_column": audio_column, "caption_column": caption_column, "config": config, "hub": hub,
    }  # fmt: skip
    options = {key: value for key, value in options_named.items() if value is not None}
    inputs = [*(places or []), *([place] if place else [])]
    reader = checked(source, inputs, options, youtube)
    if out is None and source in OWN and not dry_run:
        raise AudioLDMError(f"{source} has no manifest of its own.", "Name one: -o data/raw/mine.jsonl.")
    out = out or Path(f"data/raw/{source}.jsonl")
    if not dry_run:
        refuse_overwrite(out, force)
    findings: list[Finding] = []
    if dry_run and "to" in options_of(reader):
        raise AudioLDMError(
            f"{source} is packed: its rows are known when it is unpacked.", "Leave out --dry-run."
        )
    if youtube and not dry_run:
        findings += fetched(reader, inputs, options)
    rows = reader(*inputs, **options, findings=findings)
    if dry_run:
        planned(rows, findings)
    else:
        finish(rows, findings, out, as_json, workers=(os.cpu_count() or 1) if workers < 0 else workers)


def checked(
    source: str, inputs: Sequence[str], options: dict[str, Any], youtube: bool
) -> "Callable[..., list[Row]]":
    """The source's reader, if it takes these places and options."""
    reader = reader_of(source)
    known = options_of(reader) | ({"youtube"} if source in YOUTUBE else set())
    if strange := [key for key in (*options, *(["youtube"] if youtube else [])) if key not in known]:
        raise AudioLDMError(
            f"{source} takes no --{strange[0].replace('_', '-')}.",
            f"It takes {', '.join('--' + key.replace('_', '-') for key in sorted(known))}.",
        )
    kinds = [item.kind for item in inspect.signature(reader).parameters.values()]
    if not inputs:
        raise AudioLDMError(f"{source} needs the place of its data.", "Name it: --from PLACE.")
    if len(inputs) > 1 and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise AudioLDMError(f"{source} reads one place, not {len(inputs)}.", f"Such as {inputs[0]}.")
    for key in ("val", "test"):
        if not 0 <= options.get(key, 0.0) < 1:
            raise AudioLDMError(f"{key}={options[key]} is not a share.", "Use 0 or more, below 1.")
    return reader


def fetched(
    reader: "Callable[..., list[Row]]", inputs: Sequence[str], options: dict[str, Any]
) -> "list[Finding]":
    """Fetch the clips that are missing from YouTube into --audio, with a bar."""
    from audioldm.datasets.prepare import captioned
    from audioldm.datasets.prepare import youtube as downloads

    folder = Path(options.get("audio") or inputs[0])
    folder.mkdir(parents=True, exist_ok=True)
    clips = captioned.clips(reader(*inputs, **options, findings=[]))
    with progress(len(clips), "clips") as step:
        return downloads.fetch(clips, folder, on_clip=step)


def planned(rows: "Sequence[Row]", findings: "Sequence[Finding]") -> None:
    """What a dry run knows: rows by split, sounds that are missing, and what was left out."""
    for finding in findings:
        print(finding, file=sys.stderr)
    missing = sum(not Path(row.path).is_file() for row in rows)
    splits = {split: sum(row.split == split for row in rows) for split in ("train", "val", "test")}
    counts = ", ".join(f"{split} {count}" for split, count in splits.items())
    typer.echo(
        f"{len(rows)} rows ({counts}); {missing} sounds missing; {len(findings)} left out; nothing written"
    )
