"""Where results go, and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True)
class Output:
    """What to do with every clip once it is made."""

    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("out")
    audio_format: Annotated[
        str, typer.Option("--format", metavar="wav|flac", help="16-bit sound file format.")
    ] = "wav"
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of paths.")] = False
    force: Annotated[bool, typer.Option("--force", help="Overwrite results that exist.")] = False
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale each clip to a peak of -1 dBFS.")] = (
        False
    )
    figure: Annotated[
        bool, typer.Option("--figure/--no-figure", help="Draw waveform and log-mel as PNG.")
    ] = True
