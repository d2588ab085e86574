"""``audioldm data``: sounds with captions to checked manifests."""

from pathlib import Path
from random import Random
from typing import Annotated

import typer

from audioldm.cli.console import progress
from audioldm.cli.manifests import AsJson, Force, examine, record, refuse_overwrite, tell
from audioldm.cli.prepare import prepare
from audioldm.errors import AudioLDMError
from audioldm.paths import write_text

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
app.add_typer(prepare, name="prepare")


@app.callback()
def data() -> None:
    """Make and check manifests: which sounds, with which captions, under which licence.

    \b
    Examples:
      audioldm data prepare esc10 --from ESC-10 -o data/raw/esc10.jsonl
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl
      audioldm data check data/raw/mine.jsonl --strict
      audioldm data listen data/raw/mine.jsonl

    A sound that is missing, cut off, silent, a copy or not a number is named on stderr and left out.
    """


@app.command()
def check(
    sources: Annotated[
        list[Path], typer.Argument(metavar="JSONL|DIR...", help="Manifests, or folders of sounds.")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is found.")] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="JSONL", help="Write the sound rows here.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="JSONL", help="Write every finding here.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that read at once; 0 reads in this one.")] = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Read every sound and name what is missing, corrupt, silent, clipped, no number, double, or in two splits.

    Several manifests are judged together: what is in the test split of one must not be in the training split of
    another.   Exit code 1 if no row is sound, or with --strict if anything was found.

    \b
    Examples:
      audioldm data check data/raw/mine.jsonl --strict
      audioldm data check data/raw/esc10.jsonl data/raw/composed.jsonl -o data/raw/clean.jsonl
      audioldm data check my_sounds --report out/findings.jsonl
    """
    if out is not None:
        refuse_overwrite(out, force)
    if workers < 0:
        raise AudioLDMError(f"workers={workers} is not a number of processes.", "Use 0 or more.")
    from audioldm.datasets import manifest
    from audioldm.datasets.prepare import folder

    rows = [row for path in sources for row in (folder.rows(path) if path.is_dir() else manifest.read(path))]
    found = examine(rows, [], workers)
    tell(found, as_json)
    if report is not None:
        record(found, report)
    if not found.rows:
        raise AudioLDMError(f"{sources[0]} has no sound row.", "See the findings above.", code=1)
    if out is not None:
        manifest.write(found.rows, out)
    if strict and found.findings:
        raise typer.Exit(1)


@app.command()
def listen(
    manifest: Annotated[Path, typer.Argument(metavar="JSONL", help="The manifest to hear.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="HTML", help="The page.")] = Path(
        "out/listen.html"
    ),
    n: Annotated[int, typer.Option("-n", help="How many rows, drawn at random.")] = 24,
    seed: Annotated[int, typer.Option(help="Decides which rows.")] = 0,
    split: Annotated[str | None, typer.Option(help="Only rows of this split.")] = None,
    source: Annotated[str | None, typer.Option(help="Only rows whose source begins so.")] = None,
    force: Force = False,
) -> None:
    """Write one HTML page with a player, a spectrogram and the captions of random rows, as training hears them.

    The page holds sounds and pictures itself: it can be moved, sent and opened without a server.

    \b
    Examples:
      audioldm data listen data/raw/composed.jsonl
      audioldm data listen data/raw/opensounds.jsonl -n 50 --seed 1 --source opensounds/scratch -o out/scratch.html
    """
    if out.exists() and not force:
        raise AudioLDMError(f"{out} is already there.", "Pass --force to replace it.")
    if n < 1:
        raise AudioLDMError(f"-n={n} is not a number of rows.", "Use 1 or more.")
    from audioldm.cli.page import page
    from audioldm.datasets.manifest import read

    rows = [row for row in read(manifest, split=split) if row.source.startswith(source or "")]
    if not rows:
        raise AudioLDMError(f"{manifest} has no such rows.", "Leave out --split or --source.")
    chosen = Random(seed).sample(rows, min(n, len(rows)))
    with progress(len(chosen), "rows") as step:
        text = page(
            chosen, title=f"{manifest.name}: {len(chosen)} of {len(rows)} rows, seed {seed}", on_row=step
        )
    write_text(out, text)
    typer.echo(str(out))
