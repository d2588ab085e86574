"""``audioldm data pack`` and ``audioldm data unpack``: sounds as one small file, to carry to a rented machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.console import progress

Processes = Annotated[int, typer.Option(help="Processes at work; 0 is one a core.")]


def pack(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests whose sounds are packed.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="TAR", help="The pack to write.")],
    kbps: Annotated[
        float, typer.Option(help="Opus bit rate; 48 is transparent to most ears at 16 kHz.")
    ] = 48,
    split: Annotated[list[str] | None, typer.Option(help="Rows of these splits.  [default: all]")] = None,
    processes: Processes = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a pack that is there.")] = False,
) -> None:
    """Write manifests and their sounds, as Opus, to one tar file.

    \b
    Example:
      audioldm data pack data/raw/esc10.jsonl data/raw/opensounds.jsonl -o sounds.tar --split train --split val
    """
    from audioldm.datasets.manifest import read
    from audioldm.datasets.pack import pack as write
    from audioldm.errors import AudioLDMError

    if out.exists() and not force:
        raise AudioLDMError(f"{out} is there already.", "Pass --force to replace it.")
    splits = tuple(split or ("train", "val", "test"))
    total = sum(row.split in splits for path in manifests for row in read(path))
    with progress(total, "rows") as on_row:
        size, findings = write(
            manifests,
            out,
            kbps=kbps,
            splits=splits,
            processes=processes or os.cpu_count() or 1,
            on_row=on_row,
        )
    for finding in findings:
        typer.echo(str(finding), err=True)
    typer.echo(f"{out}: {total - len(findings)} sounds, {size / 2**20:.1f} MiB")


def unpack(
    file: Annotated[Path, typer.Argument(help="A pack.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where manifests and WAV files go.")
    ],
    processes: Processes = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace manifests that are there.")] = False,
) -> None:
    """Write a pack's manifests and sounds, as 16 kHz WAV, below a folder.

    \b
    Example:
      audioldm data unpack sounds.tar -o data/raw
    """
    from audioldm.datasets.pack import unpack as read
    from audioldm.errors import AudioLDMError

    if not file.is_file():
        raise AudioLDMError(f"{file} is missing.", "Name a file that `audioldm data pack` wrote.")
    with progress(None, "rows") as on_row:
        manifests, findings = read(
            file, out, force=force, processes=processes or os.cpu_count() or 1, on_row=on_row
        )
    for finding in findings:
        typer.echo(str(finding), err=True)
    for manifest in manifests:
        typer.echo(str(manifest))
