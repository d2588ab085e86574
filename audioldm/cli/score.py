"""``audioldm evaluate GENERATED REFERENCE``, or with ``--model`` and ``--manifest``: all scores and the report."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audioldm.cli.checks import check_free, check_parts
from audioldm.cli.console import show_json, show_text, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, Force, Group, argument, option
from audioldm.cli.options.groups import ModelOptions, Sampling
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.manifest import Row
    from audioldm.evaluation.clips import Clip
    from audioldm.evaluation.comparison import Comparison
    from audioldm.evaluation.embedders import Embedder
    from audioldm.evaluation.generation import Codec, GeneratedClips
    from audioldm.evaluation.protocol import Protocol
    from audioldm.pipeline.audioldm import AudioLDM

Captions = Literal["first", "all", "hash"]
Gain = Literal["peak", "none", "lufs"]


def split_option() -> Any:
    """Rows of a manifest."""
    return option("test", "Split of a manifest; any takes all rows.")


def captions_option() -> Any:
    """Captions of a manifest."""
    return option("first", "Which captions of a manifest's clip.")


class Generation(Group):
    """The model that is measured, and how it makes its clips."""

    guidance: float | None = option(None, "Guidance scale.  [default: the model's]", Between(0))
    batch_size: int | None = option(
        None, "Clips made at once.  [default: 1 on a CPU, else 16]", Between(1, 4096)
    )
    model: ModelOptions = ModelOptions()
    sampling: Sampling = Sampling()

    def settings(self) -> dict[str, Any]:
        """What is not left to the model, by the pipeline's names."""
        guidance = {} if self.guidance is None else {"guidance": self.guidance}
        return {**self.sampling.named(), **guidance}

    def check(self) -> None:
        """Refuse what no model could do; imports torch."""
        check_parts(sampler=self.sampling.sampler, grid=self.sampling.grid, device=self.model.device)

    def load(self) -> "AudioLDM":
        """The model."""
        self.check()
        return self.model.load()

    def about(self, pipe: "AudioLDM") -> dict[str, Any]:
        """The model and its settings, for a report."""
        settings = {**vars(pipe.defaults), **self.settings(), "dtype": str(pipe.dtype)}
        return {"model": {"name": pipe.name, "sha256": pipe.hashes}, "settings": settings}

    def codec(self, pipe: "AudioLDM") -> "Codec":
        """The model's VAE and vocoder, for clips of the length that is asked for."""
        from audioldm.evaluation.generation import Codec

        return Codec(pipe, float(self.settings().get("seconds") or pipe.defaults.seconds))

    def clips(self, pipe: "AudioLDM", out: Path) -> "GeneratedClips":
        """The model's clips, kept in ``out``/clips."""
        from audioldm.evaluation.generation import GeneratedClips

        return GeneratedClips(pipe, out / "clips", self.settings(), batch_size=self.batch_size)


class Reporting(Force, DryRun, AsJson):
    """What is printed, and what may be overwritten."""

    def show(self, report: Any, text: str) -> None:
        """Print the report for programs or for people."""
        if self.as_json:
            show_json(report)
        else:
            show_text(text.removesuffix("\n"))


class Choice(Group):
    """Which rows of a manifest, and which of their captions."""

    manifest: Path | None = option(None, "Captions and real clips for --model.", "JSONL")
    split: str = split_option()
    captions: Captions = captions_option()
    protocol: Path | None = option(None, "Take exactly this list of clips and captions.", "FILE")
    allow_missing: bool = option(False, "Score what there is of a protocol; n says so.")
    limit: int | None = option(None, "At most so many clips, by hash.", Between(2))

    def rows(self, path: Path) -> "list[Row]":
        """The rows of a manifest."""
        from audioldm.datasets import manifest
        from audioldm.evaluation.clips import shuffled

        listed = self.listed()
        rows = manifest.read(path, split=None if self.split == "any" or listed else self.split)
        if listed is not None:
            rows = listed.select(rows, allow_missing=self.allow_missing)
        if self.limit is not None and self.limit < len(rows):
            rows = shuffled(rows)[: self.limit]
        if len(rows) < 2:
            raise AudioLDMError(f"{path} has {len(rows)} rows in split {self.split}.", "Use --split any.")
        return rows

    def listed(self) -> "Protocol | None":
        """The protocol."""
        from audioldm.evaluation import protocol

        return None if self.protocol is None else protocol.read(self.protocol)

    def clips(self, place: Path) -> "list[Clip]":
        """The clips of a folder or a manifest."""
        from audioldm.evaluation import clips

        if place.suffix == ".jsonl":
            return clips.from_rows(self.rows(place), captions=self.captions)
        return clips.from_folder(place)

    def about(self) -> dict[str, Any]:
        """For the report."""
        about: dict[str, Any] = {"captions": self.captions, "split": self.split}
        if (listed := self.listed()) is not None:
            about |= {"protocol": listed.name, "protocol_sha256": listed.sha256, "asked": len(listed.items)}
        return about


