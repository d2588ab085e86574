"""``audioldm evaluate GENERATED REFERENCE``, or with ``--model`` and ``--manifest``: all scores and the report."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.console import progress
from audioldm.cli.evaluate import Generation, Out, Reporting
from audioldm.cli.options import Between, grouped
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.manifest import Row
    from audioldm.evaluation.clips import Clip
    from audioldm.evaluation.comparison import Comparison
    from audioldm.pipeline.audioldm import AudioLDM


@dataclass(frozen=True)
class Choice:
    """Which rows of a manifest, and which of their captions."""

    manifest: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Captions and real clips for --model.")
    ] = None
    split: Annotated[str, typer.Option(help="Split of a manifest; any takes all rows.")] = "test"
    captions: Annotated[
        str, typer.Option(metavar="first|all|hash", help="Which captions of a manifest's clip.")
    ] = "first"
    protocol: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take exactly this list of clips and captions.")
    ] = None
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what there is of a protocol; n says so.")
    ] = False
    limit: Annotated[int | None, typer.Option(help="At most so many clips, by hash."), Between(2)] = None

    def rows(self, path: Path) -> "list[Row]":
        """The rows of a manifest."""
        from audioldm.datasets import manifest
        from audioldm.evaluation import protocol as protocols
        from audioldm.evaluation.clips import shuffled

        rows = manifest.read(path, split=None if self.split == "any" or self.protocol else self.split)
        if self.protocol is not None:
            rows = protocols.read(self.protocol).select(rows, allow_missing=self.allow_missing)
        if self.limit is not None and self.limit < len(rows):
            rows = shuffled(rows)[: self.limit]
        if len(rows) < 2:
            raise AudioLDMError(f"{path} has {len(rows)} rows in split {self.split}.", "Use --split any.")
        return rows

    def clips(self, place: Path) -> "list[Clip]":
        """The clips of a folder or a manifest."""
        from audioldm.evaluation import clips

        if place.suffix == ".jsonl":
            return clips.from_rows(self.rows(place), captions=self.captions)
        return clips.from_folder(place)

    def about(self) -> dict[str, Any]:
        """For the report."""
        from audioldm.evaluation import protocol as protocols

        about: dict[str, Any] = {"captions": self.captions, "split": self.split}
        if self.protocol is not None:
            listed = protocols.read(self.protocol)
            about |= {"protocol": listed.name, "protocol_sha256": listed.sha256, "asked": len(listed.items)}
        return about


@dataclass(frozen=True)
class Comparing:
    """What stands beside the generated clips, and what every clip gets before it is embedded."""

    also: Annotated[
        list[Path],
        typer.Option(metavar="DIR", help="Clips of other seeds, same names; repeatable.  Gives mean ± sd."),
    ] = field(default_factory=list)
    others: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="Other real clips (folder or manifest) for the real/real floor."),
    ] = None
    codec: Annotated[
        str | None, typer.Option(metavar="REF", help="Model whose VAE and vocoder give the round-trip row.")
    ] = None
    unpaired: Annotated[bool, typer.Option("--unpaired", help="No pairs: leave KL and tags out.")] = False
    gain: Annotated[
        str | None,
        typer.Option(
            metavar="peak|none|lufs", help="Level of every clip.  [default: the protocol's, or peak]"
        ),
    ] = None
    crop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Length of every clip.  [default: the protocol's, or the clips']"
        ),
    ] = None
    embedder: Annotated[
        list[str],
        typer.Option(metavar="NAME[=WEIGHTS]", help="See audioldm evaluate embedders.  [default: yamnet]"),
    ] = field(default_factory=list)
    threads: Annotated[int, typer.Option(help="CPU threads of the tagger.")] = 2
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Embeddings.  [default: ~/.cache/audioldm/embeddings]")
    ] = None

    def framed_by(self, protocol: Path | None) -> "Comparing":
        """With the protocol's length and gain where none is asked for."""
        from audioldm.evaluation import protocol as protocols
        from audioldm.evaluation.clip_set import GAINS

        frame = protocols.read(protocol) if protocol is not None else None
        gain = self.gain or (frame.gain if frame else "peak")
        if gain not in GAINS:
            raise AudioLDMError(f"gain={gain!r} is unknown.", f"Known: {', '.join(GAINS)}.")
        return replace(self, gain=gain, crop=self.crop or (frame.seconds if frame else None))


