"""``audioldm report RUN``: one page about one training."""

from pathlib import Path

from audioldm.cli.options import Command, argument, option, out_option
from audioldm.errors import AudioLDMError


class Report(Command):
    """Write a self-contained HTML page: curves, previews over time, settings, scores found below the run.

    \b
    Examples:
      audioldm report runs/tiny/vae
      audioldm report runs/mine --against runs/tiny/vae -o out/report.html
    """

    folder: Path = argument(..., "Folder of a run, such as runs/tiny/vae.", "RUN")
    against: Path | None = option(None, "Another run: its curves dashed, settings that differ.", "RUN")
    out: Path | None = out_option(None, "FILE", "The page.  [default: RUN/report.html]")

    def run(self) -> None:
        for folder in (self.folder, self.against):
            if folder is not None and not folder.is_dir():
                raise AudioLDMError(f"There is no run {folder}.", "Name a folder below runs/.")
        from audioldm.evaluation.run_report import run_page
        from audioldm.paths import write_text

        page = run_page(self.folder, against=self.against)
        print(write_text(self.out or self.folder / "report.html", page))