class Comparing(Group):
    """What stands beside the generated clips, and what every clip gets before it is embedded."""

    also: list[Path] = option([], "Clips of other seeds, same names; repeatable.  Gives mean ± sd.", "DIR")
    others: Path | None = option(
        None, "Other real clips (folder or manifest) for the real/real floor.", "PLACE"
    )
    codec: str | None = option(None, "Model whose VAE and vocoder give the round-trip row.", "REF")
    unpaired: bool = option(False, "No pairs: leave KL and tags out.")
    gain: Gain | None = option(None, "Level of every clip.  [default: the protocol's, or peak]")
    crop: float | None = option(
        None,
        "Length of every clip.  [default: the protocol's, or the clips']",
        "SECONDS",
        Between(0, above=True),
    )
    embedder: list[str] = option([], "See audioldm evaluate embedders.  [default: yamnet]", "NAME[=WEIGHTS]")
    cache: Path | None = option(None, "Embeddings.  [default: ~/.cache/audioldm/embeddings]", "DIR")

    def framed_by(self, protocol: "Protocol | None") -> "Comparing":
        """With the protocol's length and gain where none is asked for."""
        if protocol is None:
            return self
        gain: Any = self.gain or protocol.gain
        return replace(self, gain=gain, crop=self.crop or protocol.seconds)

    def embedders(self) -> "list[Embedder]":
        """The embedders that were named, each with its weights."""
        from audioldm.evaluation.embedders import load_embedder

        pairs = [name.partition("=") for name in self.embedder or ["yamnet"]]
        return [load_embedder(name, path or None) for name, _, path in pairs]

    def complete(self, compared: "Comparison") -> None:
        """Give a comparison its cache and the other real clips."""
        from audioldm.evaluation.clips import Cache
        from audioldm.evaluation.embedders.weights import cache_folder

        compared.cache = Cache(self.cache or cache_folder() / "embeddings")
        if self.others is not None:
            compared.others = Choice(split="any").clips(self.others)


class Score(Command):
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

    generated: Path | None = argument(None, "Folder of generated clips.")
    reference: Path | None = argument(None, "Folder or manifest (.jsonl) of real clips.")
    out: Path = option(Path("out/evaluation"), "Clips and reports go here.", "-o", "DIR")
    seeds: int = option(1, "Runs of --model with other seeds.", Between(1, 1000))
    choice: Choice = Choice()
    comparing: Comparing = Comparing()
    generation: Generation = Generation()
    reporting: Reporting = Reporting()

    def check(self) -> Path:
        """Refuse too little, too much, or what is there; returns the place of the real clips."""
        self.generation.model.check()
        model = self.generation.model.model
        if (self.generated is None) == (model is None):
            raise AudioLDMError("Give a folder of generated clips, or --model.", "One of them, not both.")
        real = self.reference if model is None else self.choice.manifest
        if real is None:
            raise AudioLDMError(
                "There is nothing to compare with.", "Give REFERENCE, or --manifest with --model."
            )
        check_free(self.out / "report.json", force=self.reporting.force)
        return real

    def run(self) -> None:
        place, out = self.check(), self.out
        self = replace(self, comparing=self.comparing.framed_by(self.choice.listed()))
        from audioldm.evaluation.report import as_csv, as_html, as_text
        from audioldm.pipeline.outputs import check_writable, publish, versions

        real = self.choice.clips(place)
        if self.reporting.dry_run:
            self.generation.check()
            would(f"clips would be scored against {len(real)} of {place}, in {out}")
            return
        embedders = self.comparing.embedders()
        compared, about = (of_model if self.generated is None else of_folders)(self, place, real)
        check_writable(out)
        self.comparing.complete(compared)
        with waiting("embedding"):
            report = compared.run(embedders, about | {"versions": versions()})
        subjects = (about.get("model") or about["generated"], about.get("manifest") or about["reference"])
        page = as_html(report, compared, title=" against ".join(map(str, subjects)))
        files = {"report.html": page, "clips.csv": as_csv(report), "report.md": as_text(report)}
        files["report.json"] = json_text(report.as_dict())
        publish({out / name: content for name, content in files.items()})
        self.reporting.show(report.as_dict(), as_text(report) + f"{out / 'report.html'}\n")


