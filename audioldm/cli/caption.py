"""``audioldm caption``: what is to be heard in sound files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.checks import check_device, check_free
from audioldm.cli.console import printable, progress, say, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, Force, argument, option
from audioldm.cli.options.groups import load, model_option
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.pipeline.captions import Captioning

SHIPPED = Path(__file__).parents[1] / "_embedded" / "captioner"
TRAIN = "Train one (audioldm train caption/captioner) and name it: --captioner FOLDER."


class Caption(Force, DryRun, AsJson, Command):
    """Say in words what is to be heard in sound files, and how well the words fit.

    A long file is heard in windows of 5.12 s; its caption is that of the window that it fits best. With --filter the
    one FILE is a manifest, and the better of each row's caption and a new one is written (CapFilt).

    \b
    Examples:
      audioldm caption my_sounds/*.wav --captioner runs/caption/captioner/model/captioner
      audioldm caption field.wav take2.mp3 --captioner runs/caption/captioner/model/captioner --csv captions.csv
      audioldm caption data/raw/mine.jsonl --captioner runs/caption/captioner/model/captioner --filter better.jsonl
    """

    files: list[Path] = argument(..., "Sound files.", "FILES...")
    captioner: Path | None = option(
        None, "A net of caption/captioner.  [default: the embedded model's, where it has one]", "FOLDER"
    )
    model: str | None = model_option("The model whose CLAP it was trained on.")
    csv: Path | None = option(None, "Write file, caption, match and start as a table.", "FILE.csv")
    jsonl: Path | None = option(None, "Write the same, an object a line.", "FILE.jsonl")
    filter: Path | None = option(None, "Write the manifest with the better captions here.", "FILE.jsonl")
    beams: int = option(4, "Width of the search for the likeliest caption.", Between(1, 32))
    device: str = option("auto", "cpu, cuda, cuda:N or mps.  [default: cuda where it is]")

    def run(self) -> None:
        folder = self.check()
        if self.dry_run:
            would(self.plan())
            return
        with waiting("loading torch and the model"):
            from audioldm.pipeline.captions import Captioning

            clap = load(self.model, device=self.device).clap
            captioning = Captioning.load(folder, clap, beams=self.beams)  # type: ignore[arg-type]
        if self.filter is not None:
            filter_manifest(captioning, self.files[0], self.filter)
            return
        rows = self.captions(captioning)
        if self.as_json:
            from audioldm.cli.console import show_json

            show_json(rows)
        self.write(rows)
        if len(rows) < len(self.files):
            raise AudioLDMError(
                f"{len(self.files) - len(rows)} of {len(self.files)} files have no caption.",
                "The lines above say why.",
                code=1,
            )

    def check(self) -> Path:
        """The captioner's folder.   Raises AudioLDMError for what no run could do."""
        check_device(self.device)
        check_free(*(path for path in (self.csv, self.jsonl, self.filter) if path), force=self.force)
        folder = self.captioner or SHIPPED
        if not (folder / "config.json").is_file():
            missing = (
                "The embedded model has no captioner" if self.captioner is None else f"{folder} holds none"
            )
            raise AudioLDMError(f"{missing}.", TRAIN)
        if self.filter is not None and [path.suffix for path in self.files] != [".jsonl"]:
            raise AudioLDMError(f"--filter reads one manifest, not {self.files[0]}.", "Give one .jsonl.")
        return folder

    def plan(self) -> str:
        """What a dry run says."""
        if self.filter is None:
            present = sum(path.is_file() for path in self.files)
            return f"{present} of {len(self.files)} files would be captioned"
        from audioldm.datasets import manifest

        train = sum(row.split == "train" for row in manifest.read(self.files[0]))
        return f"{train} captions of {self.files[0]} would be compared with new ones, in {self.filter}"

    def captions(self, captioning: "Captioning") -> list[dict[str, Any]]:
        """Each file with its caption, printed as soon as it is there; one that cannot be read is named and left out."""
        rows = []
        with progress(len(self.files), "files") as advance:
            for path in self.files:
                try:
                    caption = captioning.of_file(path)
                except AudioLDMError as error:
                    say(str(error))
                    continue
                finally:
                    advance()
                rows.append({"file": str(path), **vars(caption)})
                if not self.as_json:
                    print(f"{printable(str(path))}\t{caption.text}\t{caption.match:.2f}", flush=True)
        return rows

    def write(self, rows: list[dict[str, Any]]) -> None:
        """The tables that were asked for."""
        import json

        from audioldm.evaluation.table import csv_text
        from audioldm.paths import write_text

        head = ["file", "text", "match", "start"]
        if self.csv is not None:
            write_text(self.csv, csv_text(head, ([row[name] for name in head] for row in rows)))
        if self.jsonl is not None:
            write_text(self.jsonl, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def filter_manifest(captioning: "Captioning", source: Path, target: Path) -> None:
    """Write ``source`` with the better captions to ``target``; rows of other splits than train stay as they are."""
    from audioldm.datasets import manifest
    from audioldm.pipeline.captions import better_captions

    rows = manifest.read(source)
    train = [row for row in rows if row.split == "train"]
    with progress(len(train), "clips") as advance:
        better = list(better_captions(captioning, train, advance=advance))
    changed = sum(row is not old for (row, *_), old in zip(better, train, strict=True))
    manifest.write([*(row for row, *_ in better), *(row for row in rows if row.split != "train")], target)
    print(f"{target}: {changed} of {len(train)} captions are new")
