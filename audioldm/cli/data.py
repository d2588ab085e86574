"""Make and check manifests, and encode them: which sounds, with which captions, under which licence.

A sound that is missing, cut off, silent, a copy or not a number is named on stderr and left out.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from itertools import chain, product
from operator import itemgetter
from pathlib import Path
from random import Random
from runpy import run_path
from typing import Any, Literal, TypeAlias

from audioldm.cli.console import escaped, note, say, show_json, show_text, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, Force, Group, argument, group, option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import sha256, shipped, write_text
from audioldm.progress import counted
from audioldm.ranges import POSITIVE, SHARE
from audioldm.spec import SPECS, AudioSpec

with later():
    import torch

    from audioldm.control import maps
    from audioldm.convert import reference
    from audioldm.datasets import check, decode, latents, manifest, shards
    from audioldm.datasets.prepare import folder, packed, youtube
    from audioldm.evaluation import html
    from audioldm.nets import clap as claps
    from audioldm.nets import folder as folders
    from audioldm.nets import vae as vaes
    from audioldm.training import encoding


Rows: TypeAlias = "Sequence[manifest.Row]"
Report: TypeAlias = "check.Report"
Findings: TypeAlias = "Sequence[manifest.Finding]"
Reader: TypeAlias = "Callable[..., list[manifest.Row]]"
PUBLISHED = (
    "esc10", "esc50", "urbansound8k", "fsd50k", "audioset", "audiocaps", "clotho", "wavcaps", "macs", "musiccaps",
)  # fmt: skip
SOURCES = {
    "folder": "folder:folder", "table": "folder:listed", "parquet": "packed:datasets_rows",
    "webdataset": "packed:tar_rows", "datasets": "packed:datasets_rows",
    **{name: f"published:{name}" for name in PUBLISHED}, "opensounds2": "embedded/opensounds2.py:opensounds2",
}  # fmt: skip
"""Source -> its reader, in audioldm.datasets.prepare or a recipe; its parameters are the options that it takes."""
YOUTUBE = ("audiocaps", "musiccaps")
CORES = os.cpu_count() or 1
SHOWN = 20  # findings of one kind that are printed one by one
OWN = ("folder", "table", "parquet", "webdataset", "datasets")  # without a place of their own in data/raw


class SourceOptions(Group):  # what readers may take; None leaves it to the reader
    audio: str | None = option(None, "The sounds, if they are elsewhere.", "DIR")
    to: str | None = option(None, "Where unpacked sounds go.", "DIR")
    licence: str | None = option(None, "Licence of sounds whose row gives none.")
    author: str | None = option(None, "Author of sounds whose row gives none.")
    source: str | None = option(None, "Name of the source in each row.", "--source")
    val: float | None = option(None, "Share of recordings to validate on, by hash.", SHARE)
    test: float | None = option(None, "Share of recordings to test on, by hash.", SHARE)
    test_fold: int | None = option(None, "The fold to test on.", Between(1, 10))
    val_fold: int | None = option(None, "The fold to validate on.", Between(1, 10))
    exclude: list[str] | None = option(None, "wavcaps: a blacklist of other sets' test clips.", "JSON")
    weak: float | None = option(None, "opensounds2: weight of weak captions; 0 drops.", Between(0))
    host: str | None = option(None, "opensounds2: what stands before OWNER/NAME of a repository.", "URL")
    audio_column: str | None = option(None, "Column that holds the sounds.")
    caption_column: str | None = option(None, "Column that holds the captions.")


class Prepare(Force, AsJson, Command):
    """Make a manifest from a source; every sound is read and checked, what is left out is named.

    Own sounds: folder, table, parquet, webdataset, datasets.  Published sets, from their authors' files (docs/data.md):
    esc10, esc50, urbansound8k, fsd50k, audioset, audiocaps, clotho, wavcaps, macs, musiccaps, opensounds2.

    Examples:
      audioldm data prepare folder my_sounds -o data/raw/mine.jsonl --licence CC0-1.0 --author me
      audioldm data prepare table clips.csv --audio sounds -o data/raw/clips.jsonl
      audioldm data prepare webdataset shards/*.tar --to data/raw/mine -o data/raw/mine.jsonl
      audioldm data prepare esc10 --from ESC-10
      audioldm data prepare opensounds2
      audioldm data prepare audiocaps --from audiocaps/dataset --audio sounds --youtube
      audioldm data prepare parquet data/raw/audiocaps -o data/raw/audiocaps.jsonl
    """

    name: str = argument(..., "Which reader; a wrong option lists those that it takes.", "SOURCE")
    places: list[str] = argument([], "Folder, table, tars or name of the data.", "[PLACE]...")
    place: str = option("", "The same as PLACE.", "--from", "PLACE")
    out: Path | None = option(None, "The manifest.  [default: data/raw/SOURCE.jsonl]", "-o", "JSONL")
    youtube: bool = option(False, "Get missing clips by yt-dlp into --audio.")
    workers: int = option(-1, "Processes that read at once.  [default: cores]", Between(-1, 4096))
    dry_run: bool = option(False, "Read the lists; count rows, write nothing.")
    reading: SourceOptions = SourceOptions()

    def run(self) -> None:
        inputs, named = [*self.places, *filter(None, [self.place])], self.reading.named()
        reader, out, findings = self.checked(inputs, named), self.out, list[Any]()
        if self.dry_run:
            show_counts(reader(*inputs, **named, findings=findings), findings)
            return
        self.check_free(out := out or Path(f"data/raw/{self.name}.jsonl"))
        if self.youtube:
            folder = Path(named.get("audio") or inputs[0])
            folder.mkdir(parents=True, exist_ok=True)
            with waiting("fetching"):
                findings += youtube.fetch(reader(*inputs, **named, findings=[]), folder)
        workers = CORES if self.workers < 0 else self.workers
        finish(reader(*inputs, **named, findings=findings), findings, out, self.as_json, workers=workers)

    def checked(self, inputs: list[str], named: dict[str, Any]) -> Reader:
        """The reader.   Raises AudioLDMError for what it does not take or needs."""
        reader, known, name = reader_of(self.name), options_of(self.name), self.name
        kinds, needs = inspect.Parameter, list(inspect.signature(reader).parameters.values())
        strange = [key for key in (*named, *["youtube"] * self.youtube) if key not in known]
        unnamed = all((name in OWN, self.out is None, not self.dry_run))
        several = len(inputs) > 1 and all(one.kind != kinds.VAR_POSITIONAL for one in needs)
        rules = {
            f"{name} takes no --{'-'.join(strange[:1])}. It takes --{', --'.join(known)}.".replace("_", "-"): strange,
            f"{name} needs the place of its data. Name it: --from PLACE.":
                not inputs and needs[0].default is kinds.empty,
            f"{name} reads one place, not {len(inputs)}.": several,
            f"{name} is packed: its rows are known when it is unpacked. Leave out --dry-run.":
                self.dry_run and "to" in known,
            f"{name} has no manifest of its own. Name one: -o data/raw/mine.jsonl.": unnamed,
        }  # fmt: skip
        if wrong := [what for what, holds in rules.items() if holds]:
            raise AudioLDMError(wrong[0])
        return reader


def show_counts(rows: Rows, findings: Findings) -> None:
    note(*findings)
    missing = sum(not os.path.isfile(row.path) for row in rows)
    splits = Counter(row.split for row in rows)
    counts = ", ".join(f"{split} {splits[split]}" for split in manifest.SPLITS)
    left = f"{missing} sounds missing; {len(findings)} left out; nothing written"
    show_text(f"{len(rows)} rows ({counts}); {left}")


def reader_of(source: str) -> Reader:
    if source not in SOURCES:
        raise AudioLDMError(f"{source!r} is not a source.", f"Use one of {', '.join(SOURCES)}.")
    module, name = SOURCES[source].split(":")
    if module.endswith(".py"):
        return run_path(str(shipped("recipes") / module))[name]
    return getattr(import_module(f"audioldm.datasets.prepare.{module}"), name)


def options_of(source: str) -> list[str]:
    parameters, kinds = {**inspect.signature(reader_of(source)).parameters}, inspect.Parameter
    if any(item.kind == kinds.VAR_KEYWORD for item in parameters.values()):
        parameters |= inspect.signature(packed.unpack).parameters
    names = {item.name for item in parameters.values() if item.kind == kinds.KEYWORD_ONLY} - {"findings"}
    return sorted(names | ({"youtube"} if source in YOUTUBE else set()))


def finish(rows: Rows, findings: Findings, out: Path, as_json: bool, *, workers: int = 0) -> None:
    """Check the rows, report findings, and write the sound ones; many findings go to a file beside ``out``."""
    report = examine(rows, findings, as_json, workers=workers, rest=out.with_suffix(".findings.jsonl"))
    if not report.rows:
        raise AudioLDMError(f"No sound is left; {out} was not written.", "See the findings above.", code=1)
    manifest.write(report.rows, out)
    if empty := [split for split in manifest.SPLITS if not any(row.split == split for row in report.rows)]:
        note(f"note: no clip is in {' or '.join(empty)}")


def examine(rows: Rows, findings: Findings, as_json: bool, workers: int, rest: Path | None = None) -> Report:
    """Check with a bar; ``findings`` made earlier come first.  Few sounds are not worth the start of processes."""
    with waiting("checking"):
        report = check.check(rows, workers=workers if len(rows) > 200 else 0)
    report = check.Report(report.rows, [*findings, *report.findings])
    note_findings(report, rest)
    if as_json:
        show_json(report.summary())
        return report
    for key, value in report.summary().items():
        if isinstance(value, dict):
            value = ", ".join(f"{name or '(none)'} {count}" for name, count in value.items())
        show_text(f"{key:9} {value or 'none'}")
    return report


def note_findings(report: Report, rest: Path | None) -> None:
    """At most SHOWN of a kind where ``rest`` can take all of them."""
    counts = Counter[str]()
    for finding in report.findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= SHOWN or rest is None:
            note(finding)
    if rest is not None and max(counts.values(), default=0) > SHOWN:
        record(report, rest)
        note(f"... and more; all {len(report.findings)} are in {rest}")
    if counts:
        note(f"found: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}")


def record(report: check.Report, path: Path) -> None:
    write_text(path, "".join(manifest.json_line(asdict(finding)) for finding in report.findings))


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
        self.check_free(self.out)
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
        self.check_free(self.out)
        rows = manifest.read(self.manifest, split=self.split)
        rows = [row for row in rows if row.source.startswith(self.source)]
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
        self.check_free(*self.out.glob("*.tar"))
        rows = manifest.read(self.manifest, split=self.split)
        if not rows:
            what = f"{self.manifest} has no row of split {self.split!r}."
            raise AudioLDMError(what, "Choose another --split.")
        if self.dry_run:
            would(f"{len(rows)} clips would be written below {self.out}")
            return
        with waiting(f"writing {self.out}"):
            written = shards.write_shards(rows, self.out, clips=self.clips)
        show_text(f"{self.out}: {len(written)} shards, {len(rows)} clips")


class Encode(Force, DryRun, Command):
    """Run VAE and CLAP once over the data; keep raw posteriors, embeddings and the measured scaling factor.

    A cache is known by what made it.   The same command goes on where it stopped, and does nothing to a whole cache;
    one made from something else is refused, by training too.   A file that is lost or changed is named and left out.

    Examples:
      audioldm data encode data/raw/mine.jsonl -o data/latents/mine --vae runs/VAE/model/vae --clap runs/CLAP/model
      audioldm data encode data/raw/mine.jsonl -o data/latents/mix --buckets 2.56,5.12 --mixup 0.3 --vae VAE --clap CLAP
      audioldm data encode synthetic -o out/lat --seconds 1.28 --vae runs/tiny/vae/model/vae --clap runs/tiny/clap/model
    """

    manifests: list[str] = argument(..., "Manifests, or `synthetic` for the synthetic sounds.")
    out: Path = option(..., "Folder of the cache.", "-o", "DIR")
    vae: str = option(..., "The autoencoder: run, folder, hub id or file.", "REF")
    clap: str = option(..., "The CLAP: run, folder, hub id or LAION's .pt.", "REF")
    spec: Literal["16k_64", "48k_256"] = option("16k_64", "Front end of the autoencoder.")
    seconds: float = option(5.12, "Length of a window.", POSITIVE)
    windows: list[int] = option([], "Windows of a clip, at random places; once or each manifest.", Between(1))
    speed: float = option(0.0, "Windows but the first play up to this faster or slower.", Between(0, 0.99))
    batch_size: int = option(0, "Windows encoded at once; 0 is 1 on a CPU and 64 on a GPU.", Between(0, 4096))
    workers: int = option(-1, "Processes that cut; -1 is none on a CPU, else all cores.", Between(-1))
    buckets: str = option("", "Several window lengths: each clip takes the shortest that holds it.", "A,B")
    mixup: float = option(0.0, "Chance that a second clip is mixed into a window, its caption joined.", SHARE)
    t5: str = option("", "Keep this T5 encoder's token sequences, too.", "FOLDER|NAME")
    maps: str = option("", "Keep these maps, for controls: loudness, pitch, onset, centroid, edges.", "A,B")
    split: str = option("train", "Rows of this split.")
    seed: int = option(0, "Decides the places.", Between(0))
    device: str = option("cpu", "cpu or cuda.")

    def run(self) -> None:
        cuts, out = self.cuts(), self.out
        vae = reference.open_part(self.vae, "vae").to(self.device)
        clap = reference.open_part(self.clap, "clap").to(self.device)
        kind: dict[str, Any] = {"device": self.device, "dtype": torch.float32}
        t5 = reference.open_part(self.t5, "text_encoder", **kind) if self.t5 else None
        channels = vae.config.latent_channels
        spec = replace(SPECS[self.spec], stride=vaes.stride_of(vae), latent_channels=channels)
        nets = encoding.Nets(vae, clap, spec, encoding.text_encoder(clap, t5))
        made_of, settings = self.ingredients(), self.settings(cuts, nets)
        key = latents.key_of({**settings, "made_of": sorted(map(itemgetter("sha256"), made_of))})
        done = 0 if self.dry_run else latents.begun(out, key, force=self.force)
        if done is not None:
            about = {**settings, "key": key, "made_of": made_of, "null": clap.embed_text([""])[0].tolist()}
            about |= {"null_tokens": t5.embed("").tolist()} if t5 is not None else {}
            self.encode(cuts, nets, about, done)
            warn_of_length(nets.known, t5 or clap)
        if self.dry_run:
            return
        index = latents.read_index(out)
        if "scaling_factor" in index:
            show_text(f"{out} is whole already: {index['windows']} windows")
            return
        index |= latents.measure(out)
        latents.write_index(out, index)
        show_text(f"{out}: {index['windows']} windows, scaling factor {index['scaling_factor']:.4f}")

    def encode(self, cuts: encoding.Cuts, nets: encoding.Nets, about: dict[str, Any], done: int) -> None:
        """Every window but the ``done`` ones into shards; a dry run counts them."""
        left_out = latents.read_index(self.out, whole=False).get("left_out", []) if done else None
        sources, left_out = self.sources(cuts, nets.spec, left_out)
        windows = encoding.jobs(sources, self.windows or [1])
        if self.dry_run:
            would(f"{len(windows)} windows would be encoded into {self.out}")
            return
        cores = 0 if self.device.startswith("cpu") else CORES
        size, workers = self.batch_size or (encoding.GPU_BATCH if cores else 1), self.workers
        rest = encoding.Windows(sources, windows[done:], nets.spec, cuts, batch_size=size)
        with waiting("encoding"):
            encodings = encoding.encoded(rest, nets, workers=cores if workers < 0 else workers)
            latents.write_latents(encodings, self.out, about={**about, "left_out": left_out})

    def sources(
        self, cuts: encoding.Cuts, spec: AudioSpec, left_out: list[str] | None
    ) -> tuple[list[encoding.Source], list[str]]:
        """The data sets, and the files left out of them: those of a cache that goes on, or what ``unfit`` names."""
        rows = {name: manifest.read(name, split=self.split) for name in self.manifests if name != "synthetic"}
        if left_out is None:
            left_out = unfit([*chain(*rows.values())])
        source, sources = encoding.Source, []
        for name in self.manifests:
            kept = [row for row in rows.get(name, []) if row.path not in left_out]
            sources.append(source.of(kept, spec, cuts) if name in rows else source.synthetic(spec, cuts))
        return sources, left_out

    def cuts(self) -> encoding.Cuts:
        if len(self.windows) not in (0, 1, len(self.manifests)):
            what = f"{len(self.windows)} --windows for {len(self.manifests)} manifests."
            raise AudioLDMError(what, "Give one, or one each, in their order.")
        try:
            lengths = tuple(map(float, parts_of(self.buckets)))
        except ValueError:
            what = f"buckets={self.buckets!r} are no lengths."
            raise AudioLDMError(what, "Write seconds: 2.56,5.12,10.24.") from None
        for name in (names := parts_of(self.maps)):
            maps.known(name)
        return encoding.Cuts(self.seconds, lengths, self.mixup, self.speed, names, self.seed)

    def settings(self, cuts: encoding.Cuts, nets: encoding.Nets) -> dict[str, Any]:
        settings = {
            "seconds": max(cuts.buckets or (cuts.seconds,)), "buckets": list(cuts.buckets), "mixup": cuts.mixup,
            "stride": nets.spec.stride, "latent_channels": nets.spec.latent_channels, "manifests": self.manifests,
            "split": self.split, "windows_a_clip": self.windows or [1], "speed": cuts.speed, "seed": cuts.seed,
            "encoder": vaes.encoder_digest(nets.vae), "clap": folders.state_digest(nets.clap.audio_encoder),
        }  # fmt: skip
        settings |= {"maps": list(cuts.maps)} if cuts.maps else {}
        return settings | ({"spec": self.spec} if self.spec != "16k_64" else {})

    def ingredients(self) -> list[dict[str, Any]]:
        files = [("manifest", Path(name)) for name in self.manifests if Path(name).is_file()]
        parts: dict[reference.Kind, tuple[str, str]] = {
            "vae": ("VAE", self.vae), "clap": ("CLAP", self.clap), "text_encoder": ("T5", self.t5),
        }  # fmt: skip
        for kind, (what, place) in parts.items():
            if place:
                files += product([what], reference.find_part(place, kind).files)
        encoder = {("VAE", ".safetensors"): ("encoder.", "quant_conv.")}
        return [latents.ingredient(what, file, encoder.get((what, file.suffix), ())) for what, file in files]


def faults(row: manifest.Row) -> list[manifest.Finding]:
    """None of a file that is as it was when it was checked."""
    if row.sha256 and os.path.isfile(row.path) and sha256(row.path) == row.sha256:
        return []
    sound, wrong, _ = check.inspect(row)
    return [] if sound else wrong


def unfit(rows: list[manifest.Row]) -> list[str]:
    """Name the files that are not there, not those that were checked or, never checked, no sound."""
    findings = [finding for row in counted(rows, "files") for finding in faults(row)]
    for finding in findings:
        say(f"{finding}; it is left out.")
    paths = [finding.path for finding in findings]
    if rows and len(set(paths)) == len({row.path for row in rows}):
        raise AudioLDMError("No sound of the manifests is left.", "See the lines above.", code=1)
    return paths


def warn_of_length(texts: Collection[str], encoder: Any) -> None:
    """Say where captions are longer than the text encoder reads."""
    if cut := [text for text in texts if claps.unread_words(encoder, text)[1]]:
        what = f"{len(cut)} of {len(texts)} captions are longer than the text encoder reads"
        say(f"warning: {what}; their last words were left out: {cut[0][:80]!r} and so on.")


def parts_of(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


app = group(__doc__, (Prepare, Encode, Check, Listen, Attribution, Shard))