def json_text(report: Any) -> str:
    """A report as a file."""
    import json

    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def of_folders(options: Score, place: Path, real: "list[Clip]") -> "tuple[Comparison, dict[str, Any]]":
    """Clips that exist against clips that exist."""
    from audioldm.evaluation import clips
    from audioldm.evaluation.clips import Frame
    from audioldm.evaluation.comparison import Comparison

    comparing, paired = options.comparing, not options.comparing.unpaired
    folders = [*([options.generated] if options.generated else []), *comparing.also]
    runs = [clips.from_folder(folder) for folder in folders]
    if paired:
        runs, real = clips.paired_runs(runs, real)
    rates = [clips.check_files(run, "generated") for run in runs]
    about = {
        "generated": str(folders[0]), "reference": str(place), **options.choice.about(), "seeds": len(runs),
        "rate": rates[0], "reference_rate": clips.check_files(real, "reference"), "pairs": paired,
    }  # fmt: skip
    frame = Frame(comparing.crop or clips.common_length(runs[0], real), comparing.gain or "peak")
    compared = Comparison(runs, real, frame, pairs=paired)
    if comparing.codec is not None:
        pipe = options.generation.model.load(comparing.codec)
        compared.trip = through_codec(pipe, real, frame.seconds or 10.0, options.out)
        about |= {"codec": pipe.name, "codec_sha256": pipe.hashes}
    return compared, about


def of_model(options: Score, place: Path, real: "list[Clip]") -> "tuple[Comparison, dict[str, Any]]":
    """Clips that a model makes now, or made before with the same settings."""
    from audioldm.evaluation import clips
    from audioldm.evaluation.clips import Frame
    from audioldm.evaluation.comparison import Comparison

    generation, seeds = options.generation, options.seeds
    if lacking := [clip.id for clip in real if not clip.caption.strip()]:
        raise AudioLDMError(
            f"{len(lacking)} clips have no caption, {lacking[0]} first.", "Caption every row."
        )
    rate = clips.check_files(real, "reference")
    pipe = generation.load()
    generated = generation.clips(pipe, options.out)
    with waiting("generating"):
        runs = [generated.like(real, run=run) for run in range(seeds)]
    length = float(generated.settings.get("seconds") or pipe.defaults.seconds)
    about = {
        "model": pipe.name, "sha256": pipe.hashes, "generated_with": {**vars(pipe.defaults), **generated.settings},
        "dtype": str(pipe.dtype), "device": str(pipe.device), "manifest": str(place), **options.choice.about(),
        "seeds": seeds, "candidates": 1, "rate": pipe.spec.rate, "reference_rate": rate, "pairs": True,
    }  # fmt: skip
    frame = Frame(options.comparing.crop or length, options.comparing.gain or "peak")
    trip = through_codec(pipe, real, length, options.out)
    return Comparison(runs, real, frame, trip=trip, others=other_clips(place, real)), about


def through_codec(pipe: "AudioLDM", real: "list[Clip]", seconds: float, out: Path) -> "list[Clip]":
    """The reference after the VAE and the vocoder of ``pipe``."""
    from audioldm.evaluation.generation import round_trips

    with waiting("VAE and vocoder"):
        return round_trips(pipe, real, seconds, out / "roundtrip")


def other_clips(manifest: Path, real: "list[Clip]") -> "list[Clip]":
    """Clips of the manifest's other splits that share no recording with the reference: for the real/real floor."""
    from audioldm.datasets.manifest import read
    from audioldm.evaluation import clips

    used = {clip.group for clip in real}
    rows = [row for row in clips.shuffled(read(manifest)) if (row.group or row.path) not in used]
    return clips.from_rows(rows)
