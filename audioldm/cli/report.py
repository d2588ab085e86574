"""``audioldm report RUN``: one page about one training."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.errors import AudioLDMError


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/tiny/vae.")],
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another run: its curves dashed, settings that differ.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="The page.  [default: RUN/report.html]")
    ] = None,
) -> None:
    """Write a self-contained HTML page: curves, previews over time, settings, scores found below the run.

    \b
    Examples:
      audioldm report runs/tiny/vae
      audioldm report runs/mine --against runs/tiny/vae -o out/report.html
    """
    for folder in (run, *([against] if against else [])):
        if not folder.is_dir():
            raise AudioLDMError(f"There is no run {folder}.", "Name a folder below runs/.")
    from audioldm.evaluation.run_report import run_page
    from audioldm.pipeline.outputs import publish

    place = out or run / "report.html"
    publish({place: run_page(run, against=against)})
    print(place)
