"""Measure a model; evaluate GENERATED REFERENCE is evaluate score GENERATED REFERENCE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from audioldm.cli.console import json_text, say, show_text, waiting, would
from audioldm.cli.options import AsJson, Command, DryRun, Force, Group, argument, group, option
from audioldm.cli.options.groups import SEEDS, ModelOptions, Pipe, Sampling
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import cache_folder
from audioldm.progress import counted
from audioldm.ranges import POSITIVE, Between
from audioldm.tables import markdown

with later():
    from audioldm.datasets import latents, manifest
    from audioldm.evaluation import bits, clips, comparison, embedders, generation, report
    from audioldm.evaluation import prompts as judge
    from audioldm.evaluation import protocol as protocols
    from audioldm.evaluation.embedders import yamnet
    from audioldm.pipeline import outputs

Gain = Literal["peak", "none"]
Compared: TypeAlias = "tuple[comparison.Comparison, dict[str, Any]]"  # and what a report says of it


class Rows(Group):
    split: str = option("test", "Split of a manifest; any takes all rows.")
    captions: Literal["first", "all"] = option("first", "Which captions of a manifest's clip.")

    def read(self, place: Path) -> list[manifest.Row]:
        return manifest.read(place, split=None if self.split == "any" else self.split)

    def clips(self, place: Path) -> list[clips.Clip]:
        """Of a folder, or of a manifest's rows.   Raises AudioLDMError for fewer than two."""
        if place.suffix != ".jsonl":
            return clips.from_folder(place)
        if len(rows := self.read(place)) < 2:
            raise AudioLDMError(f"{place} has {len(rows)} rows in split {self.split}.", "Use --split any.")
        return clips.from_rows(rows, captions=self.captions)


class Generation(Group):
    guidance: float | None = option(None, "Guidance scale.  [default: the model's]")
    batch_size: int | None = option(None, "Clips at once.  [default: 1 on a CPU, else 16]", Between(1, 4096))
    model: ModelOptions = ModelOptions()
    sampling: Sampling = Sampling()

    def settings(self) -> dict[str, Any]:
        return self.sampling.named() | ({} if self.guidance is None else {"guidance": self.guidance})

    def check(self) -> None:
        self.sampling.check(self.model.device)

    def load(self) -> Pipe:
        self.check()
        return self.model.load()

    def length(self, pipe: Pipe) -> float:
        return float(self.sampling.seconds or pipe.defaults.seconds)

    def clips(self, pipe: Pipe, out: Path) -> generation.GeneratedClips:
        return generation.GeneratedClips(pipe, out / "clips", self.settings(), batch_size=self.batch_size)


