"""Measure a model; evaluate GENERATED REFERENCE is evaluate score GENERATED REFERENCE."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from audioldm.cli.checks import check_free
from audioldm.cli.console import json_text, say, show_text, waiting, would
from audioldm.cli.options import AsJson, Command, CommandGroup, DryRun, Force, Group, argument, group, option
from audioldm.cli.options.groups import SEEDS, ModelOptions, Sampling
from audioldm.errors import AudioLDMError
from audioldm.paths import cache_folder
from audioldm.ranges import POSITIVE, Between

if TYPE_CHECKING:
    from audioldm.datasets.manifest import Row
    from audioldm.evaluation.clips import Clip
    from audioldm.evaluation.comparison import Comparison
    from audioldm.evaluation.generation import GeneratedClips
    from audioldm.evaluation.protocol import Protocol as ClipList
    from audioldm.pipeline.audioldm import AudioLDM

Captions = Literal["first", "all", "hash"]
Gain = Literal["peak", "none", "lufs"]


class Rows(Group):
    split: str = option("test", "Split of a manifest; any takes all rows.")
    captions: Captions = option("first", "Which captions of a manifest's clip.")

    def read(self, place: Path) -> "list[Row]":
        from audioldm.datasets import manifest

        return manifest.read(place, split=None if self.split == "any" else self.split)


class Generation(Group):
    guidance: float | None = option(None, "Guidance scale.  [default: the model's]")
    batch_size: int | None = option(None, "Clips at once.  [default: 1 on a CPU, else 16]", Between(1, 4096))
    model: ModelOptions = ModelOptions()
    sampling: Sampling = Sampling()

    def settings(self) -> dict[str, Any]:
        guidance = {} if self.guidance is None else {"guidance": self.guidance}
        return {**self.sampling.named(), **guidance}

    def check(self) -> None:
        self.sampling.check(self.model.device)

    def load(self) -> "AudioLDM":
        self.check()
        return self.model.load()

    def length(self, pipe: "AudioLDM") -> float:
        return float(self.sampling.seconds or pipe.defaults.seconds)

    def clips(self, pipe: "AudioLDM", out: Path) -> "GeneratedClips":
        from audioldm.evaluation.generation import GeneratedClips

        return GeneratedClips(pipe, out / "clips", self.settings(), batch_size=self.batch_size)


class Choice(Rows):
    manifest: Path | None = option(None, "Captions and real clips for --model.", "JSONL")
    protocol: Path | None = option(None, "Take exactly this list of clips and captions.", "FILE")
    allow_missing: bool = option(False, "Score what there is of a protocol; n says so.")
    limit: int | None = option(None, "At most so many clips, by hash.", Between(2))

    def listed(self) -> "ClipList | None":
        from audioldm.evaluation import protocol

        return None if self.protocol is None else protocol.read(self.protocol)

    def clips(self, place: Path) -> "list[Clip]":
        from audioldm.evaluation import clips

        if place.suffix != ".jsonl":
            return clips.from_folder(place)
        if (listed := self.listed()) is None:
            rows = self.read(place)
        else:
            rows = listed.select(Rows(split="any").read(place), allow_missing=self.allow_missing)
        if self.limit is not None and self.limit < len(rows):
            rows = clips.shuffled(rows)[: self.limit]
        if len(rows) < 2:
            raise AudioLDMError(f"{place} has {len(rows)} rows in split {self.split}.", "Use --split any.")
        return clips.from_rows(rows, captions=self.captions)

    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"captions": self.captions, "split": self.split}
        if (listed := self.listed()) is not None:
            about |= {"protocol": listed.name, "protocol_sha256": listed.sha256, "asked": len(listed.items)}
        return about


class Comparing(Group):
    also: list[Path] = option([], "Clips of other seeds, same names.  Gives mean ± sd.", "DIR")
    others: Path | None = option(None, "Other real clips for the real/real floor.", "PLACE")
    codec: str | None = option(None, "Model whose VAE and vocoder give the round-trip row.", "REF")
    unpaired: bool = option(False, "No pairs: leave KL and tags out.")
    gain: Gain | None = option(None, "Level of every clip.  [default: the protocol's, or peak]")
    crop: float | None = option(None, "Length of every clip.  [default: the clips']", "SECONDS", POSITIVE)
    embedder: list[str] = option([], "See audioldm evaluate embedders.  [default: yamnet]", "NAME[=WEIGHTS]")
    cache: Path | None = option(None, "Embeddings.  [default: ~/.cache/audioldm/embeddings]", "DIR")


class Score(Force, DryRun, AsJson, Command):
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

    def check(self) -> Path:
        self.generation.model.check()
        model = self.generation.model.model
        if (self.generated is None) == (model is None):
            raise AudioLDMError("Give a folder of generated clips, or --model.", "One of them, not both.")
        real = self.reference if model is None else self.choice.manifest
        if real is None:
            hint = "Give REFERENCE, or --manifest with --model."
            raise AudioLDMError("There is nothing to compare with.", hint)
        check_free(self.out / "report.json", force=self.force)
        return real

    def run(self) -> None:
        place, out, comparing = self.check(), self.out, self.comparing
        from audioldm.evaluation.clips import Cache
        from audioldm.evaluation.embedders import load_embedder
        from audioldm.evaluation.report import as_csv, as_html, as_text
        from audioldm.pipeline.outputs import check_writable, publish, versions

        real = self.choice.clips(place)
        if self.dry_run:
            self.generation.check()
            would(f"clips would be scored against {len(real)} of {place}, in {out}")
            return
        pairs = [name.partition("=") for name in comparing.embedder or ["yamnet"]]
        embedders = [load_embedder(name, weights or None) for name, _, weights in pairs]
        compared, about = self.of_folders(place, real) if self.generated else self.of_model(place, real)
        check_writable(out)
        compared.cache = Cache(comparing.cache or cache_folder() / "embeddings")
        if comparing.others is not None:
            compared.others = Choice(split="any").clips(comparing.others)
        with waiting("embedding"):
            report = compared.run(embedders, about | {"versions": versions()})
        title = f"{about.get('model') or about['generated']} against {place}"
        page = as_html(report, compared, title=title)
        files = {"report.html": page, "clips.csv": as_csv(report), "report.md": as_text(report)}
        files["report.json"] = json_text(report.as_dict())
        publish({out / name: content for name, content in files.items()})
        self.show(report.as_dict(), f"{as_text(report)}{out / 'report.html'}")

    def frame(self, seconds: float | None) -> Any:
        """Length, else ``seconds``, and gain of every clip, of the protocol where none is asked for."""
        from audioldm.evaluation.clips import Frame

        listed, comparing = self.choice.listed(), self.comparing
        crop, gain = (listed.seconds, listed.gain) if listed is not None else (None, "peak")
        return Frame(comparing.crop or crop or seconds, comparing.gain or gain)  # type: ignore[arg-type]

    def of_folders(self, place: Path, real: "list[Clip]") -> "tuple[Comparison, dict[str, Any]]":
        from audioldm.evaluation import clips
        from audioldm.evaluation.comparison import Comparison

        paired, codec = not self.comparing.unpaired, self.comparing.codec
        runs = [clips.from_folder(folder) for folder in filter(None, [self.generated, *self.comparing.also])]
        if paired:
            runs, real = clips.paired_runs(runs, real)
        rates = [clips.check_files(run, "generated") for run in runs]
        about = {
            "generated": str(self.generated), "reference": str(place), **self.choice.about(), "seeds": len(runs),
            "rate": rates[0], "reference_rate": clips.check_files(real, "reference"), "pairs": paired,
        }  # fmt: skip
        frame = self.frame(None)
        if frame.seconds is None:
            frame = replace(frame, seconds=clips.common_length(runs[0], real))
        compared = Comparison(runs, real, frame, pairs=paired)
        if codec is not None:
            pipe = self.generation.model.load(codec)
            compared.trip = through_codec(pipe, real, frame.seconds or 10.0, self.out)
            about |= {"codec": pipe.name, "codec_sha256": pipe.hashes}
        return compared, about

    def of_model(self, place: Path, real: "list[Clip]") -> "tuple[Comparison, dict[str, Any]]":
        """Clips that a model makes now, or made before with the same settings."""
        from audioldm.datasets.manifest import read
        from audioldm.evaluation import clips
        from audioldm.evaluation.comparison import Comparison

        if lacking := [clip.id for clip in real if not clip.caption.strip()]:
            what = f"{len(lacking)} clips have no caption, {lacking[0]} first."
            raise AudioLDMError(what, "Caption every row.")
        rate = clips.check_files(real, "reference")
        pipe = self.generation.load()
        generated, length = self.generation.clips(pipe, self.out), self.generation.length(pipe)
        with waiting("generating"):
            runs = [generated.like(real, run=run) for run in range(self.seeds)]
        about = {
            "model": pipe.name, "sha256": pipe.hashes, "generated_with": {**vars(pipe.defaults), **generated.settings},
            "dtype": str(pipe.dtype), "device": str(pipe.device), "manifest": str(place), **self.choice.about(),
            "seeds": self.seeds, "candidates": 1, "rate": pipe.spec.rate, "reference_rate": rate, "pairs": True,
        }  # fmt: skip
        trip = through_codec(pipe, real, length, self.out)
        # for the real/real floor: the manifest's other splits, but no recording of the reference
        used = {clip.group for clip in real}
        rows = [row for row in clips.shuffled(read(place)) if (row.group or row.path) not in used]
        return Comparison(runs, real, self.frame(length), trip=trip, others=clips.from_rows(rows)), about


def through_codec(pipe: "AudioLDM", real: "list[Clip]", seconds: float, out: Path) -> "list[Clip]":
    from audioldm.evaluation.generation import round_trips

    with waiting("VAE and vocoder"):
        return round_trips(pipe, real, seconds, out / "roundtrip")


class ScoreByDefault(CommandGroup):
    """``audioldm evaluate GENERATED REFERENCE`` is ``audioldm evaluate score GENERATED REFERENCE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["score", *args]
        return super().parse_args(ctx, args)


