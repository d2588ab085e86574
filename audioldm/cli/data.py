"""``audioldm data``: sounds with captions to checked manifests, and manifests to what trainings read."""

import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from audioldm.cli.console import printable, progress
from audioldm.cli.manifests import AsJson, Force, examine, record, refuse_overwrite, show
from audioldm.cli.prepare import prepare
from audioldm.errors import AudioLDMError

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
app.command("prepare")(prepare)
Processes = Annotated[int, typer.Option(help="Processes at work; 0 is one a core.")]


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
    another.  Exit code 1 if no row is sound, or with --strict if anything was found.

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
    from audioldm.datasets.prepare.folder import folder

    findings: list[manifest.Finding] = []
    rows = [
        row
        for path in sources
        for row in (
            folder(path, findings=findings) if path.is_dir() else manifest.read(path, findings=findings)
        )
    ]
    result = examine(rows, findings, workers)
    show(result, as_json)
    if report is not None:
        record(result, report)
    if not result.rows:
        raise AudioLDMError(f"{sources[0]} has no sound row.", "See the findings above.", code=1)
    if out is not None:
        manifest.write(result.rows, out)
    if strict and result.findings:
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
    from audioldm.paths import write_text

    rows = [row for row in read(manifest, split=split) if row.source.startswith(source or "")]
    if not rows:
        raise AudioLDMError(f"{manifest} has no such rows.", "Leave out --split or --source.")
    drawn = Random(seed).sample(rows, min(n, len(rows)))
    title = f"{manifest.name}: {len(drawn)} of {len(rows)} rows, seed {seed}"
    with progress(len(drawn), "rows") as step:
        text = page(drawn, title=title, on_row=step)
    typer.echo(str(write_text(out, text)))


@app.command()
def attribution(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests that a model was trained on.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Markdown file; else standard output.")
    ] = None,
) -> None:
    """List the sources, licences and authors of the training rows of manifests, as licences ask for.

    \b
    Example:
      audioldm data attribution data/raw/esc10.jsonl data/raw/opensounds.jsonl -o ATTRIBUTION.md
    """
    from audioldm.datasets.manifest import read
    from audioldm.paths import write_text

    clips: dict[tuple[str, str], Counter[str]] = {}
    for row in (row for path in manifests for row in read(path, split="train")):
        clips.setdefault((row.source, row.licence), Counter())[row.author or "unnamed"] += 1
    lines = [
        "# Attribution",
        "",
        "Training clips by source and licence; each author with the number of clips.",
        "",
    ]
    for (source, licence), authors in sorted(clips.items()):
        lines += [f"## {source}, {licence}: {authors.total()} clips", ""]
        lines += ["; ".join(f"{author} ({count})" for author, count in sorted(authors.items())), ""]
    text = printable("\n".join(lines).replace("\n", "\0")).replace("\\x00", "\n")
    typer.echo(text if out is None else str(write_text(out, text)))


@app.command()
def pack(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests whose sounds are packed.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="TAR", help="The pack to write.")],
    kbps: Annotated[
        float, typer.Option(help="Opus bit rate; 48 is transparent to most ears at 16 kHz.")
    ] = 48,
    split: Annotated[list[str] | None, typer.Option(help="Rows of these splits.  [default: all]")] = None,
    processes: Processes = 0,
    force: Force = False,
) -> None:
    """Write manifests and their sounds, as Opus, to one tar file.

    \b
    Example:
      audioldm data pack data/raw/esc10.jsonl data/raw/opensounds.jsonl -o sounds.tar --split train --split val
    """
    from audioldm.datasets.manifest import read
    from audioldm.datasets.pack import pack as write

    if out.exists() and not force:
        raise AudioLDMError(f"{out} is there already.", "Pass --force to replace it.")
    splits = tuple(split or ("train", "val", "test"))
    total = sum(row.split in splits for path in manifests for row in read(path))
    with progress(total, "sounds") as step:
        size, findings = write(
            manifests, out, kbps=kbps, splits=splits, processes=processes or os.cpu_count() or 1, on_row=step
        )
    for finding in findings:
        typer.echo(printable(str(finding)), err=True)
    typer.echo(f"{out}: {total - len(findings)} sounds, {size / 2**20:.1f} MiB")


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(help="A pack.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where manifests and WAV files go.")
    ],
    processes: Processes = 0,
    force: Force = False,
) -> None:
    """Write a pack's manifests and sounds, as 16 kHz WAV, below a folder; nothing outside it is touched.

    \b
    Example:
      audioldm data unpack sounds.tar -o data/raw
    """
    from audioldm.datasets.pack import unpack as read

    if not file.is_file():
        raise AudioLDMError(f"{file} is missing.", "Name a file that `audioldm data pack` wrote.")
    with progress(None, "sounds") as step:
        manifests, findings = read(
            file, out, force=force, processes=processes or os.cpu_count() or 1, on_row=step
        )
    for finding in findings:
        typer.echo(printable(str(finding)), err=True)
    for manifest in manifests:
        typer.echo(str(manifest))


@app.command()
def shard(
    manifest: Annotated[Path, typer.Argument(help="Manifest made by `audioldm data prepare`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the shards.")],
    clips: Annotated[int, typer.Option(help="Clips a shard; each reader needs a shard of its own.")] = 1000,
    split: Annotated[str, typer.Option(help="Rows of this split.")] = "train",
    force: Force = False,
) -> None:
    """Write WebDataset shards (KEY.flac, KEY.txt, KEY.json) for `audioldm train RECIPE data=shards`.

    \b
    Example:
      audioldm data shard data/raw/audiocaps.jsonl -o data/shards/audiocaps
      audioldm train audiocaps/vae data=shards "data.shards=[data/shards/audiocaps/*.tar]"
    """
    from audioldm.datasets.manifest import read
    from audioldm.datasets.shards import write_shards

    if clips < 1:
        raise AudioLDMError(f"clips={clips} is not a number of clips.", "Use 1 or more.")
    if any(out.glob("*.tar")) and not force:
        raise AudioLDMError(f"{out} holds shards already.", "Pass --force to replace them.")
    rows = read(manifest, split=split)
    if not rows:
        raise AudioLDMError(f"{manifest} has no row of split {split!r}.", "Choose another --split.")
    typer.echo(f"{out}: {len(write_shards(rows, out, clips=clips))} shards, {len(rows)} clips")
