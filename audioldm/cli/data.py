"""``audioldm data``: sounds with captions to checked manifests."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.manifests import AsJson, Force, examine, refuse_overwrite, tell
from audioldm.cli.prepare import prepare
from audioldm.errors import AudioLDMError

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

    A sound that is missing, cut off, silent, a copy or not a number is named on stderr and left out.
    """


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