def seeds_option(default: int) -> Any:
    return option(default, "Clips of each prompt, with seeds 0, 1, ...", Between(1, 100_000))


class Prompts(Force, DryRun, AsJson, Command):
    """Ask for anything; a clip is right when one of its classes is among YAMNet's five highest, with at least .2.

    Each class counts at its mean over the clip, and Silence does not count among the five. Clips are kept by a hash of
    what made them, so an interrupted run goes on where it stopped. Writes prompts.json, prompts.md and clips.csv, a
    line a clip. With --real, real clips of such kinds are judged too, and those that are right once more after the
    model's VAE and vocoder. With --clips, a model is needed for that row alone.

    \b
    Examples:
      audioldm evaluate prompts prompts.tsv
      audioldm evaluate prompts prompts.tsv -m MODEL --seeds 4 --guidance 4 --real data/raw/mine.jsonl -o out/mine
      audioldm evaluate prompts prompts.tsv --clips out/elsewhere
    """

    file: Path = argument(..., "Lines of prompt, tab, and the AudioSet classes that are right.", "FILE.tsv")
    seeds: int = seeds_option(8)
    limit: int | None = option(None, "Only the first so many prompts.", Between(1))
    folder: Path | None = option(None, "Judge clips with captions.csv or a JSON each.", "--clips", "DIR")
    real: Path | None = option(None, "Real clips for the real and the codec's row.", "PLACE")
    out: Path = option(Path("out/prompts"), "Clips and reports go here.", "-o", "DIR")
    generation: Generation = Generation()

    def check(self) -> list[Path]:
        """Refuse two things to judge, and reports that are there; returns where these go."""
        self.generation.model.check()
        if self.folder is not None and self.generation.model.model is not None and self.real is None:
            raise AudioLDMError("--clips and --model were both given.", "Give the one to judge.")
        reports = [self.out / name for name in ("prompts.json", "prompts.md", "clips.csv")]
        check_free(*reports, force=self.force)
        return reports

    def run(self) -> None:
        reports, generation, seeds = self.check(), self.generation, self.seeds
        from audioldm.evaluation import prompts as judge
        from audioldm.evaluation.clips import from_folder
        from audioldm.evaluation.embedders.yamnet import YamNet
        from audioldm.evaluation.generation import Codec
        from audioldm.pipeline.outputs import publish, versions

        yamnet = YamNet()
        asked, findings = judge.read_prompts(self.file, yamnet.class_names)
        asked = asked[: self.limit]
        real = Choice(split="any").clips(self.real) if self.real else []
        existing = from_folder(self.folder) if self.folder is not None else None
        if self.dry_run:
            generation.check()
            would(f"{seeds} clips of each of {len(asked)} prompts would be judged, and {len(real)} real ones")
            return
        embedder = {"name": yamnet.name, "sha256": yamnet.sha256}
        about = {"list": str(self.file), "seeds": seeds, "embedder": embedder, "versions": versions()}
        pipe = generation.load() if existing is None or real else None
        if pipe is not None:
            settings = {**vars(pipe.defaults), **generation.settings(), "dtype": str(pipe.dtype)}
            about |= {"model": {"name": pipe.name, "sha256": pipe.hashes}, "settings": settings}
        if existing is not None:
            about["clips"] = str(self.folder)
            source, left = judge.existing(existing, asked)
            findings += left
        else:
            source = judge.generated(generation.clips(cast("AudioLDM", pipe), self.out))
        with waiting("judging"):
            results = list(judge.evaluate_prompts(asked, source, yamnet, seeds=seeds))
            findings += [f"{result.name}: {result.error}" for result in results if result.error]
            rows: list[Any] = []
            if pipe is not None and real:
                codec = Codec(pipe, generation.length(pipe))
                *rows, unread = judge.evaluate_real(real, asked, codec, yamnet)
                findings += unread
        report = judge.Report(results, rows, about, findings)
        publish(dict(zip(reports, (report.json(), report.markdown(), report.csv()), strict=True)))
        for finding in findings:
            say(finding)
        print(report.json() if self.as_json else report.markdown(), end="")
        if not any(result.clips for result in results):
            raise AudioLDMError("No prompt gave a clip.", f"See {reports[0]}.", code=1)