@grouped
def score(
    generated: Annotated[Path | None, typer.Argument(help="Folder of generated clips.")] = None,
    reference: Annotated[
        Path | None, typer.Argument(help="Folder or manifest (.jsonl) of real clips.")
    ] = None,
    out: Out = Path("out/evaluation"),
    seeds: Annotated[int, typer.Option(help="Runs of --model with other seeds."), Between(1, 1000)] = 1,
    *,
    choice: Choice,
    comparing: Comparing,
    generation: Generation,
    reporting: Reporting,
) -> None:
    """Score generated clips against real ones: FD, FD∞, KAD, KL, IS, coverage, tag bridge, CLAP, with real rows beside.

    Clips are paired by file name. Captions come from the manifest, from captions.csv (id, caption) in the folder,
    or from the sidecars that audioldm generate writes. It refuses rather than guesses.

    \b
    Examples:
      audioldm evaluate out/clips real/clips
      audioldm evaluate out/clips data/raw/mine.jsonl --embedder yamnet --embedder clap=weights/clap-htsat-unfused
      audioldm evaluate --model out/mine --manifest data/raw/esc10.jsonl --seeds 3 -o out/report
      audioldm evaluate --model out/mine --manifest data/raw/esc10.jsonl --protocol data/protocols/esc10-fold4.json
    """
    model = generation.model.model
    generation.model.check()
    if (generated is None) == (model is None):
        raise AudioLDMError("Give a folder of generated clips, or --model.", "One of them, not both.")
    real = reference if model is None else choice.manifest
    if real is None:
        raise AudioLDMError(
            "There is nothing to compare with.", "Give REFERENCE, or --manifest with --model."
        )
    reporting.check_free(out / "report.json")
    comparing = comparing.framed_by(choice.protocol)
    from audioldm.evaluation.clip_set import Cache
    from audioldm.evaluation.embedders import load_embedder
    from audioldm.evaluation.embedders.weights import cache_folder
    from audioldm.evaluation.report import as_csv, as_html, as_text
    from audioldm.pipeline.outputs import check_writable, publish, versions

    pairs = [name.partition("=") for name in comparing.embedder or ["yamnet"]]
    embedders = [load_embedder(name, path or None, threads=comparing.threads) for name, _, path in pairs]
    if generated is not None:
        compared, about = of_folders([generated, *comparing.also], real, choice, comparing)
        if comparing.codec is not None:
            pipe = generation.model.load(comparing.codec)
            compared.trip = through_codec(pipe, list(compared.real), compared.frame.seconds or 10.0, out)
            about |= {"codec": pipe.name, "codec_sha256": pipe.hashes}
    else:
        compared, about = of_model(generation, real, choice, comparing, out=out, seeds=seeds)
    check_writable(out)
    compared.cache = Cache(comparing.cache or cache_folder() / "embeddings")
    compared.progress = lambda what, total: progress(total, what)
    if comparing.others is not None:
        compared.others = Choice(split="any").clips(comparing.others)
    report = compared.run(embedders, about | {"versions": versions()})
    text = json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n"
    title = (
        f"{about.get('model') or about['generated']} against {about.get('manifest') or about['reference']}"
    )
    files = {
        "report.json": text,
        "report.html": as_html(report, compared, title=title),
        "clips.csv": as_csv(report),
        "report.md": as_text(report),
    }
    publish({out / name: content for name, content in files.items()})
    print(text if reporting.as_json else as_text(report) + f"{out / 'report.html'}\n", end="")


def of_folders(
    folders: list[Path], reference: Path, choice: Choice, comparing: Comparing
) -> "tuple[Comparison, dict[str, Any]]":
    """Clips that exist against clips that exist."""
    from audioldm.evaluation import clips
    from audioldm.evaluation.clip_set import Frame
    from audioldm.evaluation.comparison import Comparison

    runs, real = [clips.from_folder(folder) for folder in folders], choice.clips(reference)
    if not comparing.unpaired:
        runs = [clips.paired(run, real)[0] for run in runs]
        real = clips.paired(runs[0], real)[1]
        captions = {clip.id: clip.caption for clip in real}
        runs = [[replace(clip, caption=captions[clip.id] or clip.caption) for clip in run] for run in runs]
    rates = [clips.check_files(run, "generated") for run in runs]
    about = {"generated": str(folders[0]), "reference": str(reference), **choice.about(), "seeds": len(runs)}
    about |= {"rate": rates[0], "reference_rate": clips.check_files(real, "reference")}
    length = comparing.crop or clips.common_length(runs[0], real)
    frame = Frame(length, comparing.gain or "peak")
    return Comparison(runs, real, frame, pairs=not comparing.unpaired), {
        **about,
        "pairs": not comparing.unpaired,
    }


def of_model(
    generation: Generation, manifest: Path, choice: Choice, comparing: Comparing, *, out: Path, seeds: int
) -> "tuple[Comparison, dict[str, Any]]":
    """Clips that a model makes now, or made before with the same settings."""
    from audioldm.evaluation import clips
    from audioldm.evaluation.clip_set import Frame
    from audioldm.evaluation.comparison import Comparison

    real = choice.clips(manifest)
    if lacking := [clip.id for clip in real if not clip.caption.strip()]:
        raise AudioLDMError(
            f"{len(lacking)} clips have no caption, {lacking[0]} first.", "Caption every row."
        )
    rate = clips.check_files(real, "reference")
    pipe = generation.load()
    generated = generation.clips(pipe, out)
    with progress(seeds * len(real), "generating") as step:
        generated.on_clip = step
        runs = [generated.like(real, run=run) for run in range(seeds)]
    length = float(generated.settings.get("seconds") or pipe.defaults.seconds)
    about = {
        "model": pipe.name, "sha256": pipe.hashes, "generated_with": {**vars(pipe.defaults), **generated.settings},
        "dtype": str(pipe.dtype), "device": str(pipe.device), "manifest": str(manifest), **choice.about(),
        "seeds": seeds, "candidates": 1, "rate": pipe.spec.rate, "reference_rate": rate, "pairs": True,
    }  # fmt: skip
    frame = Frame(comparing.crop or length, comparing.gain or "peak")
    trip = through_codec(pipe, real, length, out)
    return Comparison(runs, real, frame, trip=trip, others=other_clips(manifest, real)), about


def through_codec(pipe: "AudioLDM", real: "list[Clip]", seconds: float, out: Path) -> "list[Clip]":
    """The reference after the VAE and the vocoder of ``pipe``."""
    from audioldm.evaluation.generation import round_trips

    with progress(len(real), "VAE and vocoder") as step:
        return round_trips(pipe, real, seconds, out / "roundtrip", step=step)


def other_clips(manifest: Path, real: "list[Clip]") -> "list[Clip]":
    """Clips of the manifest's other splits that share no recording with the reference: for the real/real floor."""
    from audioldm.datasets.manifest import read
    from audioldm.evaluation import clips

    used = {clip.group for clip in real}
    rows = [row for row in clips.shuffled(read(manifest)) if (row.group or row.path) not in used]
    return clips.from_rows(rows)
