"""Make and check manifests: which sounds, with which captions, under which licence.

A sound that is missing, cut off, silent, a copy or not a number is named on stderr and left out.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from random import Random

from audioldm.cli.checks import check_free
from audioldm.cli.console import escaped, note, show_text, waiting, would
from audioldm.cli.encode import Encode
from audioldm.cli.options import AsJson, Between, Command, DryRun, Force, argument, group, option
from audioldm.cli.prepare import Prepare, examine, record
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import write_text
from audioldm.progress import counted

with later():
    from audioldm.datasets import decode, manifest, shards
    from audioldm.datasets.prepare import folder
    from audioldm.evaluation import html


class Check(Force, AsJson, Command):
    """Read every sound and name what is missing, corrupt, silent, clipped, no number, double, or in two splits.

    Several manifests are judged together: what is in the test split of one must not be in the training split of
    another.  Exit code 1 if no row is sound, or with --strict if anything was found.

    Examples:
      audioldm data check data/raw/mine.jsonl --strict
      audioldm data check data/raw/esc10.jsonl data/raw/composed.jsonl -o data/raw/clean.jsonl
      audioldm data check my_sounds --report out/findings.jsonl
    """

    sources: list[Path] = argument(..., "Manifests, or folders of sounds.", "JSONL|DIR...")
    strict: bool = option(False, "Exit with 1 if anything is found.")
    out: Path | None = option(None, "Write the sound rows here.", "-o", "JSONL")
    report: Path | None = option(None, "Write every finding here.", "JSONL")
    workers: int = option(0, "Processes that read at once; 0 reads in this one.", Between(0, 4096))
    dry_run: bool = option(False, "Count the rows, read no sound.")

    def run(self) -> None:
        check_free(self.out, force=self.force)
        findings, rows = list[manifest.Finding](), list[manifest.Row]()
        for path in self.sources:
            read = folder.folder if path.is_dir() else manifest.read
            rows += read(path, findings=findings)
        if self.dry_run:
            note(*findings)
            would(f"{len(rows)} rows would be checked, {len(findings)} are left out already")
            return
        result = examine(rows, findings, self.as_json, workers=self.workers)
        if self.report is not None:
            record(result, self.report)
        if not result.rows:
            raise AudioLDMError(f"{self.sources[0]} has no sound row.", "See the findings above.", code=1)
        if self.out is not None:
            manifest.write(result.rows, self.out)
        if self.strict and result.findings:
            sys.exit(1)


class Listen(Force, Command):
    """Write one HTML page with a player, a spectrogram and the captions of random rows, as training hears them.

    The page holds sounds and pictures itself: it can be moved, sent and opened without a server.

    Examples:
      audioldm data listen data/raw/composed.jsonl
      audioldm data listen data/raw/opensounds.jsonl -n 50 --seed 1 --source opensounds/scratch -o out/scratch.html
    """

    manifest: Path = argument(..., "The manifest to hear.", "JSONL")
    out: Path = option(Path("out/listen.html"), "The page.", "-o", "HTML")
    n: int = option(24, "How many rows, drawn at random.", "-n", "--number", Between(1))
    seed: int = option(0, "Decides which rows.", Between(0))
    split: str | None = option(None, "Only rows of this split.")
    source: str = option("", "Only rows whose source begins so.")

    def run(self) -> None:
        check_free(self.out, force=self.force)
        rows = [
            row
            for row in manifest.read(self.manifest, split=self.split)
            if row.source.startswith(self.source)
        ]
        if not rows:
            raise AudioLDMError(f"{self.manifest} has no such rows.", "Leave out --split or --source.")
        drawn = Random(self.seed).sample(rows, min(self.n, len(rows)))
        with waiting("drawing"):
            cards = [card(row) for row in counted(drawn, "rows")]
        title = f"{self.manifest.name}: {len(drawn)} of {len(rows)} rows, seed {self.seed}"
        show_text(write_text(self.out, html.page("evaluation/pages/page.html", title=title, cards=cards)))


def card(row: manifest.Row) -> tuple[str, str, list[str]]:
    """Caption, other captions, and what there is to hear, see and read."""
    try:
        wave = decode.decode(row.path, html.SPEC.rate, start=row.start, seconds=row.seconds)
        pieces: list[str] = [html.player(wave, html.SPEC.rate), html.spectrogram(wave, html.SPEC.rate)]
    except AudioLDMError as error:
        pieces = [str(error)]
    names = ("split", "source", "licence", "author", "labels", "seconds", "loudness", "path")
    facts = [(name, html.plain(value)) for name in names if (value := getattr(row, name))]
    first, *others = row.captions or ("(no caption)",)
    return first, "; ".join(others), [*pieces, html.table(["", ""], facts)]


class Attribution(Command):
    """List the sources, licences and authors of the training rows of manifests, as licences ask for.

    Example:
      audioldm data attribution data/raw/esc10.jsonl data/raw/opensounds.jsonl -o ATTRIBUTION.md
    """

    manifests: list[Path] = argument(..., "Manifests that a model was trained on.")
    out: Path | None = option(None, "Markdown file; else standard output.", "-o", "FILE")

    def run(self) -> None:
        clips: dict[tuple[str, str], Counter[str]] = {}
        for row in (row for path in self.manifests for row in manifest.read(path, split="train")):
            clips.setdefault((row.source, row.licence), Counter())[row.author or "unnamed"] += 1
        about = "Training clips by source and licence; each author with the number of clips."
        text = f"# Attribution\n\n{about}\n"
        for (source, licence), authors in sorted(clips.items()):
            names = "; ".join(f"{author} ({count})" for author, count in sorted(authors.items()))
            text += f"\n## {source}, {licence}: {authors.total()} clips\n\n{names}\n"
        show_text(text if self.out is None else write_text(self.out, escaped(text)))


class Shard(Force, DryRun, Command):
    """Write WebDataset shards (KEY.flac, KEY.txt, KEY.json) for `audioldm train RECIPE data=shards`.

    Example:
      audioldm data shard data/raw/audiocaps.jsonl -o data/shards/audiocaps
      audioldm train audiocaps/vae data=shards "data.shards=[data/shards/audiocaps/*.tar]"
    """

    manifest: Path = argument(..., "Manifest made by `audioldm data prepare`.")
    out: Path = option(..., "Folder of the shards.", "-o", "DIR")
    clips: int = option(1000, "Clips a shard; each reader needs a shard of its own.", Between(1))
    split: str = option("train", "Rows of this split.")

    def run(self) -> None:
        out = self.out
        check_free(*out.glob("*.tar"), force=self.force)
        rows = manifest.read(self.manifest, split=self.split)
        if not rows:
            what = f"{self.manifest} has no row of split {self.split!r}."
            raise AudioLDMError(what, "Choose another --split.")
        if self.dry_run:
            would(f"{len(rows)} clips would be written below {out}")
            return
        with waiting(f"writing {out}"):
            written = shards.write_shards(rows, out, clips=self.clips)
        show_text(f"{out}: {len(written)} shards, {len(rows)} clips")


app = group(__doc__, (Prepare, Encode, Check, Listen, Attribution, Shard))