class Bits(AsJson, Command):
    """Bits per dimension of latents: DDPM's bound with both fixed variances, and with the learned one if there is one.

    Latents are continuous, so these are bits of a density: differences mean something, single numbers do not.

    \b
    Examples:
      audioldm evaluate bits data/latents/embedded_val
      audioldm evaluate bits data/latents/embedded_val -m runs/finetune/learned_variance/model --times 256
    """

    latents: Path = argument(..., "What audioldm data encode wrote.", "FOLDER")
    windows: int = option(64, "Windows, from the first on.", Between(2))
    times: int = option(64, "Times of each; the first is always among them.", Between(2, 1000))
    seed: int = option(0, "Seed of times and noise.", SEEDS)
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        self.model.check()
        from audioldm.datasets.latents import LatentDataset, collate_latents
        from audioldm.evaluation.bits import bits
        from audioldm.progress import counted

        data, pipe = LatentDataset(self.latents, seed=self.seed), self.model.load()
        count = min(self.windows, len(data))
        with waiting("bits"):
            batches = (collate_latents([data[place]]) for place in counted(range(count), "windows"))
            rows = bits(pipe, batches, times=self.times, seed=self.seed)
        table, lines = {}, [f"{'variance':<22} {'bits/dim':>9}  {'against fixed small':>20}"]
        for name, row in rows.items():
            difference = row - rows["fixed small"]
            spread = difference.std() / count**0.5
            bits_of, against, error = map(float, (row.mean(), difference.mean(), spread))
            table[name] = {"bits": bits_of, "against_small": against, "error": error}
            lines.append(f"{name:<22} {bits_of:>9.4f}  {against:>+10.4f} +- {error:.4f}")
        about = {"model": pipe.name, "windows": count, "times": self.times, "bits_per_dimension": table}
        self.show(about, "\n".join(lines))