class Score(Force, DryRun, AsJson, Rows, Command):
    """Score generated clips against real ones: FD, FD∞, KAD, KL, IS, coverage, tag bridge, CLAP, with real rows beside.

    Clips are paired by file name. Captions come from the manifest, from captions.csv (id, caption) in the folder,
    or from the sidecars that audioldm generate writes. It refuses rather than guesses.

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
    manifest: Path | None = option(None, "Captions and real clips for --model.", "JSONL")
    protocol: Path | None = option(None, "Take exactly this list of clips and captions.", "FILE")
    allow_missing: bool = option(False, "Score what there is of a protocol; n says so.")
    also: list[Path] = option([], "Clips of other seeds, same names.  Gives mean ± sd.", "DIR")
    unpaired: bool = option(False, "No pairs: leave KL and tags out.")
    gain: Gain | None = option(None, "Level of every clip.  [default: the protocol's, or peak]")
    crop: float | None = option(None, "Length of every clip.  [default: the clips']", "SECONDS", POSITIVE)
    embedder: list[str] = option([], "See audioldm evaluate embedders.  [default: yamnet]", "NAME[=WEIGHTS]")
    generation: Generation = Generation()

    def run(self) -> None:
        model = self.generation.model.model
        if (self.generated is None) == (model is None):
            raise AudioLDMError("Give a folder of generated clips, or --model.", "One of them, not both.")
        place = self.reference if model is None else self.manifest
        if place is None:
            hint = "Give REFERENCE, or --manifest with --model."
            raise AudioLDMError("There is nothing to compare with.", hint)
        self.check_free(self.out / "report.json")
        real, frame, about = self.asked(place)
        if self.dry_run:
            self.generation.check()
            would(f"clips would be scored against {len(real)} of {place}, in {self.out}")
            return
        pairs = [name.partition("=") for name in self.embedder or ["yamnet"]]
        nets = [embedders.load_embedder(name, weights or None) for name, _, weights in pairs]
        compared, more = self.of_model(place, real, frame) if model else self.of_folders(place, real, frame)
        outputs.check_writable(self.out)
        compared.cache = clips.Cache(cache_folder() / "embeddings")
        with waiting("embedding"):
            compared.run(nets, {**more, **about, "versions": outputs.versions()})
        title = f"{more.get('model') or self.generated} against {place}"
        files = {"report.html": report.as_html(compared, title=title)}
        files |= {"report.md": report.as_text(compared), "report.json": json_text(compared.as_dict())}
        files["clips.csv"] = report.as_csv(compared)
        outputs.publish({self.out / name: content for name, content in files.items()})
        self.show(compared.as_dict(), f"{files['report.md']}{self.out / 'report.html'}")

    def asked(self, place: Path) -> tuple[list[clips.Clip], clips.Frame, dict[str, Any]]:
        """The real clips, the frame of all clips, and what a report says of the list."""
        about: dict[str, Any] = {"captions": self.captions, "split": self.split}
        if self.protocol is None:
            return self.clips(place), clips.Frame(self.crop, self.gain or "peak"), about
        listed = protocols.read(self.protocol)
        frame = clips.Frame(self.crop or listed.seconds, self.gain or listed.gain)  # type: ignore[arg-type]
        about |= {"protocol": listed.name, "protocol_sha256": listed.sha256, "asked": len(listed.items)}
        rows = listed.select(Rows(split="any").read(place), allow_missing=self.allow_missing)
        return clips.from_rows(rows, captions=self.captions), frame, about

    def of_folders(self, place: Path, real: list[clips.Clip], frame: clips.Frame) -> Compared:
        runs = [clips.from_folder(folder) for folder in (self.generated, *self.also) if folder]
        if not self.unpaired:
            runs, real = clips.paired_runs(runs, real)
        [rate, *_] = [clips.check_files(run, "generated") for run in runs]
        about = {
            "generated": str(self.generated), "reference": str(place), "seeds": len(runs), "rate": rate,
            "reference_rate": clips.check_files(real, "reference"), "pairs": not self.unpaired,
        }  # fmt: skip
        frame = replace(frame, seconds=frame.seconds or clips.common_length(runs[0], real))
        return comparison.Comparison(runs, real, frame, pairs=not self.unpaired), about

    def of_model(self, place: Path, real: list[clips.Clip], frame: clips.Frame) -> Compared:
        """Clips that a model makes now, or made before with the same settings."""
        if lacking := [clip.id for clip in real if not clip.caption.strip()]:
            what = f"{len(lacking)} clips have no caption, {lacking[0]} first."
            raise AudioLDMError(what, "Caption every row.")
        rate, pipe = clips.check_files(real, "reference"), self.generation.load()
        generated, length = self.generation.clips(pipe, self.out), self.generation.length(pipe)
        with waiting("generating"):
            runs = [generated.like(real, run=run) for run in range(self.seeds)]
        about = {
            "model": pipe.name, "sha256": pipe.hashes, "generated_with": {**vars(pipe.defaults), **generated.settings},
            "dtype": str(pipe.dtype), "device": str(pipe.device), "manifest": str(place), "seeds": self.seeds,
            "candidates": 1, "rate": pipe.spec.rate, "reference_rate": rate, "pairs": True,
        }  # fmt: skip
        with waiting("VAE and vocoder"):
            trip = generation.round_trips(pipe, real, length, self.out / "roundtrip")
        # for the real/real floor: the manifest's other splits, but no recording of the reference
        used, frame = {clip.group for clip in real}, replace(frame, seconds=frame.seconds or length)
        rows = [row for row in clips.shuffled(manifest.read(place)) if (row.group or row.path) not in used]
        return comparison.Comparison(runs, real, frame, trip=trip, others=clips.from_rows(rows)), about


class Prompts(Force, DryRun, AsJson, Command):
    """Ask for anything; a clip is right when one of its classes is among YAMNet's five highest, with at least .2.

    Each class counts at its mean over the clip, and Silence does not count among the five. Clips are kept by a hash of
    what made them, so an interrupted run goes on where it stopped. Writes prompts.json, prompts.md and clips.csv, a
    line a clip. With --real, real clips of such kinds are judged too, and those that are right once more after the
    model's VAE and vocoder. With --clips, a model is needed for that row alone.

    Examples:
      audioldm evaluate prompts prompts.tsv
      audioldm evaluate prompts prompts.tsv -m MODEL --seeds 4 --guidance 4 --real data/raw/mine.jsonl -o out/mine
      audioldm evaluate prompts prompts.tsv --clips out/elsewhere
    """

    file: Path = argument(..., "Lines of prompt, tab, and the AudioSet classes that are right.", "FILE.tsv")
    seeds: int = option(8, "Clips of each prompt, with seeds 0, 1, ...", Between(1, 100_000))
    folder: Path | None = option(None, "Judge clips with captions.csv or a JSON each.", "--clips", "DIR")
    real: Path | None = option(None, "Real clips for the real and the codec's row.", "PLACE")
    out: Path = option(Path("out/prompts"), "Clips and reports go here.", "-o", "DIR")
    generation: Generation = Generation()

    def run(self) -> None:
        reports = [self.out / name for name in ("prompts.json", "prompts.md", "clips.csv")]
        making = self.generation
        if self.folder is not None and making.model.model is not None and self.real is None:
            raise AudioLDMError("--clips and --model were both given.", "Give the one to judge.")
        self.check_free(*reports)
        net = yamnet.YamNet()
        asked, findings = judge.read_prompts(self.file, net.class_names)
        real, rows = Rows(split="any").clips(self.real) if self.real else [], list[Any]()
        if self.dry_run:
            making.check()
            clips_of = f"{self.seeds} clips of each of {len(asked)} prompts"
            would(f"{clips_of} would be judged, and {len(real)} real ones")
            return
        about: dict[str, Any] = {"list": str(self.file), "seeds": self.seeds, "versions": outputs.versions()}
        about["embedder"] = {"name": net.name, "sha256": net.sha256}
        if pipe := making.load() if self.folder is None or real else None:
            settings = {**vars(pipe.defaults), **making.settings(), "dtype": str(pipe.dtype)}
            about |= {"model": {"name": pipe.name, "sha256": pipe.hashes}, "settings": settings}
            source = judge.generated(making.clips(pipe, self.out))
        if self.folder is not None:
            about["clips"] = str(self.folder)
            source, left = judge.existing(clips.from_folder(self.folder), asked)
            findings += left
        with waiting("judging"):
            results = list(judge.evaluate_prompts(asked, source, net, seeds=self.seeds))
            findings += [f"{result.name}: {result.error}" for result in results if result.error]
            if pipe and real:
                codec = generation.Codec(pipe, making.length(pipe))
                *rows, unread = judge.evaluate_real(real, asked, codec, net)
                findings += unread
        self.report(judge.Report(results, rows, about, findings), reports)

    def report(self, report: judge.Report, paths: list[Path]) -> None:
        outputs.publish(dict(zip(paths, (report.json(), report.markdown(), report.csv()), strict=True)))
        for finding in report.findings:
            say(finding)
        print(report.json() if self.as_json else report.markdown(), end="")
        if not any(result.clips for result in report.results):
            raise AudioLDMError("No prompt gave a clip.", f"See {paths[0]}.", code=1)


class Bits(AsJson, Command):
    """Bits per dimension of latents: DDPM's bound with both fixed variances, and with the learned one if there is one.

    Latents are continuous, so these are bits of a density: differences mean something, single numbers do not.

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
        data, pipe = latents.LatentDataset(self.latents, seed=self.seed), self.model.load()
        count = min(self.windows, len(data))
        with waiting("bits"):
            batches = (latents.collate_latents([data[place]]) for place in counted(range(count), "windows"))
            rows = bits.bits(pipe, batches, times=self.times, seed=self.seed)
        table = {}
        for name, row in rows.items():
            apart = row - rows["fixed small"]
            table[name] = {"bits": float(row.mean()), "against_small": float(apart.mean())}
            table[name]["error"] = float(apart.std() / count**0.5)
        about = {"model": pipe.name, "windows": count, "times": self.times, "bits_per_dimension": table}
        lines = [[name, *values.values()] for name, values in table.items()]
        self.show(about, markdown(["variance", "bits/dim", "against fixed small", "+-"], lines))


