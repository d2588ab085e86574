"""``audioldm caption``: what is to be heard in sound files, in words."""

from __future__ import annotations

from pathlib import Path

from audioldm.cli.console import printable, progress, say, show_json, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, Force, argument, option
from audioldm.cli.options.groups import DEVICE, load, model_option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import write_text
from audioldm.progress import counted
from audioldm.tables import csv_text

with later():
    from audioldm.datasets import manifest
    from audioldm.pipeline import captions

SHIPPED = Path(__file__).parents[1] / "_embedded" / "captioner"


class Caption(Force, DryRun, AsJson, Command):
    """Say in words what is to be heard in sound files, and how well the words fit.

    A long file is heard in windows of 5.12 s; its caption is that of the window that it fits best. With --filter the
    one FILE is a manifest, and the better of each row's caption and a new one is written (CapFilt).

    Examples:
      audioldm caption my_sounds/*.wav
      audioldm caption field.wav take2.mp3 --csv captions.csv
      audioldm caption data/raw/mine.jsonl --captioner runs/caption/captioner/model/captioner --filter better.jsonl
    """

    files: list[Path] = argument(..., "Sound files.", "FILES...")
    captioner: Path | None = option(None, "Of caption/captioner.  [default: the embedded model's]", "FOLDER")
    model: str | None = model_option("The model whose CLAP it was trained on.")
    csv: Path | None = option(None, "Write file, caption, match and start as a table.", "FILE.csv")
    filter: Path | None = option(None, "Write the manifest with the better captions here.", "FILE.jsonl")
    beams: int = option(8, "Width of the search for the likeliest caption.", Between(1, 32))
    device: str = option("auto", DEVICE)

    def run(self) -> None:
        self.check_free(self.csv, self.filter)
        folder = self.captioner or SHIPPED
        if not (folder / "config.json").is_file():
            hint = "Train one (audioldm train caption/captioner) and name it: --captioner FOLDER."
            raise AudioLDMError(f"{folder} holds no captioner.", hint)
        if self.filter is not None:
            self.improve(folder, self.filter)
        elif self.dry_run:
            present = sum(path.is_file() for path in self.files)
            would(f"{present} of {len(self.files)} files would be captioned")
        else:
            self.caption(self.captioning(folder))

    def captioning(self, folder: Path) -> captions.Captioning:
        clap = load(self.model, device=self.device).clap
        return captions.Captioning.load(folder, clap, beams=self.beams)  # type: ignore[arg-type]

    def improve(self, folder: Path, out: Path) -> None:
        [source, *more] = self.files
        if more or source.suffix != ".jsonl":
            raise AudioLDMError(f"--filter reads one manifest, not {source}.", "Give one .jsonl.")
        rows = manifest.read(source)
        train = [row for row in rows if row.split == "train"]
        if self.dry_run:
            would(f"{len(train)} captions of {source} would be compared with new ones, in {out}")
            return
        captioning = self.captioning(folder)
        with progress(len(train), "clips") as advance:
            better = [row for row, *_ in captions.better_captions(captioning, train, advance=advance)]
        manifest.write([*better, *(row for row in rows if row.split != "train")], out)
        changed = sum(row is not old for row, old in zip(better, train, strict=True))
        print(f"{out}: {changed} of {len(train)} captions are new")

    def caption(self, captioning: captions.Captioning) -> None:
        """Print each caption as soon as it is there and write the table; a file that cannot be read is named."""
        results = {}
        with waiting("describing"):
            for path in counted(self.files, "files"):
                try:
                    caption = captioning.of_file(path)
                except AudioLDMError as error:
                    say(str(error))
                    continue
                results[str(path)] = {"file": str(path), **vars(caption)}
                if not self.as_json:
                    print(f"{printable(str(path))}\t{caption.text}\t{caption.match:.2f}", flush=True)
        if self.as_json:
            show_json([*results.values()])
        if self.csv is not None:
            rows = ([*result.values()] for result in results.values())
            write_text(self.csv, csv_text(["file", "text", "match", "start"], rows))
        if failures := len(self.files) - len(results):
            what = f"{failures} of {len(self.files)} files have no caption."
            raise AudioLDMError(what, "The lines above say why.", code=1)