class Protocol(Force, Rows, Command):
    """Write a protocol file: hashes of clips and captions, with a hash of the list, and no caption itself.

    The file's name is the protocol's name.

    \b
    Examples:
      audioldm evaluate protocol data/raw/esc10.jsonl -o data/protocols/esc10-fold4.json --seconds 5
      audioldm evaluate protocol test.csv -o data/protocols/audiocaps-test.json
    """

    source: Path = argument(..., "A manifest (.jsonl), or AudioCaps' test.csv.")
    out: Path = option(..., "The protocol (.json).", "-o", "FILE")
    seconds: float | None = option(None, "Length of every clip.  [default: open]", POSITIVE)
    gain: Gain = option("peak", "Level of every clip.")

    def run(self) -> None:
        from audioldm.evaluation import protocol as protocols

        out, source = self.out, self.source
        check_free(out, force=self.force)
        if source.suffix == ".csv":
            written = protocols.of_audiocaps(source, name=out.stem)
        else:
            about = f"{source.name}, split {self.split}, caption {self.captions}"
            frame = protocols.Protocol(out.stem, about, self.captions, self.seconds, self.gain, items=())
            written = protocols.of_rows(self.read(source), frame)
        written.write(out)
        show_text(f"{out}: {len(written.items)} clips, sha256 {written.sha256}")


class Embedders(AsJson, Command):
    """List the embedders: ready with the hash of their weights, or what to get and where to put it.

    \b
    Examples:
      audioldm evaluate embedders
      audioldm evaluate embedders --json
    """

    def run(self) -> None:
        from audioldm.evaluation.embedders import EMBEDDERS, load_embedder

        states: dict[str, dict[str, Any]] = {}
        for name in EMBEDDERS:
            try:
                embedder = load_embedder(name)
            except AudioLDMError as error:
                states[name] = {"ready": False, "needs": str(error)}
            else:
                facts = {field: getattr(embedder, field) for field in ("sha256", "rate", "dim")}
                states[name] = {"ready": True, **facts}
        words = {name: one.get("needs") or f"ready, sha256 {one['sha256']}" for name, one in states.items()}
        self.show(states, "\n".join(f"{name:<16} {text}" for name, text in words.items()))


app = group(
    __doc__,
    {"score": Score, "prompts": Prompts, "bits": Bits, "protocol": Protocol, "embedders": Embedders},
    ScoreByDefault,
)