class Protocol(Force, Rows, Command):
    """Write a protocol file: hashes of clips and captions, with a hash of the list, and no caption itself.

    The file's name is the protocol's name.

    Examples:
      audioldm evaluate protocol data/raw/esc10.jsonl -o data/protocols/esc10-fold4.json --seconds 5
    """

    source: Path = argument(..., "A manifest (.jsonl).")
    out: Path = option(..., "The protocol (.json).", "-o", "FILE")
    seconds: float | None = option(None, "Length of every clip.  [default: open]", POSITIVE)
    gain: Gain = option("peak", "Level of every clip.")

    def run(self) -> None:
        out, source = self.out, self.source
        self.check_free(out)
        about = f"{source.name}, split {self.split}, caption {self.captions}"
        frame = protocols.Protocol(out.stem, about, self.captions, self.seconds, self.gain, items=())
        written = protocols.of_rows(self.read(source), frame)
        written.write(out)
        show_text(f"{out}: {len(written.items)} clips, sha256 {written.sha256}")


class Embedders(AsJson, Command):
    """List the embedders: ready with the hash of their weights, or what to get and where to put it.

    Examples:
      audioldm evaluate embedders
    """

    def run(self) -> None:
        states: dict[str, dict[str, Any]] = {}
        for name in embedders.EMBEDDERS:
            try:
                embedder = embedders.load_embedder(name)
            except AudioLDMError as error:
                states[name] = {"ready": False, "needs": str(error)}
            else:
                facts = {field: getattr(embedder, field) for field in ("sha256", "rate", "dim")}
                states[name] = {"ready": True, **facts}
        words = {name: one.get("needs") or f"ready, sha256 {one['sha256']}" for name, one in states.items()}
        self.show(states, "\n".join(f"{name:<16} {text}" for name, text in words.items()))


app = group(__doc__, (Score, Prompts, Bits, Protocol, Embedders), "score")
